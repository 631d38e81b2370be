"""Which problems a step asks, what becomes of its answers, and what is read back after an interruption."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from distill.errors import RecipeError
from distill.recipe.rl import Difficulty, RlConfig
from distill.training.rl.order import ProblemOrder
from distill.training.rl.rollouts import Rollout, RolloutFiles, read_rollouts, rollout_seed
from distill.training.rl.steps import Steps, World, facts_of_step, has_variance

PROBLEMS = [f"p{number}" for number in range(10)]


class FakeSampler:
    """Draws texts that depend on the seed alone; may die after some of them."""

    def __init__(self, dies_after=None):
        self.drawn, self.dies_after = [], dies_after

    def draw(self, wanted, sampling, done):
        for one in wanted:
            if self.dies_after is not None and len(self.drawn) == self.dies_after:
                raise KeyboardInterrupt
            self.drawn.append((one.problem_id, one.index))
            number = random.Random(one.seed).random()
            one.text, one.ids, one.logprobs, one.prompt_ids = f"{number}", [1, 2, 3], [-number] * 3, [7, 8]
            done(one)


class FakeScorer:
    """Right is what `is_right` says of an answer."""

    def __init__(self, is_right=lambda one: float(one.text) > 0.5):
        self.is_right = is_right

    def score(self, groups):
        for one in (one for group in groups for one in group):
            one.correct = self.is_right(one)
            one.reward, one.parts = float(one.correct), {"accuracy": float(one.correct)}


def steps(folder, sampler=None, scorer=None, exact=True, world=None, solved=None, **config):
    config = RlConfig(**({"prompts_per_step": 4, "group_size": 2} | config))
    world = world or World()
    order = ProblemOrder(PROBLEMS, 3, config.difficulty, solved or {})
    files = RolloutFiles(folder, world.rank, world.size)
    return Steps(config, 3, order, sampler or FakeSampler(), scorer or FakeScorer(), files, world, exact)


def asked(rollouts):
    return [one.problem_id for one in rollouts if one.index == 0]


def test_each_pass_asks_every_problem_once_in_an_order_of_its_own():
    order = ProblemOrder(PROBLEMS, 3, Difficulty())
    first, second = ([draw.problem_id for draw in order.take(10)] for _ in range(2))
    assert sorted(first) == sorted(second) == PROBLEMS
    assert first != second
    again = ProblemOrder(PROBLEMS, 3, Difficulty(), position=7)
    assert [draw.problem_id for draw in again.take(5)] == [*first[7:], *second[:2]]


def test_problems_outside_the_band_are_skipped_until_none_is_left():
    rates = {name: (number, 9) for number, name in enumerate(PROBLEMS)}
    order = ProblemOrder(PROBLEMS, 3, Difficulty(low=0.3, high=0.7), rates)
    assert {draw.problem_id for draw in order.take(8)} == {"p3", "p4", "p5", "p6"}
    order.record([(name, 90, 90) for name in ("p3", "p4", "p5", "p6")])
    before = order.position
    with pytest.raises(RecipeError, match=r"rl\.difficulty: no problem is left .* between 0.3 and 0.7"):
        order.take(1)
    assert order.position == before


def test_resampling_asks_the_only_problem_within_the_band_again(tmp_path):
    rates = dict.fromkeys(PROBLEMS[1:], (0, 9))
    of_all = steps(tmp_path, scorer=FakeScorer(lambda one: False), solved=rates, resample=2, difficulty={"low": 0.3})
    found = of_all.of(0, "abc")
    assert {one.problem_id for one in found} == {"p0"}
    assert of_all.last.num_replaced == 8
    with pytest.raises(RecipeError, match=r"rl\.difficulty"):
        of_all.of(1, "abd")


def test_a_share_of_few_answers_does_not_count():
    order = ProblemOrder(PROBLEMS, 3, Difficulty(low=0.3, min_samples=8), {"p1": (0, 7), "p2": (0, 8)})
    assert {draw.problem_id for draw in order.take(9)} == set(PROBLEMS) - {"p2"}


def test_a_step_is_kept_and_read_back_for_the_same_policy(tmp_path):
    sampler = FakeSampler()
    made = steps(tmp_path, sampler).of(0, "abc")
    assert len(sampler.drawn) == 8
    assert len(read_rollouts(tmp_path / "step-000000.parquet")) == 8
    assert not list(tmp_path.glob("*.jsonl"))
    again = steps(tmp_path, sampler)
    assert again.of(0, "abc") == made
    assert len(sampler.drawn) == 8
    unbroken = steps(tmp_path / "other")
    unbroken.of(0, "abc")
    assert asked(again.of(1, "abd")) == asked(unbroken.of(1, "abd"))
    assert again.order.rates == unbroken.order.rates


def test_answers_of_another_policy_are_moved_aside(tmp_path):
    steps(tmp_path).of(0, "abc")
    sampler = FakeSampler()
    found = steps(tmp_path, sampler).of(0, "xyz")
    assert len(sampler.drawn) == 8
    assert {one.policy for one in found} == {"xyz"}
    assert {one.policy for one in read_rollouts(tmp_path / "aside" / "step-000000.1.parquet")} == {"abc"}


def test_a_damaged_file_is_moved_aside(tmp_path):
    steps(tmp_path).of(0, "abc")
    path = tmp_path / "step-000000.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(steps(tmp_path).of(0, "abc")) == 8
    assert (tmp_path / "aside" / "step-000000.1.parquet").exists()


@pytest.mark.parametrize("exact", [True, False])
def test_an_interrupted_step(tmp_path, exact):
    with pytest.raises(KeyboardInterrupt):
        steps(tmp_path, FakeSampler(dies_after=5)).of(0, "abc")
    begun = tmp_path / "step-000000.jsonl"
    begun.write_text(begun.read_text() + '{"step": 0, "torn')
    sampler = FakeSampler()
    found = steps(tmp_path, sampler, exact=exact).of(0, "abc")
    assert found == steps(tmp_path / "unbroken").of(0, "abc")
    assert len(sampler.drawn) == (8 if exact else 3)
    assert (tmp_path / "aside" / "step-000000.1.jsonl").exists() == exact


def test_groups_without_variance_are_replaced_and_kept(tmp_path):
    solves_all = {"p0", "p1", "p2", "p3", "p4"}
    scorer = FakeScorer(lambda one: one.problem_id in solves_all or one.index == 0)
    made = steps(tmp_path, scorer=scorer, resample=3)
    found = made.of(0, "abc")
    assert [one.slot for one in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not solves_all & set(asked(found))
    stored = read_rollouts(tmp_path / "step-000000.parquet")
    replaced = [one for one in stored if not one.used]
    assert made.last.num_replaced == len(replaced) // 2 > 0
    assert {one.problem_id for one in replaced} <= solves_all
    again = steps(tmp_path, FakeSampler(), scorer, resample=3)
    assert again.of(0, "abc") == found
    assert (again.order.position, again.order.rates) == (made.order.position, made.order.rates)


def test_resampling_ends(tmp_path):
    found = steps(tmp_path, scorer=FakeScorer(lambda one: True), resample=2).of(0, "abc")
    assert len(found) == 8
    assert {one.round for one in found} == {2}


def test_two_processes_share_a_step(tmp_path):
    """Played one after the other: each gets the lists of the other where they meet."""
    alone = steps(tmp_path / "alone").of(0, "abc")
    halves = []
    for rank in range(2):
        world = World(rank, 2, lambda found: found)
        halves.append(steps(tmp_path / "shared", world=world).of(0, "abc"))
    assert [one.problem_id for half in halves for one in half] == [one.problem_id for one in alone]
    assert [one.text for half in halves for one in half] == [one.text for one in alone]
    assert sorted(path.name for path in (tmp_path / "shared").glob("*.parquet")) == [
        "step-000000.rank0-of-2.parquet",
        "step-000000.rank1-of-2.parquet",
    ]


class Meeting:
    """Two processes as threads, which join their lists."""

    def __init__(self):
        self.both, self.parts = threading.Barrier(2, timeout=30), [[], []]

    def world(self, rank):
        def gather(found):
            self.parts[rank] = found
            self.both.wait()
            joined = [*self.parts[0], *self.parts[1]]
            self.both.wait()
            return joined

        return World(rank, 2, gather)


def in_two(folder, step, policy, **settings):
    """What two processes do in a step, by rank: their `Steps` and their answers."""
    meeting = Meeting()
    halves = [steps(folder, world=meeting.world(rank), **settings) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        return halves, list(pool.map(lambda half: half.of(step, policy), halves))


def test_the_numbers_of_a_step_are_those_of_all_processes(tmp_path):
    alone = steps(tmp_path / "alone", resample=2)
    found = alone.of(0, "abc")
    assert alone.last.num_replaced > 0
    halves, answers = in_two(tmp_path / "shared", 0, "abc", resample=2)
    assert [one.text for half in answers for one in half] == [one.text for one in found]
    for half in halves:
        assert (half.last.num_tokens, half.last.num_replaced) == (alone.last.num_tokens, alone.last.num_replaced)
    assert halves[0].last.seconds == halves[1].last.seconds


def test_answers_that_another_number_of_processes_has_left_are_moved_aside(tmp_path):
    alone = steps(tmp_path).of(0, "abc")
    begun = RolloutFiles(tmp_path, 1, 4)
    begun.append("step", 0, alone[0])
    begun.write("step", 1, alone)
    _, halves = in_two(tmp_path, 0, "abc", exact=False)
    assert [one.text for half in halves for one in half] == [one.text for one in alone]
    of_step = {f"step-000000.rank{rank}-of-2.parquet" for rank in range(2)}
    assert {path.name for path in tmp_path.glob("step-000000*")} == of_step
    assert {path.name for path in (tmp_path / "aside").iterdir()} == {
        "step-000000.1.parquet",
        "step-000000.rank1-of-4.1.jsonl",
    }
    assert steps(tmp_path).of(0, "abc") == alone
    assert {path.name for path in tmp_path.glob("step-000000*")} == {"step-000000.parquet"}
    assert (tmp_path / "step-000001.rank1-of-4.parquet").exists()  # of a step that is not asked for again


def test_seeds_differ_by_step_problem_and_number():
    seeds = {rollout_seed(s, t, p, i) for s in (0, 1) for t in (0, 1) for p in ("a", "b") for i in (0, 1)}
    assert len(seeds) == 16
    assert rollout_seed(0, 1, "a", 2) == rollout_seed(0, 1, "a", 2)


def rollout(reward, correct, slot=0, **more):
    return Rollout(0, slot, 0, slot, f"p{slot}", 0, 0, "x", ids=[1, 2], reward=reward, correct=correct, **more)


def test_variance_ignores_what_is_ungraded():
    assert not has_variance([rollout(1.0, True), rollout(None, None)])
    assert has_variance([rollout(1.0, True), rollout(None, None), rollout(0.0, False)])


def test_what_a_step_was_like():
    group = [rollout(2.0, True, parts={"accuracy": 1.0}), rollout(0.0, False, parts={"accuracy": 0.0})]
    other = [rollout(None, None, 1), rollout(2.0, True, 1, finish_reason="length", parts={"accuracy": 1.0})]
    found = facts_of_step([*group, *other], 2)
    assert found["reward"] == pytest.approx(4 / 3)
    assert found["right"] == pytest.approx(2 / 3)
    assert found["pass_at_2"] == 1.0
    assert found["ungraded"] == found["truncated"] == 0.25
    assert found["no_variance"] == 0.5
    assert found["tokens_mean"] == 2.0
    assert found["reward_accuracy"] == pytest.approx(2 / 3)

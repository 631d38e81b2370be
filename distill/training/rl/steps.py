"""What each step learns from: answers that are drawn, scored and stored, or read back after a resume."""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distill.recipe.rl import RlConfig
from distill.recipe.sampling import Sampling
from distill.training.rl.order import Draw, ProblemOrder
from distill.training.rl.rollouts import GAMED, Rollout, RolloutFiles, rollout_seed
from distill.training.rl.sampling import Sampler

STEP = "step"
PROBE = "probe"
SUSPICIOUS = (*GAMED, "several_thinks", "special_token")
"""Faults of answers that a rule calls right and a stricter reading does not."""
SAME = 1e-8
"""Rewards that differ by less are the same."""


class Scorer(Protocol):
    """Grades answers and works out their rewards."""

    def score(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Fill in `reward`, `parts`, `correct`, `reason` and `extracted_answer` of each answer, group by group."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes that share each step."""

    rank: int = 0
    size: int = 1
    gather: Callable[[list[Any]], list[Any]] = lambda found: found
    """Joins the lists of all processes, in their order."""


@dataclass(slots=True)
class Drawn:
    """How a step's answers came about, in all processes."""

    seconds: float
    """Spent on sampling and scoring by the slowest process; 0 if they were read back."""
    num_tokens: int
    """Of the answers that were sampled, replaced ones included."""
    num_replaced: int
    """Groups without variance that others took the place of."""


class Steps:
    """Draws, scores and stores the answers of each step of one process.

    Args:
        config: `rl:` of the recipe.
        seed: the recipe's.
        order: which of them a step asks.
        sampler: draws answers.
        scorer: grades them.
        files: keeps them.
        world: the processes that share each step.
        exact: whether the answers of an interrupted step are drawn again (`rl.compute.resume`).
    """

    def __init__(
        self,
        config: RlConfig,
        seed: int,
        order: ProblemOrder,
        sampler: Sampler,
        scorer: Scorer,
        files: RolloutFiles,
        world: World,
        exact: bool,
    ) -> None:
        self._config, self._seed, self.order, self._sampler, self._scorer = config, seed, order, sampler, scorer
        self._files, self._world, self._exact = files, world, exact
        self.last = Drawn(0.0, 0, 0)
        """Of the step that was asked for last."""

    def of(self, step: int, policy: str) -> list[Rollout]:
        """Return what this process learns from in a step, group by group.

        Args:
            step: updates of the weights so far.
            policy: hash of the weights, which the engine holds.
        """
        began = time.monotonic()
        stored = self._files.read(STEP, step, policy)
        if self._all_have(stored is not None):
            assert stored is not None
            self._restore_order(stored)
            seconds, num_tokens = 0.0, 0
        else:
            if stored is not None:  # another process has lost its part
                self._files.set_aside(STEP, step)
            stored = self._draw(step, policy)
            self._files.write(STEP, step, stored)
            seconds, num_tokens = time.monotonic() - began, sum(len(one.ids) for one in stored)
        num_replaced = sum(not one.used for one in stored) // self._config.group_size
        each = self._world.gather([(seconds, num_tokens, num_replaced)])
        self.last = Drawn(max(one[0] for one in each), sum(one[1] for one in each), sum(one[2] for one in each))
        self._record(stored)
        return sorted((one for one in stored if one.used), key=lambda one: (one.slot, one.index))

    def _draw(self, step: int, policy: str) -> list[Rollout]:
        config, world = self._config, self._world
        begun = self._begun(step, policy)
        slots = self._slots_of(world.rank)
        everything: list[Rollout] = []
        num_asked: Counter[str] = Counter()
        asked = dict(enumerate(self.order.take(config.prompts_per_step)))
        for attempt in range(config.resample + 1):
            groups = []
            for slot, draw in asked.items():
                # A problem that a step asks twice has other seeds the second time.
                first = config.group_size * num_asked[draw.problem_id]
                num_asked[draw.problem_id] += 1
                if slot in slots:
                    groups.append(
                        [
                            self._wanted(step, slot, attempt, draw, index, first + index, policy)
                            for index in range(config.group_size)
                        ]
                    )
            self._fill(step, groups, begun)
            everything += [one for group in groups for one in group]
            if attempt == config.resample:
                break
            flat = world.gather([group[0].slot for group in groups if not has_variance(group)])
            if not flat:
                break
            again = sorted(flat)
            for one in everything:
                if one.slot in again:
                    one.used = False
            asked = dict(zip(again, self.order.take(len(again)), strict=True))
        return everything

    def _fill(self, step: int, groups: Sequence[Sequence[Rollout]], begun: dict[tuple[int, int], Rollout]) -> None:
        """Sample and score groups; answers that were finished before an interruption are taken over."""
        missing = []
        for one in (one for group in groups for one in group):
            if (found := begun.get(one.key)) is None:
                missing.append(one)
                continue
            for name in ("prompt_ids", "ids", "logprobs", "text", "think_opened", "finish_reason", "error"):
                setattr(one, name, getattr(found, name))
        self._sampler.draw(missing, self.sampling, lambda one: self._files.append(STEP, step, one))
        self._scorer.score(groups)

    @property
    def sampling(self) -> Sampling:
        """Return how rollouts are drawn: from the whole distribution, which is what their gradient assumes."""
        return Sampling(temperature=self._config.temperature, top_p=1.0, top_k=0, max_tokens=self._config.max_tokens)

    def _wanted(
        self, step: int, slot: int, attempt: int, draw: Draw, index: int, seed_index: int, policy: str
    ) -> Rollout:
        seed = rollout_seed(self._seed, step, draw.problem_id, seed_index)
        return Rollout(step, slot, attempt, draw.number, draw.problem_id, index, seed, policy)

    def _slots_of(self, rank: int) -> range:
        each = self._config.prompts_per_step // self._world.size
        return range(rank * each, (rank + 1) * each)

    def _begun(self, step: int, policy: str) -> dict[tuple[int, int], Rollout]:
        if self._exact:
            self._files.set_begun_aside(STEP, step)
            return {}
        return {one.key: one for one in self._files.begun(STEP, step, policy) if one.finish_reason != "error"}

    def _all_have(self, has: bool) -> bool:
        return all(self._world.gather([has]))

    def _restore_order(self, stored: Sequence[Rollout]) -> None:
        last = max(self._world.gather([max(one.draw for one in stored)]))
        self.order.position = max(self.order.position, last + 1)

    def _record(self, rollouts: Sequence[Rollout]) -> None:
        self.order.record(self._world.gather(solved_in(rollouts)))


def solved_in(rollouts: Sequence[Rollout]) -> list[tuple[str, int, int]]:
    """Return (problem id, right answers, graded answers) of each problem."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in rollouts:
        if one.correct is not None:
            found[one.problem_id][0] += one.correct
            found[one.problem_id][1] += 1
    return [(name, right, graded) for name, (right, graded) in found.items()]


def has_variance(group: Sequence[Rollout]) -> bool:
    """Return whether some rewards of a group differ; those that could not be graded do not count."""
    rewards = [one.reward for one in group if one.reward is not None]
    return len(rewards) > 1 and max(rewards) - min(rewards) > SAME


def facts_of_step(rollouts: Sequence[Rollout], group_size: int) -> dict[str, float]:
    """Return what a step's rewards and answers are like, for metrics.jsonl; what cannot be told is left out.

    Args:
        rollouts: those that are trained on, of all processes, group by group.
        group_size: answers to each problem.
    """
    groups = [rollouts[start : start + group_size] for start in range(0, len(rollouts), group_size)]
    rewards = [one.reward for one in rollouts if one.reward is not None]
    graded = [one for one in rollouts if one.correct is not None]
    found: dict[str, float] = {
        "ungraded": sum(one.reward is None for one in rollouts) / len(rollouts),
        "no_variance": sum(not has_variance(group) for group in groups) / len(groups),
        "truncated": sum(one.finish_reason == "length" for one in rollouts) / len(rollouts),
        "tokens_mean": statistics.fmean(len(one.ids) for one in rollouts),
        "same_answers": _same_answers(groups),
    }
    tokens = [value for one in rollouts for value in one.logprobs]
    if tokens:
        # Of the policy's own samples, so that their mean surprise estimates the entropy.
        found["entropy"] = -statistics.fmean(tokens)
    gaps = [own - told for one in rollouts for own, told in zip(one.logprobs, one.teacher_logprobs, strict=False)]
    if gaps:
        found["kl_teacher"] = statistics.fmean(gaps)
    if rewards:
        found["reward"] = statistics.fmean(rewards)
        found["reward_std"] = statistics.pstdev(rewards)
    if by_rule := [one for one in graded if one.correct or one.fault in GAMED]:
        found["disagreement"] = sum(one.fault in SUSPICIOUS for one in by_rule) / len(by_rule)
    if graded:
        found["right"] = statistics.fmean(one.correct is True for one in graded)
        solved = [any(one.correct for one in group) for group in groups if any(o.correct is not None for o in group)]
        found[f"pass_at_{group_size}"] = statistics.fmean(solved)
    for name, wanted in (("tokens_right", True), ("tokens_wrong", False)):
        if lengths := [len(one.ids) for one in rollouts if one.correct is wanted]:
            found[name] = statistics.fmean(lengths)
    for part in dict.fromkeys(name for one in rollouts for name in one.parts):
        values = [value for one in rollouts if (value := one.parts.get(part)) is not None]
        if values:
            found[f"reward_{part}"] = statistics.fmean(values)
            found[f"spread_{part}"] = statistics.pstdev(values)
    return found


def _same_answers(groups: Sequence[Sequence[Rollout]]) -> float:
    """Return the share of answers that are the commonest one of the step; 0 for a step of one problem."""
    if len(groups) < 2:
        return 0.0
    counts: dict[str, int] = defaultdict(int)
    answered = [one.extracted_answer for group in groups for one in group if one.extracted_answer]
    for answer in answered:
        counts[answer] += 1
    return max(counts.values(), default=0) / max(1, len(answered))

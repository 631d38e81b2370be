"""What the detectors say of a history, and that they end training where the recipe asks for it."""

from types import SimpleNamespace

import pytest

from distill.recipe.rl import RlConfig, Watch
from distill.training.rl.watch import warnings_of

WATCH = Watch(window=5)
WEIGHTS = {"accuracy": 1.0, "format": 1.0}


def history(num=10, **changes):
    """Steps of a training that goes well; a change is a value, or a function of the step."""
    entries = []
    for step in range(1, num + 1):
        entry = {
            "step": step,
            "truncated": 0.1,
            "no_variance": 0.3,
            "same_answers": 0.2,
            "disagreement": 0.01,
            "entropy": 0.4,
            "reward": 0.5 + 0.05 * step,
            "spread_accuracy": 0.5,
            "spread_format": 0.2,
        }
        entries.append(entry | {key: one(step) if callable(one) else one for key, one in changes.items()})
    return entries


def probe(*shares):
    return [{"step": 4 * number, "pass_at_1": share, "low": 0.0, "high": 1.0} for number, share in enumerate(shares)]


def test_rewards_that_decide_nothing_are_not_watched():
    bad = history(no_variance=1.0, disagreement=0.5, spread_accuracy=0.0)
    assert {one.name for one in warnings_of(bad, probe(0.3, 0.3, 0.3), WATCH, WEIGHTS)} == {
        "no_variance", "disagreement", "dominance", "flat_probe",
    }  # fmt: skip
    assert warnings_of(bad, probe(0.3, 0.3, 0.3), WATCH, {}) == []
    assert [one.name for one in warnings_of(history(truncated=0.9), [], WATCH, {})] == ["truncated"]


def test_a_healthy_history_warns_of_nothing():
    assert warnings_of(history(), probe(0.2, 0.3, 0.4), WATCH, WEIGHTS) == []
    assert warnings_of([{"step": step} for step in range(9)], [], WATCH, WEIGHTS) == []


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"truncated": 0.8}, "truncated", "over 5 steps, 80% of the answers were cut off: raise rl.max_tokens"),
        ({"no_variance": 0.95}, "no_variance", "95% of the groups had one and the same reward"),
        ({"same_answers": 0.97}, "same_answers", "97% of the answers to different problems were the same one"),
        ({"disagreement": 0.3}, "disagreement", "30% of the answers that a rule calls right are not by a stricter"),
        ({"entropy": 0.001}, "entropy", "the entropy fell to 0.0010 nats a token"),
        ({"entropy": 9.0}, "entropy", "the entropy rose to 9.00 nats a token: the policy rambles"),
        (
            {"spread_accuracy": 0.01, "spread_format": 0.5},
            "dominance",
            "100% of the reward's spread comes from format, so that is what is learnt. Lower rl.reward.format",
        ),
    ],
)
def test_each_detector_names_what_it_saw_and_the_keys(changes, name, said):
    (found,) = warnings_of(history(**changes), [], WATCH, WEIGHTS)
    assert (found.name, found.step) == (name, 10)
    assert said in found.message


def test_accuracy_may_dominate_and_so_may_the_only_part():
    assert warnings_of(history(spread_accuracy=0.5, spread_format=0.0), [], WATCH, WEIGHTS) == []
    assert warnings_of([{"step": step, "spread_format": 0.5} for step in range(9)], [], WATCH, WEIGHTS) == []


def test_a_part_dominates_by_what_it_is_worth():
    spread = {"spread_accuracy": 0.1, "spread_format": 0.5}
    (found,) = warnings_of(history(**spread), [], WATCH, {"accuracy": 1.0, "format": 1.0})
    assert "96% of the reward's spread comes from format" in found.message
    assert warnings_of(history(**spread), [], WATCH, {"accuracy": 1.0, "format": 0.1}) == []
    (found,) = warnings_of(history(), [], WATCH, {"accuracy": 0.1, "format": 2.0})
    assert "98% of the reward's spread comes from format" in found.message


def test_a_reward_that_rises_while_the_held_out_problems_do_not():
    (found,) = warnings_of(history(), probe(0.3, 0.3, 0.25), WATCH, WEIGHTS)
    assert found.name == "flat_probe"
    assert (
        "the reward rose by 0.45 since step 0, and the held-out problems stayed at 30.0% (25.0% now)" in found.message
    )
    assert warnings_of(history(), probe(0.3, 0.3), WATCH, WEIGHTS) == []  # too few measurements
    assert warnings_of(history(reward=0.5), probe(0.3, 0.3, 0.3), WATCH, WEIGHTS) == []  # nothing rose


def test_limits_are_of_the_newest_steps_and_need_as_many():
    assert warnings_of(history(4, truncated=0.9), [], WATCH, WEIGHTS) == []
    assert warnings_of(history(truncated=lambda step: 0.9 if step <= 5 else 0.1), [], WATCH, WEIGHTS) == []
    early = history(truncated=lambda step: 0.9 if step > 5 else 0.1)
    assert [one.name for one in warnings_of(early, [], WATCH, WEIGHTS)] == ["truncated"]


@pytest.mark.parametrize("on_warning", ["note", "stop"])
def test_training_ends_early_only_if_the_recipe_says_so(on_warning, capsys):
    from distill.training.rl.run import _Watching

    config = RlConfig(watch={"window": 5}, on_warning=on_warning)
    run = SimpleNamespace(config=config, warnings=[], points=[], stopped_by=None)
    watching = _Watching(run, SimpleNamespace(history=history(truncated=0.8)))
    state = SimpleNamespace(is_world_process_zero=True)
    control = SimpleNamespace(should_training_stop=False, should_save=False)
    watching.on_log(None, state, control)
    assert [one.name for one in run.warnings] == ["truncated"]
    assert "rl: step 10: over 5 steps, 80% of the answers were cut off" in capsys.readouterr().err
    stops = on_warning == "stop"
    assert (control.should_training_stop, run.stopped_by) == (stops, "truncated" if stops else None)
    again = SimpleNamespace(should_training_stop=False, should_save=False)
    watching.on_log(None, state, again)  # as after a resume from the checkpoint of the warning
    assert again.should_training_stop == stops
    assert len(run.warnings) == 1
    assert capsys.readouterr().err == ""

"""From facts to rewards. Pure.

group_scores([right, wrong], RewardConfig())   # [Score(2.0, {"accuracy": 1.0, "format": 1.0}), Score(1.0, {…})]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill.grading.code.grader import CODE
from distill.recipe.rewards import RewardConfig
from distill.rewards.parts import PARTS, group_lengths, is_right
from distill.rewards.rollouts import RolloutFacts


@dataclass(frozen=True, slots=True)
class Score:
    """What a rollout is worth."""

    total: float | None
    """Sum of the parts, each times its weight; `None`: it could not be graded, and is left out of its group."""
    parts: Mapping[str, float | None]
    """Value of each part with a weight, before it, in the order of `distill.recipe.rewards.PARTS`. 0.0 for a part that
    counts only where the answer is right, and it is wrong; `None`: not known or not applicable, and nothing in the
    sum."""


def reward(facts: RolloutFacts, config: RewardConfig) -> Score:
    """Return what one rollout is worth by itself: as the only one of its group."""
    [score] = group_scores([facts], config)
    return score


def group_scores(facts: Sequence[RolloutFacts], config: RewardConfig) -> list[Score]:
    """Return what each rollout of a group is worth, in order.

    Args:
        facts: those of all rollouts of one problem.
        config: the parts and their weights.
    """
    graded = [one for one in facts if not is_ungraded(one, config)]
    lengths = iter(group_lengths(graded))
    return [_score(one, config, None if is_ungraded(one, config) else next(lengths)) for one in facts]


def is_ungraded(facts: RolloutFacts, config: RewardConfig) -> bool:
    """Return whether a rollout can have no reward, because something that decides it is not known."""
    weights = config.weights
    if facts.finish_reason == "error" or facts.fault == "unmeasured":
        return True
    if is_right(facts) is None and (config.gated or weights.keys() & {"cosine", "length"}):
        return True
    decided = {
        "accuracy": facts.has_rule or "judge" not in weights,  # else the judge stands in for the rule
        "judge": not facts.has_rule,
        "code": facts.has_rule and facts.task == CODE,
    }
    return any(applies and name in weights and PARTS[name](facts, config) is None for name, applies in decided.items())


def _score(facts: RolloutFacts, config: RewardConfig, length: float | None) -> Score:
    weights, gated, right = config.weights, config.gated, is_right(facts)
    measured = {name: length if name == "length" else PARTS[name](facts, config) for name in weights}
    parts = {name: 0.0 if name in gated and right is False else value for name, value in measured.items()}
    if is_ungraded(facts, config):
        return Score(None, parts)
    return Score(sum(weights[name] * value for name, value in parts.items() if value is not None), parts)

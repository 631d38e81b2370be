"""Detectors of training that goes wrong, from the history of its steps alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distill.recipe.rl import Watch

Entry = Mapping[str, Any]
MIN_GAIN = 0.05
"""Rise of the reward, as a share of its range so far, that the probe should show something of."""
ACCURACY = "accuracy"
"""The part that the others should serve."""
PROBES = 3
"""Measurements of the probe over which a flat one is told."""


class Warned(NamedTuple):
    """What a detector found."""

    name: str
    """`truncated`, `no_variance`, `entropy`, `same_answers`, `dominance`, `disagreement`, `flat_probe`."""
    step: int
    message: str
    """What was seen, and which keys of the recipe change it."""


def warnings_of(
    history: Sequence[Entry], probe: Sequence[Entry], watch: Watch, weights: Mapping[str, float]
) -> list[Warned]:
    """Return what is wrong at the end of a history.

    Args:
        history: an entry a step, as in metrics.jsonl.
        probe: an entry a measurement of the held-out problems (`step`, `pass_at_1`, `low`, `high`).
        watch: the limits.
        weights: of the reward's parts (`rl.reward`); empty if rewards decide nothing.
    """
    if len(history) < watch.window:
        return []
    recent = history[-watch.window :]
    step = int(recent[-1]["step"])
    found = [
        _above(recent, "truncated", watch.truncated, "of the answers were cut off: raise rl.max_tokens, or reward "
               "shorter ones (rl.reward.overlong)"),
        _above(recent, "same_answers", watch.same_answers, "of the answers to different problems were the same one: "
               "the policy has collapsed; lower rl.learning_rate or raise rl.kl"),
        _entropy(recent, watch),
    ]  # fmt: skip
    if weights:
        found += [
            _above(recent, "no_variance", watch.no_variance, "of the groups had one and the same reward, so they "
                   "taught nothing: set rl.difficulty or rl.resample, or choose other problems"),
            _above(recent, "disagreement", watch.disagreement, "of the answers that a rule calls right are not by a "
                   "stricter reading: it is being gamed; look at them in the report"),
            _dominance(recent, watch, weights),
            _flat_probe(history, probe),
        ]  # fmt: skip
    return [Warned(name, step, message) for name, message in filter(None, found)]


def _above(recent: Sequence[Entry], key: str, limit: float, said: str) -> tuple[str, str] | None:
    values = [entry[key] for entry in recent if key in entry]
    if not values or (mean := statistics.fmean(values)) <= limit:
        return None
    return key, f"over {len(values)} steps, {mean:.0%} {said}."


def _entropy(recent: Sequence[Entry], watch: Watch) -> tuple[str, str] | None:
    values = [entry["entropy"] for entry in recent if "entropy" in entry]
    if not values:
        return None
    mean, (low, high) = statistics.fmean(values), watch.entropy
    if mean < low:
        return "entropy", (
            f"the entropy fell to {mean:.4f} nats a token: all answers to a problem are nearly the same, and little is "
            "left to learn from. Raise rl.temperature, or stop here."
        )
    if mean > high:
        return "entropy", (
            f"the entropy rose to {mean:.2f} nats a token: the policy rambles. Lower rl.learning_rate or raise rl.kl."
        )
    return None


def _dominance(recent: Sequence[Entry], watch: Watch, weights: Mapping[str, float]) -> tuple[str, str] | None:
    """Return a warning if one part other than accuracy makes up nearly all of the reward's spread."""
    spreads: dict[str, float] = {}
    for name, weight in weights.items():
        # The history has the values of the parts; what they are worth in the reward spreads with their weights.
        if values := [(weight * entry[f"spread_{name}"]) ** 2 for entry in recent if f"spread_{name}" in entry]:
            spreads[name] = statistics.fmean(values)
    total = sum(spreads.values())
    if ACCURACY not in spreads or total <= 0:
        return None
    name = max(spreads, key=lambda one: spreads[one])
    share = spreads[name] / total
    if name == ACCURACY or share <= watch.dominance:
        return None
    return "dominance", (
        f"{share:.0%} of the reward's spread comes from {name}, so that is what is learnt. Lower rl.reward.{name}, or "
        "choose problems that are sometimes solved (rl.difficulty)."
    )


def _flat_probe(history: Sequence[Entry], probe: Sequence[Entry]) -> tuple[str, str] | None:
    """Return a warning if the reward rises and the held-out problems show nothing of it."""
    measured = [one for one in probe if one.get("pass_at_1") is not None]
    if len(measured) < PROBES:
        return None
    first, last = measured[-PROBES], measured[-1]
    rewards = [entry["reward"] for entry in history if "reward" in entry]
    then = [entry["reward"] for entry in history if "reward" in entry and entry["step"] <= max(1, first["step"])]
    if not rewards or not then:
        return None
    window = max(1, len(rewards) // 10)
    rise = statistics.fmean(rewards[-window:]) - statistics.fmean(then[-window:])
    spread = max(rewards) - min(rewards)
    is_flat = all(one["pass_at_1"] <= first["pass_at_1"] for one in measured[-PROBES + 1 :])
    if not is_flat or spread <= 0 or rise < max(MIN_GAIN, MIN_GAIN * spread):
        return None
    return "flat_probe", (
        f"the reward rose by {rise:.2f} since step {first['step']}, and the held-out problems stayed at "
        f"{first['pass_at_1']:.1%} ({last['pass_at_1']:.1%} now): it may be gamed, or the problems learnt by heart."
    )

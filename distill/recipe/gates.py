"""Gates: limits on the metrics of a round, at which a run stops before the next round begins.

gate: {format_share: ">= 0.9", gain_over: round:cold-start}
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

GAIN_OVER, CLEAR_GAIN_OVER = "gain_over", "clear_gain_over"
COMPARING = (GAIN_OVER, CLEAR_GAIN_OVER)
"""Metrics whose limit is another model."""
BASE = "base"
_LIMIT = re.compile(r"\s*(>=|<=|>|<)\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class GateMetric:
    """A metric that a gate can limit."""

    section: str
    """The section of the recipe that it comes from; `traces` is either `generate:` or `traces:`."""
    about: str


GATE_METRICS: dict[str, GateMetric] = {
    "num_samples": GateMetric("traces", "traces sampled or imported"),
    "truncated_share": GateMetric("traces", "share of them that were cut off at max_tokens"),
    "num_kept": GateMetric("traces", "traces that the filter kept"),
    "kept_share": GateMetric("traces", "share of traces that the filter kept"),
    "correct_share": GateMetric("traces", "share of graded traces that are correct"),
    "format_share": GateMetric("traces", "share of traces with one complete <think> … </think> block and an answer"),
    "final_loss": GateMetric("sft", "loss of the last logged step"),
    "mean_reward": GateMetric("rl", "mean reward of the last tenth of the steps"),
    "pass_at_1": GateMetric("eval", "the round's model, mean over problems"),
    "gain": GateMetric("eval", "its gain in pass@1 over its base"),
    GAIN_OVER: GateMetric("eval", "a round (round:NAME) or base, whose pass@1 the round's model must exceed"),
    CLEAR_GAIN_OVER: GateMetric("eval", "the same, with the whole 95% interval of the paired difference above 0"),
}
"""Metric -> where it comes from, and what it is."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A sign and a number, such as `>= 0.9`."""

    sign: str
    value: float

    def holds(self, measured: float) -> bool:
        """Return whether a value is within the limit."""
        return _SIGNS[self.sign](measured, self.value)


def read_limit(text: str) -> Limit | None:
    """Return the limit in a text such as `>= 0.9`, or `None` if it is not one."""
    found = _LIMIT.fullmatch(text)
    return Limit(found[1], float(found[2])) if found else None


def gate_fault(metric: str, wanted: str, sections: Mapping[str, bool]) -> str | None:
    """Return what is wrong with one limit, or `None`; a round to compare with is checked with the other rounds.

    Args:
        metric: name of the metric.
        wanted: as in the recipe.
        sections: section -> whether the round has it.
    """
    known = GATE_METRICS.get(metric)
    if known is None:
        return f"there is no metric {metric!r}. There are: {', '.join(GATE_METRICS)}."
    if not sections[known.section]:
        needed = "generate: or traces:" if known.section == "traces" else f"{known.section}:"
        there = [name for name, one in GATE_METRICS.items() if sections[one.section]]
        rest = f" Metrics that it has: {', '.join(there)}." if there else ""
        return f"the round has no {metric}, which needs {needed}.{rest}"
    if metric not in COMPARING and read_limit(wanted) is None:
        return f'{wanted!r} is not a limit; write a sign and a number in quotes, e.g. {metric}: ">= 0.9".'
    return None

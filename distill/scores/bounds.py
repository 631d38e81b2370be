"""The lowest and the highest score possible when some samples are missing or could not be graded.

What enters is one inner sequence a problem, and the number of samples wanted of each.

    score_bounds([[1, None], []], num_wanted=[2, 2])  ->  low 0.25, high 1.0, 3 of 4 missing
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoreBounds:
    """Where the score would lie if every missing sample were wrong, and if every one were right."""

    low: float
    high: float
    num_wanted: int
    """Samples that make the score complete."""
    num_missing: int
    """Those that failed, were never drawn or could not be graded."""


def score_bounds(scores: Sequence[Sequence[float | None]], num_wanted: Sequence[int]) -> ScoreBounds:
    """Return the bounds of the mean over samples, then over problems.

    Args:
        scores: each problem's samples, in [0, 1]; `None` for one that could not be graded. A problem without any
            sample is an empty sequence.
        num_wanted: samples wanted of each problem, in the same order.

    Raises:
        ValueError: there is no problem, the two differ in length, a problem wants no sample or has more than it wants,
            or a score is not in [0, 1].
    """
    if not scores or len(scores) != len(num_wanted):
        raise ValueError(f"{len(scores)} problems with scores, and {len(num_wanted)} numbers of samples wanted")
    low = high = 0.0
    num_missing = 0
    for index, (samples, wanted) in enumerate(zip(scores, num_wanted, strict=True)):
        if wanted < 1 or len(samples) > wanted:
            raise ValueError(f"problem {index} has {len(samples)} samples and wants {wanted}")
        graded = [score for score in samples if score is not None]
        if not all(0 <= score <= 1 for score in graded):
            raise ValueError(f"problem {index} has a score that is not in [0, 1]")
        missing = wanted - len(graded)
        low += sum(graded) / wanted
        high += (sum(graded) + missing) / wanted
        num_missing += missing
    num = len(scores)
    return ScoreBounds(low / num, high / num, sum(num_wanted), num_missing)

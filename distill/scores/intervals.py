"""Intervals of a score and of the paired difference of two scores, for a few problems with a few samples each.

The estimand is the mean over the population that the problems stand for, so that problems are the clusters. Coverage
by simulation is in `benchmarks/interval_coverage.py`.

    mean_interval([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])  ->  (0.16, 0.91)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

LEVEL = 0.95
PRIOR_STRENGTH = 3.0
"""How many problems (squared) the data must speak with to weigh as much as the cautious assumption; see `_trust`."""

NEARLY_ZERO = 1e-9
"""A score this close to 0 or 1 is one: 1 - 1e-43 is 1, and the interval of the mirrored scores is the mirrored one."""

# R = repetitions (any leading shape), N = problems


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How two models differ on the same problems."""

    mean_gain: float
    """Mean over problems of the second's score less the first's."""
    interval_95: tuple[float, float]
    num_problems: int
    num_gained: int
    """Problems on which the second scores higher."""
    num_lost: int


def mean_interval(scores: Sequence[Sequence[float]], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the mean over samples, then over problems.

    It is Wilson's score interval (Wilson, 1927) at an effective number of problems, which is that of one binary sample
    a problem divided by the design effect (Korn and Graubard, 1998). See `interval_of_means`.

    Args:
        scores: each problem's samples, in [0, 1]; binary or fractional.
        level: coverage wanted.

    Raises:
        ValueError: there is no problem, a problem has no sample, or a score is not in [0, 1].
    """
    import numpy as np

    check_scores(scores)
    # No mean of binary samples varies less than their own variance does; fractional scores may vary less.
    share = sum(1 / len(samples) for samples in scores) / len(scores)
    is_binary = all(min(score, 1 - score) < NEARLY_ZERO for samples in scores for score in samples)
    low, high = interval_of_means(np.array(means(scores)), share if is_binary else share / len(scores), level)
    return float(low), float(high)


def interval_of_means(means_RN: "Array", smallest_effect: float, level: float = LEVEL) -> tuple["Array", "Array"]:
    """Return the lower and upper ends for the mean over the last axis, for each of many repetitions at once.

    The design effect is the variance of problem means over m (1 - m), that of one binary sample a problem. Where it
    rests on the scores of few problems (nearly all right, or nearly all wrong) it is drawn towards 1 on a log scale.

    Args:
        means_RN: mean score of each problem, in [0, 1].
        smallest_effect: smallest design effect possible: 1/k for k binary samples a problem.
        level: coverage wanted.
    """
    import numpy as np

    num = means_RN.shape[-1]
    mean_R = means_RN.mean(axis=-1)
    # Unbiased: with N - 1 the effect of binary scores is N / (N - 1), which is also the largest one.
    largest = num / max(num - 1, 1)
    binary_R = mean_R * (1 - mean_R)
    variance_R = means_RN.var(axis=-1) * largest
    ratio_R = variance_R / np.maximum(binary_R, 1e-12)
    # No variance at all tells nothing at 0% and 100%.
    effect_R = np.clip(np.where(binary_R > 1e-12, ratio_R, largest), smallest_effect, largest)
    trust_R = np.minimum(_trust(means_RN), _trust(1 - means_RN))
    effect_R = np.clip(effect_R**trust_R, smallest_effect, largest)
    return _wilson(mean_R, num / effect_R, _quantile(level))


def weighted_interval(values: Sequence[float], weights: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a weighted mean, such as a share of things of which problems have several.

    As `mean_interval`, at Kish's effective number of problems (Kish, 1965, section 11.7).

    Args:
        values: each problem's value, in [0, 1].
        weights: each problem's weight, above 0.
        level: coverage wanted.

    Raises:
        ValueError: there is no problem, their numbers differ, a weight is not above 0, or a value is not in [0, 1].
    """
    import numpy as np

    check_scores([[value] for value in values])
    if len(weights) != len(values) or min(weights) <= 0:
        raise ValueError(f"{len(values)} values need as many weights, all above 0")
    values_N, shares_N = np.array(values, dtype=float), np.array(weights, dtype=float) / sum(weights)
    mean = float(values_N @ shares_N)
    effective = float(1 / (shares_N**2).sum())
    largest = len(values) / max(len(values) - 1, 1)
    binary = mean * (1 - mean)
    variance = largest * float((shares_N**2 * (values_N - mean) ** 2).sum())
    effect = variance * effective / binary if binary > 1e-12 else largest
    trust = min(_trust(shares_N * values_N), _trust(shares_N * (1 - values_N)))
    effect = min(max(effect, 1 / len(values)), largest) ** trust
    low, high = _wilson(np.array(mean), np.array(effective / effect), _quantile(level))
    return float(low), float(high)


def paired_interval(
    before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the mean over problems of the second's score less the first's.

    Args:
        before: each problem's samples, in [0, 1], of the one model.
        after: the same problems in the same order, of the other; numbers of samples may differ.
        level: coverage wanted.

    Raises:
        ValueError: there is no problem, the numbers of problems differ, a problem has no sample, or a score is not in
            [0, 1].
    """
    import numpy as np

    check_scores(before)
    check_scores(after)
    if len(before) != len(after):
        raise ValueError(f"{len(before)} problems before and {len(after)} after: a paired difference needs the same")
    low, high = interval_of_gains(np.array(means(after)) - np.array(means(before)), level)
    return float(low), float(high)


def interval_of_gains(gains_RN: "Array", level: float = LEVEL) -> tuple["Array", "Array"]:
    """Return the lower and upper ends for the mean gain over the last axis, for each of many repetitions at once.

    Two problems are added, one on each side of the mean, as Bonett and Price (2012) add one gained and one lost to
    binary pairs. They lie as far out as typical gains do: 1 where few problems differ. Hence the width is never zero.

    Args:
        gains_RN: difference of each problem's two scores, in [-1, 1].
        level: coverage wanted.
    """
    import numpy as np

    num = gains_RN.shape[-1] + 2
    mean_R = gains_RN.mean(axis=-1)
    distance_RN = np.abs(gains_RN - mean_R[..., None])
    squares_R = (distance_RN**2).sum(axis=-1)
    cubes_R = (distance_RN**3).sum(axis=-1)
    typical_R = np.where(squares_R > 1e-12, cubes_R / np.maximum(squares_R, 1e-12), 1.0)
    typical_R = np.clip(typical_R, 1e-9, 1.0) ** _trust(distance_RN)
    above_R = np.minimum(mean_R + typical_R, 1.0)
    below_R = np.maximum(mean_R - typical_R, -1.0)
    center_R = (mean_R * (num - 2) + above_R + below_R) / num
    squares_R = squares_R + (num - 2) * (mean_R - center_R) ** 2
    squares_R = squares_R + (above_R - center_R) ** 2 + (below_R - center_R) ** 2
    # First term of Student's quantile in 1/df (Cornish and Fisher, 1938), for the estimated variance.
    z = _quantile(level)
    z *= 1 + (z * z + 1) / (4 * (num - 2))
    half_R = z * np.sqrt(squares_R) / num
    return np.maximum(center_R - half_R, -1.0), np.minimum(center_R + half_R, 1.0)


def paired_difference(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> PairedDifference:
    """Return how two models differ on the same problems.

    Args:
        before: problem id -> scores of the one model's samples, in [0, 1].
        after: the same problems, of the other.

    Raises:
        ValueError: the problems are not the same, or as for `paired_interval`.
    """
    if before.keys() != after.keys():
        raise ValueError(f"{len(before.keys() ^ after.keys())} problems have scores of one model only")
    names = sorted(before)
    one, other = [before[name] for name in names], [after[name] for name in names]
    interval = paired_interval(one, other)
    gains = [second - first for first, second in zip(means(one), means(other), strict=True)]
    return PairedDifference(
        mean_gain=sum(gains) / len(gains),
        interval_95=interval,
        num_problems=len(gains),
        num_gained=sum(gain > 0 for gain in gains),
        num_lost=sum(gain < 0 for gain in gains),
    )


def mean_score(scores: Sequence[Sequence[float]]) -> float:
    """Return the mean over samples, then over problems; there must be a problem, and a sample of each."""
    return sum(means(scores)) / len(scores)


def means(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return each problem's mean over its samples."""
    return [sum(samples) / len(samples) for samples in scores]


def check_scores(scores: Sequence[Sequence[float]]) -> None:
    """Check that there are problems, each with samples in [0, 1].

    Raises:
        ValueError: there are none, or a score is not a number in [0, 1].
    """
    if not scores:
        raise ValueError("no problem with a score")
    for index, samples in enumerate(scores):
        if not len(samples):
            raise ValueError(f"problem {index} has no sample: leave it out, or see the bounds of the score")
        for score in samples:
            if not 0 <= score <= 1:
                raise ValueError(f"problem {index} has the score {score}, which is not in [0, 1]")


def _trust(sizes_RN: "Array") -> Any:
    """Return the weight in [0, 1) of an estimate that the large ones among these sizes decide.

    Their effective number is D = (sum of squares)^3 / (sum of cubes)^2: the count, if those that are not zero are
    equal; 1 if one outweighs all. The weight is D^2 / (D^2 + 3): of the constants and powers tried, this keeps the
    coverage of skewed scores of 30 and 100 problems closest to 95% (benchmarks/interval_coverage.py).
    """
    import numpy as np

    squares_R = (sizes_RN**2).sum(axis=-1)
    cubes_R = (sizes_RN**3).sum(axis=-1)
    number_R = np.where(squares_R > 1e-12, squares_R**3 / np.maximum(cubes_R, 1e-24) ** 2, 0.0)
    return number_R**2 / (number_R**2 + PRIOR_STRENGTH)


def _wilson(mean_R: "Array", num_R: "Array", z: float) -> tuple["Array", "Array"]:
    """Return Wilson's interval of a share, whose number of trials need not be whole."""
    import numpy as np

    shrink_R = 1 / (1 + z * z / num_R)
    center_R = (mean_R + z * z / (2 * num_R)) * shrink_R
    half_R = z * shrink_R * np.sqrt(mean_R * (1 - mean_R) / num_R + (z / (2 * num_R)) ** 2)
    # The share itself is always inside, whatever the rounding.
    low_R = np.minimum(np.maximum(center_R - half_R, 0.0), mean_R)
    return low_R, np.maximum(np.minimum(center_R + half_R, 1.0), mean_R)


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, which is not between 0 and 1")
    return NormalDist().inv_cdf((1 + level) / 2)

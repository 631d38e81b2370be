"""An interval of a benchmark's score that holds at every time, for sampling until it is narrow enough.

Samples come in waves of one a problem. The estimand is the score on these very problems with unlimited samples, so that
only the randomness of samples counts; for other problems of their kind see `intervals`.

    score_sequence([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])  ->  (0.17, 0.93)
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distill.scores.intervals import LEVEL, check_scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BETS = (14.0, 7.0, 3.5, 1.8, 0.9)
"""Tilts of the empirical-Bernstein part, times the root of the number of problems. The best one is 3.3 / sqrt(v t) for
v, the mean variance of a sample, and t waves: these are for v t of 0.05 to 13, and within 6% of the best between."""
MAX_BET = 0.75
MIXTURE_WEIGHT = 0.35
BISECTIONS = 60


def score_sequence(scores: Sequence[Sequence[float]], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the problems' mean score; with chance `level` it holds after every wave at once.

    For each candidate m a wealth is kept whose expectation is at most 1 if m is the true mean, whatever was seen
    before. It passes 1/(1 - level) at any time with a chance of at most 1 - level (Ville's inequality); the interval
    holds the m for which it has not. The wealth is a weighted mean of two:

    - Bets against m as if all samples were equally likely to be right, mixed over a Beta(1/2, 1/2) (Robbins, 1970).
      With problems that differ they are still fair: log(1 + p (e^t - 1)) is concave in p.
    - Empirical-Bernstein bets (Howard et al., 2021, theorem 4; Waudby-Smith and Ramdas, 2024, arXiv:2010.09686,
      section 3), whose variance is around each problem's own earlier samples. They win where most problems are nearly
      always or nearly never solved.

    Args:
        scores: each problem's samples in the order of the waves, in [0, 1]. Samples beyond the last complete wave are
            ignored.
        level: chance that the interval holds at all times.

    Raises:
        ValueError: as `distill.scores.intervals.mean_interval`.
    """
    check_scores(scores)
    total, num, spread = _observed(scores)
    limit = -math.log(1 - level)

    def is_inside(mean: float) -> bool:
        return _log_wealth(mean, total, num, spread, len(scores)) < limit

    return _end(is_inside, total / num, 0.0), _end(is_inside, total / num, 1.0)


def is_narrow_enough(scores: Sequence[Sequence[float]], width: float, level: float = LEVEL) -> bool:
    """Return True if the interval that holds at every time is at most so wide, from its lower end to its upper one."""
    low, high = score_sequence(scores, level)
    return high - low <= width


def _observed(scores: Sequence[Sequence[float]]) -> tuple[float, int, float]:
    """Return the sum of the samples of complete waves, their number, and their squared errors of prediction."""
    import numpy as np

    num_waves = min(map(len, scores))
    # W = waves, N = problems
    scores_WN = np.array([samples[:num_waves] for samples in scores], dtype=np.float64).T
    return float(scores_WN.sum()), scores_WN.size, float(((scores_WN - _predicted(scores_WN)) ** 2).sum())


def _predicted(scores_WN: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return what each sample is expected to be from earlier waves alone.

    It is the mean of the problem's earlier samples and one more, the mean of everything earlier (1/2 at first).
    """
    import numpy as np

    earlier_WN = np.vstack([np.zeros_like(scores_WN[:1]), np.cumsum(scores_WN, axis=0)[:-1]])
    num_W = np.arange(len(scores_WN))
    overall_W = np.where(num_W > 0, earlier_WN.mean(axis=1) / np.maximum(num_W, 1), 0.5)
    predicted: NDArray[np.float64] = (earlier_WN + overall_W[:, None]) / (num_W[:, None] + 1)
    return predicted


def _log_wealth(mean: float, total: float, num: int, spread: float, num_problems: int) -> float:
    """Return the log of the wealth won against a mean; convex in it, and at most 0 at the observed one."""
    if (mean <= 0 and total > 0) or (mean >= 1 and total < num):
        return math.inf
    logs = [math.log(MIXTURE_WEIGHT) + _log_mixture(mean, total, num)]
    share = math.log((1 - MIXTURE_WEIGHT) / (2 * len(BETS)))
    for scaled in BETS:
        bet = min(scaled / math.sqrt(num_problems), MAX_BET)
        cost = (-math.log1p(-bet) - bet) * spread
        won = bet * (total - num * mean)
        logs += [share + won - cost, share - won - cost]
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs))


def _log_mixture(mean: float, total: float, num: int) -> float:
    """Return the log of the Beta(1/2, 1/2) mixture of likelihoods over the likelihood at a mean."""
    rest = num - total
    mixture = math.lgamma(total + 0.5) + math.lgamma(rest + 0.5) - math.lgamma(num + 1) - math.log(math.pi)
    right = total * math.log(mean) if total else 0.0
    return mixture - right - (rest * math.log1p(-mean) if rest else 0.0)


def _end(is_inside: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the end of an interval between a point of it and one that may be outside."""
    if is_inside(outside):
        return outside
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return outside

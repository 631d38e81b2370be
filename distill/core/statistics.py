"""Confidence intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

NUM_RESAMPLES = 10_000


def bootstrap_interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean, resampling problems (Efron and Tibshirani, 1993, chapter 13).

    Args:
        values: one number per problem: its share of right answers, or the difference of two such shares.
        seed: seed of the resampling.
    """
    import numpy as np

    if not values:
        raise ValueError("no values to resample")
    rng = np.random.default_rng(seed)
    # R = resamples in a chunk, N = problems
    values_N = np.asarray(values, dtype=np.float64)
    chunk = max(1, 2_000_000 // len(values_N))
    means = []
    for start in range(0, NUM_RESAMPLES, chunk):
        picks_RN = rng.integers(len(values_N), size=(min(chunk, NUM_RESAMPLES - start), len(values_N)))
        means.append(values_N[picks_RN].mean(axis=1))
    resampled = np.concatenate(means)
    return float(np.quantile(resampled, 0.025)), float(np.quantile(resampled, 0.975))


def paired_difference(before: Mapping[str, float], after: Mapping[str, float], seed: int) -> dict[str, Any]:
    """Return how two models differ on the same problems.

    Args:
        before: problem -> share of right answers of the one.
        after: the same of the other.
        seed: seed of the bootstrap.

    Returns:
        The mean gain (`pass_at_1`) with its 95% interval, and the numbers of problems gained and lost.
    """
    gains = [after[name] - before[name] for name in sorted(before)]
    return {
        "pass_at_1": sum(gains) / len(gains),
        "interval_95": bootstrap_interval(gains, seed),
        "num_gained": sum(gain > 0 for gain in gains),
        "num_lost": sum(gain < 0 for gain in gains),
    }

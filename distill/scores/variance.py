"""Where the variance of a score comes from: problems that differ, or samples of one problem that differ.

What enters is one inner sequence a problem with the scores of its samples.

    scores = [[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    split_variance(scores)  ->  0.146 between problems, 0.167 between samples
    what_narrows(scores)
        ->  "4 more samples a problem: about ±36.6 to ±34.5 points, and no number of them below ±32.2; …"
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distill.core.plurals import counted
from distill.scores.intervals import check_scores, mean_interval, means

LITTLE = 0.9
"""More samples help little if the interval stays this wide, as a share of what it is, however many are drawn."""


@dataclass(frozen=True, slots=True)
class VarianceSplit:
    """Variance of the samples' scores in two parts, by analysis of variance (Searle et al., 1992, chapter 3)."""

    between_problems: float | None
    """Variance of the problems' true scores; `None` if no problem has two samples, or there is one problem."""
    between_samples: float | None
    """Mean over problems of the variance of one sample's score; `None` if no problem has two samples."""
    num_problems: int
    samples_per_problem: float
    """Harmonic mean: the number by which averaging divides the variance between samples."""


def split_variance(scores: Sequence[Sequence[float]]) -> VarianceSplit:
    """Return how much the true scores of problems vary, and how much samples of one problem do.

    Both are unbiased before the floor at zero. Problems with a single sample count with the mean variance of the
    others.

    Args:
        scores: each problem's samples, in [0, 1].

    Raises:
        ValueError: as `distill.scores.intervals.mean_interval`.
    """
    check_scores(scores)
    num = len(scores)
    within = [_variance(samples) for samples in scores if len(samples) > 1]
    between_samples = sum(within) / len(within) if within else None
    per_problem = num / sum(1 / len(samples) for samples in scores)
    if num == 1:
        return VarianceSplit(None, between_samples, num, per_problem)
    if between_samples is None:
        return VarianceSplit(None, None, num, per_problem)
    # What sampling adds to the variance of the problems' means, each by its own number of samples.
    added = sum(
        (_variance(samples) if len(samples) > 1 else between_samples) / len(samples) for samples in scores
    ) / num  # fmt: skip
    return VarianceSplit(max(0.0, _variance(means(scores)) - added), between_samples, num, per_problem)


def what_narrows(scores: Sequence[Sequence[float]], more_samples: int | None = None) -> str:
    """Return one sentence on what would narrow the 95% interval of the score, in points of 100.

    Args:
        scores: each problem's samples, in [0, 1].
        more_samples: samples a problem that could be added; by default as many as there are.

    Raises:
        ValueError: as `distill.scores.intervals.mean_interval`, or `more_samples` is below 1.
    """
    split = split_variance(scores)
    more = round(split.samples_per_problem) if more_samples is None else more_samples
    if more < 1:
        raise ValueError(f"more_samples is {more}, which is below 1")
    low, high = mean_interval(scores)
    half = 50 * (high - low)
    # Half the width goes with the inverse root of the number of problems.
    problems = f"twice as many problems: about ±{half:.1f} to ±{half / 2**0.5:.1f} points"
    if split.num_problems == 1:
        return "One problem says nothing of others: only more problems narrow the interval."
    if split.between_problems is None or split.between_samples is None:
        problems = problems.replace("twice", "Twice", 1)
        return f"{problems}; what more samples would do cannot be told from one sample a problem."
    if split.between_samples == 0:
        return f"No two samples of a problem differ, so that more samples help little; {problems}."

    def later(per_problem: float) -> float:
        assert split.between_problems is not None
        assert split.between_samples is not None
        now = split.between_problems + split.between_samples / split.samples_per_problem
        return half * math.sqrt((split.between_problems + split.between_samples / per_problem) / now)

    most = later(float("inf"))
    if most > LITTLE * half:
        return f"More samples a problem help little (at most ±{half:.1f} to ±{most:.1f} points); {problems}."
    words = f"{counted(more, 'more sample')} a problem"
    gained = f"{words}: about ±{half:.1f} to ±{later(split.samples_per_problem + more):.1f} points"
    if most == 0:
        return f"{gained}; problems hardly differ, so that more problems help no more than as many more samples."
    return f"{gained}, and no number of them below ±{most:.1f}; more problems alone help further."


def _variance(values: Sequence[float]) -> float:
    """Return the unbiased variance of at least two values."""
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)

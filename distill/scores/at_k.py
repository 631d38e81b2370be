"""pass@k and cons@k for every k, from one set of n samples a problem.

What enters is one inner sequence a problem with `(canonical answer, correct)` of its samples; an answer that is `None`
does not vote. All right answers are one group, however they are written.

    curves([[("7", True), ("7", True), ("3", False), (None, False)]])
        ->  k = 1: pass 0.5, cons 0.5;  k = 2: pass 0.83, cons 0.67;  k = 4: pass 1.0, cons 1.0
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.scores.intervals import mean_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_EXACT = 64 * 64
"""Largest n times k for which cons@k is computed exactly: 10 ms for a hard problem; above it, by subsampling."""
NUM_SUBSAMPLES = 4_000
"""The standard error of one problem's cons@k by subsampling is at most 0.8 points; of the mean of 30, 0.15."""

Answers = Sequence[Sequence[tuple[str | None, bool]]]
"""A problem -> its samples -> (canonical answer, right)."""


@dataclass(frozen=True, slots=True)
class AtK:
    """Both scores at one k, with the 95% intervals over problems."""

    k: int
    pass_at_k: float
    pass_interval_95: tuple[float, float]
    cons_at_k: float
    cons_interval_95: tuple[float, float]
    is_exact: bool
    """False if cons@k of a problem comes from random subsamples."""


@dataclass(frozen=True, slots=True)
class Votes:
    """One problem's samples as votes."""

    num_right: int
    wrong: tuple[int, ...]
    """Votes of each wrong answer, most first."""
    num_silent: int
    """Samples without an answer."""

    @property
    def num_samples(self) -> int:
        return self.num_right + sum(self.wrong) + self.num_silent


def curves(answers: Answers, seed: int = 0, also: Sequence[int] = ()) -> list[AtK]:
    """Return pass@k and cons@k at k = 1, 2, 4, 8, … and at n, the smallest number of samples of a problem.

    pass@k is the unbiased chance that one of k samples is right: 1 - C(n - c, k) / C(n, k) of each problem with c right
    ones, as a product (Chen et al., 2021, arXiv:2107.03374, equation 1). cons@k is the expected score of the majority
    vote over k samples: of answers with equally many votes each counts by its share, and a problem for which nobody
    votes is wrong. It is exact up to `MAX_EXACT`, else over `NUM_SUBSAMPLES` random subsamples a problem.

    Args:
        answers: each problem's samples.
        seed: seed of the subsampling, where cons@k is not exact.
        also: further k; those above n are left out.

    Raises:
        ValueError: there is no problem, or a problem has no sample.
    """
    num = min(map(len, answers), default=0)
    if not num:
        raise ValueError("no problem, or one without samples")
    everyone = [votes_of(samples) for samples in answers]
    largest = max(map(len, answers))
    points = []
    for k in sorted({*_powers_up_to(num), *(one for one in also if 0 < one <= num)}):
        passed = [_pass_of(votes.num_samples, votes.num_right, k) for votes in everyone]
        agreed = [_cons_of(votes, k, seed) for votes in everyone]
        points.append(
            AtK(
                k=k,
                pass_at_k=sum(passed) / len(passed),
                pass_interval_95=mean_interval([[value] for value in passed]),
                cons_at_k=sum(agreed) / len(agreed),
                cons_interval_95=mean_interval([[value] for value in agreed]),
                is_exact=largest * k <= MAX_EXACT,
            )
        )
    return points


def votes_of(samples: Sequence[tuple[str | None, bool]]) -> Votes:
    """Return the votes of one problem's samples; every right one votes for the same answer."""
    wrong = Counter(answer for answer, is_right in samples if not is_right and answer is not None)
    num_right = sum(is_right for _, is_right in samples)
    silent = len(samples) - num_right - wrong.total()
    return Votes(num_right, tuple(sorted(wrong.values(), reverse=True)), silent)


def _powers_up_to(num: int) -> list[int]:
    return [*(2**power for power in range((num - 1).bit_length())), num]


def _pass_of(num: int, num_right: int, k: int) -> float:
    if num - num_right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / drawn for drawn in range(num - num_right + 1, num + 1))


def _cons_of(votes: Votes, k: int, seed: int) -> float:
    if not votes.num_right:
        return 0.0
    if not votes.wrong:  # one right vote is enough
        return _pass_of(votes.num_samples, votes.num_right, k)
    if votes.num_samples * k <= MAX_EXACT:
        return _exact(votes, k)
    return _subsampled(votes, k, seed)


@functools.lru_cache(maxsize=4_096)
def _exact(votes: Votes, k: int) -> float:
    """Return the chance that the right answer wins, ties by their share.

    Subsets in which it has t votes, and r other answers have as many while none has more, are counted by a polynomial:
    a row is the number of samples drawn, a column is r.
    """
    import numpy as np

    singles = votes.wrong.count(1)
    total = 0.0
    for top in range(1, min(votes.num_right, k) + 1):
        rest, most_ties = k - top, (k - top) // top
        counted = np.zeros((rest + 1, most_ties + 1))
        counted[0, 0] = 1.0
        for size in votes.wrong[: len(votes.wrong) - singles]:
            counted = _with_answer(counted, size, top)
        counted = _with_singles(counted, singles, top)
        # Silent samples fill up what is left.
        silent = np.array([float(math.comb(votes.num_silent, rest - drawn)) for drawn in range(rest + 1)])
        shares = 1 / (1 + np.arange(most_ties + 1))
        total += math.comb(votes.num_right, top) * float(silent @ counted @ shares)
    return min(1.0, total / math.comb(votes.num_samples, k))


def _with_answer(counted: "NDArray[np.float64]", size: int, top: int) -> "NDArray[np.float64]":
    """Return the counts with one more wrong answer of so many samples, of which at most `top` are drawn."""
    import numpy as np

    num_rows = len(counted)
    grown = np.zeros_like(counted)
    for drawn in range(min(size, top, num_rows - 1) + 1):
        ways = math.comb(size, drawn)
        if drawn < top:
            grown[drawn:] += ways * counted[: num_rows - drawn]
        else:
            grown[drawn:, 1:] += ways * counted[: num_rows - drawn, :-1]
    return grown


def _with_singles(counted: "NDArray[np.float64]", num: int, top: int) -> "NDArray[np.float64]":
    """Return the counts with all wrong answers that occur once, at a time: any `drawn` of them."""
    import numpy as np

    num_rows, num_columns = counted.shape
    grown = np.zeros_like(counted)
    for drawn in range(min(num, num_rows - 1) + 1):
        ties = drawn if top == 1 else 0
        if ties < num_columns:
            grown[drawn:, ties:] += math.comb(num, drawn) * counted[: num_rows - drawn, : num_columns - ties]
    return grown


@functools.lru_cache(maxsize=4_096)
def _subsampled(votes: Votes, k: int, seed: int) -> float:
    import numpy as np

    rng = np.random.default_rng(seed)
    # S = subsamples, A = answers: the right one, the wrong ones, none
    sizes_A = [votes.num_right, *votes.wrong, votes.num_silent]
    drawn_SA = rng.multivariate_hypergeometric(sizes_A, k, size=NUM_SUBSAMPLES, method="marginals")
    right_S = drawn_SA[:, 0]
    most_S = drawn_SA[:, :-1].max(axis=1)
    num_tied_S = (drawn_SA[:, :-1] == most_S[:, None]).sum(axis=1)
    return float(np.where((right_S == most_S) & (right_S > 0), 1 / num_tied_S, 0.0).mean())

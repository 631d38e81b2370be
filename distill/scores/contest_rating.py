"""A model's rating on Codeforces, from its samples of the problems of rated rounds.

    contests = [Contest("1350", rated_round, [Attempted(500, [True, False, …]), Attempted(1000, [False, …]), …])]
    contest_rating(contests)
        ->  rank 1612 (95% interval 1488 to 1733), zero delta 1534, ahead of 71% of the contestants, in 10 contests

The samples of a problem, in any order, are the model's tries at it: it stops at the first right one. A round with
points counts the problem's points less 50 for each wrong try before, as CodeElo does (arXiv:2501.01257); one without
counts solved problems, and 10 minutes of penalty for each wrong try. No time is counted, so that a model is better off
than contestants, whose points fall by the minute. A rating is the mean of those of single contests; for
the two definitions see `distill.scores.rated_round`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.scores.rated_round import RatedRound

if TYPE_CHECKING:
    from distill.scores.rated_round import Floats

WRONG_TRY_POINTS = 50
WRONG_TRY_MINUTES = 10
NUM_DRAWS = 2_000
"""Monte Carlo error of a rating, by its standard deviation of up to 150 in one draw: 3 points."""
Z_95 = 1.96

Bounds = tuple[float, float]

# D = draws, S = samples, C = contests, 5 = figures of a contest


@dataclass(frozen=True, slots=True)
class Attempted:
    """A problem of a contest with the model's samples."""

    points: float | None
    """What solving it is worth; `None`: the round counts solved problems and minutes of penalty."""
    is_right: Sequence[bool]
    """One value a sample."""


@dataclass(frozen=True, slots=True)
class Contest:
    """A rated round and what a model did with its problems; those that are not here count as not solved."""

    name: str
    rated: RatedRound
    problems: Sequence[Attempted]


@dataclass(frozen=True, slots=True)
class ContestRating:
    """A model's rating by both definitions, with 95% intervals."""

    rank_rating: float
    """The rating whose expected place is the model's place (CodeElo, rLLM)."""
    rank_interval_95: Bounds | None
    """`None`: there is a single contest, or all have the same rating, which says nothing of others."""
    zero_delta: float
    """The rating that Codeforces would leave as it is."""
    zero_delta_interval_95: Bounds | None
    ahead_of: float
    """Share of the contestants that the model is ahead of, from 0 to 1."""
    num_contests: int
    first_share: float
    """Share of contests (and draws) in which the model is first: such a rating is a lower bound."""
    last_share: float
    """Share in which it is last, all without a point included: such a rating is an upper bound."""


def contest_rating(contests: Sequence[Contest], seed: int = 0, num_draws: int = NUM_DRAWS) -> ContestRating:
    """Return the rating over contests, each with the mean over orders of its samples, and its interval.

    The interval is that of a bootstrap over contests, which differ by their samples too. A bootstrap of few values is
    too narrow; it is widened to Student's quantile and the unbiased variance.

    Args:
        contests: with at least one problem each, and at least one sample of each problem.
        seed: seed of the draws.
        num_draws: orders of the samples, and resamples of the contests.

    Raises:
        ValueError: there is no contest, a contest has no problem, or a problem has no sample.
    """
    import numpy as np

    if not contests:
        raise ValueError("no contest")
    rng = np.random.default_rng(seed)
    found_C5 = np.array([_means(one, rng, num_draws) for one in contests])
    # Each resample draws as many contests as there are.
    picked_DC = rng.integers(len(contests), size=(num_draws, len(contests)))
    whole_5 = found_C5.mean(axis=0)
    return ContestRating(
        rank_rating=float(whole_5[0]),
        rank_interval_95=_interval(found_C5[:, 0], picked_DC),
        zero_delta=float(whole_5[1]),
        zero_delta_interval_95=_interval(found_C5[:, 1], picked_DC),
        ahead_of=float(whole_5[2]),
        num_contests=len(contests),
        first_share=float(whole_5[3]),
        last_share=float(whole_5[4]),
    )


def _interval(ratings_C: "Floats", picked_DC: Any) -> Bounds | None:
    import numpy as np

    num = len(ratings_C)
    if num < 2 or np.ptp(ratings_C) == 0:
        return None
    # Student's quantile over the normal one: two terms in 1/df (Cornish and Fisher, 1938).
    z, df = Z_95, num - 1
    wider = 1 + (z**2 + 1) / (4 * df) + (5 * z**4 + 16 * z**2 + 3) / (96 * df**2)
    wider *= (num / df) ** 0.5
    ends = np.quantile(ratings_C[picked_DC].mean(axis=1), [0.025, 0.975]) - ratings_C.mean()
    low, high = (ratings_C.mean() + wider * ends).tolist()
    return low, high


def _means(contest: Contest, rng: Any, num_draws: int) -> "list[float]":
    """Return the means over draws of both ratings, of the share of contestants behind, of first and of last places."""
    import numpy as np

    if not contest.problems:
        raise ValueError(f"contest {contest.name} has no problem")
    points_D, penalties_D = np.zeros(num_draws), np.zeros(num_draws)
    for problem in contest.problems:
        if not len(problem.is_right):
            raise ValueError(f"contest {contest.name} has a problem without samples")
        wrong_D = _wrong_tries(np.array(problem.is_right, dtype=bool), rng, num_draws)
        is_solved_D = wrong_D < len(problem.is_right)
        if problem.points is None:
            points_D += is_solved_D
            penalties_D += is_solved_D * wrong_D * WRONG_TRY_MINUTES
        else:
            points_D += is_solved_D * np.maximum(problem.points - WRONG_TRY_POINTS * wrong_D, 0)
    # Few results differ, and each costs two searches.
    results, counts = np.unique(np.stack([points_D, penalties_D], axis=1), axis=0, return_counts=True)
    places = contest.rated.places(results[:, 0].tolist(), results[:, 1].tolist())
    num = contest.rated.num_contestants
    found = (
        contest.rated.rank_ratings(places),
        contest.rated.zero_delta_ratings(places),
        (num + 1 - places) / num,
        places == 1,
        places == num + 1,
    )
    return [float(values @ counts) / num_draws for values in found]


def _wrong_tries(is_right_S: Any, rng: Any, num_draws: int) -> Any:
    """Return the number of wrong samples before the first right one in each draw; all of them if none is right."""
    import numpy as np

    num = len(is_right_S)
    tried_DS = is_right_S[np.argsort(rng.random((num_draws, num)), axis=1)]
    return np.where(tried_DS.any(axis=1), tried_DS.argmax(axis=1), num)

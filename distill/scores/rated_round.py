"""What rating a place in a rated round of Codeforces stands for, by two definitions.

    rated = RatedRound(ratings=[1500, 1720, …], points=[2500, 1000, …], penalties=[0, 0, …])
    places = rated.places([1950.0], [0.0])    # of one more contestant: 1 + those who are not worse
    rated.rank_ratings(places)                ->  [2066.4]  the rating whose expected place this is
    rated.zero_delta_ratings(places)          ->  [1989]    the rating that this place leaves as it is

The first definition is CodeElo's (arXiv:2501.01257) and rLLM's, the second follows from Codeforces' own formulas
(https://codeforces.com/blog/entry/20762, https://codeforces.com/contest/1/submission/13861109), which take points from
everybody after each round. A delta near zero is about a quarter of the distance to the first rating, less that amount,
so that the second lies about four times the amount below the first.

CodeElo's script looks for the rating between 0 and the best contestant's plus 100, and compares places counted from 0
with expected places counted from 1. Here places are counted from 1 and the rating is not limited. The first place
itself has no finite rating, nor has the last: they are taken for half a contestant behind the top, or before the end.
"""

import bisect
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.int64]

LOWEST, HIGHEST = -4_000, 8_000
"""Ratings that are told apart. Half a contestant ahead of the last of 100,000 is about -1,200."""
OWN_LOWEST, OWN_HIGHEST = 1, 8_000
"""Between these Codeforces looks for the rating that a contestant should have."""
HALF = 0.5

# N = contestants, M = places asked for, G = ratings from LOWEST to HIGHEST


class RatedRound:
    """The contestants of one rated round: their ratings before it, and how they did."""

    def __init__(self, ratings: Sequence[int], points: Sequence[float], penalties: Sequence[float]) -> None:
        """Take the contestants in any order.

        Args:
            ratings: before the round.
            points: of each contestant.
            penalties: of each contestant; of equal points the lower penalty is better.

        Raises:
            ValueError: there is no contestant, the lists differ in length, or a value is no usable number.
        """
        import numpy as np

        if not len(ratings) or not len(ratings) == len(points) == len(penalties):
            raise ValueError(f"{len(ratings)} ratings, {len(points)} points and {len(penalties)} penalties")
        self._ratings_N: Ints = np.array(ratings, dtype=np.int64)
        if self._ratings_N.min() < LOWEST or self._ratings_N.max() > HIGHEST:
            raise ValueError(f"a rating is not between {LOWEST} and {HIGHEST}")
        self._points_N: Floats = np.array(points, dtype=np.float64)
        self._penalties_N: Floats = np.array(penalties, dtype=np.float64)
        if not (np.isfinite(self._points_N).all() and np.isfinite(self._penalties_N).all()):
            raise ValueError("points or a penalty is not a finite number")
        results = list(zip((-self._points_N).tolist(), self._penalties_N.tolist(), strict=True))
        self._in_order = sorted(results)
        # All who are equal have the last of their places.
        self._places_N: Ints = np.array([bisect.bisect_right(self._in_order, one) for one in results], dtype=np.int64)
        self._expected_G = _expected_places(self._ratings_N)

    @property
    def num_contestants(self) -> int:
        return len(self._ratings_N)

    def places(self, points: Sequence[float], penalties: Sequence[float]) -> "Ints":
        """Return the place, counted from 1, of one more contestant for each result: behind all who are not worse."""
        import numpy as np

        results = zip((-np.asarray(points, dtype=np.float64)).tolist(), penalties, strict=True)
        return 1 + np.array([bisect.bisect_right(self._in_order, one) for one in results], dtype=np.int64)

    def expected_places(self, ratings: Sequence[float]) -> "Floats":
        """Return the expected place of one more contestant with each of these ratings."""
        import numpy as np

        return np.array([1 + _chance_ahead(rating - self._ratings_N).sum() for rating in ratings])

    def rank_ratings(self, places: "Sequence[float] | Ints") -> "Floats":
        """Return the rating whose expected place each place is: the definition of CodeElo and rLLM.

        Args:
            places: of one more contestant, from 1 to N + 1.
        """
        import numpy as np

        limited_M = np.clip(np.asarray(places, dtype=np.float64), 1 + HALF, self.num_contestants + HALF)
        # Expected places fall with the rating, and `interp` wants them to rise.
        return np.interp(-limited_M, -self._expected_G, np.arange(LOWEST, HIGHEST + 1, dtype=np.float64))

    def zero_delta_ratings(self, places: "Sequence[float] | Ints") -> "Ints":
        """Return the rating that Codeforces would neither raise nor lower for each place (the lowest, if several).

        The amount taken from everybody is that of the round without the additional contestant. With him it may be one
        point more, for which the rating would be up to 4 points lower.

        Args:
            places: of one more contestant, from 1 to N + 1.
        """
        import numpy as np

        limited_M = np.maximum(np.asarray(places, dtype=np.float64), 1 + HALF)
        return self._zero_delta(limited_M, None)

    def deltas(self) -> "Ints":
        """Return what the round changes the rating of each of its own contestants by."""
        return self._raw_deltas(self._places_N, self._ratings_N, self._ratings_N) + self.taken

    def performances(self) -> "Ints":
        """Return the rating at which the delta of each of its own contestants were zero; of the winner's, any higher
        one is as good."""
        return self._zero_delta(self._places_N, self._ratings_N)

    @cached_property
    def taken(self) -> int:
        """What is added to each contestant's delta so that ratings do not rise over the years; below zero."""
        import numpy as np

        raw_N = self._raw_deltas(self._places_N, self._ratings_N, self._ratings_N)
        num = self.num_contestants
        of_all = int(-raw_N.sum() / num) - 1
        num_top = min(4 * round(num**0.5), num)
        in_order_N = np.lexsort((self._penalties_N, -self._points_N))
        top = in_order_N[np.argsort(-self._ratings_N[in_order_N], kind="stable")[:num_top]]
        of_top = int(-(raw_N[top] + of_all).sum() / num_top)
        return of_all + min(max(of_top, -10), 0)

    def _expected(self, ratings_M: "Ints", own_M: "Ints | None") -> "Floats":
        """Return the expected place with each rating, among all but the contestant whose real rating is `own_M`."""
        found_M: Floats = self._expected_G[ratings_M - LOWEST]
        return found_M if own_M is None else found_M - _chance_ahead(ratings_M - own_M)

    def _raw_deltas(self, places_M: Any, ratings_M: "Ints", own_M: "Ints | None") -> "Ints":
        """Return half the way to the rating of the geometric mean of place and expected place."""
        import numpy as np

        middle_M = np.sqrt(places_M * self._expected(ratings_M, own_M))

        def is_better(rated_M: "Ints") -> Any:
            return self._expected(rated_M, own_M) < middle_M

        wanted_M = _first_where(is_better, OWN_LOWEST, OWN_HIGHEST, len(middle_M)) - 1
        return np.trunc((wanted_M - ratings_M) / 2).astype(np.int64)

    def _zero_delta(self, places_M: Any, own_M: "Ints | None") -> "Ints":
        def does_not_gain(rated_M: "Ints") -> Any:
            return self._raw_deltas(places_M, rated_M, own_M) + self.taken <= 0

        return _first_where(does_not_gain, LOWEST, HIGHEST, len(places_M))


def _chance_ahead(difference: Any) -> Any:
    """Return the chance that a contestant is behind another whose rating is lower by `difference`."""
    return 1 / (1 + 10 ** (difference / 400))


def _expected_places(ratings_N: "Ints") -> "Floats":
    """Return the expected place of one more contestant with each rating, by convolution of the ratings' histogram."""
    import numpy as np

    counts_G = np.bincount(ratings_N - LOWEST, minlength=HIGHEST - LOWEST + 1)
    width = len(counts_G)
    chances = _chance_ahead(np.arange(1 - width, width))
    size = 1 << (3 * width).bit_length()
    product = np.fft.irfft(np.fft.rfft(counts_G, size) * np.fft.rfft(chances, size), size)
    return 1 + product[width - 1 : 2 * width - 1]


def _first_where(holds: Any, low: int, high: int, num: int) -> "Ints":
    """Return for each of `num` the first rating above `low` at which a condition holds, or `high`, by bisection."""
    import numpy as np

    low_M, high_M = np.full(num, low), np.full(num, high)
    for _ in range((high - low - 1).bit_length()):
        # Rounded up, so that `low` itself is never asked, also where others take more steps.
        middle_M = (low_M + high_M + 1) // 2
        is_so_M = holds(middle_M)
        high_M, low_M = np.where(is_so_M, middle_M, high_M), np.where(is_so_M, low_M, middle_M)
    return high_M

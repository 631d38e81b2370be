"""A model's rating from its samples: points and penalties of its tries, orders of samples, intervals, invariances."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores.contest_rating import Attempted, Contest, contest_rating
from distill.scores.rated_round import RatedRound

RATINGS = list(range(800, 2_800, 20))


def with_points():
    """A round of 100: the better the rating, the more points, from 0 to 3,500 less a little."""
    return RatedRound(RATINGS, [35 * place for place in range(len(RATINGS))], [0] * len(RATINGS))


def by_problems():
    """A round of 100 that counts problems and minutes."""
    return RatedRound(RATINGS, [place // 20 for place in range(len(RATINGS))],
                      [200 - 10 * (place % 20) for place in range(len(RATINGS))])  # fmt: skip


ROUND = with_points()


def rating(*problems, rated=None, **options):
    return contest_rating([Contest("1", rated or with_points(), [Attempted(*one) for one in problems])], **options)


def place_rating(points, penalty=0, rated=None):
    rated = rated or with_points()
    return float(rated.rank_ratings(rated.places([points], [penalty]))[0])


@pytest.mark.parametrize(
    ("problems", "points"),
    [
        ([(500, [True])], 500),
        ([(500, [True] * 4), (1_500, [False] * 4)], 500),
        ([(500, [True]), (1_500, [True])], 2_000),
        ([(500, [False])], 0),
    ],
)
def test_a_solved_problem_counts_its_points(problems, points):
    found = rating(*problems)
    assert found.rank_rating == pytest.approx(place_rating(points))
    assert found.ahead_of == pytest.approx(1 - (with_points().places([points], [0])[0] - 1) / 100)


def test_each_wrong_try_before_costs_fifty_points():
    found = rating((1_000, [False, False, True]), num_draws=20_000)
    orders = [place_rating(points) for points in (1_000, 950, 900)]  # the right sample is first, second or third
    assert found.rank_rating == pytest.approx(np.mean(orders), abs=0.02 * (orders[0] - orders[2]) + 0.5)


def test_wrong_tries_cost_no_more_than_the_problem_is_worth():
    found = rating((100, [False] * 7 + [True]), rated=by_problems(), num_draws=200)
    assert place_rating(0, 0, by_problems()) <= found.rank_rating <= place_rating(100, 0, by_problems())


def test_where_problems_are_counted_a_wrong_try_costs_ten_minutes():
    rated = by_problems()
    found = rating((None, [True]), (None, [False, True]), rated=rated, num_draws=20_000)
    orders = [place_rating(2, 0, rated), place_rating(2, 10, rated)]
    assert found.rank_rating == pytest.approx(np.mean(orders), abs=0.5)
    assert rating((None, [False]), rated=rated).rank_rating == pytest.approx(place_rating(0, 0, rated))


def test_the_mean_over_orders_is_that_of_all_orders():
    samples = [(500, [True, False]), (1_000, [False, True])]
    found = rating(*samples, num_draws=20_000)
    points = [500 - 50 * one + 1_000 - 50 * other for one, other in itertools.product((0, 1), repeat=2)]
    assert found.rank_rating == pytest.approx(np.mean([place_rating(one) for one in points]), abs=0.5)


def test_a_rating_is_the_mean_of_its_contests():
    problems = ([Attempted(500, [True])], [Attempted(3_000, [True])])
    contests = [Contest(str(number), with_points(), one) for number, one in enumerate(problems)]
    found = contest_rating(contests)
    assert found.rank_rating == pytest.approx((place_rating(500) + place_rating(3_000)) / 2)
    assert found.num_contests == 2
    low, high = found.rank_interval_95
    assert low < place_rating(500) < place_rating(3_000) < high  # two contests say little of others


def test_the_interval_of_ten_contests_covers_the_rating_over_all():
    rng, places = np.random.default_rng(0), {points: place_rating(points) for points in (500, 1_500, 2_500)}
    truth, hits = np.mean(list(places.values())), 0
    for _ in range(100):
        drawn = [Contest(str(n), ROUND, [Attempted(p, [True])]) for n, p in enumerate(rng.choice(list(places), 10))]
        low, high = contest_rating(drawn, num_draws=400).rank_interval_95
        hits += low <= truth <= high
    assert 90 <= hits <= 99


def test_one_contest_or_several_alike_say_nothing_of_others():
    alike = contest_rating([Contest(str(n), ROUND, [Attempted(500, [True])]) for n in range(3)])
    for found in (rating((500, [True, False])), alike):
        assert found.rank_interval_95 is None
        assert found.zero_delta_interval_95 is None


def test_first_and_last_places_are_told_as_bounds():
    assert (rating((9_000, [True])).first_share, rating((9_000, [True])).last_share) == (1.0, 0.0)
    assert (rating((500, [True])).first_share, rating((500, [True])).last_share) == (0.0, 0.0)
    assert rating((500, [False])).last_share == 1.0  # equal to the one without a point, and behind him
    nobody_is_worse = RatedRound(RATINGS, [1_000] * 100, [0] * 100)
    assert rating((500, [True]), rated=nobody_is_worse).last_share == 1.0


SAMPLES = st.lists(st.booleans(), min_size=1, max_size=5)
PROBLEMS = st.lists(st.tuples(st.sampled_from([500, 1_000, 2_000]), SAMPLES), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(PROBLEMS, st.integers(0, 3))
def test_a_right_sample_in_place_of_a_wrong_one_never_lowers_a_rating(problems, number):
    number %= len(problems)
    points, samples = problems[number]
    better = [*problems[:number], (points, [*sorted(samples, reverse=True)[:-1], True]), *problems[number + 1 :]]
    before, after = (
        rating(*((p, sorted(s, reverse=True)) for p, s in one), num_draws=50) for one in (problems, better)
    )
    assert after.rank_rating >= before.rank_rating - 1e-9
    assert after.zero_delta >= before.zero_delta - 1e-9


@settings(deadline=None, max_examples=20)
@given(PROBLEMS, st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_rating_and_the_interval_has_a_width(problems, seed):
    contests = [Contest(str(number), ROUND, [Attempted(*one) for one in problems]) for number in range(3)]
    contests.append(Contest("other", ROUND, [Attempted(3_400, [True])]))
    one, other = (contest_rating(contests, seed, num_draws=50) for _ in range(2))
    assert one == other
    low, high = one.rank_interval_95
    assert low < high
    assert 0 <= one.ahead_of <= 1


@pytest.mark.parametrize("contests", [[], [Contest("1", with_points(), [])],
                                      [Contest("1", with_points(), [Attempted(500, [])])]])  # fmt: skip
def test_what_says_nothing_is_refused(contests):
    with pytest.raises(ValueError, match=r"no contest|no problem|without samples"):
        contest_rating(contests)

"""Ratings of places: both definitions against Codeforces' own deltas and performances, and what must hold for any."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores.rated_round import RatedRound

ROUNDS = Path(__file__).parents[2].parent / "shared" / "data" / "codeforces_rounds.json.gz"
needs_rounds = pytest.mark.skipif(not ROUNDS.is_file(), reason="the rounds with official deltas are not here")
RESULT = st.tuples(st.integers(0, 3_500), st.integers(0, 4).map(lambda n: 500 * n), st.integers(0, 2))
FIELDS = st.lists(RESULT, min_size=2, max_size=40)


def round_of(results):
    return RatedRound(*zip(*results, strict=True))


def chance_ahead(one, other):
    return 1 / (1 + 10 ** ((other - one) / 400))


@pytest.fixture(scope="module")
def real_rounds():
    rounds = {}
    for contest in json.loads(gzip.decompress(ROUNDS.read_bytes())):
        rows = contest["rows"]
        rated = RatedRound(*([row[key] for row in rows] for key in ("old_rating", "points", "penalty")))
        rounds[contest["contest"]] = rated, rows
    return rounds


# --- Codeforces' own numbers


@needs_rounds
def test_all_official_deltas_come_out(real_rounds):
    num = 0
    for rated, rows in real_rounds.values():
        assert rated.deltas().tolist() == [row["delta"] for row in rows]
        num += len(rows)
    assert num == 36_324


@needs_rounds
@pytest.mark.parametrize(("contest", "num_differing", "most"), [("1305", 80, 4), ("1342", 0, 0), ("1352", 0, 0)])
def test_performances_are_the_official_ones_but_for_a_few_points(real_rounds, contest, num_differing, most):
    rated, rows = real_rounds[contest]
    given_, found = [row["performance"] for row in rows], rated.performances()
    apart = [ours - theirs for ours, theirs in zip(found.tolist(), given_, strict=True) if theirs != "Infinity"]
    assert len(apart) == len(rows) - 1  # the winner's is infinite
    assert min(apart) == 0
    assert max(apart) == most
    assert np.count_nonzero(apart) == num_differing
    assert found[given_.index("Infinity")] > max(found[1:])


@needs_rounds
@pytest.mark.parametrize(("contest", "taken", "least", "most"), [("1305", -18, 71, 76), ("1342", -17, 67, 72),
                                                                 ("1352", -29, 109, 121)])  # fmt: skip
def test_the_definitions_differ_by_four_times_what_is_taken_from_everybody(real_rounds, contest, taken, least, most):
    rated, _ = real_rounds[contest]
    places = np.arange(1, rated.num_contestants + 2)
    by_rank, zero_delta = rated.rank_ratings(places), rated.zero_delta_ratings(places)
    usual = (by_rank > 1_200) & (by_rank < 2_500)
    apart = (by_rank - zero_delta)[usual]
    assert rated.taken == taken
    assert least <= apart.min() <= apart.max() <= most
    assert np.median(apart) == pytest.approx(4 * abs(taken), abs=4)


def one_by_one(ratings, places):
    """Codeforces' published program, contestant by contestant."""

    def seed(rating, index):
        return 1 + sum(chance_ahead(other, rating) for place, other in enumerate(ratings) if place != index)

    deltas = []
    for index, (rating, place) in enumerate(zip(ratings, places, strict=True)):
        middle = math.sqrt(place * seed(rating, index))
        low, high = 1, 8_000
        while high - low > 1:
            tried = (low + high) // 2
            low, high = (low, tried) if seed(tried, index) < middle else (tried, high)
        deltas.append(math.trunc((low - rating) / 2))
    num = len(ratings)
    change = math.trunc(-sum(deltas) / num) - 1
    deltas = [delta + change for delta in deltas]
    num_top = min(4 * round(math.sqrt(num)), num)
    best = sorted(range(num), key=lambda index: -ratings[index])[:num_top]
    change = min(max(math.trunc(-sum(deltas[index] for index in best) / num_top), -10), 0)
    return [delta + change for delta in deltas]


@settings(deadline=None, max_examples=20)
@given(st.lists(RESULT, min_size=2, max_size=12))
def test_deltas_are_those_of_the_published_program(results):
    results = sorted(results, key=lambda one: (-one[1], one[2]))
    places = [sum((-other[1], other[2]) <= (-one[1], one[2]) for other in results) for one in results]
    assert round_of(results).deltas().tolist() == one_by_one([one[0] for one in results], places)


# --- what must hold for any round


def test_a_place_is_counted_from_one_and_behind_all_who_are_not_worse():
    rated = RatedRound([1500, 1600, 1700, 1800], [3000, 1000, 1000, 0], [0, 10, 20, 0])
    assert rated.places([3500, 3000, 1000, 1000, 1000, 0], [0, 0, 5, 10, 15, 0]).tolist() == [1, 2, 2, 3, 3, 5]


@given(FIELDS)
def test_the_rating_of_a_place_is_the_one_that_expects_it(results):
    rated = round_of(results)
    places = np.arange(2, rated.num_contestants + 1)
    found = rated.rank_ratings(places)
    assert rated.expected_places(found) == pytest.approx(places, abs=1e-4)
    ratings = np.array([one[0] for one in results])
    direct = [1 + chance_ahead(ratings, rating).sum() for rating in found]
    assert rated.expected_places(found) == pytest.approx(direct, abs=1e-9)


@given(FIELDS)
def test_a_better_place_is_never_a_lower_rating(results):
    rated = round_of(results)
    places = np.arange(1, rated.num_contestants + 2)
    assert (np.diff(rated.rank_ratings(places)) < 0).all()
    assert (np.diff(rated.zero_delta_ratings(places)) <= 0).all()


@given(FIELDS, st.randoms())
def test_the_order_of_the_contestants_does_not_matter(results, random):
    shuffled = random.sample(results, len(results))
    places = np.arange(1, len(results) + 2)
    one, other = round_of(results), round_of(shuffled)
    assert one.rank_ratings(places) == pytest.approx(other.rank_ratings(places), abs=1e-6)
    assert one.rank_ratings(places).shape == places.shape


@given(FIELDS, st.integers(1, 300))
def test_a_stronger_field_raises_the_rating_by_as_much(results, more):
    raised = [(rating + more, points, penalty) for rating, points, penalty in results]
    places = np.arange(1, len(results) + 2)
    gained = round_of(raised).rank_ratings(places) - round_of(results).rank_ratings(places)
    assert gained == pytest.approx(np.full(len(places), more), abs=1e-4)


@given(FIELDS)
def test_a_field_twice_as_large_puts_twice_as_many_ahead(results):
    places = np.arange(2, len(results) + 1)
    twice = round_of(results * 2).rank_ratings(1 + 2 * (places - 1))
    assert twice == pytest.approx(round_of(results).rank_ratings(places), abs=1e-4)


@given(FIELDS)
def test_the_delta_at_the_zero_delta_rating_is_zero_and_one_point_below_it_is_a_gain(results):
    rated = round_of(results)
    places = np.arange(2, rated.num_contestants + 1)
    found = rated.zero_delta_ratings(places)
    at, below = (rated._raw_deltas(places, ratings, None) + rated.taken for ratings in (found, found - 1))
    assert (at <= 0).all()
    assert (below > 0).all()


def test_first_and_last_have_finite_ratings_that_depend_on_the_field():
    field = [1200, 1400, 1600, 1800, 2000]
    rated = RatedRound(field, [5, 4, 3, 2, 0], [0] * 5)
    first, second, last = rated.rank_ratings([1, 2, 6])
    assert rated.expected_places([first, last]) == pytest.approx([1.5, 5.5], abs=1e-4)
    assert second < first < 2_600
    assert last < 1_200
    stronger = RatedRound([rating + 1_500 for rating in field], [5, 4, 3, 2, 0], [0] * 5)
    assert stronger.rank_ratings([1])[0] == pytest.approx(first + 1_500, abs=1e-4)
    assert stronger.rank_ratings([1])[0] > max(field) + 1_600


NO_ROUNDS = [
    ([], [], []),
    ([1500], [1, 2], [0]),
    ([1500], [1], []),
    ([9_000], [1], [0]),
    ([-5_000], [1], [0]),
    ([1500], [math.nan], [0]),
    ([1500], [1], [math.inf]),
]


@pytest.mark.parametrize("lists", NO_ROUNDS)
def test_what_is_no_round_is_refused(lists):
    with pytest.raises(ValueError, match=r"ratings|between|finite"):
        RatedRound(*lists)

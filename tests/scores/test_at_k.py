"""pass@k and cons@k against every subset, and what they are at the ends."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores import at_k
from distill.scores.at_k import curves, votes_of

SAMPLE = st.one_of(
    st.just(("7", True)),
    st.just(("7.0", True)),
    st.tuples(st.sampled_from(["1", "2", "3", None]), st.just(False)),
)


def at(samples, k):
    """Return both scores of one problem at one k."""
    return next((point.pass_at_k, point.cons_at_k) for point in curves([samples], also=[k]) if point.k == k)


def vote(samples):
    """Return the score of one majority vote, ties by their share."""
    names = ["right" if is_right else answer for answer, is_right in samples]
    names = [name for name in names if name is not None]
    if not names:
        return 0.0
    most = max(names.count(name) for name in names)
    tied = {name for name in names if names.count(name) == most}
    return ("right" in tied) / len(tied)


@settings(max_examples=150, deadline=None)
@given(st.lists(SAMPLE, min_size=1, max_size=9), st.data())
def test_both_are_the_mean_over_all_subsets(samples, data):
    k = data.draw(st.integers(1, len(samples)))
    subsets = [list(subset) for subset in itertools.combinations(samples, k)]
    passed = sum(any(is_right for _, is_right in subset) for subset in subsets) / len(subsets)
    assert at(samples, k) == pytest.approx((passed, sum(map(vote, subsets)) / len(subsets)))


@settings(max_examples=20, deadline=None)
@given(st.lists(SAMPLE, min_size=12, max_size=64), st.sampled_from([1, 3, 8]))
def test_subsampling_agrees_with_the_exact_result(samples, k):
    votes = votes_of(samples)
    if votes.num_right and votes.wrong:
        # Six standard errors of 4,000 draws at most 0.5 each
        assert at_k._subsampled(votes, k, 0) == pytest.approx(at_k._exact(votes, k), abs=0.05)


def test_large_n_is_subsampled_and_says_so():
    answers = [[("7", True)] * 150 + [("3", False)] * 100 + [(None, False)] * 6]
    points = curves(answers)
    assert [point.k for point in points] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert [point.is_exact for point in points] == [True] * 5 + [False] * 4
    assert points[-1].cons_at_k == 1.0
    assert points[5].cons_at_k == pytest.approx(0.89, abs=0.05)
    assert curves(answers) == points


def test_the_ends_of_the_curves():
    answers = [
        [("7", True), ("8", False), ("8", False), (None, False), ("7", True), ("7.0", True)],
        [("1", False), ("2", False), ("2", False), ("4", True), (None, False)],
    ]
    points = curves(answers)
    assert [point.k for point in points] == [1, 2, 4, 5]
    assert points[0].pass_at_k == pytest.approx((3 / 6 + 1 / 5) / 2)
    assert points[0].cons_at_k == pytest.approx((3 / 6 + 1 / 5) / 2)
    assert points[-1].pass_at_k == 1.0
    for point in points:
        for value, (low, high) in (
            (point.pass_at_k, point.pass_interval_95),
            (point.cons_at_k, point.cons_interval_95),
        ):
            assert 0 <= low <= value <= high <= 1
            assert high - low > 0.1


def test_pass_at_k_stays_exact_where_binomials_overflow():
    assert at([("7", True)] + [(None, False)] * 9_999, 5_000)[0] == pytest.approx(0.5)
    chance = 1 - math.comb(2_000 - 3, 700) / math.comb(2_000, 700)
    assert at([("7", True)] * 3 + [(None, False)] * 1_997, 700)[0] == pytest.approx(chance)


def test_a_problem_where_nobody_votes_is_wrong():
    assert at([(None, False)] * 4, 4)[1] == 0.0
    assert at([(None, False)] * 3 + [("7", True)], 4)[1] == 1.0
    assert at([(None, False)] * 3 + [("7", True)], 2)[1] == pytest.approx(0.5)


def test_k_is_at_most_the_smallest_number_of_samples():
    answers = [[("7", True)] * 4, [("7", True)] * 64]
    assert [point.k for point in curves(answers, also=[0, 3, 5])] == [1, 2, 3, 4]


@pytest.mark.parametrize("answers", [[], [[]], [[("7", True)], []]])
def test_without_samples_there_are_no_curves(answers):
    with pytest.raises(ValueError, match="no problem, or one without samples"):
        curves(answers)

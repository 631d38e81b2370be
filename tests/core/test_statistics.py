"""The bootstrap interval against what is known of it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.statistics import bootstrap_interval


def test_same_seed_same_interval():
    values = [0.0, 0.25, 1.0, 0.5, 0.75, 0.0, 1.0]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval([*values, 0.1], seed=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(0, 2**31))
def test_interval_lies_among_the_values_and_around_their_mean(values, seed):
    low, high = bootstrap_interval(values, seed)
    slack = 1e-9
    assert min(values) - slack <= low <= high <= max(values) + slack
    if len(set(values)) == 1:
        assert high - low <= slack


@pytest.mark.parametrize(("num_right", "num"), [(50, 100), (87, 200), (300, 1000), (9, 30)])
def test_width_for_right_and_wrong_answers(num_right, num):
    share = num_right / num
    low, high = bootstrap_interval([1.0] * num_right + [0.0] * (num - num_right), seed=17)
    half = 1.96 * math.sqrt(share * (1 - share) / num)
    assert low < share < high
    assert high - low == pytest.approx(2 * half, rel=0.12)
    assert low == pytest.approx(share - half, abs=0.2 * half)
    assert high == pytest.approx(share + half, abs=0.2 * half)


def test_the_order_of_problems_matters_little_and_the_seed_too():
    values = [1.0] * 60 + [0.0] * 140
    first, second = bootstrap_interval(values, seed=1), bootstrap_interval(values[::-1], seed=2)
    assert first == pytest.approx(second, abs=0.01)


def test_paired_differences_may_be_negative():
    low, high = bootstrap_interval([-0.5] * 50 + [0.25] * 50, seed=0)
    assert low < -0.125 < high < 0


def test_more_values_than_fit_into_one_chunk_of_resamples():
    low, high = bootstrap_interval([0.0, 1.0] * 2_000, seed=0)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(4_000), rel=0.12)


def test_a_single_problem_says_nothing_of_spread():
    assert bootstrap_interval([0.25], seed=0) == (0.25, 0.25)


def test_no_values():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([], seed=0)

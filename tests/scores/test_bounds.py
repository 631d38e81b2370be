"""The bounds of a score with missing samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.scores.bounds import score_bounds


def test_missing_and_ungraded_samples_count_both_ways():
    found = score_bounds([[1, None], [], [0, 1], [1]], num_wanted=[2, 1, 2, 4])
    assert found.low == pytest.approx((1 / 2 + 0 + 1 / 2 + 1 / 4) / 4)
    assert found.high == pytest.approx((2 / 2 + 1 + 1 / 2 + 4 / 4) / 4)
    assert (found.num_wanted, found.num_missing) == (9, 5)


def test_a_run_cut_at_half_its_samples_is_not_halved():
    """open-r1#655: 16 of 32 samples a problem divided by 32 gave half the score."""
    half = score_bounds([[1] * 8 + [0] * 8] * 30, num_wanted=[32] * 30)
    assert half.low == 0.25
    assert half.high == 0.75


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_the_whole_score_is_always_inside(scores, data):
    whole = sum(sum(samples) / len(samples) for samples in scores) / len(scores)
    kept = [[s if data.draw(st.booleans()) else None for s in samples] for samples in scores]
    shorter = [samples[: data.draw(st.integers(0, len(samples)))] for samples in kept]
    found = score_bounds(shorter, [len(samples) for samples in scores])
    assert found.low - 1e-9 <= whole <= found.high + 1e-9
    complete = score_bounds(scores, [len(samples) for samples in scores])
    assert complete.low == complete.high == pytest.approx(whole)


@pytest.mark.parametrize(
    ("scores", "num_wanted"), [([], []), ([[1]], [1, 1]), ([[1, 1]], [1]), ([[]], [0]), ([[2]], [1])]
)
def test_impossible_numbers_are_refused(scores, num_wanted):
    with pytest.raises(ValueError, match=r"problem"):
        score_bounds(scores, num_wanted)

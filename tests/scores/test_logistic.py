"""The fit against its own conditions: at the optimum the slope is zero, whatever the data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores.logistic import fit_logistic, logistic


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.01, 100.0), st.booleans())
def test_the_slope_is_zero_at_what_is_found(seed, num, precision, is_clean):
    rng = np.random.default_rng(seed)
    features, weights = rng.normal(size=(num, 3)) * 3, rng.uniform(0.1, 5, size=num)
    outcomes = (features[:, 0] > 0).astype(float) if is_clean else rng.uniform(size=num)
    means = rng.normal(size=3)
    found = fit_logistic(features, outcomes, weights, means, [precision] * 3)
    slope = features.T @ (weights * (outcomes - logistic(features @ found))) - precision * (found - means)
    assert np.abs(slope).max() < 1e-6


def test_the_prior_decides_where_data_say_nothing():
    found = fit_logistic(np.zeros((5, 1)), np.ones(5), np.ones(5), [-1.6], [20.0])
    assert found == pytest.approx([-1.6])
    assert logistic(np.array([-1e9, 0.0, 1e9])) == pytest.approx([0.0, 0.5, 1.0])

"""The interval that holds at every time, by simulation over all waves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores import sequence
from distill.scores.sequence import is_narrow_enough, score_sequence

NUM_RUNS = 200
MOST_MISSES = 19
"""Of 200 runs with a chance of at most 5% each more are missed with a chance below 0.3%."""


@pytest.mark.parametrize(
    ("num", "concentration", "rate"), [(10, None, 0.5), (30, 0.5, 0.1), (30, 2.0, 0.9), (100, None, 0.02)]
)
def test_it_is_rarely_ever_wrong(num, concentration, rate):
    """After every wave the true mean is a candidate whose wealth stays below 20: no interval so far excludes it."""
    rng = np.random.default_rng(7)
    num_missed = 0
    for _ in range(NUM_RUNS):
        alike = np.full(num, rate)
        rates = rng.beta(rate * concentration, (1 - rate) * concentration, num) if concentration else alike
        scores = rng.binomial(1, rates[:, None], size=(num, 32))
        wealth = [
            sequence._log_wealth(rates.mean(), *sequence._observed(scores[:, :wave]), num) for wave in range(1, 33)
        ]  # fmt: skip
        num_missed += max(wealth) >= math.log(20)
    assert num_missed <= MOST_MISSES


def test_the_interval_holds_the_candidates_whose_wealth_is_small():
    scores = np.random.default_rng(2).binomial(1, 0.3, size=(40, 8)).tolist()
    for end in score_sequence(scores):
        assert sequence._log_wealth(end, *sequence._observed(scores), 40) == pytest.approx(math.log(20), abs=1e-6)


def test_problems_that_are_settled_make_it_narrower():
    """The mean is 1/2 in both; the samples of settled problems tell nothing new."""
    rng = np.random.default_rng(0)
    alike = rng.binomial(1, 0.5, size=(60, 16)).tolist()
    settled = [[index % 2] * 16 for index in range(60)]
    widths = [high - low for low, high in map(score_sequence, (alike, settled))]
    assert widths[1] < 0.6 * widths[0]


def test_it_narrows_with_waves_and_problems():
    rng = np.random.default_rng(1)
    scores = rng.binomial(1, rng.uniform(size=200)[:, None], size=(200, 64)).tolist()
    widths = []
    for num, waves in ((50, 4), (200, 4), (200, 16), (200, 64)):
        low, high = score_sequence([samples[:waves] for samples in scores[:num]])
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.035  # ±1.2 points would be the 95% interval at a time fixed before
    assert is_narrow_enough(scores, 0.035)
    assert not is_narrow_enough([samples[:4] for samples in scores], 0.035)


def test_at_the_edges():
    low, high = score_sequence([[0, 0, 0]] * 30)
    assert low == 0
    assert 0.01 < high < 0.1
    assert score_sequence([[1, 1, 1]] * 30) == pytest.approx((1 - high, 1 - low))


def test_samples_beyond_the_last_complete_wave_are_ignored():
    assert score_sequence([[1, 0, 1], [0, 1]]) == score_sequence([[1, 0], [0, 1, 1, 1]])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6).flatmap(lambda k: st.lists(st.lists(st.floats(0, 1), min_size=k, max_size=k), min_size=1)))
def test_the_mean_is_inside(scores):
    low, high = score_sequence(scores)
    assert 0 <= low <= np.mean(scores) + 1e-9
    assert np.mean(scores) - 1e-9 <= high <= 1


@pytest.mark.parametrize("scores", [[], [[1], []], [[2]]])
def test_bad_scores_are_refused(scores):
    with pytest.raises(ValueError, match="problem"):
        score_sequence(scores)

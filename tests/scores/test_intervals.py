"""Intervals hold the true value as often as they say, at the edges and for few problems too."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores.intervals import (
    interval_of_gains,
    interval_of_means,
    mean_interval,
    paired_difference,
    paired_interval,
    weighted_interval,
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
SPEC = importlib.util.spec_from_file_location("interval_coverage", SCRIPT)
interval_coverage = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(interval_coverage)

# Numbers whose distance to 1 is exact: mirrored twice, a score is itself.
SHARES = st.sampled_from([0, 1]) | st.floats(0, 1).map(lambda share: 1 - (1 - share))
SCORES = st.lists(st.lists(SHARES, min_size=1, max_size=9), min_size=1, max_size=40)
NOISE = 0.013
"""Three standard errors of a coverage of 95% over 2,500 repetitions."""


@pytest.mark.parametrize("num", [30, 100, 500])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_the_mean_is_covered(num, k):
    """Averaged over rates nearby, since 30 binary results have few outcomes; see the script."""
    concentrations = (None, 0.5, 10.0) if k > 1 else (None,)
    repetitions = 2_500 if num < 500 else 500
    noise = NOISE * (2_500 / repetitions) ** 0.5
    for concentration, rate in itertools.product(concentrations, (0.02, 0.1, 0.5, 0.98)):
        covered, _ = interval_coverage.mean_coverage(rate, num, k, concentration, repetitions, spread=0.5)
        assert 0.93 - noise <= covered <= 0.97 + noise, (concentration, rate)


@pytest.mark.parametrize(("num", "k"), [(30, 1), (30, 16), (100, 4)])
def test_the_paired_difference_is_covered(num, k):
    """From above only where the models differ: with almost no problem gained or lost no interval has 5% to give."""
    for concentration, together in ((None, True), (2.0, True), (2.0, False)):
        for pair in ((0.02, 0.02), (0.5, 0.5), (0.3, 0.5), (0.9, 0.95)):
            covered = interval_coverage.paired_coverage(pair, num, k, concentration, together, 2_500)
            assert covered >= 0.93 - NOISE, (concentration, together, pair)
            if 0.3 in pair or 0.5 in pair:
                assert covered <= 0.97 + NOISE, (concentration, together, pair)


def test_skewed_populations_that_are_no_beta_are_covered():
    """One problem in twenty is solved half the time, the others hardly ever.

    Not with 30 problems: 21% of draws have none of the rare ones, and nothing tells that they exist (84% covered).
    """
    rng = np.random.default_rng(0)
    for num, k in ((100, 16), (500, 64)):
        rates = rng.choice([0.01, 0.5], p=[0.95, 0.05], size=(1_000, num))
        low, high = interval_of_means(rng.binomial(k, rates) / k, 1 / k)
        truth = 0.95 * 0.01 + 0.05 * 0.5
        assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.98, num


@pytest.mark.parametrize(
    ("num_right", "num", "expected"),
    # Wilson at N - 1 trials; the first two by hand: z^2 / (29 + z^2) is 0.1170.
    [(0, 30, (0.0, 0.117)), (30, 30, (0.883, 1.0)), (15, 30, (0.3287, 0.6713))],
)
def test_one_binary_sample_a_problem_gives_wilson(num_right, num, expected):
    assert mean_interval([[1]] * num_right + [[0]] * (num - num_right)) == pytest.approx(expected, abs=4e-3)


def test_more_samples_narrow_it_down_to_what_problems_allow():
    alike = [mean_interval([[0, 1] * half] * 50) for half in (1, 4, 16)]
    widths = [high - low for low, high in alike]
    assert widths[0] > 1.8 * widths[1] > 3.2 * widths[2]
    settled = [mean_interval([[0] * k, [1] * k] * 25) for k in (1, 4, 16)]
    assert settled[0] == pytest.approx(settled[2], abs=0.01)  # each problem always or never: samples tell nothing


def test_fractional_scores_give_a_narrower_interval_than_binary_ones_of_the_same_mean():
    fractional, binary = mean_interval([[0.4], [0.6]] * 50), mean_interval([[0], [1]] * 50)
    assert fractional[1] - fractional[0] < 0.5 * (binary[1] - binary[0])


@settings(max_examples=100, deadline=None)
@given(SCORES)
def test_it_is_around_the_mean_and_never_empty(scores):
    low, high = mean_interval(scores)
    mean = sum(sum(samples) / len(samples) for samples in scores) / len(scores)
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1
    assert high - low > 0.0005
    assert mean_interval(scores[::-1]) == pytest.approx((low, high))
    mirrored = mean_interval([[1 - score for score in samples] for samples in scores])
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)
    wider = mean_interval(scores, level=0.99)
    assert wider[0] <= low
    assert wider[1] >= high


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from([0, 1, 0.5]), min_size=1, max_size=4)] * 2), min_size=1))
def test_the_paired_interval_is_never_empty_and_turns_with_the_order(pairs):
    before, after = [one for one, _ in pairs], [other for _, other in pairs]
    low, high = paired_interval(before, after)
    assert -1 <= low < high <= 1
    turned = paired_interval(after, before)
    assert turned == pytest.approx((-high, -low))


def test_equal_models_have_a_paired_interval_of_some_width():
    low, high = paired_interval([[1, 0]] * 30, [[0, 1]] * 30)
    assert low == -high
    assert 0.05 < high < 0.12
    narrower = paired_interval([[1, 0]] * 300, [[0, 1]] * 300)
    assert 0 < narrower[1] < high / 5


def test_a_gain_on_every_problem_is_no_proof_of_a_gain_on_all():
    low, high = paired_interval([[0]] * 30, [[1]] * 30)
    assert high == 1
    assert 0.8 < low < 0.95


def test_many_repetitions_at_once_are_each_alone():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 5, size=(20, 30)) / 4
    low, high = interval_of_means(values, 1 / 4)
    for row, ends in zip(values, zip(low, high, strict=True), strict=True):
        assert interval_of_means(row, 1 / 4) == pytest.approx(ends)
    low, high = interval_of_gains(values - 0.5)
    assert interval_of_gains(values[3] - 0.5) == pytest.approx((low[3], high[3]))


def test_paired_difference_counts_problems_by_name():
    before = {"a": [0, 0], "b": [1], "c": [1, 0, 1], "d": [0, 1]}
    after = {"d": [1, 0], "c": [0, 0, 1], "b": [1, 1], "a": [1, 1]}
    found = paired_difference(before, after)
    assert found.mean_gain == pytest.approx((1 + 0 - 1 / 3 + 0) / 4)
    assert (found.num_problems, found.num_gained, found.num_lost) == (4, 1, 1)
    assert found.interval_95[0] < found.mean_gain < found.interval_95[1]


@pytest.mark.parametrize("scores", [[], [[]], [[0, 1], []], [[1.5]], [[-0.1]], [[float("nan")]]])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match=r"no problem|no sample|not in \[0, 1\]"):
        mean_interval(scores)


def test_pairs_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="1 problems before and 2 after"):
        paired_interval([[1]], [[1], [0]])
    with pytest.raises(ValueError, match="2 problems have scores of one model only"):
        paired_difference({"a": [1], "b": [1]}, {"a": [1], "c": [0]})
    with pytest.raises(ValueError, match="level is 95"):
        mean_interval([[1]], level=95)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("num", [50, 300])
def test_a_weighted_mean_is_covered(rate, num):
    """Problems of 1 to 3 things each, which go well together or not: IFEval's instructions, SimpleQA's F-score."""
    rng = np.random.default_rng(num)
    covered, repetitions = 0, 1_500
    for _ in range(repetitions):
        weights = rng.integers(1, 4, size=num)
        own = rng.beta(4 * rate, 4 * (1 - rate), size=num)
        low, high = weighted_interval(rng.binomial(weights, own) / weights, weights)
        covered += low <= rate <= high
    assert 0.93 - NOISE <= covered / repetitions <= 0.98 + NOISE


def test_a_weighted_mean_of_equal_weights_is_a_mean():
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.5]
    assert weighted_interval(values, [2] * 6) == pytest.approx(mean_interval([[value] for value in values]), abs=0.01)
    assert weighted_interval([1.0], [3])[0] < 0.5
    with pytest.raises(ValueError, match="weights"):
        weighted_interval([1.0], [0])

"""The split of a score's variance, against populations whose parts are known."""

import numpy as np
import pytest

from distill.scores.intervals import mean_interval
from distill.scores.variance import split_variance, what_narrows


def test_both_parts_are_unbiased():
    """Rates from Beta(1, 1): variance 1/12 between problems, mean of p (1 - p) 1/6 between samples."""
    rng = np.random.default_rng(0)
    splits = []
    for _ in range(400):
        rates = rng.uniform(size=40)
        numbers = rng.choice([2, 4, 8], size=40)  # as with adaptive sampling or samples that failed
        splits.append(split_variance([rng.binomial(1, p, k).tolist() for p, k in zip(rates, numbers, strict=True)]))
    assert np.mean([split.between_problems for split in splits]) == pytest.approx(1 / 12, rel=0.05)
    assert np.mean([split.between_samples for split in splits]) == pytest.approx(1 / 6, rel=0.02)


def test_by_hand():
    split = split_variance([[1, 0], [1, 1], [0, 0], [0, 0]])
    # Means 0.5, 1, 0, 0: variance 0.2292; samples: 0.5 of the first alone, so 0.125, of which half is in the means.
    assert split.between_samples == pytest.approx(0.125)
    assert split.between_problems == pytest.approx(11 / 48 - 0.0625)
    assert split.samples_per_problem == 2


def test_problems_that_are_more_alike_than_chance_floor_at_zero():
    split = split_variance([[0, 1], [1, 0], [0, 1]])
    assert split.between_problems == 0


def test_one_sample_a_problem_cannot_be_split():
    split = split_variance([[0], [1], [1]])
    assert split.between_problems is None
    assert split.between_samples is None
    assert split_variance([[0, 1]]).between_problems is None


def test_the_sentence_predicts_what_more_samples_do():
    rng = np.random.default_rng(3)
    rates = rng.beta(4, 4, size=400)
    scores = [rng.binomial(1, p, 64).tolist() for p in rates]
    first = [samples[:4] for samples in scores]
    sentence = what_narrows(first, more_samples=60)
    low, high = mean_interval(scores)
    words = sentence.split()
    assert words[:5] == ["60", "more", "samples", "a", "problem:"]
    assert float(words[8].strip("±")) == pytest.approx(50 * (high - low), rel=0.1)
    assert sentence.endswith("more problems alone help further.")


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([[0, 1] * 8] * 30, "16 more samples a problem: about ±4.5 to ±3.2 points; problems hardly differ"),
        ([[0], [1]] * 15, "what more samples would do cannot be told from one sample a problem"),
        ([[0, 0], [1, 1]] * 15, "No two samples of a problem differ"),
        ([[1, 0] * 2, [0] * 4, [1] * 4, [1] * 4] * 10, "More samples a problem help little"),
        ([[0, 1, 1]], "One problem says nothing of others"),
    ],
)
def test_the_sentence_says_what_does_not_help(scores, words):
    assert words in what_narrows(scores)


def test_no_more_samples_is_refused():
    with pytest.raises(ValueError, match="more_samples is 0"):
        what_narrows([[0, 1]] * 3, more_samples=0)

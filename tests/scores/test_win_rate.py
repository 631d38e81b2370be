"""Win rates against the leaderboard's own, and what the length-controlled one does with lengths."""

import gzip
import json
import math
import random
from pathlib import Path

import pytest

from distill.scores.win_rate import Comparison, win_rate

SHARED = Path(__file__).parents[3] / "shared" / "data"


def rows(num, preference, model_chars=1_000, baseline_chars=1_000):
    return [Comparison(f"instruction {i}", baseline_chars + i, model_chars + i % 7, preference) for i in range(num)]


def test_the_rate_is_the_mean_preference():
    found = win_rate([*rows(3, 2.0), *[Comparison("other", 10, 10, 1.0)]])
    assert found.win_rate == 75.0
    assert found.standard_error == pytest.approx(25.0)
    assert found.win_rate_bounds == (75.0, 75.0)


def test_an_unjudged_comparison_is_neither_a_loss_nor_a_tie():
    found = win_rate([*rows(30, 2.0), *rows(10, None)])
    assert (found.win_rate, found.win_rate_bounds) == (100.0, (75.0, 100.0))
    low, high = found.length_controlled_bounds
    assert low < 90 < found.length_controlled <= high


def test_few_or_no_comparisons_have_no_errors():
    empty = win_rate([Comparison("q", 1, 1, None)])
    assert (empty.win_rate, empty.length_controlled, empty.win_rate_bounds) == (None, None, (0.0, 100.0))
    one = win_rate(rows(1, 1.0))
    assert (one.win_rate, one.standard_error, one.length_controlled) == (0.0, None, None)


@pytest.mark.parametrize("preference", [1.0, 2.0, 1.5])
def test_clean_sweeps_and_lengths_that_do_not_vary_have_finite_rates(preference):
    found = win_rate([Comparison(str(i), 100, 100, preference) for i in range(40)])
    assert math.isclose(found.length_controlled, 100 * (preference - 1), abs_tol=0.01)


def test_a_wrong_preference_is_refused():
    with pytest.raises(ValueError, match="between 1 and 2"):
        win_rate(rows(3, 0.0))


def test_answers_of_one_instruction_are_one_cluster():
    apart = [Comparison(str(i), 100 + i, 90, 1.0 + i % 2) for i in range(40)]
    together = [Comparison(str(i % 4), 100 + i, 90, 1.0 + i % 2) for i in range(40)]
    assert win_rate(together).standard_error > 2 * win_rate(apart).standard_error
    assert win_rate(together).length_controlled_error > 2 * win_rate(apart).length_controlled_error


def test_wins_by_length_alone_are_controlled_for():
    """A judge that only looks at lengths: the model that writes three times as much is no better at equal lengths."""
    draw = random.Random(0)
    compared = []
    for i in range(800):
        baseline, model = draw.randint(500, 1_500), draw.randint(500, 4_000)
        won = draw.random() < 1 / (1 + math.exp(-(model - baseline) / 600))
        compared.append(Comparison(str(i), baseline, model, 1.0 + won))
    found = win_rate(compared)
    assert found.win_rate > 75
    assert abs(found.length_controlled - 50) < 10  # the prior of difficulty sees one here that there is not


def test_the_same_rows_and_seed_give_the_same_numbers():
    compared = [Comparison(str(i), 100 + i, 50 + 3 * i, 1.0 + i % 3 / 2) for i in range(60)]
    assert win_rate(compared, seed=1) == win_rate(compared, seed=1)
    assert win_rate(compared, seed=1).length_controlled_error != win_rate(compared, seed=2).length_controlled_error


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("model", "most_points"),
    [
        ("NullModel", 0.5),
        ("vicuna-13b", 0.5),
        ("claude-2", 0.5),
        ("alpaca-7b_concise", 0.5),
        ("gpt35_turbo_instruct", 1.7),  # its wins follow difficulty half as much as others' do
    ],
)
def test_the_leaderboards_win_rates(model, most_points):
    official = json.loads((SHARED / "alpaca_official_scores.json").read_text())[model]
    compared = []
    with gzip.open(SHARED / "alpaca_annotations.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["model"] == model:
                chars = row["baseline_chars"], row["model_chars"]
                compared.append(Comparison(row["instruction"], *chars, row["preference"]))
    found = win_rate(compared)
    assert len(compared) == int(official["n_total"])
    assert found.win_rate == pytest.approx(float(official["win_rate"]), abs=1e-6)
    assert found.standard_error == pytest.approx(float(official["standard_error"]), abs=1e-6)
    assert found.length_controlled == pytest.approx(float(official["length_controlled_winrate"]), abs=most_points)

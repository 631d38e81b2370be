"""A published score lies inside ours, outside, or an incomplete score cannot tell."""

import pytest

from distill.evaluation.references import check_reference
from distill.recipe.suites import Reference
from distill.results.eval import EvalResult, Figure


def score(**changes):
    fields = {
        "model": "org/m",
        "num_problems": 500,
        "samples_per_problem": 4,
        "pass_at_1": 0.83,
        "interval_95": (0.80, 0.86),
        "truncated_share": 0.0,
        "mean_completion_tokens": 10.0,
    }
    return EvalResult.model_validate(fields | changes)


def reference(value, interval=None):
    return Reference(model="org/m", score=value, interval=interval, source="a paper, table 1")


def test_a_published_rating_is_compared_with_the_rating_and_not_with_the_score():
    figures = {"rating_by_rank": Figure(value=2000.0, interval_95=(1900.0, 2100.0))}
    published = Reference(model="org/m", figure="rating", score=2029, source="a paper, table 1")
    found = check_reference("codeforces", score(figures=figures), published)
    assert found.outcome == "inside"
    assert "published 2029 (a paper, table 1), here 2000.0 (1900.0 to 2100.0)" in found.text
    high = Reference(model="org/m", figure="rating", score=2200, source="a paper, table 1")
    assert check_reference("codeforces", score(figures=figures), high).outcome == "outside"
    without = check_reference("codeforces", score(), published)
    assert without.outcome == "unknown"
    assert without.text.endswith("here none: set contests")


@pytest.mark.parametrize(
    ("published", "interval", "outcome"),
    [
        (83.9, None, "inside"),
        (80.0, None, "inside"),
        (79.9, None, "outside"),
        (87, (85.5, 88.5), "inside"),
        (87, (86.5, 88.0), "outside"),
    ],
)
def test_a_published_score_is_inside_if_the_intervals_meet(published, interval, outcome):
    found = check_reference("math-500", score(), reference(published, interval))
    assert found.outcome == outcome
    assert found.text.endswith("inside" if outcome == "inside" else "OUTSIDE")
    assert f"published {published:g}" in found.text
    assert "a paper, table 1" in found.text
    assert "here 83.0 (80.0 to 86.0) on 500 problems, k = 4" in found.text


def test_an_incomplete_score_tells_nothing():
    found = check_reference("math-500", score(num_missing=3, bounds=(0.8, 0.9)), reference(83.0))
    assert found.outcome == "unknown"
    assert found.text.endswith("cannot be told: the score is incomplete")


@pytest.mark.parametrize("published", [83.0, 20.0])
def test_some_of_the_problems_tell_nothing(published):
    found = check_reference("math-500", score(), reference(published), is_limited=True)
    assert found.outcome == "unknown"
    assert "cannot be told: only some of the suite's problems were measured" in found.text


def test_an_interval_that_nearly_every_score_is_in_confirms_nothing():
    wide = score(interval_95=(0.5, 0.95))
    found = check_reference("math-500", wide, reference(60.0))
    assert (found.outcome, "wider than 30 points" in found.text) == ("unknown", True)
    assert check_reference("math-500", wide, reference(40.0)).outcome == "outside"


def test_win_rates_are_compared_by_the_figure_that_is_published():
    figures = {"win_rate": Figure(value=0.3), "length_controlled": Figure(value=0.4, interval_95=(0.38, 0.42))}
    judged = score(pass_at_1=0.3, interval_95=(0.28, 0.32), figures=figures)
    assert check_reference("alpaca-eval-2", judged, reference(41.5), "win-rate").outcome == "inside"
    assert check_reference("alpaca-eval-2", judged, reference(30.0), "win-rate").outcome == "outside"
    arena = score(figures={"arena_score": Figure(value=0.7, interval_95=(0.68, 0.72))})
    assert check_reference("arena-hard-0.1", arena, reference(71.9), "arena").outcome == "inside"
    assert check_reference("arena-hard-0.1", arena, reference(83.0), "arena").outcome == "outside"

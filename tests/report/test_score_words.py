"""Scores in words and as curves, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.report.score_curves import ENDS, at_k_charts, budget_chart, short
from distill.report.score_words import contamination_words, figures_words, incomplete_words, samples_words


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ({"num_missing": 40, "bounds": [0.21, 0.63]}, "between 21.0% and 63.0%: 40 samples missing"),
        ({"num_missing": 1, "num_ungraded": 2, "bounds": [0, 1]},
         "between 0.0% and 100.0%: 1 sample missing and 2 answers not graded"),
        ({"num_ungraded": 1}, "1 answer not graded"),
        ({"num_missing": 0, "num_ungraded": 0, "bounds": None}, ""),
        ({"num_missing": "x"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_the_bounds(score, words):
    assert incomplete_words(score) == words


def test_samples_that_differ_are_a_range():
    assert samples_words({"samples_per_problem": 16, "samples_range": [4, 16]}) == "4 to 16"
    assert samples_words({"samples_per_problem": 16, "samples_range": [16, 16]}) == "16"
    assert samples_words({}) == "–"


def test_figures_are_told_with_their_intervals_and_what_they_could_be():
    figures = {
        "prompt_strict": {"value": 0.7689, "interval_95": [0.73, 0.8]},
        "arena_score": {"value": 0.5314, "interval_95": [0.51, 0.5516], "bounds": [0.5, 0.6]},
        "length_controlled": {"value": 0.5, "interval_95": [0.475, 0.525]},
        "length_controlled_error": {"value": 0.0126},
        "a_new_one": {"value": 0.25},
    }
    assert figures_words(figures) == [
        (
            "ArenaHard’s score (all games pooled)",
            "53.1% (95% interval 51.0 to 55.2%; incomplete, between 50.0% and 60.0%)",
        ),
        ("length-controlled win rate", "50.0% (95% interval 47.5 to 52.5%; standard error 1.3%)"),
        ("all instructions of a question followed, strictly", "76.9% (95% interval 73.0 to 80.0%)"),
        ("a new one", "25.0%"),
    ]
    assert figures_words(None) == []


RATING = {
    "rating_by_rank": {"value": 1612.4, "interval_95": [1488.2, 1733.0]},
    "rating_zero_delta": {"value": 1534.0, "interval_95": [1410.0, 1655.0]},
    "rating_ahead_of": {"value": 0.7123},
    "rating_contests": {"value": 10},
    "rating_contests_left_out": {"value": 0},
    "rating_problems_not_asked": {"value": 3},
    "rating_first_share": {"value": 0.0},
    "rating_last_share": {"value": 0.1},
}


def test_a_rating_is_told_by_both_definitions_with_what_it_rests_on():
    assert figures_words({"tests_passed": {"value": 0.5}, "problems_with_weak_tests": {"value": 2}, **RATING}) == [
        ("tests that a program passes, on average", "50.0%"),
        ("problems with tests that a program could cheat", "2"),
        ("rating on Codeforces, by expected place (CodeElo, rLLM)", "1612 (95% interval 1488 to 1733)"),
        ("rating on Codeforces, at which the round changes nothing (zero delta)", "1534 (95% interval 1410 to 1655)"),
        ("ahead of these contestants", "71.2%"),
        (
            "the rating rests on",
            (
                "10 rounds; 3 of their problems were not asked, and count as not solved; "
                "last in 10.0%: it may be rated lower"
            ),
        ),
    ]


def test_a_damaged_rating_is_told_as_far_as_it_goes():
    damaged = {"rating_by_rank": {"value": 1500}, "rating_zero_delta": "x", "rating_contests": None}
    assert figures_words(damaged) == [
        ("rating on Codeforces, by expected place (CodeElo, rLLM)", "1500"),
        ("the rating rests on", "0 rounds"),
    ]
    assert figures_words({"rating_by_rank": {"value": "x"}}) == []


def test_no_weak_tests_are_no_news():
    assert figures_words({"problems_with_weak_tests": {"value": 0}}) == []


def test_contamination_that_was_not_looked_for_is_not_told():
    assert contamination_words({}) == ""


def model(points, at="at_k", label="One"):
    rows = [{"k": k, "pass_at": y, "pass_interval": [low, high]} for k, y, low, high in points]
    return {"label": label, "kind": "m1", "scores": {at: rows}}


def test_a_curve_has_a_logarithmic_axis():
    (chart,) = at_k_charts([model([(1, 0.2, 0.1, 0.3), (2, 0.3, 0.2, 0.4), (16, 0.5, 0.4, 0.6)])])
    assert chart["name"] == "pass@k"
    assert [(tick["x"], tick["label"]) for tick in chart["ticks"]] == [(0, "1"), (25, "2"), (100, "16")]
    assert [level["label"] for level in chart["levels"]] == ["0", "15", "30", "45", "60"]
    (series,) = chart["series"]
    assert series["path"] == "M0 66.67 L25 50 L100 16.67"
    assert series["band"] == "M0 50 L25 33.33 L100 0 L100 33.33 L25 66.67 L0 83.33 Z"
    assert chart["table"][2] == ("16", ["50.0% (40.0 to 60.0%)"])


def test_a_curve_tells_where_it_comes_from_subsamples():
    rows = [{"k": k, "pass_at": 0.5, "cons_at": 0.5, "cons_is_exact": k < 32} for k in (16, 32, 64)]
    one = {"label": "One", "kind": "m1", "scores": {"at_k": rows}}
    passed, agreed = at_k_charts([one])
    assert passed["x"] == "samples of a problem (k)"
    assert agreed["x"] == "samples of a problem (k, by subsampling from 32)"


def test_models_with_other_numbers_of_samples_leave_cells_empty():
    (chart,) = at_k_charts(
        [model([(1, 0.2, 0, 1), (4, 0.3, 0, 1)]), model([(1, 0.5, 0, 1), (2, 0.6, 0, 1)], label="B")]
    )
    assert [(at, [bool(cell) for cell in cells]) for at, cells in chart["table"]] == [
        ("1", [True, True]), ("2", [False, True]), ("4", [True, False]),
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [None, [], [{}], [{"k": 0, "pass_at": 0.1}], [{"k": 4, "pass_at": 0.5}], "x", [None]])
def test_without_two_points_there_is_no_curve(rows):
    assert at_k_charts([{"label": "a", "kind": "m1", "scores": {"at_k": rows}}]) == []
    assert budget_chart([{"label": "a", "kind": "m1", "scores": {"budget": rows}}]) is None


SHARES = st.floats(0, 1)


@given(st.dictionaries(st.integers(1, 1_000), st.tuples(SHARES, SHARES, SHARES), min_size=2, max_size=9))
def test_every_point_of_a_curve_is_in_its_box(points):
    curve = [(k, *sorted(three)) for k, three in points.items()]
    (chart,) = at_k_charts([model([(k, y, low, high) for k, low, y, high in curve])])
    places = [place for x, y in chart["series"][0]["points"] for place in (x, y)]
    assert all(0 <= place <= 100 for place in places)
    assert chart["ticks"][-1]["x"] == 100
    xs = [tick["x"] for tick in chart["ticks"]]
    assert xs == sorted(xs)
    assert float(chart["levels"][-1]["label"]) in ENDS


@pytest.mark.parametrize(
    ("num", "label"), [(1, "1"), (1_000, "1,000"), (1_024, "1k"), (32_768, "32k"), (1_500, "1,500")]
)
def test_numbers_of_an_axis_are_short(num, label):
    assert short(num) == label

"""SimpleQA's figures against its paper's definitions, and what missing verdicts could change."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.scores.short_answers import short_answer_figures

GRADES = ("correct", "incorrect", "not_attempted")


def figures(correct, incorrect, not_attempted, unjudged=0):
    grades = [*["correct"] * correct, *["incorrect"] * incorrect, *["not_attempted"] * not_attempted]
    return short_answer_figures({str(i): [grade] for i, grade in enumerate([*grades, *[None] * unjudged])})


def test_the_figures_are_those_of_the_paper():
    found = figures(30, 20, 50)
    shares = {key: figure.value for key, figure in found.items()}
    assert shares == {
        "correct": 0.3,
        "incorrect": 0.2,
        "not_attempted": 0.5,
        "correct_given_attempted": 0.6,
        "f_score": pytest.approx(2 * 0.3 * 0.6 / (0.3 + 0.6)),
    }
    for figure in found.values():
        low, high = figure.interval_95
        assert low < figure.value < high
        assert figure.bounds is None


def test_answering_nothing_scores_nothing_but_divides_by_nothing():
    found = figures(0, 0, 10)
    assert (found["correct"].value, found["f_score"].value) == (0.0, 0.0)
    assert "correct_given_attempted" not in found
    assert short_answer_figures({}) == figures(0, 0, 0, unjudged=3) == {}


def test_a_clean_sweep_has_an_interval_too():
    low, high = figures(0, 50, 0)["f_score"].interval_95
    assert low == 0 < high < 0.15
    low, high = figures(50, 0, 0)["f_score"].interval_95
    assert 0.85 < low < high == 1


def test_an_unjudged_answer_is_neither_wrong_nor_a_zero():
    found = figures(3, 1, 0, unjudged=4)["correct"]
    assert (found.value, found.bounds) == (0.75, (0.375, 0.875))


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(0, 4)] * 3).filter(any), st.integers(1, 3))
def test_the_bounds_hold_whatever_the_missing_verdicts_are(counts, unjudged):
    found = figures(*counts, unjudged=unjudged)
    wholes = [
        figures(*(num + extra.count(place) for place, num in enumerate(counts)))
        for extra in itertools.product(range(3), repeat=unjudged)
    ]
    for key, figure in found.items():
        values = [whole[key].value for whole in wholes if key in whole]
        assert (min(values), max(values)) == pytest.approx(figure.bounds)


def test_answers_to_one_question_count_as_one_cluster():
    apart = {str(i): [GRADES[i % 2]] for i in range(80)}
    together = {str(i): [GRADES[i % 2]] * 20 for i in range(4)}
    found = [short_answer_figures(grades)["f_score"] for grades in (apart, together)]
    widths = [figure.interval_95[1] - figure.interval_95[0] for figure in found]
    assert found[0].value == found[1].value
    assert widths[1] > 2 * widths[0]

"""Accuracy under a smaller thinking budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.scores.budget import budget_scores, budgets_up_to, tokens_per_right

SAMPLES = [[(900, True), (3_000, True)], [(1_024, True), (1_025, False)]]


def test_an_answer_longer_than_the_budget_is_wrong():
    found = budget_scores(SAMPLES, max_tokens=4_096)
    assert [(point.budget_tokens, point.score, point.cut_share) for point in found] == [
        (1_024, 0.5, 0.5),
        (2_048, 0.5, 0.25),
        (4_096, 0.75, 0.0),
    ]
    assert all(point.interval_95[0] < point.score < point.interval_95[1] for point in found)


@pytest.mark.parametrize(
    ("max_tokens", "budgets"),
    [(500, [500]), (1_024, [1_024]), (3_000, [1_024, 2_048, 3_000]), (4_096, [1_024, 2_048, 4_096])],
)
def test_budgets_double_up_to_the_run_s_own(max_tokens, budgets):
    assert budgets_up_to(max_tokens) == budgets


@given(st.lists(st.lists(st.tuples(st.integers(0, 9_000), st.booleans()), min_size=1), min_size=1, max_size=9))
def test_more_budget_never_costs_points(samples):
    found = budget_scores(samples, max_tokens=9_000)
    scores = [point.score for point in found]
    assert scores == sorted(scores)
    mean = sum(sum(right for _, right in answers) / len(answers) for answers in samples) / len(samples)
    assert scores[-1] == pytest.approx(mean)


def test_tokens_of_wrong_answers_count_too():
    assert tokens_per_right(SAMPLES) == pytest.approx(5_949 / 3)
    assert tokens_per_right([[(10, False)]]) is None


def test_a_budget_below_one_token_is_refused():
    with pytest.raises(ValueError, match="max_tokens is 0"):
        budget_scores(SAMPLES, max_tokens=0)

"""Scores by month of release, by difficulty and by subject."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.evaluation.groups import KEYS, group_of, group_scores


def problems_with(*metadata):
    return {f"p{n}": Problem(f"p{n}", [], None, "code", "s", dict(one)) for n, one in enumerate(metadata)}


def scores_by(key, *values):
    problems = problems_with(*({key: value} for value in values))
    return group_scores(list(problems), {name: [n % 2, n % 2] for n, name in enumerate(problems)}, problems)


@pytest.mark.parametrize(
    ("key", "value", "label"),
    [
        ("group", " Algebra ", "Algebra"),
        ("group", 3, None),
        ("group", "", None),
        ("month", "2024-08-03T00:00:00", "2024-08"),
        ("month", "2025-01-31", "2025-01"),
        ("month", 1734618900, "2024-12"),
        ("month", 1734618900.0, "2024-12"),
        ("month", "soon", None),
        ("month", None, None),
        ("month", True, None),
        ("month", 1e30, None),
        ("difficulty", "easy", "easy"),
        ("difficulty", "Hard", "Hard"),
        ("difficulty", 800, "800 to 1199"),
        ("difficulty", 1199.0, "800 to 1199"),
        ("difficulty", 3500, "3200 to 3599"),
        ("difficulty", None, None),
        ("difficulty", ["easy"], None),
        ("difficulty", False, None),
        ("difficulty", float("nan"), None),
        ("month", float("inf"), None),
    ],
)
def test_the_group_of_a_value(key, value, label):
    found = group_of(key, value)
    assert (found and found[1]) == label


def test_months_and_difficulties_are_in_their_own_order():
    assert list(scores_by("month", "2025-01-02", "2024-12-31", "2024-08-01").scores) == [
        "2024-08",
        "2024-12",
        "2025-01",
    ]
    levels = scores_by("difficulty", "hard", "medium", "easy", "insane")
    assert list(levels.scores) == ["easy", "medium", "hard", "insane"]
    bands = scores_by("difficulty", 1300, 900, 3500, 2000)
    assert list(bands.scores) == ["800 to 1199", "1200 to 1599", "2000 to 2399", "3200 to 3599"]


def test_each_key_splits_all_problems_of_its_own():
    problems = problems_with(
        {"month": "2024-08-01", "difficulty": "easy"},
        {"month": "2024-09-01", "difficulty": "easy"},
        {"month": "2024-09-02", "difficulty": "hard"},
        {"month": "2024-09-03"},
        {"difficulty": "hard"},
    )
    scores = {"p0": [1.0, 0.0], "p1": [1.0], "p2": [0.0], "p3": [0.5]}
    found = group_scores(list(problems), scores, problems)
    assert found.scores == {"2024-08": 0.5, "2024-09": 0.5, "easy": 0.75, "hard": 0.0}
    assert found.num_problems == {"2024-08": 1, "2024-09": 3, "easy": 2, "hard": 1}


def test_a_key_with_one_group_splits_nothing():
    assert scores_by("month", "2024-08-01", "2024-08-09") == ({}, {})
    assert group_scores([], {}, {}) == ({}, {})


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@given(st.sampled_from(KEYS), JSON)
def test_any_value_has_a_group_or_none(key, value):
    found = group_of(key, value)
    assert found is None or found[1]

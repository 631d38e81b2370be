"""The gap between two gradings is split into extraction and comparison, and the parts add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.grading import Grade
from distill.scores.extraction_gap import explain_gap, same_extraction

RIGHT, WRONG = Grade(True, "42", None), Grade(False, "41", "wrong_answer")
NOTHING = Grade(False, None, "no_answer")
UNKNOWN = Grade(None, "42", "ungraded_timeout")


def key(number):
    return (f"p{number}", 0)


def test_parts_of_a_gap():
    strict = Grade(False, "42", "wrong_answer")
    pairs = [(RIGHT, RIGHT), (RIGHT, NOTHING), (RIGHT, WRONG), (RIGHT, strict), (WRONG, RIGHT), (WRONG, NOTHING),
             (RIGHT, RIGHT), (WRONG, WRONG), (UNKNOWN, RIGHT), (RIGHT, UNKNOWN)]  # fmt: skip
    gap = explain_gap((key(i), *pair) for i, pair in enumerate(pairs))
    assert (gap.num_answers, gap.num_graded, gap.num_same_verdict) == (10, 8, 4)
    assert (gap.num_missing, gap.ours, gap.theirs) == (2, 62.5, 37.5)
    assert (gap.extraction.num_answers, gap.extraction.num_gained, gap.extraction.num_lost) == (4, 1, 2)
    assert gap.extraction.points == -12.5
    assert gap.extraction.examples == (key(1), key(2), key(4), key(5))
    assert (gap.comparison.num_answers, gap.comparison.points) == (1, -12.5)
    assert gap.comparison.examples == (key(3),)


def test_only_so_many_examples_are_kept():
    gap = explain_gap([(key(i), RIGHT, WRONG) for i in range(9)], max_examples=2)
    assert (gap.extraction.num_answers, gap.extraction.examples) == (9, (key(0), key(1)))


def test_nothing_graded_by_both():
    gap = explain_gap([(key(0), RIGHT, UNKNOWN)])
    assert (gap.num_graded, gap.ours, gap.theirs, gap.extraction.points) == (0, None, None, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("B", "b", True),
        ("0.5", r"\frac{1}{2}", True),
        ("$7$", "7", True),
        ("A, B", "A", False),
        ("x+1", "1+x", False),
        (None, "7", False),
        (None, None, True),
    ],
)
def test_the_same_answer_in_another_form(one, other, is_same):
    assert same_extraction(Grade(None, one, None), Grade(None, other, None)) is is_same


grades = st.sampled_from([RIGHT, WRONG, NOTHING, UNKNOWN, Grade(False, "42", "wrong_answer"), Grade(True, "41", None)])


@given(st.lists(st.tuples(grades, grades)))
def test_the_parts_add_up(pairs):
    gap = explain_gap((key(i), *pair) for i, pair in enumerate(pairs))
    if gap.num_graded:
        assert gap.extraction.points + gap.comparison.points == pytest.approx(gap.theirs - gap.ours)
    differing = gap.extraction.num_gained + gap.extraction.num_lost + gap.comparison.num_answers
    assert gap.num_same_verdict + differing == gap.num_graded

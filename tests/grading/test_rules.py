"""The same text, the same number, a pattern."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.grading import Grade, grade, grade_all
from distill.grading.pool import GradingPool
from distill.grading.rules import grade_exact, grade_numeric, grade_regex, read_number

any_text = st.text(st.characters(exclude_categories=()))


def problem(answer, task):
    return Problem("p", [], answer, task, "test")


@pytest.mark.parametrize(
    ("given_", "expected", "verdict"),
    [
        ("Paris", "Paris", True),
        ("  Paris\n", "Paris", True),
        ("New\n  York", "New York", True),
        ("paris", "Paris", False),
        ("Paris.", "Paris", False),
        ("NewYork", "New York", False),
        ("1.0", "1", False),
        ("", "Paris", False),
        ("x" * 20_000, "x" * 20_000, False),
        ("Paris", None, None),
        ("Paris", "  ", None),
    ],
)
def test_exact(given_, expected, verdict):
    assert grade_exact(problem(expected, "exact"), given_) is verdict


@pytest.mark.parametrize(
    ("given_", "expected", "verdict"),
    [
        ("5", "5", True),
        ("5.0", "5", True),
        ("1,234.5", "1234.5", True),
        ("1.2345e3", "1234.5", True),
        ("1.5E-3", "0.0015", True),
        (r"1.5 \times 10^{3}", "1500", True),
        ("50%", "0.5", True),
        (r"50\%", "1/2", True),
        ("3/4", "0.75", True),
        ("0.3333333", "1/3", True),
        ("1000000.5", "1000000", True),
        ("1000002", "1000000", False),
        ("0.333", "1/3", False),
        ("5 cm", "5", True),
        ("$5", "5", True),
        ("-5", "5", False),
        ("0.0000001", "0", False),
        ("0", "0.0", True),
        ("50", "50%", False),
        ("five", "5", False),
        ("5 or 6", "5", False),
        ("inf", "5", False),
        ("1e999", "5", False),
        ("nan", "nan", None),
        ("5", "five", None),
        ("5", None, None),
        ("5", "1e999", None),
        ("5", "1e400", None),
        ("9" * 20_000, "5", False),
    ],
)
def test_numeric(given_, expected, verdict):
    assert grade_numeric(problem(expected, "numeric"), given_) is verdict


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_written_floats_are_read(number):
    assert read_number(repr(number)) == pytest.approx(number, rel=1e-12, abs=0)


@settings(deadline=None)
@given(any_text)
def test_any_text_has_a_number_or_none(text):
    number = read_number(text)
    assert number is None or number == number


@pytest.mark.parametrize(
    ("given_", "pattern", "verdict"),
    [
        ("Paris", "Paris|Lutetia", True),
        ("paris", "(?i)paris", True),
        ("Paris, France", "Paris", False),
        (" Paris ", "Paris", True),
        ("12", r"\d+", True),
        ("Paris", "Par(is", None),
        ("Paris", "*", None),
        ("Paris", None, None),
        ("Paris", "(" * 20_000, None),
        ("Paris", "(" * 5_000 + ")" * 5_000, None),
        ("x" * 20_000, "x*", False),
    ],
)
def test_regex(given_, pattern, verdict):
    assert grade_regex(problem(pattern, "regex"), given_) is verdict


@pytest.mark.parametrize("task", ["exact", "numeric", "regex"])
@pytest.mark.parametrize("text", ["42", r"so \boxed{42}.", "The answer is 42.", "\n 42 \n"])
def test_the_answer_is_boxed_or_announced_or_all_there_is(task, text):
    assert grade(problem("42", task), text) == Grade(True, "42", None)


def test_the_last_number_where_asked_for():
    assert grade(problem("42", "numeric"), "It is 42 in all").reason == "wrong_answer"
    assert grade(problem("42", "numeric"), "It is 42 in all", last_number=True).correct is True


def test_a_pattern_that_never_ends_costs_its_time_out():
    tasks = [
        (problem("(a+)+$", "regex"), "a" * 60 + "b"),
        (problem("a+", "regex"), "aaa"),
        (problem("(", "regex"), "aaa"),
    ]
    with GradingPool(1, timeout_s=1.0) as pool:
        assert [found.reason for found in grade_all(tasks, pool)] == ["ungraded_timeout", None, "ungraded_gold"]

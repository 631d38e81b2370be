"""Outputs line by line and number by number; results of calls by exact built-in types."""

import math
from fractions import Fraction

import pytest

from distill.grading.code import compare
from distill.grading.code.compare import is_far_longer, same_output, same_value, voted_output


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("3\n", "3", True),
        ("1 2 3 \n\n", "1  2 3\n", True),
        ("1\n\n2\n", "1\n2\n", True),
        ("1\r\n2\r\n", "1\n2\n", True),
        ("1\n2\n", "1 2\n", False),
        ("YES\n", "Yes\n", False),
        ("0.3333333", "0.333333333333", True),
        ("0.334", "0.3333", False),
        ("1000000.5", "1000000.6", True),
        ("2.0", "2", True),
        ("2.0000001", "2", False),
        ("2", "2.0", True),
        ("007", "7", False),
        ("1e3", "1000.0", True),
        ("nan", "nan", True),
        ("nan", "1.0", False),
        ("inf", "1e400", False),
        ("1e999", "1e400", False),
        ("-1e999", "1.0", False),
        ("٣.5", "3.5", False),
        ("1\x1f2", "1 2", False),
        ("1\u20282", "1 2", False),
        ("1\t2\f3\r\n", "1 2 3", True),
        ("100000000000000000001", "100000000000000000000", False),
        ("1e9999", "5", False),
        ("", "", True),
        ("", "0", False),
        ("x\n" * 100_000, "x\n" * 100_000 + "\n", True),
        ("9" * 100_000, "8" * 100_000, False),
    ],
)
def test_outputs_are_compared_line_by_line_and_number_by_number(output, expected, same):
    assert same_output(output, expected) is same


def test_lines_are_compared_as_they_are_read(monkeypatch):
    read = []
    monkeypatch.setattr(compare, "_same_word", lambda one, other: read.append(one) or one == other)
    assert not same_output("1\n2\n" + "3\n" * 100_000, "1\n4\n" + "3\n" * 100_000)
    assert read == ["1", "2"]
    assert not same_output("1\n" * 100_000, "1\n")
    assert not same_output("1\n", "1\n" * 100_000)
    assert len(read) == 4


def test_outputs_with_the_same_words_by_line_have_the_same_hash():
    assert voted_output("1  2\n\n3") == voted_output("1 2 \r\n3\n") != voted_output("1\n2 3\n")


def test_which_output_is_far_longer_than_the_expected_ones():
    assert is_far_longer("1 " * 8_000_000, ["1 2\n", "x" * 100_000])
    assert not is_far_longer("1 " * 8_000_000, ["1 2\n", "x" * 1_000_000])
    assert not is_far_longer("1" + " " * 1_000_000, [""])


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (3, 3, True),
        ((1, (2, 3)), [1, [2, 3]], True),
        ([1], [1, 2], False),
        (1.0000000001, 1.0, True),
        (1.01, 1.0, False),
        (1, 1.0, True),
        (1.0, 1, True),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        ("a", "a", True),
        ("1", 1, False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "b"}, {"1": "a"}, False),
        ({"a": (1,)}, {"a": [1]}, True),
        ({1.5: "a"}, {"1.5": "a"}, True),
        ({10**5_000: 1}, {"1": 1}, False),
        ({Fraction(10**5_000): 1}, {"1": 1}, False),
        ({True: 1}, {"True": 1}, False),
        ({1, 2}, [1, 2], False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (10**400, 1.5, False),
        (b"a", "a", False),
    ],
)
def test_results_are_compared_as_plain_values(value, expected, same):
    assert same_value(value, expected) is same

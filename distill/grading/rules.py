"""Plain rules: the same text, the same number, or a pattern.

Examples of expected answers: `"Paris"`, `"1.5e3"`, `"(?i)paris|lutetia"`. The verdict is `None` if the expected answer
is missing, or not a number or pattern as required.
"""

import math
import re

from distill.core.records import Problem
from distill.grading.extraction import Found, read_as_math
from distill.grading.passages import Reading
from distill.grading.quantities import PERCENT, clean, read_quantity

MAX_RULE_CHARS = 10_000
"""Longer answers are wrong; longer patterns count as unreadable."""

RELATIVE_ERROR = 1e-6

_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d{1,3}")


def read_as_number(text: str, found: Found) -> Reading:
    """Read a place as a number: mathematics without a digit is not an answer."""
    reading = read_as_math(text, found)
    if reading.answer is not None and found.kind != "whole_text" and not any(map(str.isdigit, reading.answer)):
        return Reading(None, "holds no number")
    return reading


def grade_exact(problem: Problem, extracted: str) -> bool | None:
    """Return whether two texts are the same, except for outer whitespace and the amount of inner whitespace."""
    if problem.answer is None or not problem.answer.strip():
        return None
    return len(extracted) <= MAX_RULE_CHARS and _folded(extracted) == _folded(problem.answer)


def grade_numeric(problem: Problem, extracted: str) -> bool | None:
    """Return whether two numbers agree within `RELATIVE_ERROR`. Percent divides by 100; other units are ignored."""
    expected = None if problem.answer is None else read_number(problem.answer)
    if expected is None:
        return None
    given = read_number(extracted)
    return given is not None and math.isclose(given, expected, rel_tol=RELATIVE_ERROR, abs_tol=0.0)


def grade_regex(problem: Problem, extracted: str) -> bool | None:
    """Return whether the whole answer matches the expected pattern. Patterns may run forever: run it in the pool."""
    if problem.answer is None or len(problem.answer) > MAX_RULE_CHARS:
        return None
    try:
        pattern = re.compile(problem.answer)
    except (re.error, OverflowError, RecursionError):
        return None
    return len(extracted) <= MAX_RULE_CHARS and pattern.fullmatch(extracted.strip()) is not None


def read_number(text: str) -> float | None:
    """Return the finite number in `1,234.5`, `1.5e3`, `50%`, `3/4` or `5 cm`; `None` if the text is anything else."""
    if len(text) > MAX_RULE_CHARS:
        return None
    plain = clean(text)
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        return value if math.isfinite(value) else None
    quantity = read_quantity(text)
    if quantity is None or quantity.base != 10:
        return None
    try:
        return float(quantity.value / 100 if quantity.unit == PERCENT else quantity.value)
    except OverflowError:
        return None


def _folded(text: str) -> str:
    return " ".join(text.split())

"""Compare the values of two expression trees (`distill.grading.expression`).

Constants are computed as fractions, or to 60 digits plus three times as many as their largest fraction has. Expressions
with variables are evaluated at points derived from their texts. Two different rational functions of degree d agree at
one such point with probability at most d / 10^5 (Schwartz 1980, Zippel 1979), and at n points with at most the nth
power of that. Points at which an expression leaves the real numbers do not count.
"""

import hashlib
import itertools
from collections.abc import Iterator
from fractions import Fraction

from mpmath import mp  # type: ignore[import-untyped]

from distill.grading.evaluation import Evaluation, digits_needed, needs_whole_numbers, symbols
from distill.grading.functions import UndefinedError, Value, is_zero, number_of
from distill.grading.notation import Node

NUM_POINTS = 5
"""Number of points at which two expressions must agree; one difference is enough to tell them apart."""

MAX_TRIED_POINTS = 24


def same_value(given: Node, expected: Node) -> bool | None:
    """Return whether two trees have the same value; `None` if they have none, or too few points were found."""
    names = sorted(symbols(given) | symbols(expected))
    if "infty" in names:
        return _same_infinity(given, expected)
    is_complex = "i" in names
    variables = [name for name in names if name not in ("pi", "e", "i")]
    if not variables:
        return _same_constant(given, expected, is_complex)
    return _same_function(given, expected, variables, is_complex)


def constant_value(node: Node) -> Value | None:
    """Return the real value of a tree without variables, exact or to `DIGITS` digits; `None` if it has none."""
    if symbols(node) - {"pi", "e"}:
        return None
    try:
        return Evaluation({}, False, digits_needed(node)).value(node)
    except (UndefinedError, ValueError, ZeroDivisionError, OverflowError):
        return None


def values_at_points(trees: tuple[Node, ...], num_points: int = NUM_POINTS) -> Iterator[list[Value]]:
    """Yield the values of several trees at the same points of their common domain."""
    names = sorted(set().union(*(symbols(tree) for tree in trees)))
    variables = [name for name in names if name not in ("pi", "e", "i")]
    whole = any(needs_whole_numbers(tree) for tree in trees)
    digits = max(digits_needed(tree) for tree in trees)
    seed = repr(trees)
    found = 0
    for attempt in range(MAX_TRIED_POINTS):
        point = {name: _coordinate(seed, name, attempt, whole) for name in variables}
        evaluation = Evaluation(point, "i" in names, digits)
        try:
            values = [evaluation.value(tree) for tree in trees]
        except (UndefinedError, ValueError, ZeroDivisionError, OverflowError):
            continue
        yield values
        found += 1
        if found == num_points:
            return


def values_on_a_line(node: Node) -> tuple[str, Value, Value] | None:
    """Return (variable, five times the slope, root) of a tree that is linear in its only variable, else `None`."""
    names = symbols(node) - {"pi", "e"}
    if len(names) != 1 or names & {"i", "infty"}:
        return None
    (name,) = names
    digits = digits_needed(node)
    try:
        values = [Evaluation({name: Fraction(x)}, False, digits).value(node) for x in (-7, -2, 3, 8)]
    except (UndefinedError, ValueError, ZeroDivisionError, OverflowError):
        return None
    with mp.workdps(digits):
        if not all(isinstance(value, Fraction) for value in values):
            values = [number_of(value) for value in values]
        steps = [right - left for left, right in itertools.pairwise(values)]
        if is_zero(steps[0], max(abs(value) for value in values)):
            return None
        if not all(is_zero(step - steps[0], steps[0]) for step in steps):
            return None
        root = -2 - values[1] * 5 / steps[0]
        return name, steps[0], root


def _same_constant(given: Node, expected: Node, is_complex: bool) -> bool | None:
    digits = max(digits_needed(given), digits_needed(expected))
    for beyond_reals in (True,) if is_complex else (False, True):
        try:
            gold = Evaluation({}, beyond_reals, digits).value(expected)
        except (UndefinedError, ValueError, ZeroDivisionError, OverflowError):
            continue
        try:
            value = Evaluation({}, beyond_reals, digits).value(given)
        except (UndefinedError, ValueError, ZeroDivisionError, OverflowError):
            if beyond_reals:
                return False
            continue
        with mp.workdps(digits):
            difference, scale = _plain_difference(value, gold)
            return is_zero(difference, scale)
    return None


def _same_function(given: Node, expected: Node, variables: list[str], is_complex: bool) -> bool | None:
    digits = max(digits_needed(given), digits_needed(expected))
    whole = needs_whole_numbers(given) or needs_whole_numbers(expected)
    seed = repr((given, expected))
    found = num_golds = 0
    for attempt in range(MAX_TRIED_POINTS):
        point = {name: _coordinate(seed, name, attempt, whole) for name in variables}
        evaluation = Evaluation(point, is_complex, digits)
        try:
            gold = evaluation.value(expected)
            num_golds += 1
            value = evaluation.value(given)
        except (UndefinedError, ValueError, ZeroDivisionError, OverflowError):
            continue
        with mp.workdps(digits):
            difference, scale = _plain_difference(value, gold)
            if not is_zero(difference, scale):
                return False
        found += 1
        if found == NUM_POINTS:
            return True
    return False if num_golds >= NUM_POINTS and not found else None


def _plain_difference(left: Value, right: Value) -> tuple[Value, Value]:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left - right, right
    left, right = number_of(left), number_of(right)
    return left - right, max(abs(left), abs(right))


def _same_infinity(given: Node, expected: Node) -> bool | None:
    """Compare trees with infinity, which is a value only by itself or with a sign."""
    sides = []
    for node in (given, expected):
        sign = 1
        while node.op == "neg":
            sign, node = -sign, node.args[0]
        sides.append(sign if node == Node("sym", (), "infty") else 0)
    if not sides[1]:
        return None if "infty" in symbols(expected) else False
    return sides[0] == sides[1]


def _coordinate(seed: str, name: str, attempt: int, whole: bool) -> Fraction:
    """Return a number derived from both texts, so that the author of one cannot know it.

    Every other point is positive, where roots and logarithms are defined; the others may be negative. One in three is
    below 1, where inverse sines and the like are defined.
    """
    digest = hashlib.sha256(f"{seed}\0{name}\0{attempt}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big")
    if whole:
        return Fraction(2 + drawn % 19)
    value = Fraction(1 + drawn % 100_003, 10_007) / (Fraction(40, 13), 1, 11)[attempt % 3]
    return -value if attempt % 2 and digest[9] % 2 else value

"""Compare equations and inequalities: two are the same if one is a multiple of the other. Nothing is solved.

Example: `"2y = 4x+2"` equals `"y=2x+1"`.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from mpmath import mp  # type: ignore[import-untyped]

from distill.grading.expression import read_expression
from distill.grading.functions import DIGITS, as_number, is_zero
from distill.grading.notation import Node, UnreadableError, function_names
from distill.grading.values import NUM_POINTS, same_value, values_at_points

INEQUALITIES = ("<", ">", "<=", ">=", "!=")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_SIGN = re.compile(
    r"\\(?P<name>leqslant|geqslant|leq?|geq?|lt|gt|neq?|not\s*=)(?![a-zA-Z])|(?P<plain><=|>=|!=|≤|≥|≠|<|>|==?)"
)
_SIGNS = {
    "leqslant": "<=", "leq": "<=", "le": "<=", "geqslant": ">=", "geq": ">=", "ge": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=", "≤": "<=", "≥": ">=", "≠": "!=", "==": "=",
}  # fmt: skip
_DEPTH = re.compile(r"\\begin|\\end|\\?[{}]|[()\[\]]")


class Relations(NamedTuple):
    """A chain of relations; `sides` has one more item than `signs`."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split a text at a pattern outside all brackets; any bracket closes any other, as in `[1,2)`."""
    parts, start, depth, place = [], 0, 0, 0
    while place < len(text):
        if bracket := _DEPTH.match(text, place):
            sign = bracket[0]
            depth += 1 if sign in ("\\begin", "{", "\\{", "(", "[") else -1
            place = bracket.end()
            continue
        if depth <= 0 and (found := separator.match(text, place)) and found.end() > place:
            parts.append(text[start:place])
            start = place = found.end()
            continue
        place += 1
    parts.append(text[start:])
    return [part.strip() for part in parts]


def split_relations(text: str) -> Relations:
    """Return the sides of a chain of relations and the signs between them, outside all brackets."""
    sides = split_top(text, _SIGN)
    signs: list[str] = []
    place = 0
    for left in sides[:-1]:
        place = text.index(left, place) + len(left)
        found = _SIGN.search(text, place)
        assert found is not None
        name = found["name"] or found["plain"]
        signs.append("!=" if name.startswith("not") else _SIGNS.get(name, name))
        place = found.end()
    return Relations(tuple(sides), tuple(signs))


def same_relations(given: str, expected: str) -> bool | None:
    """Return whether two chains of relations are equivalent, sign by sign; `None` if one cannot be read."""
    left, right = _upwards(split_relations(given)), _upwards(split_relations(expected))
    if len(left.signs) != len(right.signs) or not right.signs:
        return None
    names = function_names(given, expected)
    verdicts = []
    for place in range(len(left.signs)):
        try:
            gold = _difference(right, place, names)
            value = _difference(left, place, names)
        except UnreadableError:
            return None
        verdicts.append(_same_pair(value, left.signs[place], gold, right.signs[place]))
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _upwards(chain: Relations) -> Relations:
    """Reverse a descending chain such as `2 > x > 1`."""
    if chain.signs and all(sign in (">", ">=") for sign in chain.signs):
        return Relations(chain.sides[::-1], tuple(_FLIPPED[sign] for sign in chain.signs[::-1]))
    return chain


def _difference(chain: Relations, place: int, names: frozenset[str]) -> Node:
    left, right = (read_expression(side, names) for side in chain.sides[place : place + 2])
    return Node("add", (left, Node("neg", (right,))))


def _same_pair(given: Node, given_sign: str, expected: Node, expected_sign: str) -> bool | None:
    if given_sign != expected_sign and _FLIPPED[given_sign] != expected_sign:
        return False
    if same_value(given, Node("num", (), Fraction(0))) is not False:
        return same_value(given, expected) if given_sign == expected_sign else False
    ratio = None
    found = 0
    with mp.workdps(DIGITS):
        for value, gold in values_at_points((given, expected)):
            found += 1
            if gold == 0 or value == 0:
                return False
            exact = isinstance(value, Fraction) and isinstance(gold, Fraction)
            one = value / gold if exact else as_number(value) / as_number(gold)
            if ratio is None:
                ratio = one
            elif not is_zero(one - ratio if type(one) is type(ratio) else as_number(one) - as_number(ratio), ratio):
                return False
    if found < NUM_POINTS or ratio is None:
        return None
    if expected_sign in ("=", "!="):
        return True
    if isinstance(ratio, mp.mpc):
        return False
    return bool(ratio > 0) == (given_sign == expected_sign)

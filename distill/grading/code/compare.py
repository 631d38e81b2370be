"""Is what a program gave the expected? Compared in this process, from plain data alone.

same_output("1 2.50\\n", "1  2.5") is True
same_value((1, 2), [1, 2]) is True
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Any

TOLERANCE = 1e-6
"""Largest difference of two fractions, absolute or relative to the expected one."""
VOTED_DIGITS = 6
"""Of a fraction, before and after the point: `TOLERANCE`, for votes."""
MAX_NUMBER_CHARS = 400
MAX_KEY_BITS = 1_000
FAR_LONGER, SPARE_CHARS = 16, 1 << 20
"""An output is too long to be the expected one if it has more than so many times its characters, and so many more."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_LINE = re.compile(r"[^\n]+")
_WORD = re.compile(r"[^ \t\r\f\v]+")


def lines_of(output: str) -> Iterator[list[str]]:
    """Yield the words of an output, by line; blank lines are left out."""
    for line in _LINE.finditer(output):
        if words := _WORD.findall(line[0]):
            yield words


def is_far_longer(output: str, expected: Iterable[str]) -> bool:
    """Return whether an output is so much longer than what is expected that no blanks or digits make up for it."""
    return len(output) > FAR_LONGER * max(map(len, expected), default=0) + SPARE_CHARS


def same_output(output: str, expected: str) -> bool:
    """Return whether an output is the expected one.

    Lines are compared word by word, without blank lines. Words are equal as texts, or as numbers if the expected one is
    a fraction (up to `TOLERANCE`) or the other is a fraction with the same value.
    """
    if output == expected:
        return True
    return all(
        len(one) == len(other) and all(map(_same_word, one, other))
        for one, other in zip_longest(lines_of(output), lines_of(expected), fillvalue=())
    )


def _same_word(word: str, expected: str) -> bool:
    if word == expected:
        return True
    if max(len(word), len(expected)) > MAX_NUMBER_CHARS:
        return False
    if not _NUMBER.fullmatch(word) or not _NUMBER.fullmatch(expected):
        return False
    if _WHOLE.fullmatch(word) and _WHOLE.fullmatch(expected):
        return False  # 01 may be a text of digits
    if _WHOLE.fullmatch(expected):
        try:
            return Decimal(word) == Decimal(expected)
        except InvalidOperation:
            return False
    return math.isfinite(float(expected)) and close(float(word), float(expected))


def close(one: float, expected: float) -> bool:
    """Return whether two numbers are equal up to `TOLERANCE`."""
    return math.isclose(one, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def same_value(value: Any, expected: Any) -> bool:
    """Return whether a result is the expected JSON value.

    Tuples count as lists, fractions are equal up to `TOLERANCE`, and the keys of an object may be numbers. Both are of
    exact built-in types.
    """
    if isinstance(expected, bool) or isinstance(value, bool):
        return value is expected
    if isinstance(expected, float) and isinstance(value, int | float):
        return math.isnan(value) if math.isnan(expected) else _close(value, expected)
    if isinstance(expected, int) and isinstance(value, int | float):
        return value == expected
    if isinstance(expected, list | tuple) and isinstance(value, list | tuple):
        return len(value) == len(expected) and all(map(same_value, value, expected))
    if isinstance(expected, dict) and isinstance(value, dict):
        if not all(map(_may_be_key, value)):
            return False
        named = {str(key): inner for key, inner in value.items()}
        return (
            len(named) == len(value)
            and named.keys() == expected.keys()
            and all(same_value(named[key], expected[key]) for key in expected)
        )
    return type(value) is type(expected) and bool(value == expected)


def _may_be_key(key: Any) -> bool:
    """Return whether a key is a text, or a number that can be written in few digits: Python refuses to write others."""
    return type(key) in (str, float) or (type(key) is int and key.bit_length() <= MAX_KEY_BITS)


def voted_output(output: str) -> str:
    """Return a hash of an output as programs vote for it: outputs that are the same in another form are one."""
    digest = hashlib.sha256()
    for words in lines_of(output):
        digest.update(" ".join(map(_voted_word, words)).encode() + b"\n")
    return digest.hexdigest()


def _voted_word(word: str) -> str:
    is_fraction = len(word) <= MAX_NUMBER_CHARS and _NUMBER.fullmatch(word) and not _WHOLE.fullmatch(word)
    return repr(_voted_number(float(word))) if is_fraction else word


def shown_value(value: Any) -> str:
    """Return a result as a report shows it."""
    try:
        return repr(value)
    except ValueError:
        return "a whole number of more digits than Python writes"


def voted_value(value: Any) -> str | None:
    """Return a result as programs vote for it: results that are the same in another form are one.

    `None`: it has no vote, as a fraction of whole numbers of thousands of digits.
    """
    try:
        return repr(_voted(value))
    except ValueError:
        return None


def _voted(value: Any) -> Any:
    if isinstance(value, float):
        value = _voted_number(value)
    if type(value) is int:
        return value if abs(value) < 1 << 64 else hex(value)
    if isinstance(value, list | tuple):
        return [_voted(one) for one in value]
    if isinstance(value, dict):
        return {"dict": sorted((str(key), repr(_voted(one))) for key, one in value.items())}
    if isinstance(value, set | frozenset):  # in an order of its own: that of a process is random
        return {type(value).__name__: sorted(map(repr, map(_voted, value)))}
    if isinstance(value, Iterator):
        return {"iterator": [_voted(one) for one in value]}
    return value


def _voted_number(number: float) -> float:
    rounded = round(number, VOTED_DIGITS)
    return int(rounded) if rounded.is_integer() else float(f"{rounded:.{VOTED_DIGITS}g}")


def _close(value: float, expected: float) -> bool:
    try:
        return close(value, expected)
    except OverflowError:  # a whole number too large for a fraction
        return False

r"""Compare sets of real numbers: intervals, unions, inequalities and exclusions.

Each is read as a sorted list of intervals. Examples: `"x<1 \text{ or } x>2"` and `"(-\infty,1)\cup(2,\infty)"`,
`"x \ne 3"` and `"\mathbb{R}\setminus\{3\}"`.
"""

import re
from typing import NamedTuple

from mpmath import mp  # type: ignore[import-untyped]

from distill.grading.expression import read_expression
from distill.grading.functions import DIGITS, Value, as_number, is_zero
from distill.grading.notation import Node, UnreadableError
from distill.grading.relations import INEQUALITIES, split_relations, split_top
from distill.grading.values import constant_value, values_on_a_line

MAX_PIECES = 40

_SET_SIGN = re.compile(
    r"[<>≤≥≠∪]|\\(?:leq?|geq?|leqslant|geqslant|lt|gt|neq?|cup|setminus|backslash|mathbb\s*\{?\s*R|R(?![a-zA-Z])|Reals)|"
    r"\ball real (?:numbers|values)\b|\breal numbers\b"
)
_UNION = re.compile(r"\\(?:cup|lor|vee)(?![a-zA-Z])|∪|\bor\b|\\text\s*\{\s*,?\s*or\s*\}")
_BOTH = re.compile(r"\\(?:cap|land|wedge)(?![a-zA-Z])|\band\b|\\text\s*\{\s*,?\s*and\s*\}")
_WITHOUT = re.compile(r"\\(?:setminus|backslash)(?![a-zA-Z])|\s\\\s|\b(?:except|excluding)(?: for)?\b")
_ALL = re.compile(
    r"\\mathbb\s*\{?\s*R\s*\}?|\\R|\\Reals|ℝ|"
    r"(?:x is )?(?:the set of )?(?:all )?(?:the )?real numbers?(?: x)?|all real values(?: of x)?"
)
_MEMBER = re.compile(r"\s*([a-zA-Z]|\\[a-zA-Z]+)\s*\\in(?![a-zA-Z])")
_ABSOLUTE = re.compile(r"(?:\||\\lvert)([^|]*?)(?:\||\\rvert)")
_BUILDER = re.compile(
    r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\||:|\\mid|\\vert|\\colon)\s*(.*)\\\}", re.DOTALL
)


class Piece(NamedTuple):
    """An interval; an infinite end is `None`."""

    low: Value | None
    high: Value | None
    has_low: bool
    has_high: bool


class RealSet(NamedTuple):
    """Sorted intervals, and the variable that the text names (`""`: none)."""

    pieces: tuple[Piece, ...]
    variable: str = ""


class _NoSetError(ValueError):
    """The text is not a readable set."""


EVERYTHING = Piece(None, None, False, False)


def looks_like_a_set(text: str) -> bool:
    """Return whether a text has a sign that only sets of numbers and inequalities have."""
    return _SET_SIGN.search(text) is not None


def same_set(given: str, expected: str) -> bool | None:
    """Return whether two texts are the same set of real numbers; `None` if one is not a readable set."""
    left, right = read_set(given), read_set(expected)
    if left is None or right is None:
        return None
    if left.variable and right.variable and left.variable != right.variable:
        return False
    if len(left.pieces) != len(right.pieces):
        return False
    return all(
        (a.has_low, a.has_high) == (b.has_low, b.has_high) and _same_end(a.low, b.low) and _same_end(a.high, b.high)
        for a, b in zip(left.pieces, right.pieces, strict=True)
    )


def read_set(text: str) -> RealSet | None:
    """Return the set of real numbers in a cleaned text, or `None`."""
    try:
        found = _read(text.strip(), 0)
    except (_NoSetError, UnreadableError):
        return None
    return RealSet(_joined(found.pieces), found.variable)


def _read(text: str, depth: int) -> RealSet:
    if depth > 8:
        raise _NoSetError
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip().strip(",;").strip()
    if found := _BUILDER.fullmatch(text):
        return _read(found[2], depth + 1)
    if found := _MEMBER.match(text):
        return _read(text[found.end() :], depth + 1)._replace(variable=found[1])
    if _ALL.fullmatch(" ".join(text.split())):
        return RealSet((EVERYTHING,))
    for pattern, together in ((_UNION, _union), (_BOTH, _intersection), (_WITHOUT, _difference)):
        parts = split_top(text, pattern)
        if len(parts) > 1:
            if len(parts) > MAX_PIECES:
                raise _NoSetError
            read = [_read(part, depth + 1) for part in parts]
            return RealSet(together([one.pieces for one in read]), _one_variable(read))
    if (interval := _interval(text)) is not None:
        return RealSet((interval,))
    if text.startswith("\\{") and text.endswith("\\}"):
        return RealSet(_points(text[2:-2]))
    relations = split_relations(text)
    if len(relations.signs) and any(sign in INEQUALITIES for sign in relations.signs):
        parts = split_top(text, re.compile("[,;]"))
        if len(parts) > 1 and all(split_relations(part).signs for part in parts):
            read = [_read(part, depth + 1) for part in parts]
            excluded = any(split_relations(part).signs == ("!=",) for part in parts)
            pieces = [one.pieces for one in read]
            either = _union(pieces)
            # `x>1, x<5` means both: their union would be all numbers.
            both_at_once = excluded or either == (EVERYTHING,)
            return RealSet(_intersection(pieces) if both_at_once else either, _one_variable(read))
        return _inequality(relations.sides, relations.signs)
    raise _NoSetError


def _one_variable(read: list[RealSet]) -> str:
    names = {one.variable for one in read if one.variable}
    if len(names) > 1:
        raise _NoSetError
    return names.pop() if names else ""


def _interval(text: str) -> Piece | None:
    found = re.fullmatch(r"([(\[\]])(.*)([)\]\[])", text, re.DOTALL)
    if not found:
        return None
    ends = split_top(found[2], re.compile("[,;]"))
    if len(ends) != 2:
        return None
    low, high = _end(ends[0]), _end(ends[1])
    if low == "high" or high == "low":
        return None
    ordered = low == "low" or high == "high" or low <= high  # type: ignore[operator]
    if not ordered:
        return None
    return Piece(
        None if low == "low" else low,
        None if high == "high" else high,
        found[1] == "[",
        found[3] == "]",
    )


def _end(text: str) -> Value | str:
    """Return a number, or `low` or `high` for an infinity."""
    plain = text.replace(" ", "").replace("∞", "\\infty").replace("{", "").replace("}", "")
    if plain in ("-\\infty", "-infinity", "-infty"):
        return "low"
    if plain in ("\\infty", "+\\infty", "infinity", "infty"):
        return "high"
    return _constant(text)


def _constant(text: str) -> Value:
    value = constant_value(read_expression(text))
    if value is None:
        raise _NoSetError
    return as_number(value)


def _points(text: str) -> tuple[Piece, ...]:
    values = [_constant(part) for part in split_top(text, re.compile("[,;]")) if part.strip()]
    return _joined(tuple(Piece(value, value, True, True) for value in values))


def _inequality(sides: tuple[str, ...], signs: tuple[str, ...]) -> RealSet:
    if signs == ("!=",) and "," in sides[1]:
        excluded = split_top(sides[1], re.compile("[,;]"))
        read = [_inequality((sides[0], part), signs) for part in excluded]
        return RealSet(_intersection([one.pieces for one in read]), read[0].variable)
    if len(signs) == 1 and (found := _ABSOLUTE.fullmatch(sides[0])) and signs[0] != "!=":
        return _within(found[1], signs[0], sides[1])
    pieces: tuple[Piece, ...] = (EVERYTHING,)
    variables = set()
    for left, sign, right in zip(sides, signs, sides[1:], strict=False):
        solved, variable = _solved(read_expression(left), sign, read_expression(right))
        variables.add(variable)
        pieces = _intersection([pieces, solved])
    if len(variables) != 1:
        raise _NoSetError
    return RealSet(pieces, variables.pop())


def _within(inside: str, sign: str, size: str) -> RealSet:
    """Solve an inequality such as `|x-2| < 3`."""
    opposite = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}[sign]
    read = [_inequality((inside, size), (sign,)), _inequality((inside, f"-({size})"), (opposite,))]
    pieces = [one.pieces for one in read]
    return RealSet(_intersection(pieces) if sign in ("<", "<=") else _union(pieces), read[0].variable)


def _solved(left: Node, sign: str, right: Node) -> tuple[tuple[Piece, ...], str]:
    """Solve a linear inequality in one variable."""
    line = values_on_a_line(Node("add", (left, Node("neg", (right,)))))
    if line is None:
        raise _NoSetError
    variable, slope, root = line
    root = as_number(root)
    if sign == "!=":
        return (Piece(None, root, False, False), Piece(root, None, False, False)), variable
    closed = sign in ("<=", ">=")
    below = (sign in ("<", "<=")) == (slope > 0)
    return ((Piece(None, root, False, closed) if below else Piece(root, None, closed, False)),), variable


def _low_key(piece: Piece) -> tuple[bool, Value, bool]:
    return (piece.low is not None, 0 if piece.low is None else piece.low, not piece.has_low)


def _joined(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Return the same set with as few intervals as possible, sorted."""
    done: list[Piece] = []
    for piece in sorted(pieces, key=_low_key):
        if _is_empty(piece):
            continue
        last = done[-1] if done else None
        if last is not None and (last.high is None or piece.low is None or _touches(last, piece)):
            done[-1] = _hull(last, piece)
        else:
            done.append(piece)
    return tuple(done)


def _is_empty(piece: Piece) -> bool:
    if piece.low is None or piece.high is None:
        return False
    return bool(piece.low > piece.high) or (piece.low == piece.high and not (piece.has_low and piece.has_high))


def _touches(last: Piece, piece: Piece) -> bool:
    assert last.high is not None
    if _same_end(last.high, piece.low):
        return last.has_high or piece.has_low
    return bool(piece.low < last.high)


def _hull(last: Piece, piece: Piece) -> Piece:
    if last.high is None:
        return last
    if piece.high is None or piece.high > last.high:
        return last._replace(high=piece.high, has_high=piece.has_high)
    if _same_end(piece.high, last.high):
        return last._replace(has_high=last.has_high or piece.has_high)
    return last


def _union(sets: list[tuple[Piece, ...]]) -> tuple[Piece, ...]:
    return _joined(tuple(piece for pieces in sets for piece in pieces))


def _intersection(sets: list[tuple[Piece, ...]]) -> tuple[Piece, ...]:
    found = sets[0]
    for other in sets[1:]:
        if len(found) * len(other) > MAX_PIECES**2:
            raise _NoSetError
        found = _joined(tuple(_common(a, b) for a in found for b in other))
    return found


def _common(a: Piece, b: Piece) -> Piece:
    if a.low is None or (b.low is not None and b.low > a.low):
        low, has_low = b.low, b.has_low
    else:
        low, has_low = a.low, a.has_low and (b.low is None or a.low > b.low or b.has_low)
    if a.high is None or (b.high is not None and b.high < a.high):
        high, has_high = b.high, b.has_high
    else:
        high, has_high = a.high, a.has_high and (b.high is None or a.high < b.high or b.has_high)
    return Piece(low, high, has_low, has_high)


def _difference(sets: list[tuple[Piece, ...]]) -> tuple[Piece, ...]:
    found = sets[0]
    for removed in sets[1:]:
        for piece in removed:
            rest = [Piece(None, piece.low, False, not piece.has_low)] if piece.low is not None else []
            rest += [Piece(piece.high, None, not piece.has_high, False)] if piece.high is not None else []
            found = _intersection([found, tuple(rest)]) if rest else ()
    return found


def _same_end(left: Value | None, right: Value | None) -> bool:
    if left is None or right is None:
        return left is right
    if left == right:
        return True
    with mp.workdps(DIGITS):
        return is_zero(left - right, max(abs(left), abs(right)))

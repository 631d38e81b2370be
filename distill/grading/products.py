"""Compare products of matrices, which do not commute: `"A^{-1}B"` is not `"BA^{-1}"`.

Each letter becomes a matrix of pseudo-random fractions, so that only identities of matrices hold
(`distill.grading.values` gives the reason).
"""

import hashlib
import re
from fractions import Fraction
from typing import Any

from distill.grading.notation import Node

SIZE = 3
NUM_TRIALS = 2
MAX_POWER = 30

_CAPITAL = re.compile(r"(?<![\\a-zA-Z_])(?:[A-Z](?![a-z_]))+(?![a-z])")
_MARKED = re.compile(r"[A-Z)]\s*\^\s*(?:\{\s*(?:-1|T|\\top|\\intercal|\\dagger|H|\*)\s*\}|T|\\top|\\dagger|\*)")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm)\s*\{?\s*[A-Z]")
_DIMENSIONS = set("MLTIKNJ")
"""Symbols of physical dimensions, whose products (`MLT^{-2}`) are not of matrices."""

_Matrix = tuple[tuple[Fraction, ...], ...]
_Value = Any
"""A `Fraction` or a matrix of them."""


class _NoMatrixError(ValueError):
    """The expression is not one of matrices."""


def same_product(given: str, expected: str, value: Node, gold: Node) -> bool | None:
    """Return whether two expressions of matrices are equal; `None` if nothing shows that letters are matrices."""
    if not _has_matrices(given, expected):
        return None
    try:
        return all(_value(value, trial) == _value(gold, trial) for trial in range(NUM_TRIALS))
    except (_NoMatrixError, ZeroDivisionError):
        return None


def _has_matrices(*texts: str) -> bool:
    letters: set[str] = set()
    for text in texts:
        runs = _CAPITAL.findall(re.sub(r"\\(?:mathbf|boldsymbol|bm|mathrm)\s*\{\s*(\w+)\s*\}|\^\{?T\}?", r"\1", text))
        letters |= set("".join(runs))
        pairs = {run[i : i + 2] for run in runs for i in range(len(run) - 1)}
        if any(pair[::-1] in pairs and pair[0] != pair[1] for pair in pairs):
            return True
    if len(letters) < 2 or letters <= _DIMENSIONS:
        return False
    return any(_MARKED.search(text) or _BOLD.search(text) for text in texts)


def _value(node: Node, trial: int) -> _Value:
    if node.op == "num":
        return node.value
    if node.op == "sym":
        return _letter(str(node.value), trial)
    if node.op == "pow" and node.args[1].op == "sym" and node.args[1].value == "T":
        return _transposed(_value(node.args[0], trial))
    if node.op == "pow":
        return _power(_value(node.args[0], trial), _value(node.args[1], trial))
    args = [_value(argument, trial) for argument in node.args]
    if node.op == "neg":
        return _times(Fraction(-1), args[0])
    if node.op == "add":
        total = args[0]
        for term in args[1:]:
            total = _sum(total, term)
        return total
    if node.op == "mul":
        product = args[0]
        for factor in args[1:]:
            product = _times(product, factor)
        return product
    if node.op == "div" and isinstance(args[1], Fraction):
        return _times(1 / args[1], args[0])
    if node.op == "call" and node.value == "transpose":
        return _transposed(args[0])
    if node.op in ("fn", "call") and node.value in ("det", "tr", "abs") and not isinstance(args[0], Fraction):
        return _determinant(args[0]) if node.value != "tr" else sum(args[0][i][i] for i in range(SIZE))
    raise _NoMatrixError


def _letter(name: str, trial: int) -> _Value:
    bare = name.removeprefix("vec ")
    if bare == "I":
        return tuple(tuple(Fraction(int(i == j)) for j in range(SIZE)) for i in range(SIZE))
    digest = hashlib.sha256(f"{bare}\0{trial}".encode()).digest()
    numbers = [Fraction(byte + 1, 3) for byte in digest[: SIZE * SIZE]]
    if not bare[:1].isupper():
        if name.startswith("vec ") or name in ("i", "e", "pi", "infty"):
            raise _NoMatrixError
        return numbers[0]
    return tuple(tuple(numbers[i * SIZE : (i + 1) * SIZE]) for i in range(SIZE))


def _sum(left: _Value, right: _Value) -> _Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    if isinstance(left, Fraction) or isinstance(right, Fraction):
        raise _NoMatrixError
    return tuple(tuple(a + b for a, b in zip(one, other, strict=True)) for one, other in zip(left, right, strict=True))


def _times(left: _Value, right: _Value) -> _Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    if isinstance(left, Fraction) or isinstance(right, Fraction):
        number, matrix = (left, right) if isinstance(left, Fraction) else (right, left)
        return tuple(tuple(number * cell for cell in row) for row in matrix)
    columns = list(zip(*right, strict=True))
    return tuple(tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in columns) for row in left)


def _power(base: _Value, exponent: _Value) -> _Value:
    if not isinstance(exponent, Fraction) or exponent.denominator != 1 or abs(exponent) > MAX_POWER:
        raise _NoMatrixError
    power = exponent.numerator
    if isinstance(base, Fraction):
        return base**power
    factor = _inverse(base) if power < 0 else base
    product = _letter("I", 0)
    for _ in range(abs(power)):
        product = _times(product, factor)
    return product


def _transposed(value: _Value) -> _Value:
    return value if isinstance(value, Fraction) else tuple(zip(*value, strict=True))


def _determinant(matrix: _Matrix) -> Fraction:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _inverse(matrix: _Matrix) -> _Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    scale = 1 / _determinant(matrix)
    adjugate = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return tuple(tuple(scale * cell for cell in row) for row in adjugate)

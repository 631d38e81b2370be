"""Arithmetic and mathematical functions on values that stay fractions where possible, and else are mpmath numbers."""

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
from mpmath import mp

DIGITS = 60
MAX_BITS = 200_000
"""Larger fractions are computed in floating point, with as many digits as needed."""

MAX_EXPONENT = 10_000_000
MAX_FACTORIAL = 3_000
Value = Any
"""A `Fraction` if exact, otherwise an mpmath number."""


class UndefinedError(ArithmeticError):
    """There is no value: division by zero, not a real number, or too large."""


def is_zero(difference: Value, scale: Value) -> bool:
    """Return whether a difference is negligible beside the values' scale."""
    if isinstance(difference, Fraction):
        return difference == 0
    return bool(abs(difference) <= mpmath.mpf(10) ** -(mp.dps // 2) * abs(scale))


def as_number(value: Value) -> Value:
    """Return a value as an mpmath number of `DIGITS` digits."""
    with mp.workdps(DIGITS):
        return number_of(value)


def number_of(value: Value) -> Value:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return value


def times(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return bounded(left * right)
    if left == 0 or right == 0:
        return Fraction(0)
    return number_of(left) * number_of(right)


def bounded(value: Fraction) -> Value:
    if value.numerator.bit_length() + value.denominator.bit_length() > 4 * MAX_BITS:
        return number_of(value)
    return value


def exact_root(base: Fraction, degree: int) -> Fraction | None:
    if degree > 12:
        return None
    parts = []
    for part in (base.numerator, base.denominator):
        if degree == 2:
            root = math.isqrt(part)
        elif part.bit_length() > 1_000:
            return None
        else:
            root = int(mpmath.nint(mpmath.root(part, degree)))
        if root**degree != part:
            return None
        parts.append(root)
    return Fraction(parts[0], parts[1])


def bounded_exp(base: Value, exponent: Value) -> Value:
    if abs(exponent) * (abs(mpmath.log(abs(base))) + 4) > MAX_EXPONENT:
        raise UndefinedError
    return mpmath.power(base, exponent)


def unknown_function(name: str, args: list[Value]) -> Value:
    """Return the value of an unknown function: determined by its name, and subject to no identity."""
    digest = hashlib.sha256(name.encode()).digest()
    total = mpmath.mpf(digest[0]) / 7
    for place, value in enumerate(args):
        number = number_of(value)
        if abs(number) > 10**6:
            raise UndefinedError
        factor = mpmath.mpf(1 + digest[1 + place % 20]) / 97
        total += mpmath.cos(factor * number + digest[21 + place % 10]) + factor * number * number / (3 + place)
    return total


_PLAIN: dict[str, Any] = {
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "cot": mpmath.cot, "sec": mpmath.sec, "csc": mpmath.csc,
    "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh, "coth": mpmath.coth, "arcsin": mpmath.asin,
    "arccos": mpmath.acos, "arctan": mpmath.atan, "arccot": mpmath.acot, "arcsinh": mpmath.asinh,
    "arccosh": mpmath.acosh, "arctanh": mpmath.atanh, "arsinh": mpmath.asinh, "arcosh": mpmath.acosh,
    "artanh": mpmath.atanh, "tg": mpmath.tan, "ctg": mpmath.cot, "arctg": mpmath.atan, "arcctg": mpmath.acot,
    "sh": mpmath.sinh, "ch": mpmath.cosh, "th": mpmath.tanh, "cosec": mpmath.csc, "exp": mpmath.exp,
}  # fmt: skip


def known_function(name: str, args: list[Value], power: Callable[[Value, Value], Value]) -> Value:
    number = args[0]
    if name in ("max", "min", "gcd", "lcm"):
        return _of_many(name, args)
    if name in ("sqrt", "root"):
        degree = args[1] if name == "root" else Fraction(2)
        if degree == 0:
            raise UndefinedError
        return power(number, 1 / degree)
    if name in ("binomial", "factorial"):
        return _factorial(number) if name == "factorial" else _binomial(number, args[1])
    if len(args) != (2 if name in ("log", "lg") and len(args) == 2 else 1):
        return unknown_function(name, args)
    if name == "degree":
        return number_of(number) * mp.pi / 180
    if name in ("abs", "floor", "ceil", "sgn"):
        return _step(name, number)
    if name in ("log", "ln", "lg"):
        if number == 0:
            raise UndefinedError
        base = args[1] if len(args) == 2 else Fraction(10) if name != "ln" else None
        if base is not None and (base in (0, 1)):
            raise UndefinedError
        exact = _exact_log(number, base)
        return (
            exact
            if exact is not None
            else mpmath.log(number_of(number)) / (1 if base is None else mpmath.log(number_of(base)))
        )
    if name in ("Re", "Im"):
        return mpmath.mpf(getattr(number_of(number), name[:2].lower().replace("re", "real").replace("im", "imag")))
    if name not in _PLAIN:
        return unknown_function(name, args)
    if number == 0 and name in ("sin", "tan", "arcsin", "arctan", "sinh", "tanh"):
        return Fraction(0)
    plain = number_of(number)
    if abs(plain) > MAX_EXPONENT:
        raise UndefinedError
    value = _PLAIN[name](plain)
    # Rounding errors: sin(pi) must be 0, and a pole must be undefined.
    if abs(value) < mpmath.mpf(10) ** -(mp.dps // 2) and name not in ("exp", "arcsin", "arctan", "sinh", "tanh"):
        return Fraction(0)
    if abs(value) > mpmath.mpf(10) ** (mp.dps // 2) and name in ("tan", "cot", "sec", "csc"):
        raise UndefinedError
    return value


def _exact_log(number: Value, base: Value | None) -> Fraction | None:
    """Return a logarithm that is an integer of moderate size, such as 3 for `\\log 1000`, else `None`."""
    if not isinstance(number, Fraction) or not isinstance(base, Fraction) or number <= 0 or base <= 1:
        return None
    power = round(math.log(number.numerator) / math.log(base) - math.log(number.denominator) / math.log(base))
    return Fraction(power) if abs(power) <= 10_000 and base**power == number else None


def _step(name: str, number: Value) -> Value:
    if name == "abs":
        return abs(number)
    if isinstance(number, mpmath.mpc):
        raise UndefinedError
    if name == "sgn":
        return Fraction((number > 0) - (number < 0))
    return Fraction(int(math.floor(number) if name == "floor" else math.ceil(number)))


def _of_many(name: str, args: list[Value]) -> Value:
    if any(isinstance(value, mpmath.mpc) for value in args):
        raise UndefinedError
    if name in ("max", "min"):
        return max(args) if name == "max" else min(args)
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in args):
        raise UndefinedError
    return Fraction((math.gcd if name == "gcd" else math.lcm)(*(value.numerator for value in args)))


def _factorial(number: Value) -> Value:
    if isinstance(number, Fraction) and number.denominator == 1:
        if not 0 <= number <= MAX_FACTORIAL:
            raise UndefinedError
        return Fraction(math.factorial(number.numerator))
    if isinstance(number, mpmath.mpc) or abs(number) > MAX_FACTORIAL:
        raise UndefinedError
    return mpmath.gamma(number_of(number) + 1)


def _binomial(top: Value, bottom: Value) -> Value:
    whole = isinstance(top, Fraction) and isinstance(bottom, Fraction) and top.denominator == bottom.denominator == 1
    if not whole or not 0 <= top <= 100_000 or not bottom >= 0:
        raise UndefinedError
    if min(bottom, top - bottom) > MAX_FACTORIAL:
        raise UndefinedError
    return Fraction(math.comb(top.numerator, bottom.numerator))

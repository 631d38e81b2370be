r"""Whether two expressions have the same value: exact where they are rational, else to more digits than could agree by
chance.

Enters: two trees (`distill.grading.expression`). Leaves: right, wrong, or `None` where neither can be told.

Two constants are worked out as fractions, or to 60 digits and three times as many as their largest fractions have. Two
expressions with variables are worked out at points that are drawn from their texts. Two rational functions of degree d
that differ agree at one point with probability d / 10^5 at most (Schwartz 1980, Zippel 1979), and at all of them with
that to the power of their number. Points where an expression leaves the real numbers do not count.
"""

import hashlib
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
from mpmath import mp

from distill.grading.expression import Node

NUM_POINTS = 5
"""Points at which two expressions must agree; one where they differ is enough to tell them apart."""

MAX_TRIED_POINTS = 24
DIGITS = 60
MAX_DIGITS = 4_000
MAX_BITS = 200_000
"""Larger fractions are worked out in floating point of as many digits as are needed."""

MAX_EXPONENT = 10_000_000
MAX_FACTORIAL = 3_000
MAX_TERMS = 1_000
"""A longer sum or product is not worked out."""

Value = Any
"""A `Fraction` where exact, else an mpmath number."""


class Undefined(ArithmeticError):
    """No value there: division by zero, or beyond the real numbers."""


def same_value(given: Node, expected: Node) -> bool | None:
    """Whether two trees have the same value; `None`: they have none, or too few points of their domain were found."""
    names = sorted(_symbols(given) | _symbols(expected))
    if "infty" in names:
        return _same_infinity(given, expected)
    is_complex = "i" in names
    variables = [name for name in names if name not in ("pi", "e", "i")]
    if not variables:
        return _same_constant(given, expected, is_complex)
    return _same_function(given, expected, variables, is_complex)


def constant_value(node: Node) -> Value | None:
    """The real value of a tree without variables, exact or to `DIGITS` digits; `None` where it has none."""
    if _symbols(node) - {"pi", "e"}:
        return None
    try:
        return _Evaluation({}, False, _digits_needed(node)).value(node)
    except (Undefined, ValueError, ZeroDivisionError, OverflowError):
        return None


def values_at_points(trees: tuple[Node, ...], num_points: int = NUM_POINTS) -> Iterator[list[Value]]:
    """The values of several trees at the same points of their common domain."""
    names = sorted(set().union(*(_symbols(tree) for tree in trees)))
    variables = [name for name in names if name not in ("pi", "e", "i")]
    whole = any(_needs_whole_numbers(tree) for tree in trees)
    digits = max(_digits_needed(tree) for tree in trees)
    seed = repr(trees)
    found = 0
    for attempt in range(MAX_TRIED_POINTS):
        point = {name: _coordinate(seed, name, attempt, whole) for name in variables}
        evaluation = _Evaluation(point, "i" in names, digits)
        try:
            values = [evaluation.value(tree) for tree in trees]
        except (Undefined, ValueError, ZeroDivisionError, OverflowError):
            continue
        yield values
        found += 1
        if found == num_points:
            return


def values_on_a_line(node: Node) -> tuple[str, Value, Value] | None:
    """(variable, slope, root) of a tree that is linear in its one variable; `None` where it is not."""
    names = _symbols(node) - {"pi", "e"}
    if len(names) != 1 or names & {"i", "infty"}:
        return None
    (name,) = names
    digits = _digits_needed(node)
    try:
        values = [_Evaluation({name: Fraction(x)}, False, digits).value(node) for x in (-7, -2, 3, 8)]
    except (Undefined, ValueError, ZeroDivisionError, OverflowError):
        return None
    with mp.workdps(digits):
        if not all(isinstance(value, Fraction) for value in values):
            values = [_number(value) for value in values]
        steps = [right - left for left, right in zip(values, values[1:], strict=False)]
        if is_zero(steps[0], max(abs(value) for value in values)):
            return None
        if not all(is_zero(step - steps[0], steps[0]) for step in steps):
            return None
        root = -2 - values[1] * 5 / steps[0]
        return name, steps[0], root


def is_zero(difference: Value, scale: Value) -> bool:
    """Whether a difference is nothing beside the values that it is of."""
    if isinstance(difference, Fraction):
        return difference == 0
    return bool(abs(difference) <= mpmath.mpf(10) ** -(mp.dps // 2) * abs(scale))


def _same_constant(given: Node, expected: Node, is_complex: bool) -> bool | None:
    digits = max(_digits_needed(given), _digits_needed(expected))
    for beyond_reals in (True,) if is_complex else (False, True):
        try:
            gold = _Evaluation({}, beyond_reals, digits).value(expected)
        except (Undefined, ValueError, ZeroDivisionError, OverflowError):
            continue
        try:
            value = _Evaluation({}, beyond_reals, digits).value(given)
        except (Undefined, ValueError, ZeroDivisionError, OverflowError):
            if beyond_reals:
                return False
            continue
        with mp.workdps(digits):
            difference, scale = _plain_difference(value, gold)
            return is_zero(difference, scale)
    return None


def _same_function(given: Node, expected: Node, variables: list[str], is_complex: bool) -> bool | None:
    digits = max(_digits_needed(given), _digits_needed(expected))
    whole = _needs_whole_numbers(given) or _needs_whole_numbers(expected)
    seed = repr((given, expected))
    found = 0
    for attempt in range(MAX_TRIED_POINTS):
        point = {name: _coordinate(seed, name, attempt, whole) for name in variables}
        evaluation = _Evaluation(point, is_complex, digits)
        try:
            gold, value = evaluation.value(expected), evaluation.value(given)
        except (Undefined, ValueError, ZeroDivisionError, OverflowError):
            continue
        with mp.workdps(digits):
            difference, scale = _plain_difference(value, gold)
            if not is_zero(difference, scale):
                return False
        found += 1
        if found == NUM_POINTS:
            return True
    return None


def _plain_difference(left: Value, right: Value) -> tuple[Value, Value]:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left - right, right
    left, right = _number(left), _number(right)
    return left - right, max(abs(left), abs(right))


def _same_infinity(given: Node, expected: Node) -> bool | None:
    """Infinity is a value only by itself, with a sign: what is made of it has none."""
    sides = []
    for node in (given, expected):
        sign = 1
        while node.op == "neg":
            sign, node = -sign, node.args[0]
        sides.append(sign if node == Node("sym", (), "infty") else 0)
    if not sides[1]:
        return None if "infty" in _symbols(expected) else False
    return sides[0] == sides[1]


def _symbols(node: Node) -> set[str]:
    if node.op == "sym":
        return {str(node.value)}
    if node.op in ("sum", "prod"):
        return (_symbols(node.args[2]) - {str(node.value)}) | _symbols(node.args[0]) | _symbols(node.args[1])
    return set().union(*map(_symbols, node.args)) if node.args else set()


def _needs_whole_numbers(node: Node) -> bool:
    """Factorials, and powers of negative numbers, are meant for whole numbers."""
    if node.op in ("sum", "prod") and _symbols(node):
        return True
    if node.op == "fn" and node.value in ("factorial", "binomial", "gcd", "lcm") and _symbols(node):
        return True
    if node.op == "pow" and _symbols(node.args[1]) - {"pi", "e", "i"}:
        base = node.args[0]
        if base.op == "neg" or (base.op == "num" and base.value < 0):  # type: ignore[operator]
            return True
    return any(_needs_whole_numbers(argument) for argument in node.args)


def _digits_needed(node: Node) -> int:
    """More digits than the constants of a tree have, so that a small one beside a large one is seen."""
    largest = 0
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.op == "num":
            assert isinstance(one.value, Fraction)
            largest = max(largest, one.value.numerator.bit_length(), one.value.denominator.bit_length())
        if one.op == "pow" and one.args[0].op in ("num", "div", "mul", "neg"):
            exponent = one.args[1].args[0] if one.args[1].op == "neg" else one.args[1]
            base = max((n.value for n in _leaves(one.args[0])), default=Fraction(1))
            if exponent.op == "num" and isinstance(exponent.value, Fraction) and base > 0:
                bits = max(base.numerator, base.denominator).bit_length()
                largest = max(largest, int(min(exponent.value, 100_000) * bits))
        waiting.extend(one.args)
    return min(MAX_DIGITS, DIGITS + largest)  # 3.3 bits a digit: three times what is there


def _leaves(node: Node) -> Iterator[Any]:
    if node.op == "num":
        yield node
    for argument in node.args:
        yield from _leaves(argument)


def _coordinate(seed: str, name: str, attempt: int, whole: bool) -> Fraction:
    """A number drawn from the texts that are compared, which whoever writes one of them does not know.

    The first points are positive, where roots and logarithms are defined; then come negative ones.
    """
    digest = hashlib.sha256(f"{seed}\0{name}\0{attempt}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big")
    if whole:
        return Fraction(2 + drawn % 19)
    size = 1 if attempt % 3 else 40
    value = Fraction(1 + drawn % 100_003, 10_007) / (1 if attempt % 3 else Fraction(size, 13))
    return -value if attempt % 2 and digest[9] % 2 else value


def as_number(value: Value) -> Value:
    """An mpmath number of `DIGITS` digits."""
    with mp.workdps(DIGITS):
        return _number(value)


def _number(value: Value) -> Value:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return value


class _Evaluation:
    """The value of trees at one point."""

    def __init__(self, point: dict[str, Fraction], is_complex: bool, digits: int) -> None:
        self.point, self.is_complex, self.digits = point, is_complex, digits

    def value(self, node: Node) -> Value:
        """The value of a tree.

        Raises:
            Undefined: it has none at this point.
        """
        with mp.workdps(self.digits):
            return self._value(node)

    def _value(self, node: Node) -> Value:
        if node.op == "num":
            return node.value
        if node.op == "sym":
            return self._symbol(str(node.value))
        if node.op in ("sum", "prod"):
            return self._series(node)
        args = [self._value(argument) for argument in node.args]
        if node.op == "neg":
            return -args[0]
        if node.op == "add":
            total = args[0]
            for term in args[1:]:
                total = self._sum(total, term)
            return total
        if node.op == "mul":
            product = args[0]
            for factor in args[1:]:
                product = _times(product, factor)
            return product
        if node.op == "div":
            if args[1] == 0:
                raise Undefined
            if isinstance(args[0], Fraction) and isinstance(args[1], Fraction):
                return _bounded(args[0] / args[1])
            return _number(args[0]) / _number(args[1])
        if node.op == "pow":
            return self._power(args[0], args[1])
        if node.op == "call":
            return _unknown(str(node.value), args)
        return self._checked(_function(str(node.value), args, self))

    def _series(self, node: Node) -> Value:
        lower, upper = self._value(node.args[0]), self._value(node.args[1])
        if not all(isinstance(end, Fraction) and end.denominator == 1 for end in (lower, upper)):
            raise Undefined
        if upper - lower >= MAX_TERMS:
            raise Undefined
        total = Fraction(int(node.op == "prod"))
        name, outer = str(node.value), dict(self.point)
        for index in range(int(lower), int(upper) + 1):
            self.point[name] = Fraction(index)
            term = self._value(node.args[2])
            total = self._sum(total, term) if node.op == "sum" else _times(total, term)
        self.point = outer
        return total

    def _symbol(self, name: str) -> Value:
        if name in self.point:
            return self.point[name]
        if name == "pi":
            return +mp.pi
        if name == "e":
            return +mp.e
        if name == "i":
            return mpmath.mpc(0, 1)
        raise Undefined

    def _sum(self, left: Value, right: Value) -> Value:
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return _bounded(left + right)
        left, right = _number(left), _number(right)
        total = left + right
        # What is left of two numbers that cancel is rounding: it is 0.
        return Fraction(0) if is_zero(total, max(abs(left), abs(right))) else total

    def _power(self, base: Value, exponent: Value) -> Value:
        if base == 0:
            if not isinstance(exponent, Fraction) or exponent <= 0:
                if exponent == 0:
                    return Fraction(1)
                raise Undefined
            return Fraction(0)
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            power = exponent.numerator
            if isinstance(base, Fraction):
                bits = max(base.numerator.bit_length(), base.denominator.bit_length())
                if bits * abs(power) <= MAX_BITS:
                    return base**power
            if abs(power) > MAX_EXPONENT:
                raise Undefined
            return _number(base) ** power
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            if (root := _exact_root(abs(base), exponent.denominator)) is not None and abs(exponent) < 1_000:
                if base > 0:
                    return self._power(root, Fraction(exponent.numerator))
                if exponent.denominator % 2 and not self.is_complex:
                    return self._power(-root, Fraction(exponent.numerator))
            if base < 0 and exponent.denominator % 2 and not self.is_complex:
                size = self._power(-base, exponent)
                return -size if exponent.numerator % 2 else size
        return self._checked(_bounded_exp(_number(base), _number(exponent)))

    def _checked(self, value: Value) -> Value:
        """Only complex expressions leave the real numbers."""
        if isinstance(value, mpmath.mpc):
            if value.imag == 0 or is_zero(value.imag, value):
                return value.real
            if not self.is_complex:
                raise Undefined
        if not isinstance(value, Fraction) and not mpmath.isfinite(value):
            raise Undefined
        return value


def _times(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(left * right)
    if left == 0 or right == 0:
        return Fraction(0)
    return _number(left) * _number(right)


def _bounded(value: Fraction) -> Value:
    if value.numerator.bit_length() + value.denominator.bit_length() > 4 * MAX_BITS:
        return _number(value)
    return value


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
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


def _bounded_exp(base: Value, exponent: Value) -> Value:
    if abs(exponent) * (abs(mpmath.log(abs(base))) + 4) > MAX_EXPONENT:
        raise Undefined
    return mpmath.power(base, exponent)


def _unknown(name: str, args: list[Value]) -> Value:
    """A function of which only the name is known: any one that no identity holds for, the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    total = mpmath.mpf(digest[0]) / 7
    for place, value in enumerate(args):
        number = _number(value)
        if abs(number) > 10**6:
            raise Undefined
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


def _function(name: str, args: list[Value], evaluation: _Evaluation) -> Value:
    number = args[0]
    if name in ("max", "min", "gcd", "lcm"):
        return _of_many(name, args)
    if name in ("sqrt", "root"):
        degree = args[1] if name == "root" else Fraction(2)
        if degree == 0:
            raise Undefined
        return evaluation._power(number, 1 / degree)
    if name in ("binomial", "factorial"):
        return _factorial(number) if name == "factorial" else _binomial(number, args[1])
    if len(args) != (2 if name in ("log", "lg") and len(args) == 2 else 1):
        return _unknown(name, args)
    if name == "degree":
        return _number(number) * mp.pi / 180
    if name in ("abs", "floor", "ceil", "sgn"):
        return _step(name, number)
    if name in ("log", "ln", "lg"):
        if number == 0:
            raise Undefined
        base = args[1] if len(args) == 2 else Fraction(10) if name != "ln" else None
        if base is not None and (base in (0, 1)):
            raise Undefined
        exact = _exact_log(number, base)
        return (
            exact
            if exact is not None
            else mpmath.log(_number(number)) / (1 if base is None else mpmath.log(_number(base)))
        )
    if name in ("Re", "Im"):
        return mpmath.mpf(getattr(_number(number), name[:2].lower().replace("re", "real").replace("im", "imag")))
    if name not in _PLAIN:
        return _unknown(name, args)
    if number == 0 and name in ("sin", "tan", "arcsin", "arctan", "sinh", "tanh"):
        return Fraction(0)
    plain = _number(number)
    if abs(plain) > MAX_EXPONENT:
        raise Undefined
    value = _PLAIN[name](plain)
    # sin(pi) is 0, and its rounding error is not; the same for what lies at a pole
    if abs(value) < mpmath.mpf(10) ** -(mp.dps // 2) and name not in ("exp", "arcsin", "arctan", "sinh", "tanh"):
        return Fraction(0)
    if abs(value) > mpmath.mpf(10) ** (mp.dps // 2) and name in ("tan", "cot", "sec", "csc"):
        raise Undefined
    return value


def _exact_log(number: Value, base: Value | None) -> Fraction | None:
    """`3` of `\\log 1000`: exact where both are whole numbers of a tame size."""
    if not isinstance(number, Fraction) or not isinstance(base, Fraction) or number <= 0 or base <= 1:
        return None
    power = round(math.log(number.numerator) / math.log(base) - math.log(number.denominator) / math.log(base))
    return Fraction(power) if abs(power) <= 10_000 and base**power == number else None


def _step(name: str, number: Value) -> Value:
    if name == "abs":
        return abs(number)
    if isinstance(number, mpmath.mpc):
        raise Undefined
    if name == "sgn":
        return Fraction((number > 0) - (number < 0))
    return Fraction(int(math.floor(number) if name == "floor" else math.ceil(number)))


def _of_many(name: str, args: list[Value]) -> Value:
    if any(isinstance(value, mpmath.mpc) for value in args):
        raise Undefined
    if name in ("max", "min"):
        return max(args) if name == "max" else min(args)
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in args):
        raise Undefined
    return Fraction((math.gcd if name == "gcd" else math.lcm)(*(value.numerator for value in args)))


def _factorial(number: Value) -> Value:
    if isinstance(number, Fraction) and number.denominator == 1:
        if not 0 <= number <= MAX_FACTORIAL:
            raise Undefined
        return Fraction(math.factorial(number.numerator))
    if isinstance(number, mpmath.mpc) or abs(number) > MAX_FACTORIAL:
        raise Undefined
    return mpmath.gamma(_number(number) + 1)


def _binomial(top: Value, bottom: Value) -> Value:
    whole = isinstance(top, Fraction) and isinstance(bottom, Fraction) and top.denominator == bottom.denominator == 1
    if not whole or not 0 <= top <= 100_000 or not 0 <= bottom:
        raise Undefined
    if min(bottom, top - bottom) > MAX_FACTORIAL:
        raise Undefined
    return Fraction(math.comb(top.numerator, bottom.numerator))

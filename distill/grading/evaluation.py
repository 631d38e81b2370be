"""Evaluate an expression tree (`distill.grading.expression`) at a point.

A value is exact if it is rational; otherwise it is computed to as many digits as the constants need.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
from mpmath import mp

from distill.grading.functions import (
    DIGITS,
    MAX_BITS,
    MAX_EXPONENT,
    UndefinedError,
    Value,
    bounded,
    bounded_exp,
    exact_root,
    is_zero,
    known_function,
    number_of,
    times,
    unknown_function,
)
from distill.grading.notation import Node

MAX_DIGITS = 4_000
MAX_TERMS = 1_000
"""Maximum number of terms of a sum or product; a longer one has no value."""


def symbols(node: Node) -> set[str]:
    if node.op == "sym":
        return {str(node.value)}
    if node.op in ("sum", "prod"):
        return (symbols(node.args[2]) - {str(node.value)}) | symbols(node.args[0]) | symbols(node.args[1])
    return set().union(*map(symbols, node.args)) if node.args else set()


def needs_whole_numbers(node: Node) -> bool:
    """Return whether variables stand for whole numbers, as in factorials and in exponents of negative numbers."""
    if node.op in ("sum", "prod") and symbols(node):
        return True
    if node.op == "fn" and node.value in ("factorial", "binomial", "gcd", "lcm") and symbols(node):
        return True
    if node.op == "pow" and symbols(node.args[1]) - {"pi", "e", "i"}:
        base = node.args[0]
        if base.op == "neg" or (base.op == "num" and base.value < 0):  # type: ignore[operator]
            return True
    return any(needs_whole_numbers(argument) for argument in node.args)


def digits_needed(node: Node) -> int:
    """Return more digits than the tree's constants have, so that a small one beside a large one is not lost."""
    largest = 0
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.op == "num":
            assert isinstance(one.value, Fraction)
            largest = max(largest, one.value.numerator.bit_length(), one.value.denominator.bit_length())
        if one.op == "pow" and one.args[0].op in ("num", "div", "mul", "neg"):
            exponent = one.args[1].args[0] if one.args[1].op == "neg" else one.args[1]
            leaves: list[Fraction] = [leaf.value for leaf in _leaves(one.args[0])]
            base = max(leaves, default=Fraction(1))
            if exponent.op == "num" and isinstance(exponent.value, Fraction) and base > 0:
                bits = max(base.numerator, base.denominator).bit_length()
                largest = max(largest, bits * int(min(exponent.value, Fraction(100_000))))
        waiting.extend(one.args)
    return min(MAX_DIGITS, DIGITS + largest)  # bits, at 3.3 per digit: three times the constants' digits


def _leaves(node: Node) -> Iterator[Any]:
    if node.op == "num":
        yield node
    for argument in node.args:
        yield from _leaves(argument)


class Evaluation:
    """An evaluator of trees at one point."""

    def __init__(self, point: dict[str, Fraction], is_complex: bool, digits: int) -> None:
        self.point, self.is_complex, self.digits = point, is_complex, digits

    def value(self, node: Node) -> Value:
        """Return the value of a tree.

        Raises:
            UndefinedError: the tree has no value at this point.
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
                product = times(product, factor)
            return product
        if node.op == "div":
            if args[1] == 0:
                raise UndefinedError
            if isinstance(args[0], Fraction) and isinstance(args[1], Fraction):
                return bounded(args[0] / args[1])
            return number_of(args[0]) / number_of(args[1])
        if node.op == "pow":
            return self._power(args[0], args[1])
        if node.op == "call":
            return unknown_function(str(node.value), args)
        return self._checked(known_function(str(node.value), args, self._power))

    def _series(self, node: Node) -> Value:
        lower, upper = self._value(node.args[0]), self._value(node.args[1])
        if not all(isinstance(end, Fraction) and end.denominator == 1 for end in (lower, upper)):
            raise UndefinedError
        if upper - lower >= MAX_TERMS:
            raise UndefinedError
        total = Fraction(int(node.op == "prod"))
        name, outer = str(node.value), dict(self.point)
        for index in range(int(lower), int(upper) + 1):
            self.point[name] = Fraction(index)
            term = self._value(node.args[2])
            total = self._sum(total, term) if node.op == "sum" else times(total, term)
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
        raise UndefinedError

    def _sum(self, left: Value, right: Value) -> Value:
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return bounded(left + right)
        left, right = number_of(left), number_of(right)
        total = left + right
        # When two numbers cancel, the remainder is a rounding error.
        return Fraction(0) if is_zero(total, max(abs(left), abs(right))) else total

    def _power(self, base: Value, exponent: Value) -> Value:
        if base == 0:
            if not isinstance(exponent, Fraction) or exponent <= 0:
                if exponent == 0:
                    return Fraction(1)
                raise UndefinedError
            return Fraction(0)
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            power = exponent.numerator
            if isinstance(base, Fraction):
                bits = max(base.numerator.bit_length(), base.denominator.bit_length())
                if bits * abs(power) <= MAX_BITS:
                    return base**power
            if abs(power) > MAX_EXPONENT:
                raise UndefinedError
            return number_of(base) ** power
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            if (root := exact_root(abs(base), exponent.denominator)) is not None and abs(exponent) < 1_000:
                if base > 0:
                    return self._power(root, Fraction(exponent.numerator))
                if exponent.denominator % 2 and not self.is_complex:
                    return self._power(-root, Fraction(exponent.numerator))
            if base < 0 and exponent.denominator % 2 and not self.is_complex:
                size = self._power(-base, exponent)
                return -size if exponent.numerator % 2 else size
        return self._checked(bounded_exp(number_of(base), number_of(exponent)))

    def _checked(self, value: Value) -> Value:
        """Return the value; raise `UndefinedError` if it is not finite, or not real in a real expression."""
        if isinstance(value, mpmath.mpc):
            if value.imag == 0 or is_zero(value.imag, value):
                return value.real
            if not self.is_complex:
                raise UndefinedError
        if not isinstance(value, Fraction) and not mpmath.isfinite(value):
            raise UndefinedError
        return value

r"""Pairs of symbolic answers, made up: an expected one, an equal one in another form, and one that differs.

Shared by `grade_math.py`. A pair with its verdict is `("(x+3)(x-5)", "x^2-2x-15", True)`.
"""

import random
from typing import NamedTuple


class Pair(NamedTuple):
    """Two answers and whether they are equal."""

    gold: str
    answer: str
    equal: bool


def make_pairs(count: int, seed: int) -> list[Pair]:
    """So many pairs, half of them equal, the kinds in turn."""
    rng = random.Random(seed)
    made: list[Pair] = []
    while len(made) < count:
        for kind in _KINDS:
            gold, equal, wrong = kind(rng)
            made += [Pair(gold, equal, True), Pair(gold, wrong, False)]
    return made[:count]


def _polynomial(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 30), rng.randint(31, 60)
    return f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b}", f"x^2+{a + b}x+{a * b + 1}"


def _power(rng: random.Random) -> tuple[str, str, str]:
    a, n = rng.randint(2, 9), rng.randint(3, 9)
    return f"(x+{a})^{n}", f"(x+{a})^{n - 2}(x^2+{2 * a}x+{a * a})", f"(x+{a})^{n - 2}(x^2+{2 * a}x+{a * a + 1})"


def _radical(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 20), rng.choice((2, 3, 5, 7, 11))
    c = a * a + b
    return (
        rf"\sqrt{{{c}+{2 * a}\sqrt{{{b}}}}}",
        rf"{a}+\sqrt{{{b}}}",
        rf"{a + 1}+\sqrt{{{b}}}",
    )


def _nested(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(10, 30)
    form = r"\frac{{\sqrt{{{0}}}-\sqrt{{{1}}}}}{{{2}}}"
    return rf"\frac{{1}}{{\sqrt{{{b}}}+\sqrt{{{a}}}}}", form.format(b, a, b - a), form.format(b, a + 1, b - a)


def _trigonometric(rng: random.Random) -> tuple[str, str, str]:
    n = rng.randint(2, 12)
    return rf"\sin {2 * n}x", rf"2\sin({n}x)\cos({n}x)", rf"2\sin({n}x)\cos({n + 1}x)"


def _logarithm(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(10**17, 10**18), rng.randint(2, 9)
    return rf"\log_{{{b}}} {a}", rf"\frac{{\ln {a}}}{{\ln {b}}}", rf"\frac{{\ln {a + 1}}}{{\ln {b}}}"


def _tiny(rng: random.Random) -> tuple[str, str, str]:
    n = rng.randint(200, 900)
    return (
        rf"1-\left(\frac{{2}}{{3}}\right)^{{{n}}}",
        rf"1-\frac{{2^{{{n}}}}}{{3^{{{n}}}}}",
        rf"1-\frac{{2^{{{n}}}}}{{3^{{{n - 1}}}}}",
    )


def _rational(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(10, 30)
    form = r"\frac{{{0}x+{1}}}{{(x+{2})(x+{3})}}"
    return (
        rf"\frac{{{a}}}{{x+{b}}}+\frac{{{b}}}{{x+{a}}}",
        form.format(a + b, a * a + b * b, a, b),
        form.format(a + b, a * a + b * b + 1, a, b),
    )


def _exponential(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return rf"{a}^{{x+{b}}}e^{{-t}}", rf"\frac{{{a}^{{{b}}} {a}^x}}{{e^t}}", rf"\frac{{{a}^{{{b + 1}}} {a}^x}}{{e^t}}"


def _sum(rng: random.Random) -> tuple[str, str, str]:
    n = rng.randint(20, 90)
    return rf"\sum_{{k=1}}^{{{n}}} k^2", str(n * (n + 1) * (2 * n + 1) // 6), str(n * (n + 1) * (2 * n + 1) // 6 + 1)


def _complex(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return f"({a}+{b}i)^2", f"{a * a - b * b}+{2 * a * b}i", f"{a * a - b * b}-{2 * a * b}i"


def _equation(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return (
        rf"\frac{{x^2}}{{{a}}}+\frac{{y^2}}{{{b}}}=1",
        f"{b}x^2+{a}y^2={a * b}",
        f"{b}x^2-{a}y^2={a * b}",
    )


def _union(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(10, 30)
    return rf"(-\infty,-{a})\cup({b},\infty)", rf"x<-{a} \text{{ or }} x>{b}", rf"x<-{a} \text{{ or }} x>{b + 1}"


def _matrix(rng: random.Random) -> tuple[str, str, str]:
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    form = r"\begin{{pmatrix}} {0} & \sqrt{{{1}}} \\ \frac{{1}}{{{2}}} & 0 \end{{pmatrix}}"
    return form.format(a, 4 * b, c), form.format(f"\\frac{{{2 * a}}}{{2}}", 4 * b, c), form.format(a, 4 * b, c + 1)


_KINDS = (
    _polynomial,
    _power,
    _radical,
    _nested,
    _trigonometric,
    _logarithm,
    _tiny,
    _rational,
    _exponential,
    _sum,
    _complex,
    _equation,
    _union,
    _matrix,
)

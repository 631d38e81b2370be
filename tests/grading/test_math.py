r"""Final answers: cut out of a text, compared, graded; and what hostile text may not do."""

import contextlib
import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.grading import Grade, grade_all
from distill.grading import grade as grade_one
from distill.grading.latex import is_tame
from distill.grading.math import normalise, same_answer, settle
from distill.grading.pool import LOOK_AHEAD, GradingPool

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
MINUS = "\N{MINUS SIGN}"

any_text = st.text(st.characters(exclude_categories=()))
mathematical_text = st.lists(
    st.sampled_from([*"0123456789-+.,/%$ \n{}()[]^_x*", r"\frac", r"\boxed{", r"\text{", "the answer is "])
).map("".join)


@pytest.fixture(scope="module")
def pool():
    with GradingPool(2, timeout_s=30.0) as workers:
        yield workers


def problem(answer):
    return Problem("p", [], answer, "math", "test")


def grade(given_, expected, pool, last_number=False):
    (found,) = grade_all([(problem(expected), given_)], pool, last_number)
    return found


@pytest.mark.parametrize(
    ("expected", "correct"), [("1, 2", True), (r"\{2, 1\}", True), ("2", False), ("1", False), ("1, 2, 3", False)]
)
def test_two_boxes_are_right_only_where_two_values_are_expected(expected, correct, pool):
    assert grade(r"\boxed{1} and \boxed{2}", expected, pool).correct is correct


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("12", "12"),
        ("12.", "12"),
        ("12.0", "12"),
        ("+12", "12"),
        ("012", "12"),
        ("-0", "0"),
        (" 1 + x ", "1+x"),
        ("0.5", "1/2"),
        (".5", "0.5"),
        (r"\frac{1}{2}", "1/2"),
        (r"\dfrac{3}{6}", "0.5"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"\frac{-1}{2}", r"-\frac{1}{2}"),
        ("1,000", "1000"),
        ("-1,234,567.5", "-1234567.5"),
        (r"10\,000", "10000"),
        ("$12$", "12"),
        (r"\(12\)", "12"),
        (r"\[12\]", "12"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\text{ (B) }", "(B)"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\mathrm{cm}", r"\text{cm}"),
        ("1" + "0" * 70, "1" + "0" * 70),
    ],
)
def test_same_answer(given_, expected):
    assert same_answer(given_, expected)
    assert same_answer(expected, given_)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("12", "13"),
        ("", ""),
        ("$$", ""),
        (r"\sqrt{0.25}", "0.5"),  # the same, but not for strings and numbers to say
        (r"\sqrt{4}", "2"),
        ("0.5%", "0.5"),
        ("1%", "1"),
        ("1/0", "2/0"),
        ("0.333", "1/3"),
        ("(1,2)", "(2,1)"),
        ("1 1/2", "11/2"),  # one and a half is not eleven halves
        (r"2\frac{1}{2}", "21/2"),
        (r"2\frac{1}{2}", "10.5"),
        (r"3^\frac{1}{2}", "3^1/2"),
        ("1 2", "12"),
        ("1, 100", "1100"),
        ("(1,100)", "(1100)"),
        ("1" + "0" * 130, "1" + "0" * 130 + ".0"),
        ("9" * 3_000, "9" * 3_000),
    ],
)
def test_not_settled(given_, expected):
    assert not same_answer(given_, expected)
    assert not same_answer(expected, given_)


@pytest.mark.parametrize(
    ("given_", "expected", "verdict"),
    [
        ("13", "12", False),
        ("5 cm", "6 cm", False),
        ("5 cm", "5 mm", False),
        (r"50\%", "0.5", True),
        (r"\sqrt{4}", "2", None),
        ("x", "2", None),
        ("9" * 3_000, "9", False),
        ("9", "9" * 3_000, None),
        ("9" * 3_000, "9" * 3_000, None),
    ],
)
def test_what_strings_and_numbers_settle(given_, expected, verdict):
    assert settle(given_, expected) is verdict


@settings(deadline=None)
@given(any_text | mathematical_text, any_text | mathematical_text)
def test_any_two_texts_can_be_compared_either_way_round(left, right):
    if (
        "," not in left + right and "_" not in left + right
    ):  # a decimal comma and a base are the expected answer's to tell
        assert same_answer(left, right) == same_answer(right, left)
    assert same_answer(left, left) == (normalise(left) != "")


@st.composite
def written_numbers(draw):
    """A fraction and one of the ways to write it."""
    numerator, denominator = draw(st.integers(-10_000, 10_000)), draw(st.integers(1, 12))
    forms = [f"{numerator}/{denominator}", rf"\frac{{{numerator}}}{{{denominator}}}", rf"${numerator}/{denominator}$"]
    if denominator == 1:
        forms += [str(numerator), f"{numerator:,}", f"{numerator}.0", rf" \text{{{numerator}}}."]
    return Fraction(numerator, denominator), draw(st.sampled_from(forms))


@settings(deadline=None)
@given(written_numbers(), written_numbers())
def test_written_numbers_are_the_same_if_and_only_if_their_values_are(left, right):
    assert same_answer(left[1], right[1]) == (left[0] == right[0])


RIGHT, WRONG = True, False


@pytest.mark.parametrize(
    ("given_", "expected", "correct"),
    [
        (f"{MINUS}5", "-5", RIGHT),
        (f"{MINUS}5", "5", WRONG),
        (r"5\mathrm{i}", "5", WRONG),
        (r"5\mathrm{e}^2", "5", WRONG),
        (r"5 \text{k}", "5", WRONG),
        (r"5 \text{ m}", "5", RIGHT),
        (r"5 \text{ m}", "5 m", RIGHT),
        ("x: 5", "x", WRONG),
        (r"2\text{ cis } 3", "2", WRONG),
        (r"\frac12", "0.5", RIGHT),
        ("3/4", r"\frac{3}{4}", RIGHT),
        (r"\frac{6}{8}", r"\frac{3}{4}", RIGHT),
        (r"\frac{4}{3}", r"\frac{3}{4}", WRONG),
        (r"\sqrt8", r"2\sqrt2", RIGHT),
        (r"\sqrt{8}", r"3\sqrt{2}", WRONG),
        ("x^2 + y^{10}", "y^{10}+x^2", RIGHT),
        (r"\begin{pmatrix}1\\\frac{4}{2}\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", RIGHT),
        (r"1\frac{1}{2}", "1.5", RIGHT),
        (r"2\frac{1}{2}", "21/2", WRONG),
        ("1 1/2", "11/2", WRONG),
        ("1 1/2", "3/2", RIGHT),
        (r"\frac{1}{0}", "1", WRONG),
        ("0.3", r"\frac{1}{3}", WRONG),
        ("0.333333", r"\frac13", RIGHT),
        ("0.333334", r"\frac13", WRONG),
        (r"0.\overline{3}", "1/3", RIGHT),
        (r"0.1\overline{6}", r"\frac{1}{6}", RIGHT),
        (r"0.1\overline{6}", "0.16", WRONG),
        ("1,000,000", "10^6", RIGHT),
        ("10{,}000", "10000", RIGHT),
        ("2^{10}", "1024", RIGHT),
        (r"3 \cdot 2", "6", RIGHT),
        ("5!", "120", RIGHT),
        (r"\pi", "3.14", WRONG),
        ("3.14", r"\pi", WRONG),
        ("1,234", "1.234", WRONG),
        ("3,14", "3.14", RIGHT),
        ("3,14", "314", WRONG),
        ("1.234,5", "1234.5", RIGHT),
        ("0.0000001", "0", WRONG),
        ("0.0000004", "0.0000003", WRONG),
        (r"1.5 \times 10^{3}", "1500", RIGHT),
        (r"1.5\times10^3", "150", WRONG),
        ("5 million", "5000000", RIGHT),
        ("5 million", "5", WRONG),
        (r"\$5 million", "5,000,000", RIGHT),
        (r"\sqrt{8}", r"2\sqrt{2}", RIGHT),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", RIGHT),
        ("1.414214", r"\sqrt{2}", RIGHT),
        ("1.41", r"\sqrt{2}", WRONG),
        ("sqrt(2)", r"\sqrt{2}", RIGHT),
        ("3 + 2x", "2x+3", RIGHT),
        ("(x+1)^2", "x^2+2x+1", RIGHT),
        ("(x+1)^2", "x^2+2x+2", WRONG),
        ("x = 5", "5", RIGHT),
        ("5", "x=5", RIGHT),
        ("x=6", "x=5", WRONG),
        ("y=5", "x=5", WRONG),
        ("x+1=5", "5", WRONG),
        ("2x = 10", "10", WRONG),
        ("2x=10", "5", WRONG),
        ("10+5=15", "15", RIGHT),
        ("S = 10+5 = 15", "15", RIGHT),
        ("f(x)=x^2", "x^2", RIGHT),
        ("y = 2x+1", "y=2x+2", WRONG),
        ("2y = 4x+2", "y=2x+1", RIGHT),
        ("x^2=-2", "x^2=-1", WRONG),
        ("x**2", "x^2", RIGHT),
        ("x**y", "xy", WRONG),
        ("r^2", "R^2", WRONG),
        ("x", "X", WRONG),
        (r"\text{Red}", "red", RIGHT),
        ("[1, 2)", "[1,2)", RIGHT),
        ("(1,2)", "[1,2]", WRONG),
        ("[1,2)", "[1,2]", WRONG),
        (r"x \in [-2,7]", "[-2,7]", RIGHT),
        (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)", RIGHT),
        (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)\cup[3,\infty)", WRONG),
        (r"x \ge 5", r"[5,\infty)", RIGHT),
        ("x > 5", r"[5,\infty)", WRONG),
        (r"[5,\infty)", r"x\ge 5", RIGHT),
        ("-2 < x < 5", "(-2,5)", RIGHT),
        ("x>5", r"x\geq5", WRONG),
        ("5<x", "x>5", RIGHT),
        (r"\left(3, \frac{\pi}{2}\right)", r"(3,\pi/2)", RIGHT),
        ("(2,1)", "(1,2)", WRONG),
        ("(1,2)", "(1,2,3)", WRONG),
        ("1, 2", "(1,2)", RIGHT),
        ("2, 1", "(1,2)", WRONG),
        ("(1,100)", "(1100)", WRONG),
        (r"(1\frac12, 2)", "(1.5,2)", RIGHT),
        (r"\{1,2,3\}", r"\{3,2,1\}", RIGHT),
        ("3, 1, 2", "1,2,3", RIGHT),
        (r"\{1,2\}", r"\{1,2,3\}", WRONG),
        (r"\pm 2", "-2, 2", RIGHT),
        (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2", RIGHT),
        ("2", r"\pm 2", WRONG),
        ("1", "1, 2", WRONG),
        ("1, 2", "1", WRONG),
        ("1 and 2", "1, 2", RIGHT),
        ("x=1 or x=2", "1,2", RIGHT),
        ("x=1, y=2", "(1,2)", RIGHT),
        (r"\{5\}", "5", RIGHT),
        (r"\{1,2\}", "(1,2)", WRONG),
        ("(2,3),(1,4)", "(1,4), (2,3)", RIGHT),
        ("1,1,2", "1,2,2", WRONG),
        (r"\emptyset", r"\varnothing", RIGHT),
        (r"50\%", "50", RIGHT),
        (r"50\%", "0.5", RIGHT),
        ("50%", r"50\%", RIGHT),
        (r"51\%", "50", WRONG),
        (r"0.5\%", "0.5", WRONG),
        ("12.5", r"12.5\%", RIGHT),
        (r"1\%", "1", WRONG),
        (r"50 \text{ percent}", r"50\%", RIGHT),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", RIGHT),
        (r"\begin{pmatrix}1\\3\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", WRONG),
        (r"\begin{pmatrix}1 & 2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", WRONG),
        (r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}", r"\begin{pmatrix}1 & 2 \\ 3 & \frac{8}{2}\end{pmatrix}", RIGHT),
        ("5 cm", "5", RIGHT),
        (r"5 \text{ meters}", "5", RIGHT),
        (r"\$5", "5", RIGHT),
        ("5 dollars", r"\$5", RIGHT),
        (r"90^\circ", "90", RIGHT),
        (r"90^{\circ}", r"90 \text{ degrees}", RIGHT),
        ("6 cm", "5", WRONG),
        ("5 cm", "5 m", WRONG),
        (r"5 \text{ cm}^2", "5", RIGHT),
        (r"5 \text{ cm}^2", "5 cm^2", RIGHT),
        (r"5 \text{ cm}^2", r"5 \text{ cm}", WRONG),
        (r"5 \text{ square centimeters}", r"5 \text{ cm}^2", RIGHT),
        ("5 minutes", "5 hours", WRONG),
        (r"5 \text{ cents}", r"\$5", WRONG),
        (r"3 \text{ hours } 20 \text{ minutes}", "3", WRONG),
        (r"3\text{ hours }20\text{ minutes}", r"3\text{ hours }40\text{ minutes}", WRONG),
        ("3t", "3", WRONG),
        ("5c", "5", WRONG),
        ("5 apples", "5", RIGHT),
        (r"5 \text{ or } 6", "5", WRONG),
        (r"12 \text{ square units}", "12", RIGHT),
        ("5xyz", "5", WRONG),
        ("7:00 p.m.", "7:00 a.m.", WRONG),
        ("121_3", "121_{3}", RIGHT),
        ("121_3", "121_4", WRONG),
        ("121", "121_3", RIGHT),
        ("121_3", "121", WRONG),
        ("3:30", "1:10", WRONG),
        ("3:4", r"\frac34", RIGHT),
        ("2:3", "2:3", RIGHT),
        (r"\text{(B)}", "B", RIGHT),
        ("C", "B", WRONG),
        ("c", r"\text{(C)}", RIGHT),
        (r"\text{(C) } 12", r"\text{(C)}", RIGHT),
        ("(D) 12", "C", WRONG),
        ("evelyn", r"\text{Evelyn}", RIGHT),
        ("Carla", r"\text{Evelyn}", WRONG),
        ("rat", "art", WRONG),
        ("live", r"\text{evil}", WRONG),
        ("odd", "even", WRONG),
        (r"\text{no solution}", "no solution", RIGHT),
        ("3", r"\text{odd}", WRONG),
        ("20 June", "June 21", WRONG),
        ("3+4i", "4i+3", RIGHT),
        ("6+9i", "6-9i", WRONG),
        (r"\infty", r"-\infty", WRONG),
        ("-5", "5", WRONG),
        ("5 - 7", "2", WRONG),
        (r"\ln 2", r"\log_{10} 2", WRONG),
        ("x^{-1}", r"\frac1x", RIGHT),
        (r"\frac{x}{y}", r"\frac{y}{x}", WRONG),
        (r"\arctan 2", r"\tan^{-1} 2", RIGHT),
        (r"2\pi", "360", WRONG),
        (r"\frac{\pi}{2}", r"\pi/2", RIGHT),
        ("a_1", "a_2", WRONG),
        (r"\binom{5}{2}", "10", RIGHT),
        ("e^{x^2}", "e^{2x}", WRONG),
        (r"5 \text{ miles per hour}", r"5 \text{ mph}", RIGHT),
        (r"40\%", "40_9", WRONG),
        (r"\approx 8.24", r"8.24 \text{ mph}", RIGHT),
        (r"\frac{1}{20,\!000}", "0.00005", RIGHT),
        ("2^{2^{3}}", "256", RIGHT),
        ("(4, 3)", "(4,-3)", WRONG),
        (r"\frac{1}{2}, \frac{1}{3}", "1/3, 1/2", RIGHT),
        ("4 and 5", "5 or 4", RIGHT),
        (r"\{(1,2),(3,4)\}", r"\{(3,4),(1,2)\}", RIGHT),
        (r"\{(2,1)\}", r"\{(1,2)\}", WRONG),
        (r"x \ne 2", r"x \neq 2", RIGHT),
        (r"x \ne 2", "x = 2", WRONG),
        (r"\mathbb{R}", r"\mathbb{R}", RIGHT),
        (r"\mathbb{R}", r"\mathbb{Z}", WRONG),
        (r"\sqrt[3]{8}", "2", RIGHT),
        (r"\sqrt[3]{9}", "3", WRONG),
        ("|x|", "x", WRONG),
        ("100", "100.0", RIGHT),
        ("99.99", "100", WRONG),
        ("1000000.1", "1000000", WRONG),
        ("0.6667", r"\frac{2}{3}", WRONG),
        ("0.666667", r"\frac{2}{3}", RIGHT),
        ("-3", "3", WRONG),
        (r"\text{True}", r"\text{False}", WRONG),
        (r"\text{Yes}", "yes", RIGHT),
        (r"5 \text{ ft}", r"5 \text{ in}", WRONG),
        (r"25\%", r"\frac14", RIGHT),
        ("1/3", r"33\%", WRONG),
        (r"\text{Tuesday}", r"\text{Thursday}", WRONG),
        ("k^2+k", "k(k+1)", RIGHT),
        ("k^2-k", "k(k+1)", WRONG),
        ("n!", "n", WRONG),
    ],
)
def test_grade(given_, expected, correct, pool):
    found = grade(rf"so \boxed{{{given_}}}.", expected, pool)
    assert found == Grade(correct, given_, None if correct else "wrong_answer")


@pytest.mark.parametrize("gold", [None, "", "$$", r"\text{}", "???", r"\frac{1}{"])
def test_an_answer_is_not_wrong_where_the_expected_one_cannot_be_parsed(gold, pool):
    assert grade(r"\boxed{5}", gold, pool) == Grade(None, "5", "ungraded_gold")


def test_grades_that_are_known_take_their_place(pool):
    known = Grade(None, "7", "ungraded_timeout")
    answers = [known, (problem("2"), r"\boxed{\sqrt{4}}"), known, (problem("2"), r"\boxed{3}")]
    assert list(grade_all(answers, pool)) == [
        known,
        Grade(True, r"\sqrt{4}", None),
        known,
        Grade(False, "3", "wrong_answer"),
    ]


def test_answers_are_taken_as_they_are_graded(pool):
    taken = []

    def answers():
        for n in range(100_000):
            taken.append(n)
            yield problem("2"), r"\boxed{\sqrt{4}}" if n == 5 else r"\boxed{2}"

    with contextlib.closing(grade_all(answers(), pool)) as grades:
        assert all(next(grades).correct for _ in range(20))
    assert len(taken) <= 20 + LOOK_AHEAD


def test_one_answer_is_graded_here():
    assert grade_one(problem("2"), r"\boxed{\sqrt{4}}") == Grade(True, r"\sqrt{4}", None)
    assert grade_one(problem("2"), r"\boxed{\sqrt{5}}") == Grade(False, r"\sqrt{5}", "wrong_answer")
    assert grade_one(problem("2"), "It is 2", last_number=True) == Grade(True, "2", None)


def test_a_task_without_a_rule_is_left_to_a_judge(pool):
    essay = Problem("p", [], "2", "essay", "test")
    assert list(grade_all([(essay, "The answer is 2.")], pool)) == [Grade(None, "2", "ungraded_judge")]


def test_the_last_number_keeps_its_sign(pool):
    assert grade(f"It is {MINUS}4", "4", pool, last_number=True).reason == "wrong_answer"
    assert grade(f"It is {MINUS}4", "-4", pool, last_number=True).correct is True


def test_answers_are_graded_in_order(pool):
    texts = [rf"\boxed{{{n}}}" if n % 3 else rf"\boxed{{\sqrt{{{n * n}}}}}" if n % 2 else "none" for n in range(30)]
    grades = list(grade_all([(problem(str(n)), text) for n, text in enumerate(texts)], pool))
    assert [g.reason for g in grades] == [None if n % 3 or n % 2 else "no_answer" for n in range(30)]


TERMS = "+".join(f"x^{{{n}}}" for n in range(2, 200))
HOSTILE = {
    "tower": ("9^{9^{9}}", "5"),
    "bare tower": ("9^9^9^9", "5"),
    "starred tower": ("9**9**9", "5"),
    "tower in a fraction": (r"9^{\frac{9^{9^{9}}}{1}}", "5"),
    "tower in braces": ("9^{{{9^{9}}}}", "5"),
    "tower with a variable": ("x^{9^{9^{9}}}", "x"),
    "tower behind a power of zero": ("9^{9^{9} x^{0}}", "5"),
    "factorials": ("(((9!)!)!)", "5"),
    "factorial of a power": ("10^{10}!", "5"),
    "factorial in brackets": (r"\left(10^{10}\right)!", "5"),
    "factorial with a variable": ("(x-x+10^{10})!", "5"),
    "binomial": (r"\binom{10^{9}}{5 \cdot 10^{8}}", "5"),
    "binomial in digits": (r"\binom{1000000000}{500000000}", "5"),
    "sum": (r"\sum_{k=1}^{999999999} \sqrt{k}", "5"),
    "braces": ("{" * 5_000 + "1" + "}" * 5_000, "1"),
    "brackets": ("(" * 5_000 + "1" + ")" * 5_000, "1"),
    "brackets just allowed": ("(" * 50 + "x" + ")" * 50, "5"),
    "fractions": (r"\frac{1}{" * 1_000 + "1" + "}" * 1_000, "5"),
    "roots just allowed": (r"\sqrt{" * 49 + "2" + "}" * 49, "5"),
    "long": ("1+" * 50_000 + "1", "5"),
    "long list": ("1," * 900 + "1", "1,2"),
    "expansion": (rf"\frac{{x^{{800}}-1}}{{x-1}}-(1+x+{TERMS})", "0"),
    "power of a sum": ("(x+y+z+1)^{999}", "x"),
    "integral": (r"\int_0^1 \frac{\sin(x^x)}{\ln(x^{99}+2)} dx", "5"),
    "input": (r"\input{/etc/passwd}", "5"),
    "write18": (r"\immediate\write18{touch X}", "5"),
    "surrogate": ("\ud800" * 100, "5"),
    "null": ("5\x00", "6"),
    "gold": ("5", "(" * 5_000),
    "gold tower": ("5", "9^{9^{9^{9}}}"),
}
PYTHON = (
    "__import__('os').system('touch {target}')",
    "eval(\"__import__('os').system('touch {target}')\")",
    r"\text{{__import__('os').system('touch {target}')}}",
    "().__class__.__bases__[0].__subclasses__()",
    "open('{target}', 'w')",
)


@pytest.fixture(scope="module")
def hostile_grades(tmp_path_factory):
    """All hostile texts and one good one, graded at once with a limit of 3 seconds each; and how long that took."""
    target = tmp_path_factory.mktemp("hostile") / "X"
    pairs = {**HOSTILE, "good": (r"\sqrt{4}", "2")}
    for number, code in enumerate(PYTHON):
        code = code.format(target=target)
        pairs |= {f"python {number}": (code, "5"), f"python {number} in the gold": ("5", code)}
    started = time.monotonic()
    with GradingPool(2, timeout_s=3.0, memory_gib=1.0) as pool:
        grades = list(grade_all([(problem(e), rf"\boxed{{{g}}}") for g, e in pairs.values()], pool))
    return dict(zip(pairs, grades, strict=True)), time.monotonic() - started, target


def test_hostile_text_never_hangs_the_caller(hostile_grades):
    grades, seconds, _ = hostile_grades
    assert seconds < 3.0 * len(grades)
    assert grades["good"] == Grade(True, r"\sqrt{4}", None)


REFUSED = [
    *("tower", "bare tower", "starred tower", "tower in a fraction", "tower in braces", "tower with a variable"),
    *("factorials", "factorial of a power", "factorial in brackets", "binomial", "binomial in digits", "sum"),
    *("fractions", "long", "input", "write18", "surrogate"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_text_that_is_refused_by_its_looks_is_wrong(name, hostile_grades):
    found = hostile_grades[0][name]
    assert (found.correct, found.reason) == (False, "wrong_answer")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_never_right(name, hostile_grades):
    found = hostile_grades[0][name]
    assert (found.correct, found.reason) in [
        (None, "ungraded_timeout"),
        (None, "ungraded_crash"),
        (None, "ungraded_memory"),
        (None, "ungraded_gold"),
        (False, "wrong_answer"),
    ]


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_in_an_answer_is_never_run(number, hostile_grades):
    grades, _, target = hostile_grades
    assert grades[f"python {number}"].correct is False
    assert grades[f"python {number} in the gold"].correct is not True
    assert not target.exists()


@pytest.mark.parametrize(
    ("answer", "tame"),
    [
        ("", True),
        ("x" * 2_000, True),
        ("x" * 2_001, False),
        ("(" * 50 + ")" * 50, True),
        ("(" * 51 + ")" * 51, False),
        ("[({" * 17, False),
        ("10^{9999}", True),
        ("10^{10000}", False),
        ("10**10000", False),
        ("x^2 + y^{10}", True),
        ("2^2 3^{10} x**12 + 1", True),
        ("9^{9^{99}}", False),
        ("2^{2^{10}}", False),
        ("2**2**10", False),
        ("2^{2^{3}}", True),
        ("9^{9^9}", False),
        (r"9^{\frac{9^9}{1}}", False),
        ("2^2^2^2^2", False),
        ("e^{-x^{2}}", True),
        ("2^{n^{2}}", True),
        ("x^{9^{9^9}}", False),
        ("100!", True),
        ("1000!", False),
        ("n!", True),
        ("(2n)!", True),
        ("(9!)!", False),
        ("9!!", False),
        (r"\binom{10}{3}", True),
        (r"\binom{99999}{3}", False),
        (r"\binom{10^{100}}{3}", False),
        (r"\binom{10^9}{3}", False),
        (r"\binom{10}{3} 2^7", True),
        (r"{10^9 \choose 3}", False),
    ],
)
def test_what_a_parser_may_be_shown(answer, tame):
    assert is_tame(answer) is tame


@settings(deadline=None)
@given(any_text | mathematical_text)
def test_tameness_of_any_text(text):
    assert is_tame(text) in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(r"\boxed{" + "9" * 10_000_000 + "}", id="a box of 10 MB"),
        pytest.param("The answer is " + "9" * 10_000_000, id="an answer of 10 MB"),
        pytest.param("1 2 " * 2_500_000 + r"\boxed{3}", id="10 MB before the box"),
        pytest.param("The answer is 3. " * 600_000, id="10 MB of answers"),
        pytest.param(r"\boxed{1}, " * 900_000, id="10 MB of boxes that are one answer"),
        pytest.param(r"\boxed{1} " * 1_000_000, id="10 MB of boxes that are not"),
    ],
)
def test_ten_megabytes_are_graded_at_once(text, pool):
    started = time.process_time()
    assert grade(text, "5", pool, last_number=True).reason == "wrong_answer"
    assert time.process_time() - started < 60  # quadratic time would be hours


def test_grading_writes_nothing_to_the_terminal():
    code = (
        "from distill.grading import grade_all\n"
        "from distill.grading.pool import GradingPool\n"
        "from distill.core.records import Problem\n"
        "with GradingPool(1) as pool:\n"
        r"    print(*grade_all([(Problem('p', [], '2', 'math', 's'), r'\boxed{\sqrt{4}}')], pool))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert "correct=True" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared problem sets are not part of the project")
def test_agreement_with_the_labels_of_real_answers(pool):
    with (SHARED / "graded_math_cot_100.jsonl").open() as stream:
        rows = [json.loads(line) for line in stream]
    labelled = [
        (row["gt"], text, label) for row in rows for text, label in zip(row["code"][:2], row["score"][:2], strict=True)
    ]
    grades = list(grade_all([(problem(gold), text) for gold, text, _ in labelled], pool))
    agree = [(g.correct is True) == label for g, (_, _, label) in zip(grades, labelled, strict=True)]
    assert len(agree) == 200
    assert sum(agree) / len(agree) >= 0.93

r"""Compare general solutions, whose values are indexed by an integer.

Example: `"\frac{\pi}{4}+2k\pi, k\in\mathbb{Z}"` equals `"x=\frac{9\pi}{4}+2\pi n"`.
"""

import re
from fractions import Fraction

from mpmath import mp  # type: ignore[import-untyped]

from distill.grading.expression import read_expression
from distill.grading.functions import DIGITS, Value, number_of
from distill.grading.notation import Node, UnreadableError
from distill.grading.quantities import clean, split_unit
from distill.grading.structure import assigned, take_apart
from distill.grading.values import values_on_a_line

_LETTERS = "kmnlj"
_TEXT = r"\\(?:text|mathrm|textrm|mbox)\s*+\{\s*+"
_WORDS = (
    rf"(?:{_TEXT}(?:,\s*+)?(?:where|for any|for all|for some|for|with|and)?\s*+\}}"
    r"|\b(?:where|for|with|any|all|some)\b|\\forall(?![a-zA-Z]))"
)
_SET = r"(?:\\(?:mathbb|mathbf|bf|mathrm|Bbb)\s*+\{?\s*+Z\s*+\}?|\\Z(?![a-zA-Z])|ℤ|\bZ\b)"
_IS_WHOLE = re.compile(
    rf"[,;.]?\s*+(?:(?:\\q?quad|\\[,; ]|~)\s*+)*+\(?\s*+(?:{_WORDS}[\s,]*+)*+\$?\s*+([{_LETTERS}])\s*+"
    rf"(?:(?:\\in(?![a-zA-Z])|∈)\s*+{_SET}"
    rf"|(?:{_TEXT})?(?:is |are |being )?(?:an? |any |some )?(?:arbitrary )?(?:integers?|whole numbers?)\s*+\}}?)"
    r"\s*+\)?[.$\s]*+\Z"
)
"""Matches the clause that declares the letter of a general solution an integer; many answers omit it."""


def same_family(given: str, expected: str) -> tuple[bool, str, str]:
    """Return whether two texts are the same progression, and both texts without the clause and with the same letter."""
    given, letter = _without_range(given)
    expected, gold_letter = _without_range(expected)
    if not (letter or gold_letter):
        return False, given, expected
    gold_letter = gold_letter or _letter_of(expected)
    letter = letter or _letter_of(given)
    if not (letter and gold_letter):
        return False, given, expected
    given = _renamed(given, letter, gold_letter)
    left, right = _progression(given, gold_letter), _progression(expected, gold_letter)
    return left is not None and right is not None and _same_progression(left, right), given, expected


def _without_range(text: str) -> tuple[str, str]:
    found = _IS_WHOLE.search(text)
    return (text[: found.start()], found[1]) if found else (text, "")


def _letter_of(text: str) -> str:
    """Return the only letter of a text that may be the integer; `""` if there is none, or several."""
    letters = set(re.findall(rf"(?<![a-zA-Z\\])[{_LETTERS}](?![a-zA-Z])", text))
    return letters.pop() if len(letters) == 1 else ""


def _renamed(text: str, letter: str, other: str) -> str:
    if letter == other or re.search(rf"(?<![a-zA-Z\\]){other}(?![a-zA-Z])", text):
        return text
    return re.sub(rf"(?<![a-zA-Z\\]){letter}(?![a-zA-Z])", other, text)


def _progression(text: str, letter: str) -> tuple[Value, Value] | None:
    """Return the step (scaled as in `values_on_a_line`) and the root; `None` if the text is not one progression."""
    _, values = assigned(clean(text))
    if len(values) != 1 or take_apart(values[0]).kind != "one":
        return None
    try:
        tree: Node = read_expression(split_unit(values[0])[0])
    except UnreadableError:
        return None
    line = values_on_a_line(tree)
    return None if line is None or line[0] != letter else (line[1], line[2])


def _same_progression(left: tuple[Value, Value], right: tuple[Value, Value]) -> bool:
    """Return whether two progressions have a common member and the same step, up to its sign."""
    (step, root), (gold_step, gold_root) = left, right
    with mp.workdps(DIGITS):
        if not _is_nothing(abs(number_of(step)) - abs(number_of(gold_step)), number_of(gold_step)):
            return False
        shift = root - gold_root if step * gold_step > 0 else root + gold_root
        if isinstance(shift, Fraction):
            return shift.denominator == 1
        return _is_nothing(shift - mp.nint(shift), 1 + abs(shift))


def _is_nothing(difference: Value, scale: Value) -> bool:
    return bool(abs(difference) <= mp.mpf(10) ** -(DIGITS // 2) * abs(scale))

r"""Mathematical answers: cut the final answer out of a text, compare it with the expected one.

Enters: `"… so the result is \boxed{\frac{1}{2}}."` and `"0.5"`. Leaves: `"\frac{1}{2}"`, right.

Strings and numbers are compared first (microseconds); math-verify sees only the cut-out answer, and only where that
does not settle it.
"""

import re
from fractions import Fraction

from distill.records import Problem

MAX_ANSWER_CHARS = 2_000
"""Longer answers are not parsed: no real final answer is that long, and parsers choke on what models can write."""

MAX_NESTING = 50
MAX_EXPONENT_DIGITS = 4

_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_PHRASE = re.compile(r"\banswer\**\s*(?:is|:|=)[\s:]*(\S.*?)(?=\.(?:\s|$)|[;\n]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?<![\w)])[-\N{MINUS SIGN}])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?")
_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:/[1-9]\d*)?")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:\{[^{}]*|\(?\s*\d*\s*)(?:\^|\*\*)")
_WRAPPERS = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_UNSEEN = re.compile(r"\\(?:left|right|quad|qquad|displaystyle)(?![a-zA-Z])|\\[,;!:()\[\]]|\$")


def extract_answer(text: str, last_number: bool = False) -> str | None:
    r"""The final answer in a text: its last `\boxed{…}`, else what follows its last "the answer is".

    Args:
        text: what the model wrote after its thinking.
        last_number: where neither is there, take the last number.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed.strip() or None
    phrases = _PHRASE.findall(text)
    if phrases:
        return str(phrases[-1]).strip(" *`").strip() or None
    numbers = _NUMBER.findall(text) if last_number else []
    return numbers[-1] if numbers else None


def same_answer(given: str, expected: str) -> bool:
    """Equal as normalised strings or as exact numbers. `False` means *not settled*, not *wrong*."""
    if len(given) > MAX_ANSWER_CHARS:
        return False
    left, right = normalise(given), normalise(expected)
    if left == right:
        return left != ""
    numbers = _as_number(left), _as_number(right)
    return numbers[0] is not None and numbers[0] == numbers[1]


def normalise(answer: str) -> str:
    """An answer without what does not change its value: spaces, dollar signs, \\text, thousands' commas."""
    answer = _WRAPPERS.sub(r"\1", answer.strip())
    answer = _UNSEEN.sub("", answer).strip().rstrip(".").replace("\N{MINUS SIGN}", "-")
    if not re.search(r"[(\[{]", answer):  # between brackets a comma separates
        answer = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", answer)
    # a space between two digits separates as well: 1 1/2 is not 11/2
    answer = re.sub(r"(?<!\d) | (?!\d)", "", " ".join(answer.split()))
    if fraction := _FRACTION.fullmatch(answer):  # part of a longer answer it may be the end of a mixed number
        answer = "{}{}/{}".format(*fraction.groups())
    return answer.casefold()


def grade_math(problem: Problem, extracted: str) -> bool | None:
    """Compare with math-verify; `None` where the expected answer cannot be parsed. May hang: run it in the pool."""
    from math_verify import parse, verify

    if problem.answer is None:
        return None
    if not is_tame(extracted):
        return False
    # math-verify's own time limits are SIGALRM; the pool's worker is killed from outside instead.
    gold = parse(_as_latex(problem.answer), parsing_timeout=None)
    if not gold or not _is_whole(problem.answer):
        return None
    return bool(verify(gold, parse(_as_latex(extracted), parsing_timeout=None), timeout_seconds=None))


def is_tame(answer: str) -> bool:
    """Short, shallow and without towers of exponents: what a parser may be shown."""
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    depth = deepest = 0
    for char in answer:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    exponents = re.findall(r"(?:\^|\*\*)\s*\{?\s*(\d+)", answer)
    tower = _TOWER.search(answer) is not None and any(len(e) > 1 for e in exponents)
    return deepest <= MAX_NESTING and not tower and all(len(e) <= MAX_EXPONENT_DIGITS for e in exponents)


def _is_whole(gold: str) -> bool:
    """Whether the text can mean anything: math-verify hands back what it cannot parse as a string."""
    braces = re.sub(r"\\[{}]", "", gold)
    return braces.count("{") == braces.count("}") and any(char.isalnum() for char in gold)


def _as_latex(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` whose braces are balanced; one pass, for a loop may open thousands."""
    opened: list[int | None] = []  # where each open brace's content starts, for those of a box
    last: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
    return text[last[0] : last[1]] if last else None


def _as_number(answer: str) -> Fraction | None:
    """The exact value of a plain number, percent signs not understood (they may or may not change the value)."""
    if len(answer) > 64 or not _PLAIN_NUMBER.fullmatch(answer):
        return None
    numerator, _, denominator = answer.partition("/")
    return Fraction(numerator) / (int(denominator) if denominator else 1)

r"""Mathematical answers: compare one that was cut out of a text with the expected one.

Enters: `"\frac{1}{2}"` and `"0.5"`. Leaves: right.

Strings, numbers and units are compared first (microseconds). Lists, sets, tuples and equations are taken apart, and
math-verify sees only their parts, and only where strings and numbers do not settle them.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from distill.grading.latex import MAX_ANSWER_CHARS, equal_values, is_tame, parse_latex
from distill.grading.quantities import clean, read_quantity, same_quantity, unwrap_text
from distill.records import Problem

MAX_PARTS = 50
"""Longer lists are compared as they stand."""

_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+)(?:,|\{,\})(\d{1,2}|\d{4,})(?![\d.,])")

_WORDS = re.compile(r"[^\W\d_][^\W\d_ .,'\-]*(?:[ .,'\-]+[^\W\d_]+)*\.?")
_LABEL = re.compile(r"\(?([A-Za-z])\)?")
_LABELLED = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s+\S.*|\(?([A-Za-z])\)?[).:]?", re.DOTALL)
_FUNCTION_WORDS = re.compile(
    "sqrt|frac|binom|sinh?|cosh?|tanh?|sec|csc|cot|log|exp|max|min|mod|gcd|lcm|arcsin|arccos|arctan|infty|infinity"
)
_NAME = re.compile(
    r"(?:\\(?:text|mathrm)\s*\{[^{}]*\}|(?:\\(?:angle|triangle|overline|vec|mathbf)\s*)?\{?(?:[a-zA-Z]|[A-Z]{2,4}|\\[a-zA-Z]+)\}?)"
    r"'*(?:_(?:\w|\{\w+\}))?(?:\([^()=]{1,20}\))?"
)
_EQUALS = re.compile(r"(?<![\\<>!:=])=(?!=)")
_RELATION = re.compile(r"[<>=]|\\(?:leq?|geq?|lt|gt|neq?|in|subset|approx)(?![a-zA-Z])")
_SEPARATOR = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|,?\s\b(?:and|or)\b\s|\\(?:begin|end|.)|[,;{}()\[\]]", re.DOTALL
)
_OPENING, _CLOSING = "{([", "})]"


class Structure(NamedTuple):
    """An answer taken apart: `kind` is `one`, `list` (bare), `set`, or the two brackets of an ordered one (`(]`)."""

    kind: str
    parts: tuple[str, ...]


def same_answer(given: str, expected: str) -> bool:
    """Equal as normalised strings or as exact quantities. `False` means *not equal so far*, not *wrong*."""
    return settle(given, expected) is True


def settle(given: str, expected: str) -> bool | None:
    """Right or wrong, where strings and numbers say so; `None` where a parser must look."""
    if len(expected) > MAX_ANSWER_CHARS:
        return None
    if len(given) > MAX_ANSWER_CHARS:
        return False
    left, right = normalise(given), normalise(expected)
    if left == right:
        return True if left else None
    if gold := read_quantity(expected):
        point = _DECIMAL_COMMA.sub(r"\1.\2", given) if gold.decimals else given
        if value := read_quantity(point):
            return same_quantity(value, gold)
    return None


def normalise(answer: str) -> str:
    """An answer without what does not change its value: spaces, dollar signs, \\text, thousands' commas."""
    text = unwrap_text(clean(answer)).replace("\\%", "%")
    if not re.search(r"[(\[{]", text):  # between brackets a comma separates
        text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text)
    # a space between two digits separates as well: 1 1/2 is not 11/2
    text = re.sub(r"(?<!\d) | (?!\d)", "", text)
    # R and r are two variables, Red and red one word
    return text.casefold() if re.search(r"(?<![\\a-zA-Z])[^\W\d_]{3}", text) and not _RELATION.search(text) else text


def grade_math(problem: Problem, extracted: str) -> bool | None:
    """Whether an answer is the expected one; `None` where that cannot be parsed. May hang: run it in the pool."""
    if problem.answer is None:
        return None
    verdict = settle(extracted, problem.answer)
    if verdict is not None:
        return verdict
    if not is_tame(problem.answer) or not _is_whole(problem.answer):
        return None
    if not is_tame(extracted):
        return False
    return _equivalent(clean(extracted), clean(problem.answer))


def _equivalent(given: str, expected: str) -> bool | None:
    """Compare two answers part by part; `None` where the expected one cannot be parsed."""
    verdict = _same_as_strings(given, expected)
    if verdict is not None:
        return verdict
    given, expected = _same_side(given, expected)
    left, right = take_apart(given), take_apart(expected)
    if left.kind == right.kind == "one":
        return _equal_single(given, expected)
    if "one" in (left.kind, right.kind):
        return _equal_whole(given, expected, left, right)
    if len(left.parts) != len(right.parts) or not _same_kind(left.kind, right.kind):
        return None if not _parses(right) else False
    if left.kind in ("list", "set") and right.kind in ("list", "set"):
        return _equal_unordered(left.parts, right.parts)
    return _all(_equivalent(a, b) for a, b in zip(left.parts, right.parts, strict=True))


def _same_as_strings(given: str, expected: str) -> bool | None:
    verdict = settle(given, expected)
    if verdict is not None:
        return verdict
    left, right = unwrap_text(given), unwrap_text(expected)
    if label := _LABEL.fullmatch(right):
        found = _LABELLED.fullmatch(left)
        # a bare letter may be a variable: only a marked one is a choice whatever its case
        is_choice = "(" in right or "\\text" in expected
        if not is_choice and label[1] not in "ABCDEFGHIJ":
            return None
        letter = next(filter(None, found.groups()), "") if found else ""
        if found and (letter == label[1] or (is_choice and letter.lower() == label[1].lower())):
            return True
        return False if is_choice else None
    if _is_words(right) and (_is_words(left) or not re.search("[a-zA-Z]", left)):
        return False
    if ":" in left and ":" in right and not re.search(r"[=<>{]", left + right):
        return False  # times of day and ratios: 3:30 is not 1:10, whatever the division says
    return None


def _is_words(text: str) -> bool:
    """Whether an answer is words and not mathematics: three letters in a row that are no function's name."""
    if "\\begin" in text:
        return False
    words = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", text)
    return any(not _FUNCTION_WORDS.fullmatch(word.lower()) for word in words) and (
        _WORDS.fullmatch(text) is not None or any(len(word) > 3 for word in words)
    )


def _same_side(given: str, expected: str) -> tuple[str, str]:
    """Both without `x =` or `x \\in` if one has none, or if both name the same; else as they are."""
    (left_name, left), (right_name, right) = _assigned(given), _assigned(expected)
    if left_name and right_name and normalise(left_name) != normalise(right_name):
        return given, expected
    if (left_name and _EQUALS.search(right)) or (right_name and _EQUALS.search(left)):
        return given, expected  # an equation beside an equation
    return left, right


def _assigned(answer: str) -> tuple[str, str]:
    """(name, value) of `x = 5`, `S = 2 + 3 = 5` and `x \\in [1, 2]`; `2 + 3 = 5` names nothing and is 5."""
    parts = _EQUALS.split(answer)
    if len(parts) > 1 and len(_split(answer)) == 1 and not re.search(r"[<>]|\\(?:leq?|geq?|neq?)(?![a-zA-Z])", answer):
        first = parts[0].strip()
        if _NAME.fullmatch(first):
            return first, parts[-1].strip()
        if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", first)):
            return "", parts[-1].strip()
    if (member := re.match(r"\s*(\\?[a-zA-Z]+)\s*\\in(?![a-zA-Z])", answer)) and _NAME.fullmatch(member[1]):
        return member[1], answer[member.end() :].strip()
    return "", answer


def take_apart(answer: str) -> Structure:
    """The parts of a list, a set, a tuple or an interval; an answer of one part, or one of a thousand, is `one`."""
    if "\\begin" in answer or "\\cup" in answer or "\\cap" in answer or "\\setminus" in answer:
        return Structure("one", (answer,))
    text = answer.strip()
    kind, inner = "list", text
    if text.startswith("\\{") and text.endswith("\\}"):
        kind, inner = "set", text[2:-2]
    elif text[:1] in ("(", "[") and text[-1:] in (")", "]") and _is_bracketed(text):
        kind, inner = text[0] + text[-1], text[1:-1]
    parts = [part for one in _split(inner) for part in _both_signs(one)]
    if len(parts) > MAX_PARTS or (len(parts) == 1 and kind != "set") or (kind == "set" and "|" in inner):
        return Structure("one", (answer,))
    return Structure(kind, tuple(parts))


def _is_bracketed(text: str) -> bool:
    """Whether the first bracket closes with the last character: `(1, 2), (3, 4)` is a list."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Cut at the commas, semicolons, "and" and "or" that stand in no bracket; thousands' commas cut nothing."""
    if not re.search(r"[\[({]", text) and read_quantity(text) is not None:
        return [text]
    parts, depth, start = [], 0, 0
    for match in _SEPARATOR.finditer(text):
        piece = match[0]
        if piece in ("\\{", "\\}"):
            piece = piece[1]
        if piece in _OPENING:
            depth += 1
        elif piece in _CLOSING:
            depth -= 1
        elif depth == 0 and (piece in ",;" or "and" in piece or "or" in piece):
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _both_signs(part: str) -> list[str]:
    signs = part.count("\\pm")
    if signs != 1 or "\\mp" in part:
        return [part]
    return [re.sub(r"\\pm\s*", sign, part).strip().removeprefix("+") for sign in "+-"]


def _same_kind(given: str, expected: str) -> bool:
    """A bare list may stand for a set or a pair in parentheses; brackets of two kinds are two things."""
    if given == expected:
        return True
    return "list" in (given, expected) and {given, expected} <= {"list", "set", "()"}


def _equal_unordered(given: tuple[str, ...], expected: tuple[str, ...]) -> bool | None:
    left = list(given)
    for gold in expected:
        verdicts = []
        for place, value in enumerate(left):
            verdicts.append(_equivalent(value, gold))
            if verdicts[-1]:
                del left[place]
                break
        else:
            return None if verdicts and all(verdict is None for verdict in verdicts) else False
    return True


def _equal_whole(given: str, expected: str, left: Structure, right: Structure) -> bool | None:
    """One side is a single thing: an interval may still equal an inequality, a set of one its element."""
    if right.kind == "set" and len(right.parts) == 1 and left.kind == "one":
        return _equivalent(given, right.parts[0])
    if left.kind == "set" and len(left.parts) == 1 and right.kind == "one":
        return _equivalent(left.parts[0], expected)
    if "list" in (left.kind, right.kind):
        return None if not _parses(right) else False
    return equal_values(given, expected)


def _equal_single(given: str, expected: str) -> bool | None:
    if "=" in given and "=" not in expected and not _RELATION.search(expected):
        return None if parse_latex(expected) is None else False  # an equation is no value: x + 1 = 5 is not 5
    letters, gold_letters = _letters(given), _letters(expected)
    if letters != gold_letters and {c.lower() for c in letters} == {c.lower() for c in gold_letters}:
        return None if parse_latex(expected) is None else False  # the parser takes R for r
    return equal_values(given.replace("\\varnothing", "\\emptyset"), expected.replace("\\varnothing", "\\emptyset"))


def _letters(text: str) -> set[str]:
    return set(re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)))


def _parses(structure: Structure) -> bool:
    return all(read_quantity(part) is not None or parse_latex(part) is not None for part in structure.parts)


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    if any(verdict is False for verdict in found):
        return False
    return None if None in found else True


def _is_whole(gold: str) -> bool:
    """Whether the text can mean anything at all."""
    braces = re.sub(r"\\[{}]", "", gold)
    return braces.count("{") == braces.count("}") and any(char.isalnum() for char in gold)

r"""Compare an extracted mathematical answer with the expected one: `"\frac{1}{2}"` is right for `"0.5"`.

Strings, numbers and units are compared first (microseconds). Lists, sets, tuples, matrices and equations are split into
parts (`structure`, `intervals`, `relations`), and single values are compared exactly (`single`, about a millisecond).
math-verify handles what these grammars do not read, such as integrals.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction

from distill.core.records import Problem
from distill.grading.expression import read_expression
from distill.grading.families import same_family
from distill.grading.intervals import looks_like_a_set, same_set
from distill.grading.latex import MAX_ANSWER_CHARS, is_damaged, is_tame, repaired, stripped
from distill.grading.notation import UnreadableError
from distill.grading.piecewise import same_cases
from distill.grading.quantities import PERCENT, Quantity, clean, read_quantity, same_quantity, split_unit, unwrap_text
from distill.grading.relations import split_relations
from distill.grading.single import all_right, equal_single, parses
from distill.grading.structure import RELATION, Structure, assigned, read_matrix, separate, take_apart, usual_brackets
from distill.grading.values import constant_value
from distill.grading.words import same_words

_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm)\s*\{([a-zA-Z])\}")
_CONSTANT = re.compile(r"\+ ?(?:[cKk]|C_(?:\d|\{\d\}))$")
_DERIVATIVE = re.compile(r"\\frac\{d([a-zA-Z])\}\{d([a-zA-Z])\}")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,100}")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+)(?:,|\{,\})(\d{1,2}|\d{4,})(?![\d.,])")


def same_answer(given: str, expected: str) -> bool:
    """Return whether two answers are equal as strings or quantities; `False` means *not settled*, not *wrong*."""
    return settle(given, expected) is True


def settle(given: str, expected: str) -> bool | None:
    """Return right or wrong if strings and numbers decide; `None` if a parser is needed."""
    if _WHOLE_NUMBER.fullmatch(given) and _WHOLE_NUMBER.fullmatch(expected):
        return int(given) == int(expected)
    if len(expected) > MAX_ANSWER_CHARS or is_damaged(expected):
        return None
    if len(given) > MAX_ANSWER_CHARS:
        return None if given[0] in "({[" else False
    left, right = normalise(given), normalise(expected)
    if left == right:
        return True if left else None
    if gold := read_quantity(expected):
        point = _DECIMAL_COMMA.sub(r"\1.\2", given) if gold.decimals else given
        if value := read_quantity(point):
            return same_quantity(value, gold)
    return None


@functools.lru_cache(maxsize=4_096)  # a vote compares each answer with many
def normalise(answer: str) -> str:
    """Remove what does not change an answer's value: spaces, dollar signs, \\text, thousands separators."""
    text = unwrap_text(clean(answer)).replace("\\%", "%")
    if not re.search(r"[(\[{]", text):  # between brackets a comma separates
        text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text)
    # a space between two digits separates as well: 1 1/2 is not 11/2
    text = re.sub(r"(?<!\d) | (?!\d)", "", text)
    # R and r are two variables, Red and red are one word
    return text.casefold() if re.search(r"(?<![\\a-zA-Z])[^\W\d_]{3}", text) and not RELATION.search(text) else text


def grade_math(problem: Problem, extracted: str) -> bool | None:
    """Return whether an answer is the expected one; `None` if it cannot be graded. May hang: run it in the pool."""
    gold = problem.answer
    if gold is None or is_damaged(gold):
        return None
    verdict = settle(extracted, gold)
    if verdict is not None:
        return verdict
    if not is_tame(gold) or not _is_whole(gold):
        return None
    if not is_tame(extracted):
        # Excessive brackets are not an answer, but it is ungraded if they enclose the right one.
        return None if settle(stripped(extracted), gold) else False
    is_same, given, expected = same_family(repaired(extracted), gold)
    if is_same:
        return True
    given, expected = (usual_brackets(clean(separate(text))) for text in (given, expected))
    given = _same_constant_letter(given, expected)
    return _equivalent(_same_derivatives(_same_style(given, expected), expected), expected)


def _same_style(given: str, expected: str) -> str:
    """Remove bold style from letters if the expected text has none."""
    return given if _BOLD.search(expected) else _BOLD.sub(r"{\1}", given)


def _same_constant_letter(given: str, expected: str) -> str:
    """Rewrite a final `+ k` or `+ C_1` as `+ C` if the expected answer ends with that constant of integration."""
    return _CONSTANT.sub("+C", given) if re.search(r"\+ ?C$", expected) else given


def _same_derivatives(given: str, expected: str) -> str:
    """Rewrite `y'` as `dy/dx` if that is the only derivative in the expected text."""
    wanted = set(_DERIVATIVE.findall(expected))
    if len(wanted) != 1 or "\\frac{d" in given:
        return given
    ((name, variable),) = wanted
    return re.sub(rf"(?<![a-zA-Z\\]){name}'(?!')", rf"\\frac{{d{name}}}{{d{variable}}}", given)


def _equivalent(given: str, expected: str) -> bool | None:
    """Compare two answers part by part; `None` if the expected one cannot be parsed."""
    if (verdict := settle(given, expected)) is not None:
        return verdict
    if "\\begin" in expected and (verdict := same_cases(given, expected, _equivalent)) is not None:
        return verdict
    values, golds = _same_side(given, expected)
    if (values, golds) != ((given,), (expected,)):
        return _equal_chains(values, golds)
    if ":" in given and ":" in expected and (verdict := same_words(given, expected)) is not None:
        return verdict
    (value, unit), (gold, gold_unit) = split_unit(given), split_unit(expected)
    if (value, gold) != (given, expected) and re.search(r"\d|\\pi|π", gold):
        return False if unit and gold_unit and unit != gold_unit else _equivalent(value, gold)
    if (verdict := same_words(given, expected)) is not None:
        return verdict
    given, expected = (unwrap_text(text) if _is_text_of_parts(text) else text for text in (given, expected))
    is_set = looks_like_a_set(given) or looks_like_a_set(expected)
    if is_set and (verdict := same_set(given, expected)) is not None:
        return verdict
    given, expected = _assignments(given), _assignments(expected)
    given, expected = _without_membership(given, expected), _without_membership(expected, given)
    left, right = take_apart(given), take_apart(expected)
    if right.kind in ("list", "set") and "," in given and read_quantity(given) is not None:
        left = Structure("list", tuple(given.split(",")))  # 81,256 may be a list if one is expected
    if left.kind == right.kind == "one":
        return equal_single(given, expected, _equivalent)
    if "one" in (left.kind, right.kind):
        return _equal_whole(given, expected, left, right)
    return _equal_parts(left, right)


def _assignments(text: str) -> str:
    """Rewrite `(x,y)=(1,2)` as `x=1, y=2`."""
    sides = split_relations(text)
    if sides.signs != ("=",):
        return text
    names, values = (take_apart(side) for side in sides.sides)
    if names.kind != "()" or values.kind != "()" or len(names.parts) != len(values.parts):
        return text
    if not all(re.fullmatch(r"[a-zA-Z](?:_\w)?", name) for name in names.parts):
        return text
    return ", ".join(f"{name}={value}" for name, value in zip(names.parts, values.parts, strict=True))


def _without_membership(text: str, other: str) -> str:
    """Reduce `x \\in \\{3, 5\\}` to `\\{3, 5\\}` if the other text says `x = 3`."""
    found = re.match(r"\s*([a-zA-Z])\s*\\in(?![a-zA-Z])", text)
    return text[found.end() :].strip() if found and re.match(rf"\s*{found[1]}\s*=", other) else text


def _is_text_of_parts(text: str) -> bool:
    return re.fullmatch(r"\\text\s*\{[^{}]*(?:,|\band\b|\bor\b)[^{}]*\}", text) is not None


def _same_side(given: str, expected: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Strip `x =` or `x \\in` from both texts if one has none or both name the same; else return them unchanged."""
    (left_name, left), (right_name, right) = assigned(given), assigned(expected)
    as_they_are = (given,), (expected,)
    if left_name and right_name and not _same_name(left_name, right_name):
        return as_they_are
    if (left_name and not right_name and "=" in right[0]) or (right_name and not left_name and "=" in left[0]):
        return as_they_are  # both are equations
    return left, right


def _same_name(left: str, right: str) -> bool:
    """Return whether two names are the same; `y` is also the name of `f(x)`."""
    names = {normalise(left), normalise(right)}
    return len(names) == 1 or ("y" in names and any(name.endswith("(x)") for name in names))


def _equal_chains(values: Sequence[str], golds: Sequence[str]) -> bool | None:
    """Compare the last values of two chains; the answer's earlier values must not contradict its last one."""
    if not _is_consistent(values):
        return False
    verdicts = [_equivalent(value, gold) for gold in golds[:2] for value in values[:2]]
    if True in verdicts:
        return True
    return None if verdicts[0] is None else False


def _is_consistent(values: Sequence[str]) -> bool:
    """Return whether the numbers of a chain agree; a decimal may be rounded, as in `22/7 = 3.14`."""
    numbers = [number for value in values if (number := _constant(value)) is not None]
    return all(_rounds_to(one, other) for one, other in itertools.pairwise(numbers))


def _rounds_to(one: Quantity, other: Quantity) -> bool:
    if one.value == other.value:
        return True
    if (one.decimals is None) == (other.decimals is None):
        return False
    decimals = one.decimals if one.decimals is not None else other.decimals
    return abs(one.value - other.value) <= Fraction(10) ** -(decimals or 0)


def _constant(text: str) -> Quantity | None:
    """Return the number that a text is, with percent converted and an irrational number as a nearby fraction."""
    if quantity := read_quantity(text):
        if quantity.unit == PERCENT:
            return Quantity(quantity.value / 100, "", (quantity.decimals or 0) + 2, quantity.digits)
        return quantity
    try:
        value = constant_value(read_expression(split_unit(text)[0]))
    except UnreadableError:
        return None
    if value is None or isinstance(value, Fraction):
        return None if value is None else Quantity(value)
    return Quantity(round(Fraction(int(value * 10**40), 10**40), 30)) if abs(value) < 10**30 else None


def _equal_parts(left: Structure, right: Structure) -> bool | None:
    if len(left.parts) != len(right.parts) or not _same_kind(left.kind, right.kind):
        return None if not parses(right) else False
    left_names, left_values = _named(left.parts)
    right_names, right_values = _named(right.parts)
    if all(right_names) and len(set(right_names)) == len(right_names):
        if all(left_names):
            if set(left_names) != set(right_names):
                roots = {name.partition("_")[0] for name in right_names} == set(left_names)
                return _equal_unordered(tuple(left_values), tuple(right_values)) if roots else False
            order = [left_names.index(name) for name in right_names]
            return all_right(_equivalent(left_values[i], gold) for i, gold in zip(order, right_values, strict=True))
        # a bare list gives the values in the order of the names
        return all_right(map(_equivalent, left.parts, right_values))
    unordered = {left.kind, right.kind} <= {"list", "set"}
    if unordered:
        return _equal_unordered(left.parts, right.parts)
    if all(left_names) and len(set(left_names)) == len(left_names):
        by_name = [value for _, value in sorted(zip(left_names, left_values, strict=True))]
        if all_right(map(_equivalent, by_name, right.parts)):
            return True
        if set(left_names) <= {"x", "y", "z"}:
            return False
    return all_right(map(_equivalent, left.parts, right.parts))


def _named(parts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names and values of assignments; for any other part, `""` and the part itself."""
    found = [assigned(part) for part in parts]
    is_named = [bool(name) and RELATION.search(part) is not None for (name, _), part in zip(found, parts, strict=True)]
    names = [normalise(name) if named else "" for (name, _), named in zip(found, is_named, strict=True)]
    values = [values[0] if named else part for (_, values), named, part in zip(found, is_named, parts, strict=True)]
    return names, values


def _same_kind(given: str, expected: str) -> bool:
    """Return whether two kinds match: a bare list may stand for a set or a tuple, different brackets never match."""
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
    """Compare when one side has a single part: an interval may equal an inequality, a set of one its element."""
    for one, other in ((left, right), (right, left)):
        if one.kind == "set" and len(one.parts) == 1 and other.kind == "one":
            return _equivalent(left.parts[0], right.parts[0])
    if left.kind == "list" and all(_equivalent(part, expected) for part in left.parts):
        return True  # the same value in several forms: 3/4, or 0.75
    if (verdict := _equal_vectors(given, expected, left, right)) is not None:
        return verdict
    if "list" in (left.kind, right.kind) or "{" in (given[:1], expected[:1]):
        return None if right.kind != "one" and not parses(right) else False
    return equal_single(given, expected, _equivalent)


def _equal_vectors(given: str, expected: str, left: Structure, right: Structure) -> bool | None:
    """Compare a matrix of one row or column with a tuple of its entries; `None` if the two are anything else."""
    for text, tuple_ in ((given, right), (expected, left)):
        if tuple_.kind == "()" and (matrix := read_matrix(text)) is not None and not matrix.factor:
            cells = tuple(cell for row in matrix.rows for cell in row)
            if (
                matrix.is_determinant
                or len(cells) != len(tuple_.parts)
                or 1 not in (len(matrix.rows), len(matrix.rows[0]))
            ):
                return False
            pairs = zip(cells, tuple_.parts, strict=True)
            return all_right(_equivalent(*(pair if text is given else pair[::-1])) for pair in pairs)
    return None


def _is_whole(gold: str) -> bool:
    """Return whether an expected answer can mean anything: balanced braces and some content."""
    braces = re.sub(r"\\[{}]", "", gold)
    return braces.count("{") == braces.count("}") and (
        any(char.isalnum() for char in gold) or re.search(r"\\\{ *\\\}|∅|∞", gold) is not None
    )

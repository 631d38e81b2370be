r"""Compare single values, equations and matrices: `"\frac{1}{\sqrt{2}}"` equals `"\frac{\sqrt{2}}{2}"`.

Values in the grammar (`expression`) are evaluated; others, such as integrals, are left to math-verify (`latex`).
"""

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

from distill.grading.expression import read_expression
from distill.grading.intervals import read_set
from distill.grading.latex import equal_values, parse_latex
from distill.grading.notation import Node, UnreadableError, function_names
from distill.grading.products import same_product
from distill.grading.quantities import MIN_ROUNDED_DIGITS, is_rounded, read_quantity, split_unit
from distill.grading.relations import same_relations, split_relations
from distill.grading.structure import Matrix, Structure, determinant, read_matrix, take_apart
from distill.grading.values import constant_value, same_value
from distill.grading.words import as_fraction

Compare = Callable[[str, str], bool | None]

MAX_DETERMINANT = 4
_ANGLE = re.compile(r"sin|cos|tan|cot|sec|csc|cis|tg|pi")
_DEGREES = re.compile(r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![a-zA-Z]))|°|\\degree(?![a-zA-Z])")
_BEYOND = re.compile(
    r"\\(?:sum|prod|i*nt|oint|lim|sup|inf|[bp]?mod|det|begin|cup|cap|\{|[gl]eq?|[gl]t|operatorname|Re|Im)(?![a-zA-Z])|[<>|]"
)
"""Signs that math-verify reads and `expression` does not."""


def equal_single(given: str, expected: str, compare: Compare) -> bool | None:
    """Compare two single values; `compare` compares the cells of matrices, which may be anything."""
    if split_relations(given).signs or split_relations(expected).signs:
        return _equal_relations(given, expected, compare)
    matrix, other = read_matrix(expected), read_matrix(given)
    if matrix is not None and (other is not None or not matrix.is_determinant):
        return _equal_matrices(other, matrix, compare)
    if (found := matrix or other) and found.is_determinant and len(found.rows) == len(found.rows[0]) <= MAX_DETERMINANT:
        value = f"({found.factor or 1}){determinant(found.rows)}"
        return _equal_expressions(given if matrix else value, value if matrix else expected)
    verdict = _equal_expressions(given, expected)
    if verdict is not None:
        return verdict
    letters, gold_letters = _letters(given), _letters(expected)
    if letters != gold_letters and {c.lower() for c in letters} == {c.lower() for c in gold_letters}:
        return None if parse_latex(expected) is None else False  # math-verify's parser reads R as r
    kind, gold_kind = _kind(given), _kind(expected)
    if kind == gold_kind == "value":
        return None  # too few points where both have a value
    if gold_kind and kind != gold_kind and (kind or not _BEYOND.search(given)):
        return False
    verdict = equal_values(given.replace("\\varnothing", "\\emptyset"), expected.replace("\\varnothing", "\\emptyset"))
    return False if verdict is None and _is_readable(expected) else verdict


def _equal_relations(given: str, expected: str, compare: Compare) -> bool | None:
    left, right = split_relations(given), split_relations(expected)
    verdict = same_relations(given, expected)
    if verdict is not None:
        return verdict
    if left.signs and left.signs == right.signs:
        return all_right(equal_single(a, b, compare) for a, b in zip(left.sides, right.sides, strict=True))
    if not right.signs:  # an equation is not a value: x + 1 = 5 is not 5
        if "=" in left.signs:
            return False if _is_readable(expected) else None
        return equal_values(given, expected)
    if not left.signs and "=" in right.signs:
        return False if all(_is_readable(side) for side in right.sides) else None
    return equal_values(given, expected) if left.signs != right.signs else None


def _equal_expressions(given: str, expected: str) -> bool | None:
    """Compare two values in the grammar; `None` if one cannot be read or they cannot be told apart."""
    (left, left_unit), (right, right_unit) = split_unit(given), split_unit(expected)
    if left_unit and right_unit and left_unit != right_unit:
        return False
    left, right = as_fraction(left), as_fraction(right)
    if not _ANGLE.search(left + right):
        left, right = _DEGREES.sub("", left), _DEGREES.sub("", right)
    names = function_names(left, right)
    golds, values = readings(right, names), readings(left, names)
    if not golds or not values:
        return None
    if _rounds(left, golds[0]) or _rounds(right, values[0]):
        return True
    if (verdict := same_product(left, right, values[0], golds[0])) is not None:
        return verdict
    verdicts = [same_value(value, gold) for gold in golds for value in values]
    if True in verdicts:
        return True
    return False if False in verdicts else None


def readings(text: str, names: frozenset[str]) -> list[Node]:
    """Return the possible readings of a text: `1/2x` may be `(1/2)x` or `1/(2x)`."""
    if (number := read_quantity(text)) and number.base == 10 and not number.unit:
        return [Node("num", (), number.value)]
    found: list[Node] = []
    for tight in (False, True) if "/" in text else (False,):
        try:
            tree = read_expression(text, names, tight)
        except UnreadableError:
            break
        if tree not in found:
            found.append(tree)
    return found


def _rounds(text: str, exact: Node) -> bool:
    """Return whether a text is an exact constant rounded to a decimal."""
    decimal = read_quantity(text)
    if (
        decimal is None
        or not decimal.decimals
        or decimal.decimals < 0
        or decimal.digits < MIN_ROUNDED_DIGITS
        or exact.op in ("num", "neg")
    ):
        return False
    value = constant_value(exact)
    if value is None or isinstance(value, Fraction):
        return False
    return is_rounded(decimal, Fraction(int(value * 10**40), 10**40))


def _equal_matrices(given: Matrix | None, expected: Matrix, compare: Compare) -> bool | None:
    if given is None or given.is_determinant != expected.is_determinant:
        return False
    if [len(row) for row in given.rows] != [len(row) for row in expected.rows]:
        return False
    pairs = zip(given.rows, expected.rows, strict=True)
    return all_right(
        compare(_scaled(cell, given.factor), _scaled(gold, expected.factor))
        for row, golds in pairs
        for cell, gold in zip(row, golds, strict=True)
    )


def _scaled(cell: str, factor: str) -> str:
    if not factor:
        return cell
    return f"-({cell})" if factor == "-" else f"({factor})({cell})"


def _kind(text: str) -> str:
    """Return the kind of a readable text; `""` if it is left to math-verify."""
    if read_matrix(text) is not None:
        return "matrix"
    parts = take_apart(text)
    if parts.kind != "one":
        return "parts" if parses(parts) else ""
    if read_set(text) is not None:
        return "set"
    return "value" if read_quantity(text) is not None or readings(as_fraction(split_unit(text)[0]), frozenset()) else ""


def _letters(text: str) -> set[str]:
    return set(re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)))


def parses(structure: Structure) -> bool:
    return all(_is_readable(part) for part in structure.parts)


def _is_readable(text: str) -> bool:
    if read_quantity(text) is not None or read_set(text) is not None or readings(split_unit(text)[0], frozenset()):
        return True
    return all(parse_latex(side) is not None for side in split_relations(text).sides)


def all_right(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    if any(verdict is False for verdict in found):
        return False
    return None if None in found else True

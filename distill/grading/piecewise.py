r"""Compare functions defined by cases.

Example: `"\begin{cases} 1 & x>0 \\ 0 & \text{otherwise} \end{cases}"`.
"""

import re
from collections.abc import Callable

from distill.grading.relations import split_top
from distill.grading.structure import RELATION

_CASES = re.compile(
    r"(?:[^=&]{1,30}=)?\s*(?:\\left\s*)?(?:\\\{)?\s*\\begin\{(?:[dr]?cases|array|aligned)\}(?:\{[lcr|@{} ]*\})?"
    r"((?:(?!\\begin|\\end).)*)\\end\{\w+\}\s*(?:\\right\s*)?[.}]?\s*",
    re.DOTALL,
)
_IF = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:if|for|when|where)\s*\}|\b(?:if|for|when|where)\b|,")
_OTHERWISE = re.compile(r"(?:otherwise|else(?:where)?)")

Case = tuple[str, str]
"""A value and its condition; `""` means "otherwise"."""


def same_cases(given: str, expected: str, compare: Callable[[str, str], bool | None]) -> bool | None:
    """Return whether two functions have the same values under the same conditions, in any order.

    "Otherwise" matches the condition that is left in the other text. `None`: one text is not a function by cases.
    """
    left, right = read_cases(given), read_cases(expected)
    if right is None:
        return None
    if left is None:  # a single formula is wrong, unless absolute values or the like may express the cases
        return None if re.search(r"\\begin|\||\\(?:max|min|[lr]vert|lfloor)|\b(?:if|for|when)\b", given) else False
    if len(left) != len(right):
        return False
    for gold_value, gold_condition in sorted(right, key=lambda case: not case[1]):
        found = next((c for c in left if _same_condition(c[1], gold_condition, compare)), None)
        if found is None and len(left) == 1 and "" in (gold_condition, left[0][1]):
            found = left[0]
        # The case whose condition this text leaves to "otherwise".
        found = found or next((c for c in left if not c[1] and compare(c[0], gold_value)), None)
        if found is None or not compare(found[0], gold_value):
            return False
        left.remove(found)
    return True


def read_cases(text: str) -> list[Case] | None:
    """Return the cases of a function; `None` if the text is not one, or a case has no condition."""
    whole = _CASES.fullmatch(text.strip())
    if whole is None:
        return None
    cases = []
    for row in re.split(r"\\\\(?:\[[^\]]*\])?", whole[1]):
        if not row.strip():
            continue
        value, mark, condition = row.partition("&")
        if not mark:
            parts = split_top(row, _IF)
            value, condition = parts[0], ",".join(part for part in parts[1:] if part.strip())
        condition = re.sub(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}", r"\1", condition.replace("&", " "))
        condition = re.sub(r"^[\s,]*(?:(?:if|for|when|where)\b)?", "", condition).strip(" ,;.")
        is_rest = _OTHERWISE.fullmatch(condition) is not None
        if not is_rest and not RELATION.search(condition):
            return None
        cases.append((value.strip(" ,;."), "" if is_rest else condition))
    return cases if len(cases) > 1 else None


def _same_condition(given: str, expected: str, compare: Callable[[str, str], bool | None]) -> bool:
    return given == expected or (bool(given and expected) and compare(given, expected) is True)

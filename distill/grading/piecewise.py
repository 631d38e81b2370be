r"""Functions that are given by cases.

Enters: `"\begin{cases} 1 & x>0 \\ 0 & \text{otherwise} \end{cases}"`. Leaves: each value with its condition; whether
two such texts say the same.
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
"""A value and its condition; `""` is "otherwise"."""


def same_cases(given: str, expected: str, compare: Callable[[str, str], bool | None]) -> bool | None:
    """Whether two functions have the same values under the same conditions, in any order; `None`: one is none.

    "Otherwise" is what the other text's last condition says.
    """
    left, right = read_cases(given), read_cases(expected)
    if right is None:
        return None
    if left is None:  # one formula is no function by cases, but for one with absolute values and the like
        return None if re.search(r"\\begin|\||\\(?:max|min|[lr]vert|lfloor)|\b(?:if|for|when)\b", given) else False
    if len(left) != len(right):
        return False
    for gold_value, gold_condition in sorted(right, key=lambda case: not case[1]):
        found = next((c for c in left if _same_condition(c[1], gold_condition, compare)), None)
        if found is None and len(left) == 1 and "" in (gold_condition, left[0][1]):
            found = left[0]
        # The one case whose condition this text leaves to "otherwise".
        found = found or next((c for c in left if not c[1] and compare(c[0], gold_value)), None)
        if found is None or not compare(found[0], gold_value):
            return False
        left.remove(found)
    return True


def read_cases(text: str) -> list[Case] | None:
    """The cases of a function; `None` where a text is none, or a case has no condition."""
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

r"""What a harness finds in an answer, and the places that several of them look at: boxes, lines after "Answer:".

Example: `last_braced_box(r"so \boxed{\frac{1}{2}}.")` is `r"\frac{1}{2}"`.
"""

import re
import string
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from distill.core.records import Problem
from distill.grading.options import options_of


class Finding(NamedTuple):
    """The answer that a rule extracts, and its verdict; no answer is wrong."""

    answer: str | None
    correct: bool | None = False
    """`None`: the expected answer cannot be compared."""


Rule = Callable[[Problem, str, str], Finding]
"""(problem, expected answer, text) -> finding. The expected answer of a choice is a capital letter."""

NOTHING = Finding(None)

DEFAULT_NUM_OPTIONS = 4
"""Number of letters that a rule accepts if the problem states no options."""


@dataclass(frozen=True, slots=True)
class Harness:
    """How another harness grades, as far as stored answers allow."""

    name: str
    sources: tuple[str, ...]
    """Repository, commit and file of each rule as it was read."""
    sees_thought: bool
    """Whether a thought in `<think>…</think>` is part of the text that it extracts from."""
    rules: dict[str, Rule]
    """Task -> rule. The harness has none for other tasks."""
    notes: tuple[str, ...]
    """Where this differs from the harness, and what to know when comparing scores."""


_BRACE = re.compile(r"[{}]")
_ANSWER_LINE = re.compile(r"(?i)answer\s*+:\s*+([^\n]+)")


def letters_of(problem: Problem) -> str:
    """Return the letters of a problem's options: `"ABCDEFGHIJ"` for ten."""
    return string.ascii_uppercase[: len(options_of(problem)) or DEFAULT_NUM_OPTIONS]


def last_braced_box(text: str) -> str | None:
    r"""Return the content of the last `\boxed{…}`; `None` if the last `\boxed` has no brace or is not closed.

    Earlier boxes are not tried, as in the `last_boxed_only_string` that most harnesses share.
    """
    start = text.rfind("\\boxed")
    inner = start + len("\\boxed{")
    if start < 0 or not text.startswith("{", inner - 1):
        return None
    depth = 0
    for brace in _BRACE.finditer(text, inner - 1):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[inner : brace.start()]
    return None


def first_answer_line(text: str) -> str | None:
    """Return the rest of the line after the first "Answer:", in any case; the colon may be on a later line."""
    found = _ANSWER_LINE.search(text)
    return found[1] if found else None


def last_answer_line(text: str) -> str | None:
    """Return the rest of the line after the last "Answer:" that begins no other."""
    found = deque(_ANSWER_LINE.finditer(text), maxlen=1)
    return found[0][1] if found else None

"""Length and Markdown of an answer, as ArenaHard's style control counts them."""

import re
from typing import NamedTuple

_CODE = re.compile(r"```[^`]*```")
_HEADER = re.compile(r"^#{1,6}[ \t]", re.MULTILINE)
_LIST_ITEM = re.compile(r"^[ \t]{0,64}(?:\d{1,9}\.|[-*+])[ \t]", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


class Style(NamedTuple):
    """Counts of one answer. Code blocks count for its length only."""

    num_chars: int
    """The reference counts tokens of GPT-4o's tokenizer; only the ratio of two answers matters."""
    num_headers: int
    num_list_items: int
    num_bold: int


def style_of(text: str) -> Style:
    """Return the counts of an answer: headers, list items and bold passages, after the rules of arena-hard-auto."""
    prose = _CODE.sub("", text)
    counts = (sum(1 for _ in pattern.finditer(prose)) for pattern in (_HEADER, _LIST_ITEM, _BOLD))
    return Style(len(text), *counts)


def style_difference(baseline: Style, model: Style) -> tuple[float, ...]:
    """Return (model - baseline) / (model + baseline + 1) of each count."""
    return tuple((m - b) / (m + b + 1) for b, m in zip(baseline, model, strict=True))

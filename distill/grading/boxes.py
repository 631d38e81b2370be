r"""Find the boxed results of a text, including boxes whose command is garbled.

Example: `r"$\boxed{1} \quad \text{and} \quad \boxed{2}$"` holds one group of two boxes.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_BETWEEN_CHARS = 80
"""Maximum distance between two boxes of one group."""

MAX_OPEN_CHARS = 300
"""Maximum length of the content of an unclosed box."""

MAX_OPEN_BRACES = 10_000
"""Maximum number of open braces tracked; beyond it, the outermost are dropped."""

_NAMES = r"(?:[Bb]oxed|fbox|framebox)"
# A box that lost its backslash, or whose \b was read as a backspace, is still a box.
_BRACES = re.compile(
    rf"(?P<box>(?:\\{_NAMES}\s*|\\box\s*|(?<![a-zA-Z]){_NAMES}|\x08oxed\s*)\{{)"
    rf"|(?P<bare>\\{_NAMES}(?![a-zA-Z{{])\s*(?!\{{))|\\.|[{{}}]",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"[-+]?\d(?:[\d,./]*\d)?%?|[A-Za-z](?![A-Za-z])|\([^()\n]{1,60}\)|\[[^\[\]\n]{1,60}\]|\$[^$\n]{1,80}\$"
    r"|\\[dtc]?frac\s*(?:\{[^{}\n]{1,60}\}|\d)\s*(?:\{[^{}\n]{1,60}\}|\d)|\\[a-zA-Z]+\s*\{[^{}\n]{1,60}\}"
)
_CLOSER = re.compile(r"\$|\\[)\]]")
_WORD = r"(?:and|or|und|oder|et|ou|y|o|e|и|или|和|或|与|及)"
_SEPARATOR = rf"[,;&、，]|\\\\|\b{_WORD}\b|\\(?:text|mathrm|mbox)\s*\{{[\s,]*{_WORD}[\s,]*\}}"
# No capturing group inside a possessive one: re of Python 3.11 raises SystemError (python/cpython#101955).
_BETWEEN = re.compile(
    rf"(?:[a-zA-Z](?:_\{{?\w\}}?)?\s*=|{_SEPARATOR}|[\s$.:]|\\[()\[\],;:! ]|\\q?quad(?![a-zA-Z])|~)*+"
)
_SEPARATES = re.compile(_SEPARATOR)
_BLANK = re.compile(
    r"\\(?:h|v)?phantom\s*+\{[^{}]*+\}|\\(?:square|Box|quad|qquad|cdots|ldots|dots)(?![a-zA-Z])|\\[ ,;!]|[?_.\s]"
)
_PLACEHOLDER = re.compile(
    r"[\[<(]?(?:insert |your |the |final |my |correct )*(?:answer|result|solution|letter|option|number|value)"
    r"(?: here| letter| goes here)?[\])>]?|x{3,}",
    re.IGNORECASE,
)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


class Box(NamedTuple):
    """The span of a box, from its command to its end, and the span of its content."""

    start: int
    inner_start: int
    inner_end: int
    end: int
    is_whole: bool = True
    """False if its brace is unclosed although the surrounding formula is closed."""


def find_boxes(text: str) -> list[Box]:
    """Return all boxes of a text, including nested ones, sorted by start."""
    places = text.find("oxed"), text.find("box")
    if max(places) < 0:
        return []
    first = max(0, min(place for place in places if place >= 0) - 6)
    opened: list[tuple[int, int] | None] = []  # per open brace: (start, content start) of its box, if any
    found: list[Box] = []
    # One pass: a model in a loop may open thousands of boxes.
    for match in _BRACES.finditer(text, first):
        if match["box"]:
            opened.append(match.span())
        elif match["bare"]:
            if token := _TOKEN.match(text, match.end()):
                found.append(Box(match.start(), *token.span(), token.end()))
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            span = opened.pop()
            if span is not None:
                found.append(Box(span[0], span[1], match.start(), match.end()))
        if len(opened) > MAX_OPEN_BRACES:
            del opened[: MAX_OPEN_BRACES // 2]
    if opened and opened[-1] is not None and (unclosed := _unclosed(text, *opened[-1])):
        found.append(unclosed)
    return sorted(found)


def _unclosed(text: str, start: int, inner_start: int) -> Box | None:
    r"""Return the box of `$\boxed{42$`; `None` if the text is cut off inside it."""
    line_end = text.find("\n", inner_start)
    end = min(inner_start + MAX_OPEN_CHARS, len(text) if line_end < 0 else line_end)
    closer = _CLOSER.search(text, inner_start, end)
    return Box(start, inner_start, closer.start(), closer.start(), is_whole=False) if closer else None


def box_groups(text: str, boxes: Sequence[Box], adjacent: bool = False) -> list[list[Box]]:
    """Group boxes joined only by a comma, "and" or "or": the parts of one answer, in order.

    Args:
        text: the text that contains the boxes.
        boxes: as returned by `find_boxes`.
        adjacent: also group boxes without a separator between them.
    """
    groups: list[list[Box]] = []
    for box in boxes:
        if groups and _belongs(text, groups[-1][-1].end, box.start, adjacent):
            groups[-1].append(box)
        else:
            groups.append([box])
    return groups


def _belongs(text: str, start: int, end: int, adjacent: bool) -> bool:
    if not 0 <= end - start <= MAX_BETWEEN_CHARS:
        return False
    is_glue = _BETWEEN.fullmatch(text, start, end) is not None
    return is_glue and (adjacent or _SEPARATES.search(text, start, end) is not None)


def has_separator(text: str, start: int, end: int) -> bool:
    """Return whether a comma, "and", "or" or the like stands between two places of a text."""
    return _SEPARATES.search(text, start, end) is not None


def boxes_alone(text: str) -> str:
    r"""Return only the boxes of a text: one group per paragraph, with commas between the boxes of a group.

    `r"so \boxed{1} and \boxed{2}, and then 37"` becomes `r"\boxed{1}, \boxed{2}"`.
    """
    whole = [box for box in find_boxes(text) if box.is_whole]
    groups = box_groups(text, whole)
    return "\n\n".join(
        ", ".join(f"\\boxed{{{text[box.inner_start : box.inner_end]}}}" for box in group) for group in groups
    )


def is_blank(content: str) -> bool:
    r"""Return whether a box is a placeholder: `\boxed{}`, `\boxed{?}`, `\boxed{your answer}`."""
    plain = _BLANK.sub(" ", _TEXT_COMMAND.sub(r"\1", content)).strip()
    return not plain or (len(plain) < 60 and _PLACEHOLDER.fullmatch(" ".join(plain.split())) is not None)

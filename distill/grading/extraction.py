r"""The final answer in a text: where it stands, whatever its task.

Enters: `"… so the result is \boxed{\frac{1}{2}}."`. Leaves: `"\frac{1}{2}"`.
"""

import re

_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_JOINED = re.compile(r"[\s$.]*(?:\\[()\[\]])?[\s$]*(?:,|;|&|\b(?:and|or)\b|\\text\s*\{\s*,?\s*(?:and|or)\s*\})")
_JOINED_REST = re.compile(r"(?:[\s$,;:]|\\[()\[\],;: ]|\\q?quad\b|\b(?:and|or)\b)*")
_PHRASE = re.compile(r"\banswer\**\s*(?:is|:|=)[\s:]*(\S.*?)(?=\.(?:\s|$)|[;\n]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?<![\w)])[-\N{MINUS SIGN}])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?")


def extract_answer(text: str, last_number: bool = False) -> str | None:
    r"""The final answer in a text: its last `\boxed{…}`, else what follows its last "the answer is".

    Boxes that only a comma, "and" or "or" joins to the last one are one answer with it: `1, 2`.

    Args:
        text: what the model wrote after its thinking.
        last_number: where neither is there, take the last number.
    """
    boxes = last_boxes(text)
    if boxes:
        return ", ".join(dict.fromkeys(box.strip() for box in boxes)).strip(", ") or None
    phrases = _PHRASE.findall(text)
    if phrases:
        return str(phrases[-1]).strip(" *`").strip() or None
    numbers = _NUMBER.findall(text) if last_number else []
    return numbers[-1] if numbers else None


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` whose braces are balanced."""
    boxes = _boxes(text)
    return text[boxes[-1][0] : boxes[-1][1]] if boxes else None


def last_boxes(text: str) -> list[str]:
    """The contents of the last box and of those that are joined to it, in their order."""
    boxes = _boxes(text)
    first = len(boxes) - 1
    while (
        first > 0 and boxes[first - 1][1] < boxes[first][0] and _joins(text, boxes[first - 1][1] + 1, boxes[first][0])
    ):
        first -= 1
    return [text[start:end] for start, end in boxes[max(first, 0) :]]


def _joins(text: str, start: int, end: int) -> bool:
    """Whether only a separator stands between two boxes (the second one's command lies before `end`)."""
    between = text[start : min(end, start + 80)]
    between, box, _ = between.rpartition("\\boxed" if "\\boxed" in between else "\\fbox")
    joined = _JOINED.match(between) if box else None
    return joined is not None and _JOINED_REST.fullmatch(between, joined.end()) is not None


def _boxes(text: str) -> list[tuple[int, int]]:
    """Where the content of each whole box starts and ends, by start; one pass, for a loop may open thousands."""
    opened: list[int | None] = []  # where each open brace's content starts, for those of a box
    found: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                found.append((start, match.start()))
    return sorted(found)

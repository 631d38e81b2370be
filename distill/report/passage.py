"""A model's text for the page: shortened in the middle, with the filter's findings marked.

In the page's JSON a number is the length of an omission, in characters:

    ["So the sum ", {"text": "is 7. is 7. is 7.", "mark": "loop"}, 12000, " it is."]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.core.formatting import printable
from distill.filters.language import foreign_spans
from distill.filters.repetition import loop_spans, repeated_spans

MAX_CHARS = 100_000
"""Longest text shown, even if there is room for more."""
MAX_MARKS = 500

Mark = tuple[int, int, str]
"""(start, end, kind): character offsets in the whole text; kinds are `loop`, `repeated`, `foreign`."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Parts of a text, each with its offset."""

    length: int
    """Of the whole text, in characters."""
    parts: tuple[tuple[int, str], ...]
    marks: tuple[Mark, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Return whether something is omitted."""
        return sum(len(text) for _, text in self.parts) < self.length

    def within(self, limit: int) -> "Passage":
        """Return the passage in at most `limit` characters: beginning, end, and the first mark otherwise hidden."""
        if self.length <= limit:
            return self
        hidden = next(((start, end) for start, end, _ in self.marks if end > limit // 3), None)
        if hidden is None or hidden[0] >= self.length - limit // 3:
            wanted = [(0, limit // 2), (self.length - (limit - limit // 2), self.length)]
        else:
            third = limit // 3
            start = max(third, min(hidden[0] - third // 4, self.length - 2 * third))
            wanted = [(0, third), (start, start + third), (self.length - third, self.length)]
        parts = [
            (max(start, low), text[max(start, low) - start : high - start])
            for low, high in _joined(wanted)
            for start, text in self.parts
            if start < high and low < start + len(text)
        ]
        return Passage(self.length, tuple(parts), self.marks)

    def to_json(self) -> list[Any]:
        """Return the passage for the page, in the format of the module's docstring."""
        found: list[Any] = []
        place = 0
        for start, text in self.parts:
            if start > place:
                found.append(start - place)
            place = start + len(text)
            found += _marked(start, text, self.marks)
        if place < self.length:
            found.append(self.length - place)
        return found


def passage(text: str, marks: Sequence[Mark] = ()) -> Passage:
    """Return a text with marks, shortened to `MAX_CHARS`."""
    whole = Passage(len(text), ((0, printable(text)),), tuple(marks))
    return whole.within(MAX_CHARS)


def marks_of(text: str, reasons: Sequence[str], finish_reason: str, language: str | None) -> list[Mark]:
    """Return the places in a text that led to a drop.

    Args:
        text: of the trace, or a part of it.
        reasons: of the verdict.
        finish_reason: of the trace.
        language: that the trace should be in, ISO 639-1; `None`: any.

    Returns:
        Marks that do not overlap, in order.
    """
    found: list[Mark] = []
    if "loop" in reasons or "repetition" in reasons or finish_reason == "loop":
        found += [(start, end, "loop") for start, end in loop_spans(text)]
    if "repetition" in reasons and not found:
        found += [(start, end, "repeated") for start, end in repeated_spans(text)]
    if "mixed_language" in reasons and language is not None:
        free = found[0][0] if found else len(text)
        found += [(start, end, "foreign") for start, end in foreign_spans(text, language) if end <= free]
    return sorted(found)[:MAX_MARKS]


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge adjacent and overlapping ranges."""
    found: list[tuple[int, int]] = []
    for low, high in ranges:
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _marked(start: int, text: str, marks: Sequence[Mark]) -> list[Any]:
    """Split a part into plain and marked pieces."""
    found: list[Any] = []
    place = start
    for low, high, kind in marks:
        low, high = max(low, place), min(high, start + len(text))
        if low < high:
            if place < low:
                found.append(text[place - start : low - start])
            found.append({"text": text[low - start : high - start], "mark": kind})
            place = high
    if place < start + len(text):
        found.append(text[place - start :])
    return found

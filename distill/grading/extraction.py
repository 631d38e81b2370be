r"""Extract the final answer from a text: `"\frac{1}{2}"` from `"… so the result is \boxed{\frac{1}{2}}."`.

Every place that may hold the answer is a candidate. It is *valid* if it states something that may be an answer to the
task. Kinds of candidates are ranked (`RANKS`): the last valid candidate of the highest rank that has any is the answer.
docs/grading.md describes the rules.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distill.grading.boxes import Box, box_groups, find_boxes, is_blank
from distill.grading.golds import strip_answer
from distill.grading.passages import Reading, read_before, read_math, read_plain
from distill.grading.phrases import Kind, Mark, find_announcements, find_tags

RANKS: tuple[tuple[Kind, ...], ...] = (
    ("box", "tag", "final"),
    ("announcement", "hashes", "closing"),
    ("label",),
    ("last_line", "last_number"),
    ("whole_text",),
)
"""Kinds of candidates, the strongest first; `choice` has its own (`distill.grading.choice`)."""

MAX_LINE_CHARS = 400

MAX_READ = 1_000
"""Only this many candidates of a rank are read, the last ones: more come from a model in a loop."""

_NUMBER = re.compile(r"(?:(?<![\w)])[-\N{MINUS SIGN}])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?")
_JOINED_BEFORE = re.compile(
    r"(?<![\w.])(?:-?\d+(?:\.\d+)?(?:/\d+)?(?:\s*,\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+)){2,}\Z"
    r"|(?<![\w.])-?\d+(?:\.\d+)?(?:/\d+)?\s*,?\s+or\s+\Z"
)
"""Matches the rest of a list before its last number: three numbers in a row, or two joined by "or"."""
_LIST_CHARS = 300
_LAST_FORMULA = re.compile(
    r"[\s*_>]*(?:\$\$(?P<a>[^$]+)\$\$|\$(?P<b>[^$]+)\$|\\\[(?P<c>.+)\\\]|\\\((?P<d>(?:[^\\]|\\(?!\)))+)\\\))[\s*_.]*"
)
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*[^{}\s][^{}]*)\}|\$([^$]*[^$\s][^$]*)\$"
)
_RETRACTED = re.compile(
    r"[\s.*,;:)\]}$\\!?]{0,12}"
    r"(?:(?:but|however|though|although|wait|no|hmm+|oops|actually|sorry|which|and|yet|because|this|that|it)\b"
    r"(?:['\u2019]s)?[\s,.:!\u2014-]{0,4}){1,5}(?:answer |option |choice |value |result )?"
    r"(?:is|was|are|seems|looks|can|must|does)?\s?"
    r"(?:n['\u2019]t|not|also not|still not|clearly not)?\s?(?:be |quite |actually |really |clearly |the )*"
    r"(?P<word>correct|right|wrong|incorrect|a mistake|mistaken|an option|available|possible|valid|true|false|listed"
    r"|(?:among|in|on|one of) the (?:\w+ )?(?:options|choices|list|answers))\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"[\s*)\]}$\\]{0,8}[.;][\s*]{1,4}"
    r"(?:or|maybe|perhaps|possibly|(?:or )?(?:it|this) (?:could|might|may) (?:also )?be)\b"
    r"[\s,:]*(?:maybe |perhaps |even |it is |\$|\\\(|\(|option )*[-\d\\A-Z(]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place in a text that may hold its answer: characters `start` to `end`, and what it states."""

    start: int
    end: int
    kind: Kind
    reading: Reading


class Found(NamedTuple):
    """A place that has not been read yet; what an announcement states lies before `limit`."""

    start: int
    end: int
    kind: Kind
    limit: int
    boxes: tuple[Box, ...] = ()


Reader = Callable[[str, Found], Reading]


def extract_answer(text: str, last_number: bool = False) -> str | None:
    """Return the final answer to a mathematical question.

    Args:
        text: what the model wrote after its thinking.
        last_number: if nothing is boxed or announced, fall back to the last line's formula or the last number.
    """
    return answer_of(choose(text, read_as_math, last_number))


def answer_of(candidate: Candidate | None) -> str | None:
    """Return the answer that the chosen candidate states."""
    return None if candidate is None else candidate.reading.answer


def choose(text: str, reader: Reader, last_number: bool = False, whole_text: bool = False) -> Candidate | None:
    """Return the last valid candidate of the highest rank; fall back to a weak one if no other is valid."""
    word = weak = None
    for group in find_by_rank(text, last_number, whole_text):
        kind = group[0].kind if group else None
        if (word and kind in ("last_number", "last_line", "whole_text")) or (weak and kind == "whole_text"):
            break
        for found in reversed(group[-MAX_READ:]):
            candidate = read(text, found, reader)
            reading = candidate.reading
            if reading.answer is None:
                continue
            if reading.is_word:
                word = word or candidate
            elif reading.is_weak:
                weak = weak or candidate
            else:
                return candidate
    return word or weak


def all_candidates(text: str, reader: Reader, last_number: bool = False, whole_text: bool = False) -> list[Candidate]:
    """Return every candidate of a text, valid or not, sorted by place."""
    groups = find_by_rank(text, last_number, whole_text)
    return sorted(
        (read(text, f, reader) for group in groups for f in group[-MAX_READ:]), key=lambda c: (c.start, c.end)
    )


def read(text: str, found: Found, reader: Reader) -> Candidate:
    """Read one place; the candidate has no answer if the text retracts it at once."""
    reading = reader(text, found)
    end = found.end
    if reading.answer is not None and found.kind not in ("last_number", "last_line", "whole_text", "closing"):
        if found.end < found.limit and not found.boxes:
            place = text.find(reading.answer, found.end, found.limit)
            end = place + len(reading.answer) if place >= 0 else found.end
        if why := taken_back(text, end, is_marked=found.kind in ("box", "tag")):
            reading = Reading(None, why)
    return Candidate(found.start, end, found.kind, reading)


def taken_back(text: str, end: int, is_marked: bool) -> str:
    """Return why a candidate does not count: denied at once, or one of several guesses; `""` if it counts.

    Args:
        text: the whole text.
        end: end of the candidate.
        is_marked: it is boxed or tagged, so "or" after it introduces another form of the same value.
    """
    behind = text[end : end + 120]
    if not behind or behind.isspace():
        return ""
    if (denied := _RETRACTED.match(behind)) is not None:
        is_bad = denied["word"].lower() in ("wrong", "incorrect", "a mistake", "mistaken", "false")
        is_negated = re.search(r"n['\u2019]t|\bnot\b", denied[0], re.IGNORECASE) is not None
        if is_bad != is_negated:
            return "is taken back"
    return "is one of several guesses" if not is_marked and _HEDGED.match(behind) else ""


def find_by_rank(text: str, last_number: bool, whole_text: bool = False) -> Iterator[list[Found]]:
    """Yield the places of each rank, sorted by place; lower ranks are searched lazily."""
    boxes = find_boxes(text)
    groups = [Found(g[0].start, g[-1].end, "box", g[-1].end, tuple(g)) for g in box_groups(text, boxes)]
    tags = [Found(start, inner, "tag", end) for start, inner, end, _ in find_tags(text)]
    # A box or tag outranks announcements before it. A final announcement after it has the same rank.
    marked = sorted([*groups, *tags])
    start = max(marked[-1].start + 1, boxes[-1].end if boxes else 0) if marked else 0
    marks = find_announcements(text, start)
    yield sorted([*marked, *(f for f in passages_of(text, marks) if marked and f.kind == "final")])
    passages = passages_of(text, find_announcements(text) if marked else marks)
    yield [f for f in passages if f.kind in RANKS[1] or (f.kind == "final" and (not marked or f.start < start))]
    yield [f for f in passages if f.kind == "label"]
    if last_number:
        yield [*_last_number(text), *_last_line(text)]
    if whole_text and text.strip():
        yield [Found(0, len(text), "whole_text", len(text))]


def passages_of(text: str, marks: Sequence[Mark]) -> list[Found]:
    """Return the announcements, each with the text up to the next one."""
    limits = [*(mark.start for mark in marks[1:]), len(text)]
    return [Found(*mark, limit) for mark, limit in zip(marks, limits, strict=False)]


def _last_line(text: str) -> list[Found]:
    """Return the last line if it is one formula and nothing else."""
    stripped = text.rstrip()
    start = max(stripped.rfind("\n") + 1, 0)
    if len(stripped) - start <= MAX_LINE_CHARS and _LAST_FORMULA.fullmatch(stripped, start):
        return [Found(start, len(stripped), "last_line", len(stripped))]
    return []


def _last_number(text: str) -> list[Found]:
    numbers = deque(_NUMBER.finditer(text), maxlen=1)
    if not numbers:
        return []
    last = numbers[0]
    window_start = max(0, last.start() - _LIST_CHARS)
    before = text[window_start : last.start()]
    # One of several guesses is not the answer: return the whole list.
    listed = _JOINED_BEFORE.search(before) if before[-1:] == "," or before[-1:].isspace() else None
    start = window_start + listed.start() if listed else last.start()
    return [Found(start, last.end(), "last_number", last.end())]


def read_as_math(text: str, found: Found) -> Reading:
    """Read a place as mathematics: numbers, formulas or a few words, but not prose."""
    if found.kind in ("final", "announcement", "label", "option", "tag"):
        return _passage(text, found, read_math)
    if found.kind == "hashes":
        reading = _passage(text, found, read_math)
        line = text[found.end : found.limit].partition("\n")[0]
        is_heading = reading.answer is not None and re.search(r"[^\W\d_]{3,}\W+[^\W\d_]{2,}|^\W*\d+[.):]\s+\S", line)
        return Reading(None, "is a heading") if is_heading and "\\" not in line else reading
    return _other(text, found)


def read_as_plain(text: str, found: Found) -> Reading:
    r"""Read a place as any words, without a wrapper around all of them (`\text{…}`, `$…$`)."""
    reading = _plain_reading(text, found)
    wrapped = _WRAPPED.fullmatch(reading.answer) if reading.answer is not None else None
    return reading if wrapped is None else reading._replace(answer=next(filter(None, wrapped.groups())).strip())


def _plain_reading(text: str, found: Found) -> Reading:
    if found.kind in ("final", "announcement", "label", "option", "hashes"):
        return _passage(text, found, read_plain)
    if found.kind == "tag":
        if any(not is_blank(text[b.inner_start : b.inner_end]) for b in _boxes_within(text, found)):
            return Reading(None, "holds a box, which counts by itself")
        content = strip_answer(text[found.end : found.limit])
        return Reading(None, "is empty") if is_blank(content) else Reading(content)
    return _other(text, found)


def _passage(text: str, found: Found, reader: Callable[[str, int, int], Reading]) -> Reading:
    if found.kind == "tag" and any(not is_blank(text[b.inner_start : b.inner_end]) for b in _boxes_within(text, found)):
        return Reading(None, "holds a box, which counts by itself")
    if found.kind == "tag" and find_announcements(text[found.end : found.limit]):
        return Reading(None, "holds an announcement, which counts by itself")
    reading = reader(text, found.end, found.limit)
    if reading.answer is not None and "box" in reading.answer and find_boxes(reading.answer):
        return Reading(None, "holds a box, which counts by itself")
    return reading


def _boxes_within(text: str, found: Found) -> list[Box]:
    return find_boxes(text[found.end : found.limit])


def _other(text: str, found: Found) -> Reading:
    if found.kind == "box":
        contents = [strip_answer(text[box.inner_start : box.inner_end]) for box in found.boxes]
        contents = [content for content in dict.fromkeys(contents) if not is_blank(content)]
        joined = ", ".join(contents).strip(", ")
        return Reading(joined) if joined else Reading(None, "is empty")
    if found.kind == "closing":
        return read_before(text, found.start, found.start)
    if found.kind == "last_line":
        formula = _LAST_FORMULA.fullmatch(text, found.start, found.end)
        content = next(filter(None, formula.group("a", "b", "c", "d")), "").strip() if formula else ""
        return Reading(content) if content and re.search(r"[\\^]|[A-Za-z]", content) else Reading(None, "is a number")
    return Reading(strip_answer(text[found.start : found.end]))

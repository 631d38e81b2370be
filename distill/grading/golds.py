"""Read expected answers as data sets store them: an option's index, letter or text. Detect damaged ones.

What a number means, such as `2` with the options `["2", "3", "4"]`, can only be inferred from all rows of a source.
"""

import re
import string
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from distill.grading.options import choice_of, named_by_text

EATEN_ESCAPE = re.compile(
    r"[\x07\x08\x0b\x0c\x1b](?=[A-Za-z])"
    r"|\t(?=(?:ext(?:bf|it|rm|tt)?|imes|frac|heta|riangle|an|au|o|ilde|herefore|op|binom)(?![a-zA-Z]))"
    r"|\n(?=(?:eq|eg|abla|ot|otin|u|mid|parallel|leq|geq|exists)(?![a-zA-Z]))"
    r"|\r(?=(?:ight|angle|ho|floor|ceil|brace|brack|m)(?![a-zA-Z]))"
)
"""Matches a control character left where YAML or JSON read a LaTeX command as an escape: form feed + `rac`."""

Convention = Literal["text", 0, 1]
"""What a number means: an option's text, or its index counted from 0 or from 1."""

_DIGITS = re.compile(r"\d{1,6}")


class ChoiceGold(NamedTuple):
    """The expected answer of one row."""

    place: str
    value: Any
    """The stored value: a number or a text."""
    options: Sequence[str]
    labels: Sequence[str] = ()
    """The options' own labels, if the row has any (`["1", "2", "3"]`)."""
    has_number_options: bool = False
    """The options are numbers, not texts, so an answer of the same type may be one of them."""


class UnreadableGoldError(Exception):
    """Rows whose expected answers name no option or are ambiguous: `places`, and the reason of the first."""

    def __init__(self, places: Sequence[str], why: str) -> None:
        super().__init__(why)
        self.places = list(places)
        self.why = why


def strip_answer(text: str) -> str:
    """Strip an answer, but keep a control character left by an escape, so that it is detected later."""
    return text.strip(" \n") if EATEN_ESCAPE.search(text) else text.strip()


def read_choice_golds(golds: Sequence[ChoiceGold], first_index: int | None = None) -> list[str]:
    """Return the expected answers of a source, in order: a letter for an index or a label, else the stored text.

    Args:
        golds: all rows of the source; a number means the same in all of them.
        first_index: index of the first option, 0 or 1; `None`: infer it.

    Raises:
        UnreadableGoldError: some answers name no option or are ambiguous.
    """
    numeric = [gold for gold in golds if not gold.labels and _number(gold.value) is not None]
    others = [gold for gold in golds if gold.labels or _number(gold.value) is None]
    unreadable = [gold for gold in others if _named(gold) is None]
    if unreadable:
        raise UnreadableGoldError([gold.place for gold in unreadable], _why_none(unreadable[0]))
    convention = _convention(numeric, first_index, has_others=bool(others)) if numeric else "text"
    read = {id(gold): _read_number(gold, convention) for gold in numeric}
    failed = [gold for gold in numeric if read[id(gold)] is None]
    if failed:
        raise UnreadableGoldError([gold.place for gold in failed], _why_none(failed[0], convention))
    return [_as_stored(gold) if id(gold) not in read else str(read[id(gold)]) for gold in golds]


def _convention(numeric: Sequence[ChoiceGold], first_index: int | None, has_others: bool) -> Convention:
    """Return what the numbers of a source mean."""
    if first_index is not None:
        return 0 if first_index == 0 else 1
    if has_others:  # a column of letters and texts holds no indices
        return "text"
    conventions: tuple[Convention, ...] = ("text", 0, 1)
    possible = [c for c in conventions if all(_read_number(gold, c) is not None for gold in numeric)]
    if not possible:
        return min(conventions, key=lambda c: sum(_read_number(gold, c) is None for gold in numeric))
    if len(possible) == 1:
        return possible[0]
    is_index = all(not isinstance(gold.value, str) and not gold.has_number_options for gold in numeric)
    if is_index and 0 in possible:
        # Numbers beside text options are indices. They start at 0 unless one of them is too large for that.
        return 0
    for gold in numeric:
        meant = {_read_number(gold, c) for c in possible}
        if len(meant) > 1:
            raise UnreadableGoldError([gold.place], _why_two(gold, possible))
    return possible[0]


def _read_number(gold: ChoiceGold, convention: Convention) -> str | None:
    number = _number(gold.value)
    assert number is not None
    if convention == "text":
        return named_by_text(str(number), gold.options)
    place = number - convention
    return string.ascii_uppercase[place] if 0 <= place < min(len(gold.options), 26) else None


def _number(value: Any) -> int | None:
    """Return the integer that an answer is, stored as a number or as digits; booleans are texts."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e6 else None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value.strip()) else None


def _named(gold: ChoiceGold) -> str | None:
    text = str(gold.value).strip()
    if EATEN_ESCAPE.search(str(gold.value)):
        return text  # detected when it is graded
    if gold.labels and text in gold.labels and len(gold.labels) == len(gold.options):
        return string.ascii_uppercase[list(gold.labels).index(text)]
    return choice_of(text, gold.options)


def _as_stored(gold: ChoiceGold) -> str:
    """Return the letter for a label; letters and texts are returned as stored."""
    text = strip_answer(str(gold.value))
    return (_named(gold) or text) if gold.labels and text in gold.labels else text


def _why_none(gold: ChoiceGold, convention: Convention = "text") -> str:
    if not gold.options:
        return f"the answer {gold.value!r:.60} is not a letter, and no options could be read"
    counted = "" if convention == "text" else f" when the first counts as {convention}"
    return f"the answer {gold.value!r:.60} names none of the {len(gold.options)} options{counted}"


def _why_two(gold: ChoiceGold, possible: Sequence[Convention]) -> str:
    said = {"text": "the option with this text", 0: "the option's place counted from 0", 1: "its place counted from 1"}
    meanings = " or ".join(f"{said[c]} ({_read_number(gold, c)})" for c in possible)
    return f"the answer {gold.value!r:.60} may be {meanings}, and no other row of the source shows which"

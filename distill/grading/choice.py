"""Multiple choice: the letter or the text of an option.

Enters: `"The answer is **(B)** Paris."`, the options `["London", "Paris"]`, the expected `"B"`, `"Paris"` or `"b)"`.
Leaves: right. Options are read off `problem.metadata["options"]`, else off the prompt's lines (`A) …`,
`(A) …`, `A. …`).
"""

import re
import string
from collections.abc import Sequence

from distill.grading.extraction import last_boxes
from distill.grading.quantities import clean, read_quantity, same_quantity, unwrap_text
from distill.records import Problem

MAX_OPTION_CHARS = 2_000
"""Longer texts are no option."""

_LINE = re.compile(r"^[ \t>*-]{0,8}(?:\(([A-Z])\)|([A-Z])[).:])\**[ \t]+(\S.*)$", re.MULTILINE)
_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\**\s*(?:is\b|:|=|would\s+be\b)\**[\s:]*(\S.*?)(?=\.(?:\s|$)|[;\n]|$)", re.IGNORECASE
)
_NAMED = re.compile(r"(?:\b(?:option|choice|answer)\s+|^)\**\(?([A-Za-z])\)?\**[.:]?\**$", re.IGNORECASE)
_LABEL = re.compile(r"(?:option|choice|answer)?\s*(?:\(([A-Za-z])\)|([A-Za-z]))[).:]*", re.IGNORECASE)
_LABELLED = re.compile(r"(?:option |choice )?(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s*(\S.*)", re.IGNORECASE | re.DOTALL)


def options_of(problem: Problem) -> list[str]:
    """The option texts in the order of their letters; empty where a problem states none."""
    listed = problem.metadata.get("options")
    if isinstance(listed, list | tuple) and all(isinstance(option, str) for option in listed):
        return list(listed)
    # The last A begins the options: worked examples before it may have their own.
    options: list[str] = []
    for found in _LINE.finditer(problem.question):
        letter, text = found[1] or found[2], found[3].strip()
        if letter == "A":
            options = [text]
        elif 0 < len(options) < 26 and letter == string.ascii_uppercase[len(options)]:
            options.append(text)
    return options if len(options) > 1 else []


def extract_choice(text: str, last_number: bool = False) -> str | None:
    r"""The chosen option as written: the last box, else what is announced last, else a last line that is a letter.

    Args:
        text: what the model wrote after its thinking.
        last_number: not used; choices have no numbers to fall back on.
    """
    if boxes := last_boxes(text):
        return ", ".join(dict.fromkeys(box.strip() for box in boxes)).strip(", ") or None
    if phrases := _PHRASE.findall(text):
        return str(phrases[-1]).strip(" *`_") or None
    line = text.rstrip()[-200:].rpartition("\n")[2].strip()
    return line.strip(" *`_") if _NAMED.search(line) or _LABELLED.fullmatch(line.strip("*` ")) else None


def grade_choice(problem: Problem, extracted: str) -> bool | None:
    """Whether the chosen option is the expected one; `None` where the expected answer names no option.

    Letters are compared whatever their case, texts whatever their spaces, case and outermost punctuation.
    """
    if problem.answer is None:
        return None
    options = options_of(problem)
    gold = choice_of(problem.answer, options)
    if gold is None:
        return None
    return choice_of(extracted, options) == gold


def choice_of(answer: str, options: Sequence[str]) -> str | None:
    """The capital letter of the option that an answer names by letter, by text or by both; `None`: none, or two."""
    if len(answer) > MAX_OPTION_CHARS:
        return None
    text = _plain(answer)
    letter = _LABEL.fullmatch(text)
    if letter and _exists(named := (letter[1] or letter[2]).upper(), options):
        return named
    by_text = [string.ascii_uppercase[i] for i, option in enumerate(options[:26]) if _same_text(text, option)]
    if len(by_text) == 1:
        return by_text[0]
    labelled = _LABELLED.fullmatch(text)
    if labelled is None:
        return None
    named = (labelled[1] or labelled[2]).upper()
    if not _exists(named, options):
        return None
    # A letter with the text of another option says two things.
    others = [i for i, option in enumerate(options[:26]) if _same_text(labelled[3], option)]
    return named if not others or string.ascii_uppercase.index(named) in others else None


def _exists(letter: str, options: Sequence[str]) -> bool:
    return string.ascii_uppercase.index(letter) < len(options) if options else letter <= "J"


def _plain(answer: str) -> str:
    return unwrap_text(clean(answer)).strip(" *`_.\"'").replace("**", "")


def _same_text(given: str, option: str) -> bool:
    left, right = (_plain(_without_label(text)).casefold() for text in (given, option))
    if left == right:
        return left != ""
    quantities = read_quantity(left), read_quantity(right)
    return quantities[0] is not None and quantities[1] is not None and same_quantity(quantities[0], quantities[1])


def _without_label(option: str) -> str:
    """`Paris` of an option that was stored with its letter, `(B) Paris`."""
    found = _LABELLED.fullmatch(option.strip())
    return found[3] if found else option

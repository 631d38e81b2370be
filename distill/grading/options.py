"""Find the options of a multiple-choice problem, and the option that a piece of text names.

Options come from `problem.metadata["options"]`, else from the prompt: lines that begin with `A)`, `(A)` or `A.`, or all
options on one line.
"""

import functools
import re
import string
from collections.abc import Sequence

from distill.core.records import Problem
from distill.grading.quantities import Quantity, clean, read_quantity, same_quantity, unwrap_text

MAX_OPTION_CHARS = 2_000
"""Longer texts are not an option."""

_LINE = re.compile(r"^[ \t>*-]{0,8}(?:\(([A-Z])\)|([A-Z])[).:])\**[ \t]+(\S.*)$", re.MULTILINE)
_INLINE = re.compile(
    r"(?<![A-Za-z0-9(.])(?:\\(?:textbf|text|mathrm|mathbf)\s*\{\s*)?(?:\((?P<a>[A-Z])\)|(?P<b>[A-Z])\)|(?P<c>[A-Z])[.:])"
    r"(?:\s*\})?(?:\\[ ,;~]|~|\s|(?<=\})|(?=\$))\s*"
)
_INLINE_REST = re.compile(r"(?:[\s,;$]|\\q?quad(?![a-zA-Z])|\\[ ,;\\]|\band\b|\bor\b)+\Z")
_LABEL = re.compile(r"(?:option|choice|answer)?\s*(?:\(([A-Za-z])\)|([A-Za-z]))[).:]*", re.IGNORECASE)
_LABELLED = re.compile(r"(?:option |choice )?(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s*(\S.*)", re.IGNORECASE | re.DOTALL)
_SECOND_LETTER = re.compile(
    r"(?:\W|and|or)*\b(?:and|or)\b\W*(?:option |choice )?\W*[A-Za-z](?![A-Za-z])", re.IGNORECASE
)


def options_of(problem: Problem) -> list[str]:
    """Return the option texts in the order of their letters; empty if a problem states none."""
    listed = problem.metadata.get("options")
    if isinstance(listed, list | tuple) and all(isinstance(option, str) for option in listed):
        return list(listed)
    return list(_options_in(problem.question))


@functools.lru_cache(maxsize=256)
def _options_in(prompt: str) -> tuple[str, ...]:
    # The options start at the last A: worked examples before it may have their own.
    options: list[str] = []
    for found in _LINE.finditer(prompt):
        letter, text = found[1] or found[2], found[3].strip()
        if letter == "A":
            options = [text]
        elif 0 < len(options) < 26 and letter == string.ascii_uppercase[len(options)]:
            options.append(text)
    # Several options may share a line: "A) 2 B) 3".
    inline = _inline_options(prompt)
    options = max(options, inline, key=len)
    return tuple(options) if len(options) > 1 else ()


def _inline_options(prompt: str) -> list[str]:
    """Return the texts between labels of one style, from the last A on."""
    labels: list[re.Match[str]] = []
    for found in _INLINE.finditer(prompt):
        letter = found["a"] or found["b"] or found["c"]
        if letter == "A":
            labels = [found]
        elif labels and found.lastgroup == labels[0].lastgroup and letter == string.ascii_uppercase[len(labels) % 26]:
            labels.append(found)
    # `A.` in prose may be an initial, so that style needs three labels.
    if len(labels) < (3 if labels and labels[0].lastgroup == "c" else 2):
        return []
    ends = [label.start() for label in labels[1:]] + [len(prompt)]
    texts = [prompt[label.end() : end] for label, end in zip(labels, ends, strict=True)]
    texts[-1] = texts[-1].partition("\n")[0]
    options = [_INLINE_REST.sub("", text).strip() for text in texts]
    return options if all(options) else []


def choice_of(answer: str, options: Sequence[str]) -> str | None:
    """Return the capital letter of the option named by letter, text or both; `None` if none or two are named."""
    if len(answer) > MAX_OPTION_CHARS:
        return None
    text = answer if len(answer) == 1 else plain(answer)
    letter = _LABEL.fullmatch(text)
    if letter and letter_exists(named := (letter[1] or letter[2]).upper(), options):
        return named
    if (by_text := named_by_text(text, options)) is not None:
        return by_text
    labelled = _LABELLED.fullmatch(text)
    if labelled is None:
        return None
    named = (labelled[1] or labelled[2]).upper()
    if not letter_exists(named, options) or _SECOND_LETTER.match(labelled[3]):
        return None
    # A letter with the text of another option is contradictory.
    others = same_texts(labelled[3], options)
    return named if not others or named in others else None


def named_by_text(answer: str, options: Sequence[str]) -> str | None:
    """Return the letter of the only option with this text; `None` if none or several have it."""
    letters = same_texts(answer, options)
    return letters[0] if len(letters) == 1 else None


def same_texts(answer: str, options: Sequence[str]) -> list[str]:
    """Return the letters of all options with this text, ignoring case, or with the same numeric value."""
    if not options:
        return []
    known = tuple(options[:26])
    if labelled := _LABELLED.fullmatch(answer.strip()):
        # A letter with the text of another option is contradictory.
        letter = (labelled[1] or labelled[2]).upper()
        named = [other for other, text in zip(string.ascii_uppercase, known, strict=False) if text == answer.strip()]
        texts = named or same_texts(labelled[3], options)
        return texts if named or letter in texts or not letter_exists(letter, options) else []
    given = plain(answer).casefold()
    if not given:
        return []
    exact = [letter for letter, text in _texts(known) if text == given]
    if exact:
        return exact
    quantity = read_quantity(given)
    if quantity is None:
        return []
    return [letter for letter, other in _quantities(known) if same_quantity(quantity, other)]


@functools.lru_cache(maxsize=256)
def _texts(options: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the letter and the plain text of each option that has text."""
    texts = (plain(_without_label(option)).casefold() for option in options)
    return [(letter, text) for letter, text in zip(string.ascii_uppercase, texts, strict=False) if text]


@functools.lru_cache(maxsize=256)
def _quantities(options: tuple[str, ...]) -> list[tuple[str, Quantity]]:
    """Return the letter and the value of each option that is a number."""
    values = ((letter, read_quantity(text)) for letter, text in _texts(options))
    return [(letter, value) for letter, value in values if value is not None]


def letter_exists(letter: str, options: Sequence[str]) -> bool:
    """Return whether a capital letter is an option's; A to J are if no options are known."""
    return string.ascii_uppercase.index(letter) < len(options) if options else letter <= "J"


def plain(answer: str) -> str:
    """Return an answer without LaTeX wrappers, quotes and outermost punctuation."""
    return unwrap_text(clean(answer)).strip(" *`_.\"'").replace("**", "")


def _without_label(option: str) -> str:
    """Return `Paris` for an option stored with its letter, `(B) Paris`."""
    found = _LABELLED.fullmatch(option.strip())
    return found[3] if found else option

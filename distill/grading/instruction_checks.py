"""The 25 verifiable instructions of IFEval, as functions of an answer: `CHECKS` is the table.

Zhou et al. 2023, arXiv:2311.07911. Each rule is that of the reference implementation (`instruction_following_eval` in
google-research), surprises included, because published scores hold only for it: a rule of three dashes is a bullet
point, and bold print is a highlighted section. Three differ: words from a data set are taken as they stand, not as
patterns; a check whose arguments are missing or damaged is not carried out, where the reference draws some at random;
and `#` and `!`, which two prompts ask for, are counted, where the reference of 2023 draws a letter instead (its issue
3427), so that published scores vary by those two.

The time of each check is linear in the answer. Example:

    CHECKS["length_constraints:number_words"]("one two", Arguments({"relation": "at least", "num_words": 3})) is False
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from distill.grading.languages import detect_language, known_languages
from distill.grading.sentences import capital_words, sentences

MAX_ARGUMENT_CHARS = 20_000
"""Longer texts in arguments count as damaged."""
MAX_NUM_TEXTS = 1_000
MAX_COUNT = 1_000_000_000
"""Larger counts, which `islice` may not take, count as damaged."""

_WORD = re.compile(r"\w+")
_HIGHLIGHTS = (re.compile(r"\*([^\n*]*)\*"), re.compile(r"\*\*([^\n*]*)\*\*"))
_FENCES = ("```json", "```Json", "```JSON", "```")
_FIXED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_WORD_ENDS = re.compile(r"[.,?!'\"]")


class UncheckableError(Exception):
    """A check that cannot be carried out: its arguments are missing or damaged, or the answer is too deep to parse."""


class Arguments:
    """The arguments of one instruction, checked as they are read. Those that are `None` count as missing.

    Every method raises `UncheckableError` if the argument is missing or of another kind.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def count(self, name: str, least: int = 0) -> int:
        """Return a whole number that is not smaller than `least`."""
        value = self._values.get(name)
        if isinstance(value, float) and value.is_integer():  # as pandas reads a column where some rows have none
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_COUNT:
            raise UncheckableError(name)
        return value

    def text(self, name: str) -> str:
        """Return a text without outer whitespace, which is not empty."""
        return _text(name, self._values.get(name))

    def texts(self, name: str) -> list[str]:
        """Return a list of at least one text."""
        values = self._values.get(name)
        if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not 0 < len(values) <= MAX_NUM_TEXTS:
            raise UncheckableError(name)
        return [_text(name, value) for value in values]

    def wants_at_least(self, name: str) -> bool:
        """Return whether a relation is `at least`, not `less than`."""
        value = self._values.get(name)
        if value not in ("at least", "less than"):
            raise UncheckableError(name)
        return bool(value == "at least")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_ARGUMENT_CHARS:
        raise UncheckableError(name)
    return value.strip()


def _reaches(found: Iterable[object], num: int) -> bool:
    """Return whether there are at least `num`; no more are looked for."""
    return sum(1 for _ in islice(found, num)) == num


# Keywords


def has_keywords(text: str, arguments: Arguments) -> bool:
    """Return whether every keyword occurs, inside other words too, whatever its case."""
    keywords = arguments.texts("keywords")
    return all(re.search(re.escape(keyword), text, re.IGNORECASE) for keyword in keywords)


def has_keyword_often(text: str, arguments: Arguments) -> bool:
    """Return whether a keyword occurs as often as asked, inside other words too, whatever its case."""
    num, wants_at_least = arguments.count("frequency"), arguments.wants_at_least("relation")
    found = re.finditer(re.escape(arguments.text("keyword")), text, re.IGNORECASE)
    return _reaches(found, num) == wants_at_least


def avoids_words(text: str, arguments: Arguments) -> bool:
    """Return whether none of the forbidden words occurs as a whole word, whatever its case."""
    words = arguments.texts("forbidden_words")
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def has_letter_often(text: str, arguments: Arguments) -> bool:
    """Return whether a character occurs as often as asked, whatever its case."""
    letter, num = arguments.text("letter"), arguments.count("let_frequency")
    if len(letter) != 1:
        raise UncheckableError("letter")
    wants_at_least = arguments.wants_at_least("let_relation")
    return (text.lower().count(letter.lower()) >= num) == wants_at_least


# Language and case


def is_in_language(text: str, arguments: Arguments) -> bool:
    """Return whether the text is in a language, or has no letters to tell by. `zh` is either Chinese."""
    language = arguments.text("language").lower()
    known = known_languages()
    wanted = {language} & known or {code for code in known if code.startswith(f"{language}-")}
    if not wanted:
        raise UncheckableError("language")
    found = detect_language(text)
    return found is None or found in wanted


def is_english_in_capitals(text: str, arguments: Arguments) -> bool:
    """Return whether all letters are capitals and the text is not found to be in another language than English."""
    return text.isupper() and detect_language(text) in ("en", None)


def is_english_in_small_letters(text: str, arguments: Arguments) -> bool:
    """Return whether no letter is a capital and the text is not found to be in another language than English."""
    return text.islower() and detect_language(text) in ("en", None)


def has_capital_words_often(text: str, arguments: Arguments) -> bool:
    """Return whether there are as many words in capitals as asked; `I` and `A` are such words."""
    num, wants_at_least = arguments.count("capital_frequency"), arguments.wants_at_least("capital_relation")
    return _reaches(capital_words(text), num) == wants_at_least


# Length


def has_number_of_words(text: str, arguments: Arguments) -> bool:
    """Return whether there are as many words as asked: runs of letters, digits and underscores."""
    num, wants_at_least = arguments.count("num_words"), arguments.wants_at_least("relation")
    return _reaches(_WORD.finditer(text), num) == wants_at_least


def has_number_of_sentences(text: str, arguments: Arguments) -> bool:
    """Return whether there are as many sentences as asked (`distill.grading.sentences`)."""
    num, wants_at_least = arguments.count("num_sentences"), arguments.wants_at_least("relation")
    return _reaches(sentences(text), num) == wants_at_least


def has_paragraphs(text: str, arguments: Arguments) -> bool:
    """Return whether `***` separates exactly as many paragraphs as asked. Only the first and last may be empty."""
    num, parts = arguments.count("num_paragraphs"), _filled(text.split("***"))
    return parts is not None and len(parts) == num


def starts_paragraph_with(text: str, arguments: Arguments) -> bool:
    """Return whether empty lines separate as many paragraphs as asked, and the n-th begins with a word.

    Empty paragraphs are not counted, but the n-th is looked for among all.
    """
    num, place = arguments.count("num_paragraphs", 1), arguments.count("nth_paragraph", 1)
    first_word = arguments.text("first_word").lower()
    if place > num:
        raise UncheckableError("nth_paragraph")
    paragraphs = text.split("\n\n")
    num_filled = sum(1 for paragraph in paragraphs if paragraph and not paragraph.isspace())
    if num_filled != num:
        return False
    words = paragraphs[place - 1].split(maxsplit=1)
    return bool(words) and _WORD_ENDS.split(words[0].lstrip("'").lstrip('"'), maxsplit=1)[0].lower() == first_word


# Content


def has_placeholders(text: str, arguments: Arguments) -> bool:
    """Return whether there are at least as many placeholders as asked: `[…]` within a line."""
    return _reaches(_placeholders(text), arguments.count("num_placeholders"))


def _placeholders(text: str) -> Iterator[str]:
    # Not by a pattern, which would read a line of opening brackets once for each of them.
    for line in text.split("\n"):
        end = -1
        while (start := line.find("[", end + 1)) >= 0 and (end := line.find("]", start)) >= 0:
            yield line[start : end + 1]


def has_postscript(text: str, arguments: Arguments) -> bool:
    """Return whether the postscript's marker occurs, whatever its case; a space may follow each inner full stop."""
    parts = arguments.text("postscript_marker").lower().split(".")
    return re.search(r"\.\s?".join(map(re.escape, parts)), text.lower()) is not None


# Format


def has_bullets(text: str, arguments: Arguments) -> bool:
    """Return whether exactly as many lines as asked are bullet points, by `*` or `-`."""
    num = arguments.count("num_bullets")
    return sum(1 for _ in islice(_bullets(text), num + 1)) == num


def _bullets(text: str) -> Iterator[str]:
    """Yield lines that begin with `-`, or with `*` and not `**`; `*` alone is one bullet with the line after it."""
    lines = iter(text.split("\n"))
    for line in lines:
        bare = line.lstrip()
        if bare == "*":
            if (below := next(lines, None)) is not None:
                yield f"{line}\n{below}"
        elif bare.startswith("-") or (bare.startswith("*") and bare[1] != "*"):
            yield line


def is_fixed_answer(text: str, arguments: Arguments) -> bool:
    """Return whether the text holds one of the three answers that the instruction offers."""
    return any(answer in text for answer in _FIXED_ANSWERS)


def has_highlights(text: str, arguments: Arguments) -> bool:
    """Return whether at least as many sections as asked stand between single or double asterisks, within a line."""
    found = (match for pattern in _HIGHLIGHTS for match in pattern.finditer(text) if match[1].strip())
    return _reaches(found, arguments.count("num_highlights"))


def has_sections(text: str, arguments: Arguments) -> bool:
    """Return whether at least as many sections as asked are marked: the word for a section and a number."""
    num = arguments.count("num_sections")
    return _reaches(re.finditer(re.escape(arguments.text("section_spliter")) + r"\s?\d+", text), num)


def is_json(text: str, arguments: Arguments) -> bool:
    """Return whether the text is JSON, alone or in a Markdown block."""
    bare = text.strip()
    for fence in _FENCES:
        bare = bare.removeprefix(fence)
    try:
        # Long numbers are JSON, but Python refuses to convert them.
        json.loads(bare.removesuffix("```").strip(), parse_int=str, parse_float=str)
    except ValueError:
        return False
    except RecursionError:
        raise UncheckableError("nested too deeply") from None
    return True


def has_title(text: str, arguments: Arguments) -> bool:
    """Return whether a line holds a title: `<<…>>`, not empty."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


# Combinations, beginning and end


def is_two_responses(text: str, arguments: Arguments) -> bool:
    """Return whether `******` separates two different answers. Only what comes first and last may be empty."""
    parts = _filled(text.split("*" * 6))
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def repeats_prompt(text: str, arguments: Arguments) -> bool:
    """Return whether the text begins with the request, whatever its case."""
    return text.lstrip().lower().startswith(arguments.text("prompt_to_repeat").lower())


def ends_with(text: str, arguments: Arguments) -> bool:
    """Return whether the text ends with a phrase, whatever its case and quotation marks after it."""
    return text.strip().strip('"').lower().endswith(arguments.text("end_phrase").lower())


def is_quoted(text: str, arguments: Arguments) -> bool:
    """Return whether the text stands between straight double quotation marks."""
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def has_no_comma(text: str, arguments: Arguments) -> bool:
    """Return whether there is no comma."""
    return "," not in text


def _filled(parts: Sequence[str]) -> list[str] | None:
    """Return the parts that are not empty; `None` if others than the first and last are."""
    bare = [part.strip() for part in parts]
    return None if "" in bare[1:-1] else [part for part in bare if part]


CHECKS: dict[str, Callable[[str, Arguments], bool]] = {
    "change_case:capital_word_frequency": has_capital_words_often,
    "change_case:english_capital": is_english_in_capitals,
    "change_case:english_lowercase": is_english_in_small_letters,
    "combination:repeat_prompt": repeats_prompt,
    "combination:two_responses": is_two_responses,
    "detectable_content:number_placeholders": has_placeholders,
    "detectable_content:postscript": has_postscript,
    "detectable_format:constrained_response": is_fixed_answer,
    "detectable_format:json_format": is_json,
    "detectable_format:multiple_sections": has_sections,
    "detectable_format:number_bullet_lists": has_bullets,
    "detectable_format:number_highlighted_sections": has_highlights,
    "detectable_format:title": has_title,
    "keywords:existence": has_keywords,
    "keywords:forbidden_words": avoids_words,
    "keywords:frequency": has_keyword_often,
    "keywords:letter_frequency": has_letter_often,
    "language:response_language": is_in_language,
    "length_constraints:nth_paragraph_first_word": starts_paragraph_with,
    "length_constraints:number_paragraphs": has_paragraphs,
    "length_constraints:number_sentences": has_number_of_sentences,
    "length_constraints:number_words": has_number_of_words,
    "punctuation:no_comma": has_no_comma,
    "startend:end_checker": ends_with,
    "startend:quotation": is_quoted,
}
"""Instruction -> function from (answer, arguments) to whether it is followed; raises `UncheckableError`."""

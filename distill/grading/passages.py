"""Read the value at the start of a passage, which an announcement states, without the reason and the rest after it.

Example: `" **72** clips, in total, because …"` states `"72"`.
"""

import re
from typing import NamedTuple

from distill.grading.boxes import is_blank
from distill.grading.golds import EATEN_ESCAPE
from distill.grading.quantities import read_quantity

MAX_PASSAGE_CHARS = 2_500
"""Only this much of a passage is read. No grader accepts an answer of that length, so it is wrong."""

MAX_WORDS = 3
"""A value of at most this many plain words may be an answer ("no real solutions"); a longer one is a fallback."""


class Reading(NamedTuple):
    """What a candidate states."""

    answer: str | None
    why: str = ""
    """Why it states nothing, or a remark on what it states."""
    is_weak: bool = False
    """It may be prose: used only if there is nothing else."""
    is_word: bool = False
    """It is a few words, such as "blue" or "helpful": used only if no formula or number is announced."""


_SKIPPED = re.compile(
    r"(?:[^\S\t\r\f\v]|[\t\r](?![a-z])|[:\uff1a*_`\"'\u2018\u2019\u201c\u201d\u300c\u300e\u3010>=}\u2248\u2192]"
    r"|\\approx(?![a-zA-Z])|\\(?:quad|;|,| |!)"
    r"|(?<=\n)[-\u2022]\s+|#{2,6}\s+)*+"
)
_PLAIN_SKIPPED = re.compile(rf"(?:[-=]>|(?![>=}}]){_SKIPPED.pattern.removesuffix('*+')})*+")
"""The same without `>`, `=` and `}`, with which the answer may begin."""
_LEAD = re.compile(
    r"(?:(?:approximately|approx\.?|about|around|roughly|exactly|simply|just|therefore|thus|then|hence|indeed|actually|"
    r"now|clearly|obviously|definitely|equal\s+to|equals|given\s+by|found\s+to\s+be|that|still|also|either|both|is|are|"
    r"only|likely|probably|most\s+likely"
    r"|(?:the\s+)?(?:number|value|integer|fraction|amount|total|sum|expression|option|choice|letter)"
    r"(?=\s*(?:is\s|:)?\s*[*_$(\\\d-]))\b[\s,:*_]*)*+",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:not|neither|never|nor|none of (?:the|these)|isn['\u2019]t|no longer)\b(?!\s+(?:enough|possible|real|defined))",
    re.I,
)
_BUT = re.compile(r"\s[^.;!?\n]{1,60}?,?\s+but\s+(?:rather\s+|instead\s+)?", re.IGNORECASE)
"""Matches the text between "not" and the value given instead."""
_DISPLAY = re.compile(r"\$\$(.*?)\$\$|\\\[(.*?)\\\]|\\begin\{(\w+\*?)\}(.*?)\\end\{\3\}", re.DOTALL)

_REASONS = (
    "because|since|as|so|which|where|whereas|hence|thus|therefore|after|given|due to|and not|not|rather than|"
    "instead of|but|however|with|using|by|from|in total|altogether|if|when|while|meaning|for|per the|in the|on the|"
    "at the|of the|and (?:the|so|we|it|this|is|has|that|therefore)|in (?:[a-z]{3,})|according|obtained|based|"
    "considering|assuming"
)
_WHOLE = (
    r"\$[^$\n]{1,600}\$|\\\((?:[^\\\n]|\\(?!\))){0,600}+\\\)|\\(?:text|textbf|mathrm|mbox)\s*\{[^{}]*\}|\\[{}]"
    r"|(?P<open>[{(\[\uff08])|(?P<close>[})\]\uff09])"
)
_ENDS = (
    r"\.(?=\s|$)|[\u3002\uff01\uff1f]|\?(?=\s|$)|!(?=\s+[A-Z*]|\s*$)|;(?!\s*[-+$\\\d])|\uff0c(?=\D)"
    r"|</|[\u2600-\u27bf\u2b50\u2b55\U0001f000-\U0001faff\ufe0f]"
    r"|です|である|でした|だ。|とな|にな|\s(?:है|हैं)(?!\w)|입니다|이다|이에요|예요|이며"
)
# One step through a passage: a unit skipped as a whole, a bracket, or a mark that ends the value.
_STEP = re.compile(
    rf"{_WHOLE}|(?P<end>{_ENDS}|\s[\u2013\u2014-]{{1,2}}\s(?=[A-Za-z]{{3}})|\s(?=:)"
    rf"|\*\*(?=[\s.,;:!?)]|$)|,\s+(?!(?:and|or)\b)(?=(?:an?\s+)?[a-z]{{2,}}\b(?!\s*=))|(?<=\S)\s(?=(?:{_REASONS})\b))"
)
_PLAIN_STEP = re.compile(
    rf"{_WHOLE}|(?P<end>{_ENDS}|\*\*(?=[.,;:!?)]*\s*$)|,\s+(?=(?:because|since|as|which|so|where|while|but|not)\b)"
    r"|(?<=\S)\s(?=(?:because|since|due to|and not|rather than|instead of)\b))"
)
_ASIDE = re.compile(
    r"\s[(\uff08](?=[^()\n]*[A-Za-z]{3})(?!\s*(?:or|and|alternatively|mod|if|maybe|possibly|perhaps|i\.e)\b)"
)
_NUMBER = (
    r"(?:(?:[$\u20ac\u00a3\u00a5\u20b9]|\\\$|USD|EUR|Rs\.?)\s*)?[-+\N{MINUS SIGN}]?\s?(?:[$\u20ac\u00a3]\s?)?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?: ?/ ?\d+| \d+/\d+)?(?: ?\\?%)?"
)
_NUMBER_THEN_WORDS = re.compile(
    rf"({_NUMBER})(?:\s+|-)((?:(?:square|cubic|sq\.?|cu\.?)\s+)?[^\W\d_]+\.?"
    r"(?:\s+per\s+[^\W\d_]+|/[^\W\d_]+|\^\{?\d\}?|[\u00b2\u00b3])?)(?P<rest>(?:\s.*)?)\Z",
    re.DOTALL,
)
_FORMULA_THEN_WORDS = re.compile(
    r"((?:\$[^$\n]+\$|\\\((?:[^\\\n]|\\(?!\)))+\\\)|\\frac\{[^{}]*\}\{[^{}]*\}|\\sqrt\{[^{}]*\}))"
    r"(?:\s+|(?<=[$)])(?=[a-z]))(?!(?:and|or)\b)([A-Za-z][^\W\d_]+\.?)(?P<rest>.*)\Z",
    re.DOTALL,
)
_ONE_NUMBER = re.compile(rf"(?<![\w.,]){_NUMBER}")
_IS_NUMBER = re.compile(rf"(?:\bis|\bare|\bequals|=)\s*\$?({_NUMBER}(?:\s+[^\W\d_]+)?)\$?\s*\Z")
_MULTIPLIED = re.compile(r"(?:hundred|thousand|million|billion|trillion|dozen|percent|degrees?)\b", re.IGNORECASE)
_MATH_WORD = re.compile(
    r"sqrt|frac|binom|(?:arc|a)?(?:sin|cos|tan|sec|csc|cot)h?|log|exp|max|min|mod|gcd|lcm|abs|infty|"
    r"infinity|inf|and|for|all|alpha|beta|gamma|theta|lambda|phi|sum|union|cup|cap",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname|textit)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
# First words of sentences about an answer; no answer begins with them.
_ABOUT = re.compile(
    r"(?:obtained|found|given|rounded|based|derived|calculated|computed|reached|expressed|written|shown|simplified|"
    r"verified|confirmed|supported|determined|explained|provided|requested|required|expected|needed|independent|"
    r"dependent|helpful|useful|clear|clearer|correct|incorrect|right|wrong|accurate|reasonable|unique|simple|unchanged|consistent|"
    r"within|from|because|due|as|what|whether|how|when|where|which|who|one\s+of|among|always|already|close|similar|"
    r"to|of|by|on|at|if|it|we|i|you|they|this|these|those|there|here|let|let's|first|using|now|next|so|well|okay|"
    r"below|above|in\s+(?:the|a|our|this|terms|fact|step|line|agreement)|the\s+(?:same|one|following|last|first|final)|"
    r"going|not|still|hence|thus|than|helpfully|must|should|may|might|can|could|will|would|has|have|was|were|does|do)\b"
    r"(?!\s*[=+\-*/^(]\s*[\dA-Za-z\\(])",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"\b(?:more|less|fewer|greater|smaller|larger|than|least|most|between|over|under|above|below|almost|nearly|not|n't|"
    r"out of|times|plus|minus|divided|from|or|and|per|if|either)\b",
    re.IGNORECASE,
)
_ANSWER_WORD = re.compile(
    r"(?:yes|no|true|false|even|odd|none|never|always|both|zero|one|two|three|four|five|six|seven|eight|nine|ten|"
    r"infinite|infinity|undefined|impossible|positive|negative|neither|nothing|empty|increasing|decreasing|prime|composite)\b",
    re.IGNORECASE,
)
_STRIPPED = " \t\r\n*_`\"'\u2018\u2019\u201c\u201d\u300c\u300d\u300e\u300f\u3010\u3011"
_BARE = rf"(?:[A-Za-z](?:_?\w)?\s?=\s?)?{_NUMBER}|\$[^$\n]{{1,60}}\$"
_NEXT_LINES = re.compile(rf"(?:\s*\n[ \t]*(?:[-*\u2022]|\(?[a-z\d][).])?[ \t]*(?:{_BARE})[ \t]*,?[ \t]*(?=\n|\Z))+")
_STEPS = re.compile(r"1[.)][ \t]+\S[^\n]*\n+[ \t]*2[.)][ \t]")


def read_math(text: str, start: int, limit: int) -> Reading:
    """Read a number with its unit, a formula, a list of them or a few words, from `start` up to `limit`."""
    start = _skip(text, start, limit)
    if start >= limit:
        return Reading(None, "nothing follows")
    if (display := _DISPLAY.match(text, start, min(limit, start + MAX_PASSAGE_CHARS))) is not None:
        return _formula(next(filter(None, (display[1], display[2], display[4])), ""))
    led = _LEAD.match(text, start, limit)
    value_start = led.end() if led else start
    if denied := _DENIED.match(text, value_start, limit):
        if (instead := _BUT.match(text, denied.end(), limit)) is None:
            return Reading(None, "says what the answer is not")
        value_start = instead.end()
    if _STEPS.match(text, value_start, limit):
        return Reading(None, "is a list of steps")
    passage = _sentence(text, value_start, limit)
    value = _trimmed(passage)
    if not value:
        return Reading(None, "nothing follows")
    if is_blank(value):
        return Reading(None, "is a placeholder")
    if (lines := _NEXT_LINES.match(text, value_start + len(passage), limit)) and _is_bare(value):
        return Reading(
            ", ".join([value, *(line.strip(" \t-*\u2022,") for line in lines[0].split("\n") if line.strip())])
        )
    return _strength(_shortened(value), "that" in text[start:value_start].lower())


def read_plain(text: str, start: int, limit: int) -> Reading:
    """Read the sentence without its reason, for tasks whose answers may be any words."""
    start = _skip(text, start, limit, _PLAIN_SKIPPED)
    if start >= limit:
        return Reading(None, "nothing follows")
    if denied := _DENIED.match(text, start, limit):
        if (instead := _BUT.match(text, denied.end(), limit)) is None:
            return Reading(None, "says what the answer is not")
        start = instead.end()
    value = _trimmed(_sentence(text, start, limit, is_plain=True))
    if not value or is_blank(value):
        return Reading(None, "nothing follows")
    if _ABOUT.match(value):
        return Reading(value, "", is_weak=True)
    return Reading(value)


def read_before(text: str, start: int, end: int) -> Reading:
    """Read the value before "is the answer", in the same clause."""
    window = text[max(0, start - 200) : end]
    clause = _CLAUSE.split(window)[-1]
    clause = _CLAUSE_LEAD.sub("", clause.strip(_STRIPPED)).strip(_STRIPPED + ",")
    if not clause or is_blank(clause):
        return Reading(None, "nothing stands before it")
    read = _strength(_shortened(clause), False)
    return Reading(None, "no value stands before it") if read.is_weak or not re.search(r"[\d\\$=]", clause) else read


_CLAUSE = re.compile(r"[.;:!?]\s|\n|,\s+(?!(?:and|or)\b|[-\d\\$])|\b(?:so|that|hence|therefore|thus)\s")
_CLAUSE_LEAD = re.compile(
    r"(?:(?:therefore|thus|so|hence|then|and|finally|that|this|clearly|now|we\s+(?:get|have|find|see|conclude))\b"
    r"[,\s]*)+",
    re.I,
)


def _skip(text: str, start: int, limit: int, pattern: re.Pattern[str] = _SKIPPED) -> int:
    skipped = pattern.match(text, start, limit)
    return skipped.end() if skipped else start


def _trimmed(value: str) -> str:
    return value.strip(" \n*_`" if EATEN_ESCAPE.search(value) else _STRIPPED)


def _sentence(text: str, start: int, limit: int, is_plain: bool = False) -> str:
    """Return the start of a passage, up to the end of its value outside brackets and formulas."""
    line_end = text.find("\n", start, limit)
    limit = min(limit if line_end < 0 else line_end, start + MAX_PASSAGE_CHARS)
    aside = None if is_plain else _ASIDE.search(text, start + 1, limit)
    aside_start = aside.start() if aside else limit
    depth = 0
    for step in (_PLAIN_STEP if is_plain else _STEP).finditer(text, start, limit):
        if step["open"]:
            if depth == 0 and step.start() - 1 >= aside_start:
                return text[start:aside_start]
            depth += 1
        elif step["close"]:
            depth = max(0, depth - 1)
        elif step["end"] is not None and depth == 0 and step.start() > start:
            return text[start : step.start()]
    return text[start:limit]


def _shortened(value: str) -> str:
    """Remove the words after a number or formula, except its unit."""
    found = _NUMBER_THEN_WORDS.match(value) or _FORMULA_THEN_WORDS.match(value)
    if found is None or (read_quantity(value) is not None and len(value.split()) <= MAX_WORDS):
        return value
    number, unit, rest = found[1], found[2], found["rest"]
    if re.match(r"(?:and|or|to|times|plus|minus|over|divided|out|by|x)\b", unit, re.IGNORECASE):
        return value
    if re.match(r"\s*(?:[,/]?\s*(?:and|or)\b|[,/=<>^+])", rest) or (
        re.search(r"\d|\$", rest) and "$" not in number and re.match(r"[\s,;]*[\d$]", rest)
    ):
        return value
    with_unit = f"{number} {unit}".rstrip(".")
    start = value.find(unit, len(number))
    if read_quantity(with_unit) is not None and value[: start + len(unit)].rstrip(".").split() == with_unit.split():
        if _MULTIPLIED.match(unit) and rest.strip():  # "2 million dollars in all"
            longer = re.match(r"\s+[^\W\d_]+", rest)
            if longer and read_quantity(with_unit + longer[0]) is not None:
                return value[: start + len(unit) + longer.end()]
        return value[: start + len(unit)].rstrip(".")
    return number


def _strength(value: str, is_sentence: bool) -> Reading:
    """Classify a value: mathematics and a few words are answers, prose is not; a sentence's only number is one."""
    words = [w for w in _WORD.findall(_COMMAND.sub(" ", value)) if not _MATH_WORD.fullmatch(w)]
    if not words or read_quantity(value) is not None:
        return Reading(value)
    if _ABOUT.match(value) and not value.startswith("\\"):
        return Reading(None, "is prose")
    has_number = re.search(r"\d", value) is not None
    is_short = len(words) <= (1 if has_number else MAX_WORDS) and len(value.split()) <= MAX_WORDS + 2
    if is_short and not is_sentence:
        return Reading(value, is_word=not has_number and value[0].islower() and not _ANSWER_WORD.match(value))
    if (said := _IS_NUMBER.search(value)) is not None:
        return Reading(said[1].strip())
    if _COMPARED.search(value) is None:
        numbers = _ONE_NUMBER.findall(value)
        if len(numbers) == 1 and not re.search(r"[\\^=<>]", value):
            return Reading(numbers[0].strip())
    return Reading(value, "", is_weak=True)


def _formula(content: str) -> Reading:
    value = content.strip().rstrip(".,").strip()
    if not value or is_blank(value):
        return Reading(None, "nothing follows")
    return Reading(value)


def _is_bare(value: str) -> bool:
    return re.fullmatch(rf"(?:{_BARE}),?", value) is not None

r"""Compare answers that are words, letters, times of day, dates or ratios, without mathematics.

Examples: `"2:30 p.m."` equals `"14:30"`, `"\text{October 30}"` equals `"30 October"`.
"""

import re

from distill.grading.quantities import read_quantity, same_quantity, unwrap_text

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = rf"({'|'.join(_MONTHS)}|{'|'.join(month[:3] for month in _MONTHS)}|sept)\.?"
_DAY = r"(?:the )?(\d{1,2})(?:st|nd|rd|th)?"
_DATE = re.compile(rf"{_MONTH} {_DAY}(?:,? (\d{{4}}))?")
_DAY_FIRST = re.compile(rf"{_DAY} (?:of )?{_MONTH}(?:,? (\d{{4}}))?")
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2}))? ?(a\.?m\.?|p\.?m\.?)?|(\d{1,2}) ?(a\.?m\.?|p\.?m\.?)", re.IGNORECASE
)
_RATIO = re.compile(r"(-?[\d.]+) ?(?::|(?:to|in|out of)\b|\\colon) ?(-?[\d.]+)")
_BETWEEN_MEASURES = re.compile(r"(?<=[a-z.])(?: ?, ?| )(?:and )?(?=\d)")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}
_TENS = {
    word: 10 * number
    for number, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
_NOTHING = re.compile(
    r"(?:x ?\\in ?)?(?:\\emptyset|\\varnothing|∅|\\\{ ?\\\}|\{ ?\})|(?:the )?empty set|"
    r"(?:there (?:is|are) )?no (?:real |such )?(?:solutions?|roots?)(?: exists?)?"
)
_NO_LIMIT = re.compile(r"dne|does not exist|(?:the )?limit does not exist")
_WORDS = re.compile(r"[^\W\d_][^\W\d_ .,'\-]*(?:[ .,'\-]+[^\W\d_]+)*\.?")
_LABEL = re.compile(r"\(?([A-Za-z])\)?")
_LABELLED = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s+\S.*|\(?([A-Za-z])\)?[).:]?", re.DOTALL)
_FUNCTION_WORDS = re.compile(
    "sqrt|frac|binom|sinh?|cosh?|tanh?|sec|csc|cot|log|exp|max|min|mod|gcd|lcm|arcsin|arccos|arctan|infty|infinity|det"
)
_CAPITALS = re.compile(r"[A-Z]{3,}")


def same_words(given: str, expected: str) -> bool | None:
    """Compare two cleaned answers by their words; `None` if they are not words."""
    left, right = unwrap_text(given), unwrap_text(expected)
    low_left, low_right = left.casefold().rstrip("."), right.casefold().rstrip(".")
    if low_left == low_right and low_right in ("no", "yes"):
        return True
    if _is_words(right) and (
        _without_article(low_left) == _without_article(low_right) or _items(low_left) == _items(low_right)
    ):
        return True
    numbers = [_number(text) for text in (low_left, low_right)]
    if numbers != [low_left, low_right] and all(number.isdecimal() for number in numbers):
        return numbers[0] == numbers[1]
    for nothing in (_NOTHING, _NO_LIMIT):
        if nothing.fullmatch(low_right):
            return nothing.fullmatch(low_left) is not None
    if (times := _same_clock(low_left, low_right)) is not None:
        return times
    if (verdict := _same_measures(left, right)) is not None:
        return verdict
    if (date := _date(low_right)) is not None:
        other = _date(low_left)
        if other is not None:
            return date[:2] == other[:2] and (date[2] == other[2] or None in (date[2], other[2]))
    if label := _LABEL.fullmatch(right):
        return _same_label(left, right, label[1], "(" in right or "\\text" in expected)
    if _is_words(right) and (_is_words(left) or not re.search("[a-zA-Z]", left)):
        return False
    if _CAPITALS.fullmatch(right) and _CAPITALS.fullmatch(left):
        return left == right  # an order or a figure, not a product
    return None


def _without_article(text: str) -> str:
    """Return `ellipse` for `an ellipse` and `2 lines` for `two lines`; a single letter is unchanged."""
    text = re.sub(r"^(?:an?|the) (?=[a-z][a-z-])", "", text)
    first, space, rest = text.partition(" ")
    return _number(first) + space + rest if re.match("[a-z]{3}", rest) else text


def _items(text: str) -> list[str]:
    """Return the items of "red, green and blue", sorted, because "and" implies no order; `Paris` is one item."""
    parts = re.split(r",? and |, ?", text)
    return sorted(parts) if " and " in text else parts


def _number(text: str) -> str:
    """Return `72` for `seventy-two`; anything else unchanged."""
    tens, joint, ones = text.replace("-", " ").partition(" ")
    if tens in _TENS and (not joint or ones in list(_NUMBER_WORDS)[1:10]):
        return str(_TENS[tens] + int(_NUMBER_WORDS.get(ones, 0)))
    return _NUMBER_WORDS.get(text, text)


def as_fraction(text: str) -> str:
    r"""Return `\frac{3}{4}` for the ratio `3:4`; anything else unchanged."""
    found = _RATIO.fullmatch(unwrap_text(text))
    return rf"\frac{{{found[1]}}}{{{found[2]}}}" if found else text


def _same_label(left: str, right: str, letter: str, is_choice: bool) -> bool | None:
    # a bare letter may be a variable: only a marked one is a choice regardless of case
    if not is_choice and letter not in "ABCDEFGHIJ":
        return None
    found = _LABELLED.fullmatch(left)
    named = next(filter(None, found.groups()), "") if found else ""
    if found and (named == letter or (is_choice and named.lower() == letter.lower())):
        return True
    return False if is_choice else None


def _is_words(text: str) -> bool:
    """Return whether an answer is words: three letters in a row that are not a function's name."""
    if "\\begin" in text:
        return False
    words = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", text)
    return any(not _FUNCTION_WORDS.fullmatch(word.lower()) for word in words) and (
        _WORDS.fullmatch(text) is not None or any(len(word) > 3 for word in words)
    )


def _same_measures(left: str, right: str) -> bool | None:
    """Compare amounts of several units, such as `3 hours and 20 minutes`, part by part."""
    golds, values = ([read_quantity(part) for part in _BETWEEN_MEASURES.split(text)] for text in (right, left))
    units = {gold.unit for gold in golds if gold and gold.unit}
    if len(golds) < 2 or len(units) < len(golds) or not all(value and value.unit for value in values):
        return None
    return len(golds) == len(values) and all(map(same_quantity, values, golds))  # type: ignore[arg-type]


def _date(text: str) -> tuple[str, int, str | None] | None:
    if found := _DATE.fullmatch(text):
        month, day, year = found[1], found[2], found[3]
    elif found := _DAY_FIRST.fullmatch(text):
        day, month, year = found[1], found[2], found[3]
    else:
        return None
    return month[:3], int(day), year


def _same_clock(left: str, right: str) -> bool | None:
    """Compare times of day and ratios, which look alike: 3:30 is not 1:10, although the fractions are equal."""
    gold, value = _CLOCK.fullmatch(right), _CLOCK.fullmatch(left)
    if gold and value and (gold[4] or gold[6] or value[4] or value[6]):
        return _same_time(value, gold)
    if re.fullmatch(r"\d{1,2}:\d{2} ?[a-z.]+", right):
        return False  # only the expected answer is a time
    if ":" in left and ":" in right and not re.search(r"[=<>{]", left + right):
        parts = [[part.strip() for part in text.split(":")] for text in (left, right)]
        if all(part.isdecimal() for part in parts[0] + parts[1]):
            return [int(part) for part in parts[0]] == [int(part) for part in parts[1]]
        return False if all(re.fullmatch(r"-?[\d.,]+", part) for part in parts[0] + parts[1]) else None
    return None


def _same_time(value: re.Match[str], gold: re.Match[str]) -> bool:
    """Return whether two times are the same; an hour from 1 to 12 without a.m. or p.m. may be either."""
    seconds, halves = [], []
    for found in (value, gold):
        half = (found[4] or found[6] or "")[:1]
        hour = int(found[1] or found[5])
        if half and not 1 <= hour <= 12:
            half = ""
        halves.append(half or ("" if 1 <= hour <= 12 else "24"))
        hour = hour % 12 + (12 if half == "p" else 0) if half else hour
        seconds.append(hour * 3600 + int(found[2] or 0) * 60 + int(found[3] or 0))
    if "" in halves:
        return seconds[0] % 43_200 == seconds[1] % 43_200
    return seconds[0] % 86_400 == seconds[1] % 86_400

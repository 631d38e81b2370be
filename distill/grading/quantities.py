r"""Read and compare numbers with and without a unit, as final answers write them, without a parser.

Examples: `"\$1,200"`, `"1\frac{1}{2} \text{ cm}"`, `"50\%"`, `"2.5 million"`, `"121_3"`.
"""

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

from distill.grading.units import CANONICAL, POWER, VOID, exponent_of, is_bare_unit, unit_name

MAX_QUANTITY_CHARS = 120
"""Longer answers are not a single number with its unit."""

MIN_ROUNDED_DIGITS = 6
"""Minimum number of significant digits for a decimal to stand for a number that it does not equal exactly."""

PERCENT = "percent"

FLOAT_DIGITS = 15
"""A decimal with this many significant digits may be a printed float, whose last digits are inexact."""

FLOAT_ERROR = Fraction(1, 10**15)
"""Relative error of a few operations on floats, as in 0.1 + 0.2 = 0.30000000000000004."""

_SIGNS = str.maketrans(
    {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{NO-BREAK SPACE}": " ", "\u2009": " ", "\u202f": " ", "\u2007": " "}
)

_MULTIPLIERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_TEXT = (
    r"\\(?:text(?:normal|up|bf|it|rm|sf|tt|sc|md)?|mathrm|mathbf|mathit|mathsf|mathnormal|mbox|hbox|operatorname\*?|"
    r"unit|si|rm)\s*\{([^{}]*)\}"
)
_UNDRESSED = re.compile(r"[\w +\-,/;:=<>'()]*")
"""Matches text without LaTeX or formatting."""
_CURRENCY = re.compile(r"\\\$|[$€£¥₹]")
_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|[-+]?\.\d+")
_FRACTION = re.compile(r"([-+]?)(?:(\d+)/(\d+)|\\frac\{([-+]?\d+)\}\{(\d+)\}|\\frac(\d)(\d))")
_MIXED = re.compile(r"([-+]?)(\d+)(?: (\d+)/(\d+)| ?\\frac\{(\d+)\}\{(\d+)\}| ?\\frac(\d)(\d))")
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)(?:\\overline\{(\d+)\}|\((\d+)\))")
_FLOAT = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([-+]?\d{1,3})")
_DEGREES = re.compile(
    r"([-+]?)(\d+) ?(?:\^\{? ?\\circ ?\}?|°) ?(\d{1,2}(?:\.\d+)?) ?(?:'|\^\{? ?\\prime ?\}?|′|’)"
    r"(?: ?(\d{1,2}(?:\.\d+)?) ?(?:''|\"|\^\{? ?\\prime ?\\prime ?\}?|″))?"
)
_CURRENCY_WORD = re.compile(r"(usd|eur|gbp|inr|jpy|us\$|rs\.?)\s?(?=[\d.])", re.IGNORECASE)
_BRACKETED_UNIT = re.compile(
    r"(.*[\d})%.]) \(((?:[^\W\d_]|[ .,'\-])+(?:/ ?[^\W\d_]+)?(?:\^\{?[23]\}?|[²³])?|" + _TEXT + r"(?:\^\{?[23]\}?)?)\)",
    re.DOTALL,
)
_SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?) ?(?:\\times|\\cdot|\*|x|×) ?10\^(?:\{([-+]?\d{1,4})\}|([-+]?\d{1,4}))")
_TRIGONOMETRIC = re.compile(r"(?:sin|cos|tan|cot|sec|csc|cis)h?(?![a-z])")
"""Degrees after one of these belong to its argument, not to the value."""
_DEGREE = r"\^ ?\{? ?\\circ ?\}?|°|\\degree"
_BASE_WORDS = {
    word: str(base)
    for base, word in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 2)
}
_DOTS = re.compile(r"([-+]?\d*\.)(\d+) ?(?:\.{3}|…|\\[lc]?dots)")
_EUROPEAN = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+,\d+")
_BASE = re.compile(r"([-+]?\d+)_(?:\{(?:\\text\{)?(\d{1,2})\}{1,2}|(\d))")
_NUMBER_END = re.compile(r"(.*[\d})%.])( ?)([A-Za-zµ°€£¥₹%].*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value and its unit (`""`: none), with the number of decimals and significant digits written."""

    value: Fraction
    unit: str = ""
    decimals: int | None = None
    """Digits after the point of a decimal; `None`: the value is written exactly."""
    digits: int = 0
    base: int = 10
    """Base of a number written `n_{base}`; `value` reads its digits as decimal."""


@functools.lru_cache(maxsize=4_096)  # a vote compares each answer with many
def read_quantity(answer: str) -> Quantity | None:
    """Return the number that an answer is, with its unit; `None` if it is anything else.

    Args:
        answer: extracted from a text, in LaTeX or not.
    """
    if len(answer) > MAX_QUANTITY_CHARS:
        return None
    text = _unit_out_of_brackets(clean(answer))
    unit = ""
    if code := _CURRENCY_WORD.match(text):
        unit = CANONICAL.get(code[1].lower().rstrip("."), "dollar")
        text = text[code.end() :]
        if _CURRENCY.search(text):
            return None
    if angle := _DEGREES.fullmatch(text):
        return _angle(angle)
    if marks := set(_CURRENCY.findall(text)):
        unit = CANONICAL.get(marks.pop(), "dollar")
        if marks:
            return None
        text = _tidy(_CURRENCY.sub(" ", text))
    if re.fullmatch(_TEXT, text):
        text = unwrap_text(text)
    text = re.sub(
        r"_\{(?:\\text\{)? ?([a-z]+) ?\}{1,2}$",
        lambda m: f"_{{{_BASE_WORDS[m[1]]}}}" if m[1] in _BASE_WORDS else m[0],
        text,
    )
    if based := _BASE.fullmatch(text):
        return Quantity(Fraction(int(based[1])), base=int(based[2] or based[3]))
    if (bare := _read_number(text)) is not None:
        return Quantity(bare.value, unit, bare.decimals, bare.digits)
    split = _split_unit(text)
    if split is None:
        return None
    number, word, exponent = split
    found = _read_number(number)
    if found is None or (unit and word not in ("", unit)):
        return None
    return Quantity(found.value * 10**exponent, word or unit, found.decimals, found.digits)


def same_quantity(given: Quantity, expected: Quantity) -> bool:
    """Return whether two quantities are the same. A unit may be omitted, but two must agree; nothing is converted.

    A percent sign may be omitted or added above 1 (no share is larger); `50%` is also 0.5. The given answer may omit a
    base, because the question states it.
    """
    if given.base != expected.base and (given.base != 10 or given.unit):
        return False
    if PERCENT in (given.unit, expected.unit) and given.unit != expected.unit:
        return _same_percent(given, expected)
    if given.unit and expected.unit and given.unit != expected.unit:
        scales = {given.unit, expected.unit} - {"degree", "degree celsius", "degree fahrenheit"}
        if "degree" not in (given.unit, expected.unit) or not scales <= {"celsius", "fahrenheit"}:
            return False
    return _same_value(given, expected)


def clean(answer: str) -> str:
    """Remove LaTeX that only affects appearance (delimiters, spacing, sizes), and unify fraction commands."""
    text = re.sub(r"(?<=\d)(?:\\,|\\!|\\thinspace|[\u2009\u202f\u2007]|\xa0(?=\d{3}))(?=\d)", "", answer)
    text = text.translate(_SIGNS)
    if _UNDRESSED.fullmatch(text):
        return _tidy(text)
    text = re.sub(
        r"\\(?:left|right|quad|qquad|displaystyle|textstyle|limits|nolimits|thinspace|bigg?l?|bigg?r|Bigg?l?|Bigg?r)"
        r"(?![a-zA-Z])\.?",
        " ",
        text,
    )
    text = re.sub(r"(?<=\d) ?(?:\.{3}|…)", r"\\ldots", text)
    text = re.sub(r"\\frac\{\\(text|mathrm)\{([^{}]+)\}\}\{\\\1\{([^{}]+)\}\}$", r"\\text{ \2/\3}", text)
    text = re.sub(r"\\(?:text)?color\s*\{\w+\}|\\(?:large|Large|LARGE|huge|Huge|small)(?![a-zA-Z])", " ", text)
    text = re.sub(r"\\begin\{(aligned|gathered)\}((?:(?!\\begin|\\\\).)*)\\end\{\1\}", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"\\[hv]?phantom(?![a-zA-Z])\s*(?:\{[^{}]*\}|.)", "", text)
    text = re.sub(r"\{ ?\\(rm|bf|it|sf|tt) +([^{}]*)\}", r"\\text{\2}", text)
    text = re.sub(r"(?<!\\)\\[!()\[\]]", "", text).strip().strip("*`")
    text = re.sub(r"(?<!\\)\\[,;: ]|~", " ", text)
    text = re.sub(r"\{ ?, ?\}", ",", text)
    text = re.sub(r"\\var(phi|epsilon|theta|rho|sigma)(?![a-zA-Z])", r"\\\1", text)
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"(?<!\\)(?<!^)\{\d{1,3}(?:,\d{3})+\}", lambda m: m[0].replace(",", ""), text)
    text = re.sub(r"\\(lbrace|rbrace)(?![a-zA-Z])", lambda m: "\\{" if m[1] == "lbrace" else "\\}", text)
    text = re.sub(r"(?<!\\)\$|(?<!\\)\\$", "", text)
    text = re.sub(r"^\s*(?:\\approx(?![a-zA-Z])|≈)", "", text)
    return _tidy(text)


def _unit_out_of_brackets(text: str) -> str:
    """Return `9 apples` for `9 (apples)` if the bracket can only be a unit."""
    if not text.endswith(")") or not (found := _BRACKETED_UNIT.fullmatch(text)):
        return text
    words = found[2]
    is_text = "\\" in words
    bare = POWER.sub("", words)
    if is_text or is_bare_unit(bare) or unit_name(bare) in CANONICAL.values():
        return f"{found[1]} " + (words if is_text else rf"\text{{{words}}}")
    return text


def _angle(found: re.Match[str]) -> Quantity:
    """Convert degrees, minutes and seconds to degrees."""
    value = Fraction(found[2]) + Fraction(found[3]) / 60 + Fraction(found[4] or 0) / 3600
    return Quantity(-value if found[1] == "-" else value, "degree")


def split_unit(text: str) -> tuple[str, str]:
    r"""Split an expression from its unit, which is marked as text: `12\sqrt{13} \text{ feet}`; no unit is `""`."""
    text = _unit_out_of_brackets(text)
    value = re.sub(r"^(-?)\s*(?:\\\$|[$€£¥₹])\s*", r"\1", text)
    power = ""
    body = value
    if found := POWER.search(value):
        power, body = exponent_of(found), value[: found.start()].rstrip()
    if wrapped := re.fullmatch(rf"(.*?[\w}})]) ?{_TEXT}", body, re.DOTALL):
        words = wrapped[2].casefold().strip(" .")
        spelled = len(words) > 1 or (words in CANONICAL and wrapped[2].startswith(" "))
        if spelled and re.fullmatch(r"[^\W\d_][^\d(){}=<>,]*", words) and not VOID.search(words.replace(" per ", " ")):
            return wrapped[1].strip(), unit_name(words, power)
    if (
        value.count("circ") == 1
        and not _TRIGONOMETRIC.search(value)
        and (marked := re.fullmatch(r"(.*[\w})]) ?\^(?:\{ ?\\circ ?\}|\\circ)", value, re.DOTALL))
    ):
        return marked[1].strip(), "degree"
    return value, ""


def unwrap_text(text: str) -> str:
    r"""Replace `\text{…}` and similar commands with their content."""
    return _tidy(re.sub(_TEXT, r" \1 ", text))


def _tidy(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r"(?<=[{(\[]) | (?=[})\],])", "", text)
    return re.sub(r"(?<=[-+]) (?=[\d.\\])|(?<=\}) (?=\{)|(?<=frac) (?=[\d{])", "", text).rstrip(".,;").strip()


def _read_number(text: str) -> Quantity | None:
    text = text.strip()
    if _PLAIN.fullmatch(text) or re.fullmatch(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?", text):
        return _decimal(text.replace(",", "").replace(" ", ""))
    if _EUROPEAN.fullmatch(text):
        return _decimal(text.replace(".", "").replace(",", "."))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    if found := _FRACTION.fullmatch(text):
        sign, top, bottom = found[1], found[2] or found[4] or found[6], found[3] or found[5] or found[7]
        return _exact(sign, Fraction(0), top, bottom)
    if found := _MIXED.fullmatch(text):
        top, bottom = found[3] or found[5] or found[7], found[4] or found[6] or found[8]
        return _exact(found[1], Fraction(int(found[2])), top, bottom) if int(top) < int(bottom) else None
    text = re.sub(r"\\dot\{(\d)\}$", r"\\overline{\1}", text)
    if found := _DOTS.fullmatch(text):
        text = _with_cycle(found)
    if found := _REPEATING.fullmatch(text):
        fixed, cycle = found[3], found[4] or found[5]
        tail = Fraction(int(cycle), 10 ** len(fixed) * (10 ** len(cycle) - 1))
        value = Fraction(int((found[2] or "0") + fixed), 10 ** len(fixed)) + tail
        return Quantity(-value if found[1] == "-" else value)
    if found := _FLOAT.fullmatch(text):
        mantissa, power = _decimal(found[1]), int(found[2])
        value = mantissa.value * Fraction(10) ** power
        return Quantity(value, "", (mantissa.decimals or 0) - power, mantissa.digits)
    if found := _SCIENTIFIC.fullmatch(text):
        return Quantity(Fraction(found[1]) * Fraction(10) ** int(found[2] or found[3]))
    return None


def _with_cycle(found: re.Match[str]) -> str:
    """Return `0.1\\overline{6}` for `0.166…`: the shortest digits that occur twice at the end repeat."""
    digits = found[2]
    for length in range(1, len(digits) // 2 + 1):
        if digits[-length:] == digits[-2 * length : -length]:
            return f"{found[1]}{digits[:-length]}\\overline{{{digits[-length:]}}}"
    return found[0]


def _exact(sign: str, whole: Fraction, top: str, bottom: str) -> Quantity | None:
    if int(bottom) == 0:
        return None
    value = whole + Fraction(int(top), int(bottom))
    return Quantity(-value if sign == "-" else value)


def _decimal(text: str) -> Quantity:
    _, _, after = text.partition(".")
    return Quantity(Fraction(text), "", len(after), len(text.lstrip("-+").replace(".", "").lstrip("0")))


def _split_unit(text: str) -> tuple[str, str, int] | None:
    """Return (number, unit, power of ten) of `2.5 million dollars`; `None` if no unit follows the number."""
    power = ""
    if found := POWER.search(text):
        power, text = exponent_of(found), text[: found.start()].rstrip()
    cut = _cut_unit(text, power)
    if cut is None:
        return None
    number, words, is_text = cut
    words = unwrap_text(words.replace("\\%", "%")).casefold().strip(" .").replace("per cent", "percent")
    exponent = 0
    head, _, rest = words.partition(" ")
    if head in _MULTIPLIERS:
        exponent, words = _MULTIPLIERS[head], rest
    if VOID.search(words.replace(" per ", " ")) or any(word in _MULTIPLIERS for word in words.split()):
        return None
    if len(words) == 1 and not (words in CANONICAL and (is_text or not words.isalpha())):
        return None  # \mathrm{i} and \mathrm{e} are numbers, k is a thousand
    if not is_text and words and not is_bare_unit(words):
        return None
    return number, unit_name(words, power), exponent


def _cut_unit(text: str, power: str) -> tuple[str, str, bool] | None:
    """Return the number, the words after it, and whether these are marked as text, degrees or percent."""
    if wrapped := re.fullmatch(rf"(.*?[\d}}).%])\s*{_TEXT}", text, re.DOTALL):
        return wrapped[1], wrapped[2], True
    if scale := re.fullmatch(rf"(.*[\d}}])\s*(?:{_DEGREE})\s*([CFK])", unwrap_text(text), re.DOTALL):
        return scale[1], {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}[scale[2]], True
    if ohms := re.fullmatch(r"(.*\d)\s+\\Omega", text):
        return ohms[1], "ohm", True
    if marked := re.fullmatch(r"(.*[\d})])\s*(?:\^\{?\s*\\circ\s*\}?|\\degree|\\%)", text, re.DOTALL):
        return marked[1], PERCENT if text.endswith("%") else "degree", True
    bare = _NUMBER_END.fullmatch(unwrap_text(text))
    if bare is None:
        return None
    number, space, words = bare.groups()
    known = len(words) > 1 and unit_name(words, power) in CANONICAL.values()
    return (number, words, False) if space or known or words in ("%", "°") else None


def _same_percent(given: Quantity, expected: Quantity) -> bool:
    percent, plain = (given, expected) if given.unit == PERCENT else (expected, given)
    if plain.unit:
        return False
    return (percent.value == plain.value and abs(plain.value) > 1) or percent.value / 100 == plain.value


def _same_value(given: Quantity, expected: Quantity) -> bool:
    if given.value == expected.value:
        return True
    if given.decimals is not None and expected.decimals is not None:
        return _same_decimals(given, expected)
    return _rounds(given, expected) or _rounds(expected, given)


def _same_decimals(given: Quantity, expected: Quantity) -> bool:
    """Return whether the shorter of two decimals is the longer one, rounded or cut."""
    short, long = sorted((given, expected), key=lambda one: one.decimals or 0)
    assert short.decimals is not None
    if long.decimals == short.decimals:
        return False
    if long.digits > FLOAT_DIGITS and abs(long.value - short.value) <= FLOAT_ERROR * abs(short.value):
        return True
    if short.digits < MIN_ROUNDED_DIGITS:
        return False
    if short.decimals < MIN_ROUNDED_DIGITS:
        return short.digits >= FLOAT_DIGITS and _as_float(short.value) == _as_float(long.value)
    return is_rounded(short, long.value)


def _rounds(short: Quantity, exact: Quantity) -> bool:
    """Return whether a decimal is the non-terminating expansion of another number, rounded or cut at its last place."""
    if short.decimals is None or exact.decimals is not None or short.digits < MIN_ROUNDED_DIGITS:
        return False
    if short.decimals and short.digits >= FLOAT_DIGITS and _as_float(short.value) == _as_float(exact.value):
        return True
    if short.decimals < MIN_ROUNDED_DIGITS and (short.decimals <= 0 or _ends(exact.value)):
        return False
    return is_rounded(short, exact.value)


def is_rounded(short: Quantity, exact: Fraction) -> bool:
    """Return whether a decimal is a number rounded or cut at its last place, or prints the number as a float."""
    if short.digits >= FLOAT_DIGITS and _as_float(short.value) == _as_float(exact):
        return True
    distance, last_place = abs(short.value - exact), Fraction(10) ** -(short.decimals or 0)
    is_cut = abs(short.value) < abs(exact) and distance < last_place
    return is_cut or 2 * distance <= last_place


def _as_float(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _ends(value: Fraction) -> bool:
    """Return whether the decimal expansion terminates."""
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1

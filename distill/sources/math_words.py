"""Split a mathematical text into tokens that do not depend on its typesetting.

    "Let $x^2 \\\\leq 1{,}000$." and "let x² ≤ 1000"  ->  let x ^ 2 le 1000

Case, spacing, punctuation, brackets, `$` and other delimiters, `\\\\left`, fonts, accents and the kinds of minus, dots
and fractions make no difference; numbers, variables, operators and their order do. Every step is linear in the text's
length.
"""

import re
import unicodedata
from collections.abc import Iterator

VERSION = 2
"""Increment when the same text gives other tokens."""

MAX_FOLDED = 20_000
"""Maximum number of cached character foldings, more than any real text needs."""

_TOKEN = re.compile(
    r"[^\W\d_]+|\d+(?:\.\d+)?|\\[^\W\d_]+|[+*/=<>^%&]"
    r"|-(?!(?<=[^\W\d_]-)[^\W\d_]{2})"  # not the hyphen of `four-digit`
    r"|(?<=\d)!|\\\\|\n"
)
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_SPELLINGS = (
    ("{,}", r"\{,\}(?=\d{3}(?!\d))", ","),
    ("\\,", r"\\,(?=\d{3}(?!\d))", ","),
    (",\\!", r",\\!(?=\d{3}(?!\d))", ","),
    ("frac", r"frac(\d)(?=[\d{])", r"frac \1 "),
)
"""Spellings of thousands and fractions: (start of the spelling, searched first; pattern; replacement)."""
_TEXT_SPELLINGS = tuple((begin, re.compile(pattern), form) for begin, pattern, form in _SPELLINGS)
_BYTES_SPELLINGS = tuple(
    (begin.encode(), re.compile(pattern.encode()), form.encode()) for begin, pattern, form in _SPELLINGS
)
_NOT_ASCII = re.compile(r"[⁰¹²³⁴-⁹⁺⁻]+|[^\x00-\x7f]")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")

_SET_TYPE = (
    "left right middle big bigl bigr bigg biggl biggr text textbf textit textrm textnormal mathrm mathbf mathit mathbb "
    "mathcal mathsf boldsymbol bm mbox hbox emph operatorname displaystyle textstyle limits nolimits quad qquad hspace "
    "vspace rm it bf ldots cdots dots dotsc dotsb vdots ddots hfill noindent par nonumber newline lbrace rbrace lparen "
    "rparen lbrack rbrack lfloor rfloor vert lvert rvert mid"
)
_SYNONYMS = {
    "frac": "dfrac tfrac cfrac",
    "binom": "dbinom tbinom choose",
    "le": "leq leqslant",
    "ge": "geq geqslant",
    "ne": "neq",
    "*": "cdot times ast",
    "/": "div",
    "<": "lt",
    ">": "gt",
    "rightarrow": "to longrightarrow",
    "epsilon": "varepsilon",
    "phi": "varphi",
    "theta": "vartheta",
    "emptyset": "varnothing",
    "triangle": "bigtriangleup",
    "pmod": "bmod mod",
}
IGNORED = frozenset({"\n"} | {"\\" + name for name in _SET_TYPE.split()})
"""Tokens without meaning: line ends, and commands that only set type."""
COMMANDS = {"\\" + name: word for word, names in _SYNONYMS.items() for name in names.split()}
"""Command -> canonical word; any other command becomes its own name without the backslash."""

_TURNING_POINTS = (
    "frac sqrt binom sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp gcd lcm max min "
    "sup inf lim sum prod int det pmod le ge ne pm pi theta alpha beta gamma delta omega phi infty circ perp "
    "parallel angle zero one two three four five six seven eight nine ten eleven twelve hundred thousand million "
    "half third quarter first second double twice triple dozen no not non never without except only even odd "
    "prime composite positive negative nonnegative nonzero integer rational irrational real complex least most "
    "less more greater smaller greatest smallest largest maximum minimum highest lowest longest shortest sum "
    "product difference quotient square squared cube cubed root inverse reciprocal opposite sine cosine tangent "
    "radians degrees"
)
FIXED_WORDS = frozenset(_TURNING_POINTS.split())
"""Words on which a short problem depends: adding, removing or replacing one makes it a different problem."""

_SYMBOLS = {
    "−": "-", "–": "-", "—": " ", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "∕": "/", "≤": "\\le ",
    "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\ne ", "√": "\\sqrt ", "∞": "\\infty ", "°": "^\\circ ",
    "∠": "\\angle ", "△": "\\triangle ", "∆": "\\delta ", "→": "\\rightarrow ", "±": "\\pm ", "≡": "\\equiv ",
    "∈": "\\in ", "∪": "\\cup ", "∩": "\\cap ", "⊂": "\\subset ", "⊆": "\\subseteq ", "∅": "\\emptyset ",
    "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "⊥": "\\perp ", "∥": "\\parallel ", "…": " ", "′": "'",
    "ς": "\\sigma ",
}  # fmt: skip


def fold(text: str) -> str:
    """Return the text in one case, with one notation for numbers, fractions and symbols."""
    text = fold_characters(text)
    for begin, pattern, form in _TEXT_SPELLINGS:
        if begin in text:
            text = pattern.sub(form, text)
    return _THOUSANDS.sub("", text) if "," in text else text


def fold_characters(text: str) -> str:
    """Return the text in one case, with symbols in ASCII; of other characters only letters are kept."""
    text = text.casefold()
    return text if text.isascii() else _NOT_ASCII.sub(_ascii_form, text)


def fold_bytes(text: bytes) -> bytes:
    """Apply the rest of `fold`, except thousands commas, to ASCII text or to the output of `fold_characters`."""
    text = text.lower()
    for begin, pattern, form in _BYTES_SPELLINGS:
        if begin in text:
            text = pattern.sub(form, text)
    return text


def tokens(text: str) -> list[str]:
    """Return the text's tokens in order, without those that only set type."""
    found = _TOKEN.findall(fold(text))
    # Only commands and line ends need `canonical`, and calling it costs more than the search.
    return [word for token in found if (word := canonical(token) if token[0] in "\\\n" else token)]


def places(folded: str) -> Iterator[tuple[str, int, int]]:
    """Yield (canonical token, start, end) of a folded text; the positions refer to the folded text."""
    for found in _TOKEN.finditer(folded):
        if word := canonical(found[0]):
            yield word, found.start(), found.end()


def canonical(token: str) -> str:
    """Return the canonical form of a raw token; empty if it only sets type, as a line end does."""
    if token in IGNORED:
        return ""
    return COMMANDS.get(token) or token.removeprefix("\\")


def is_fixed(token: str) -> bool:
    """Return whether replacing a canonical token always makes it a different problem."""
    return len(token) < 2 or not token.isalpha() or token in FIXED_WORDS


_folded: dict[str, str] = {}


def _ascii_form(found: re.Match[str]) -> str:
    char = found[0]
    known = _folded.get(char)
    if known is None:
        known = _fold_characters(char)
        if len(_folded) < MAX_FOLDED and len(char) == 1:
            _folded[char] = known
    return known


def _fold_characters(chars: str) -> str:
    """Fold one non-ASCII character, or a run of superscripts."""
    if chars[0] in "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻":
        return "^" + chars.translate(_SUPERSCRIPTS)
    if chars in _SYMBOLS:
        return _SYMBOLS[chars]
    # Per character, not over the text: canonical ordering of a long run of accents takes quadratic time.
    plain = unicodedata.normalize("NFKD", chars).casefold()
    numerator, slash, denominator = plain.partition("⁄")
    if slash:
        return f" \\frac {numerator} {denominator} " if denominator else "/"
    return "".join(_SYMBOLS.get(c) or _plain(c) for c in plain if not unicodedata.combining(c))


def _plain(char: str) -> str:
    """Return a small Greek letter as a LaTeX command, a digit in ASCII, any other letter unchanged, else a space."""
    name = unicodedata.name(char, "")
    if name.startswith("GREEK SMALL LETTER ") and name.count(" ") == 3:
        return f"\\{name.rpartition(' ')[2].lower()} "
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    return char if char.isascii() or char.isalpha() else " "

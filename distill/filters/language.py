"""Which language a text is in: shares by script first, then CLD2's among the languages of one script.

Enters: a text and an ISO 639-1 code. Leaves: the share of the words that are in that language, and the number of those
that are not.

    measure_language("Then we 计算 the sum.", "en") == LanguageMeasures(share=2 / 3, num_foreign_words=2)
"""

import re
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import numpy as np

from distill.recipe import Language

MIN_DETECT_CHARS = 200
"""Letters that CLD2 needs to tell languages of one script apart with some certainty."""

MIN_PROMPT_CHARS = 24
"""Shorter prompts in the Latin or Cyrillic script could be in any of its languages."""

# One pass over what belongs to no language. An opener without its end stops at the next one of its kind, and nothing is
# given back once matched, so that the time grows with the length of the text even where thousands are opened.
_NO_PROSE = re.compile(
    r"```[^`]*+(?:`(?!``)[^`]*+)*+(?:```|\Z)|`[^`\n]*+`"
    r"|\$\$[^$]*+(?:\$(?!\$)[^$]*+)*+\$\$|\$[^$\n]*+\$"
    r"|\\\[[^\\]*+(?:\\(?![\[\]])[^\\]*+)*+\\\]"
    r"|\\\([^\\]*+(?:\\(?![()])[^\\]*+)*+\\\)"
    r"|\\begin\{(\w++\*?)\}[^\\]*+(?:\\(?!begin\b|end\b)[^\\]*+)*+\\end\{\1\}"
    r"|\\[a-zA-Z]++(?:\{[^{}]*+\})*+|\\.",
    re.DOTALL,
)
_CONTROLS = bytes(32 if (byte < 32 and byte not in b"\t\n\r") or byte == 127 else byte for byte in range(256))
"""CLD2 refuses control characters."""

_LATIN = ("LATIN",)
SCRIPTS = {
    "ar": ("ARABIC",),
    "bg": ("CYRILLIC",),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "th": ("THAI",),
    "uk": ("CYRILLIC",),
    "zh": ("CJK",),
}
"""Script of a language by ISO 639-1 code, as Unicode's character names begin; every other one is written in Latin."""

RELATIVES = {
    "bg": {"mk"},
    "cs": {"sk"},
    "da": {"no", "nn"},
    "es": {"gl"},
    "hr": {"bs", "sr"},
    "id": {"ms"},
    "no": {"da", "nn"},
    "pt": {"gl"},
    "sk": {"cs"},
}
"""Languages that CLD2 takes for each other in short texts, so that they do not count as foreign."""

_CLD2_CODES = {"iw": "he", "nb": "no"}

_NEUTRAL, _INVALID, _UNSEEN = 0, 1, 255
_NAMES = (
    *("neutral", "invalid", "LATIN", "GREEK", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "THAI", "HANGUL", "ARABIC"),
    *("HEBREW", "DEVANAGARI", "other"),
)
_IDS = {name: number for number, name in enumerate(_NAMES)}
_STYLES = {
    *("MATHEMATICAL", "DOUBLE", "SCRIPT", "BLACK", "SUPERSCRIPT", "SUBSCRIPT", "COMBINING", "VARIATION", "MODIFIER"),
    *("MICRO", "OHM", "KELVIN", "ANGSTROM", "PLANCK", "FEMININE", "MASCULINE", "ALEF", "BET", "GIMEL", "DALET"),
    *("TURNED", "INFORMATION", "IDEOGRAPHIC", "PROTECTIVE", "EULER", "CIRCUMFLEX"),
}
"""How the names of letters and marks begin that belong to no script: signs of mathematics, units, accents."""

# Scripts without spaces: each of their letters counts as a word.
_WORD_BY_LETTER = np.isin(_NAMES, ("CJK", "HIRAGANA", "KATAKANA", "THAI"))
_MIN_LETTERS = np.where(_WORD_BY_LETTER | np.isin(_NAMES, "HANGUL"), 1, 2)


class LanguageMeasures(NamedTuple):
    """How much of a text is in the language asked for."""

    share: float
    """Share of the words that are in it, in [0, 1]; 1.0 for a text without words."""
    num_foreign_words: int
    """Words in other languages, in letters for scripts without spaces. Latin words within a text in another script
    are not among them: names, units and functions (sin, mod) are written so everywhere."""


def language_share(text: str, language: str) -> float:
    """Share of the words that are in `language`, in [0, 1]; 1.0 for a text without words.

    Words in another script are foreign (single foreign letters, such as a Greek variable, are not words). Among words
    of the right script, CLD2's shares count where the text is long enough for it. The same measure is the
    language-consistency reward of DeepSeek-R1 (arXiv:2501.12948, section 2.3.2).

    Args:
        text: any text.
        language: ISO 639-1 code.
    """
    return measure_language(text, language).share


def measure_language(text: str, language: str) -> LanguageMeasures:
    """Both measures of one text; LaTeX and code are set aside.

    Args:
        text: any text.
        language: ISO 639-1 code.
    """
    plain = prose(text)
    native_ids = _native_ids(language)
    latin = native_ids == (_IDS["LATIN"],)
    if latin and plain.isascii():
        foreign_share = _foreign_share_within_script(plain.encode().translate(_CONTROLS), language)
        if foreign_share == 0:
            return LanguageMeasures(1.0, 0)
        num_native, num_foreign, num_latin = len(plain.split()), 0, 0
    else:
        codes_C = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids_C = _script_ids(codes_C)
        num_native, num_foreign, num_latin = _count_words(plain, ids_C, native_ids)
        foreign_share = _foreign_share_within_script(_only(codes_C, ids_C, native_ids), language)
    return _together(num_native, num_foreign, num_latin, foreign_share)


def _together(num_native: int, num_foreign: int, num_latin: int, foreign_share: float) -> LanguageMeasures:
    total = num_native + num_foreign + num_latin
    if total == 0:
        return LanguageMeasures(1.0, 0)
    within = num_native * foreign_share
    share = (num_native - within) / total
    return LanguageMeasures(share, num_foreign + (max(1, round(within)) if within else 0))


def prompt_language(text: str) -> str | None:
    """The language that a prompt is written in, ISO 639-1, or `None` where it is too short or mixed to tell.

    Args:
        text: the prompt, as the user wrote it.
    """
    plain = prose(text)
    codes_C = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    ids_C = _script_ids(codes_C)
    letters = np.bincount(ids_C, minlength=len(_NAMES))
    letters[[_NEUTRAL, _INVALID]] = 0
    if not letters.any():
        return None
    script = _NAMES[int(letters.argmax())]
    if script in ("HIRAGANA", "KATAKANA", "CJK"):
        return "ja" if letters[_IDS["HIRAGANA"]] + letters[_IDS["KATAKANA"]] > 0.1 * letters.sum() else "zh"
    alone = [language for language, scripts in SCRIPTS.items() if scripts == (script,)]
    if len(alone) == 1 and script != "ARABIC":  # Persian and Urdu are written in it too
        return alone[0]
    if letters.sum() < MIN_PROMPT_CHARS:
        return None
    _, found = _detect(_only(codes_C, ids_C, (_IDS[script],)), best_effort=True)
    known = [(code, percent) for code, percent in found if code in get_args(Language)]
    return known[0][0] if known and known[0][1] > 50 else None


def prose(text: str) -> str:
    """The text without code and LaTeX, which belong to no language."""
    return _NO_PROSE.sub(" ", text)


def _foreign_share_within_script(native: bytes, language: str) -> float:
    """Share of the text that CLD2 finds in other languages, in [0, 1]; 0.0 where the text is too short to tell."""
    if len(native) < MIN_DETECT_CHARS:
        return 0.0
    _, found = _detect(native)
    known = sum(percent for _, percent in found)
    own = RELATIVES.get(language, set()) | {language}
    return sum(percent for code, percent in found if code not in own) / known if known else 0.0


def _detect(text: bytes, best_effort: bool = False) -> tuple[bool, list[tuple[str, int]]]:
    """Whether CLD2 is sure, and (ISO 639-1 code, percent of the text) of up to three languages, largest first."""
    import pycld2

    reliable, _, found = pycld2.detect(text, bestEffort=best_effort)
    # CLD2 still calls Hebrew by its old code, and tells Chinese scripts apart.
    shares = [(code.split("-")[0], percent) for _, code, percent, _ in found if code != "un"]
    return reliable, [(_CLD2_CODES.get(code, code), percent) for code, percent in shares]


@lru_cache
def _native_ids(language: str) -> tuple[int, ...]:
    return tuple(_IDS[script] for script in SCRIPTS.get(language, _LATIN))


# C = characters of a text, R = runs of characters of one script
def _count_words(text: str, ids_C: Any, native_ids: tuple[int, ...]) -> tuple[int, int, int]:
    """(native words, foreign words, Latin words where Latin is foreign), cut where the script changes."""
    if not ids_C.size:
        return 0, 0, 0
    starts_R = np.flatnonzero(np.diff(ids_C, prepend=_UNSEEN))
    lengths_R = np.diff(starts_R, append=ids_C.size)
    ids_R = ids_C[starts_R]
    words_R = np.where(_WORD_BY_LETTER[ids_R], lengths_R, 1)
    native_R = np.isin(ids_R, native_ids)
    foreign_R = ~native_R & (ids_R > _INVALID) & (lengths_R >= _MIN_LETTERS[ids_R])
    latin_R = foreign_R & (ids_R == _IDS["LATIN"])
    for run in np.flatnonzero(foreign_R & (ids_R == _IDS["GREEK"])).tolist():
        start = int(starts_R[run])
        foreign_R[run] = _is_greek_word(text[start : start + int(lengths_R[run])])
    return int(words_R[native_R].sum()), int(words_R[foreign_R & ~latin_R].sum()), int(words_R[latin_R].sum())


def _is_greek_word(letters: str) -> bool:
    """Variables stand side by side (αβγ, ΑΒΓΔ), but never with accents, which nearly every Greek word has."""
    return (len(letters) > 3 and not letters.isupper()) or unicodedata.normalize("NFD", letters) != letters


def _only(codes_C: Any, ids_C: Any, native_ids: tuple[int, ...]) -> bytes:
    """The text in UTF-8 with a space for every letter of another script and for what UTF-8 or CLD2 refuses."""
    kept = np.zeros(len(_NAMES), dtype=bool)
    kept[[_NEUTRAL, *native_ids]] = True
    return np.where(kept[ids_C], codes_C, 32).astype("<u4").tobytes().decode("utf-32-le").encode()


def _script_ids(codes_C: Any) -> Any:
    """The number of each character's script in `_NAMES`, looked up in a table that fills as characters turn up."""
    table = _script_table()
    ids_C = table[codes_C]
    unseen_C = ids_C == _UNSEEN
    if unseen_C.any():
        for code in np.unique(codes_C[unseen_C]).tolist():
            table[code] = _script_id(chr(code))
        ids_C = table[codes_C]
    return ids_C


@lru_cache(maxsize=1)
def _script_table() -> Any:
    return np.full(0x110000, _UNSEEN, dtype=np.uint8)


def _script_id(char: str) -> int:
    category = unicodedata.category(char)
    if category in ("Cc", "Cs", "Cn"):
        return _NEUTRAL if char in "\t\n\r" else _INVALID
    if category[0] not in "LM":
        return _NEUTRAL
    names = unicodedata.name(char, "COMBINING").replace("-", " ").split()
    name = names[1] if names[0] in ("FULLWIDTH", "HALFWIDTH") else names[0]
    return _NEUTRAL if name in _STYLES else _IDS.get(name, _IDS["other"])

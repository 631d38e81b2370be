"""Share of a text in a given language: by script first, then by CLD2 among the languages of one script.

Example:

    measure_language("Then we 计算 the sum.", "en") == LanguageMeasures(share=2 / 3, num_foreign_words=2)
"""

import re
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import numpy as np

from distill.recipe.base import Language

MIN_DETECT_CHARS = 200
"""Text length (bytes in UTF-8) that CLD2 needs to tell languages of one script apart reliably."""

MIN_HIDDEN_WORDS = 4
"""Fewer words in a row in `\\text{…}` are labels and units, which belong to no language."""

MIN_PROMPT_CHARS = 24
"""Shorter prompts in Latin or Cyrillic script could be in any language of that script."""

# Matches code and LaTeX in one pass. An unclosed delimiter stops at the next one of its kind, and the possessive
# quantifiers never backtrack, so that the time is linear in the text's length even with thousands of open delimiters.
_NO_PROSE = re.compile(
    r"```[^`]*+(?:`(?!``)[^`]*+)*+(?:```|\Z)|`[^`\n]*+`"
    r"|\$\$[^$]*+(?:\$(?!\$)[^$]*+)*+\$\$|\$[^$\n]*+\$"
    r"|\\\[[^\\]*+(?:\\(?![\[\]])[^\\]*+)*+\\\]"
    r"|\\\([^\\]*+(?:\\(?![()])[^\\]*+)*+\\\)"
    r"|\\begin\{(\w++\*?)\}[^\\]*+(?:\\(?!begin\b|end\b)[^\\]*+)*+\\end\{\1\}"
    r"|\\[a-zA-Z]++(?:\{[^{}]*+\})*+|\\.",
    re.DOTALL,
)
_HIDDEN = re.compile(
    r"[\u0400-\u052f\u0590-\u06ff\u0900-\u0dff\u0e01-\u0e5b\u1100-\u11ff\u3041-\u30ff\u3131-\u318e\u3400-\u9fff"
    r"\uac00-\ud7af\uf900-\ufaff]+"
)
"""Letters of scripts in which neither formulas nor programs are written: what they spell is prose, wherever it is."""
_HIDDEN_SENTENCE = re.compile(
    rf"\\text\{{(?=\s*(?:[^\W\d_]{{2,}}[^\w{{}}]+){{{MIN_HIDDEN_WORDS - 1}}}[^\W\d_]{{2}})([^{{}}]+)"
)
"""A sentence in `\\text{…}`, which may be in another language of Latin script."""
_CONTROLS = bytes(32 if (byte < 32 and byte not in b"\t\n\r") or byte == 127 else byte for byte in range(256))
"""Byte table that replaces control characters, which CLD2 rejects, by spaces."""

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
"""Scripts by ISO 639-1 code, as Unicode character names start; every other language is written in Latin script."""

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
"""Languages that CLD2 confuses with each other in short texts; they do not count as foreign."""

_CLD2_CODES = {"iw": "he", "nb": "no"}

_NAMES = (
    *("neutral", "LATIN", "GREEK", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "THAI", "HANGUL", "ARABIC", "HEBREW"),
    *("DEVANAGARI", "other", "invalid"),
)
_IDS = {name: number for number, name in enumerate(_NAMES)}
_NEUTRAL, _LATIN_ID, _INVALID, _UNSEEN = 0, 1, len(_NAMES) - 1, 255
_STYLES = {
    *("MATHEMATICAL", "DOUBLE", "SCRIPT", "BLACK", "SUPERSCRIPT", "SUBSCRIPT", "COMBINING", "VARIATION", "MODIFIER"),
    *("MICRO", "OHM", "KELVIN", "ANGSTROM", "PLANCK", "FEMININE", "MASCULINE", "ALEF", "BET", "GIMEL", "DALET"),
    *("TURNED", "INFORMATION", "IDEOGRAPHIC", "PROTECTIVE", "EULER", "CIRCUMFLEX"),
}
"""First words of the Unicode names of letters and marks without a script: mathematical signs, units, accents."""

# In scripts without spaces, each letter counts as a word.
_WORD_BY_LETTER = np.isin(_NAMES, ("CJK", "HIRAGANA", "KATAKANA", "THAI"))
_MIN_LETTERS = np.where(_WORD_BY_LETTER | np.isin(_NAMES, "HANGUL"), 1, 2)


class LanguageMeasures(NamedTuple):
    """How much of a text is in the expected language."""

    share: float
    """Share of the words in it, in [0, 1]; 1.0 for a text without words."""
    num_foreign_words: int
    """Words in other languages, or letters for scripts without spaces. Latin words in a text of another script do not
    count: names, units and functions (sin, mod) are written in Latin everywhere."""


def language_share(text: str, language: str) -> float:
    """Return the share of words in `language` (ISO 639-1), in [0, 1]; 1.0 for a text without words.

    Words in another script are foreign; single foreign letters, such as a Greek variable, are not words. Among words
    of the right script, CLD2's shares count if the text is long enough. The measure is the language-consistency reward
    of DeepSeek-R1 (arXiv:2501.12948, section 2.3.2).
    """
    return measure_language(text, language).share


def measure_language(text: str, language: str) -> LanguageMeasures:
    """Measure a text against `language` (ISO 639-1), without its LaTeX and code."""
    plain = prose(text)
    if plain.isascii() and language not in SCRIPTS:
        foreign_share = _foreign_share_within_script(plain.encode(), language)
        return _together(len(plain.split()) if foreign_share else 1, 0, 0, foreign_share)
    codes_C = _codes(plain)
    ids_C = _script_ids(codes_C)
    set_aside_F = np.flatnonzero(_set_aside(_native_ids(language))[ids_C])
    num_foreign, num_latin = _count_foreign(plain, ids_C, set_aside_F)
    foreign_share = _foreign_share_within_script(_without(codes_C, set_aside_F), language)
    # Without foreign words, as in nearly every text, the number of words does not matter.
    mixed = num_foreign or num_latin or foreign_share
    num_native = _count_words(ids_C, np.flatnonzero(_is_native(_native_ids(language))[ids_C])) if mixed else 1
    return _together(num_native, num_foreign, num_latin, foreign_share)


def has_words(text: str) -> bool:
    """Return whether a text has a word outside of LaTeX and code; single letters, such as variables, are none."""
    ids_C = _script_ids(_codes(prose(text)))
    letters_F = np.flatnonzero((ids_C != _NEUTRAL) & (ids_C != _INVALID))
    if not letters_F.size:
        return False
    _, lengths_R, ids_R = _runs(ids_C, letters_F)
    return bool((lengths_R >= _MIN_LETTERS[ids_R]).any())


def foreign_spans(text: str, language: str) -> list[tuple[int, int]]:
    """Return the spans of the words that `measure_language` counts as foreign, by script or by CLD2.

    Latin words in a text of another script are included only if no other words are foreign by script.

    Returns:
        (start, end) in characters of the text, in order, without overlaps.
    """
    plain = _NO_PROSE.sub(lambda found: " " * len(found[0]), text)
    codes_C = _codes(plain)
    ids_C = _script_ids(codes_C)
    set_aside_F = np.flatnonzero(_set_aside(_native_ids(language))[ids_C])
    by_script: list[tuple[int, int]] = []
    if set_aside_F.size:
        starts_R, lengths_R, words_R, latin_R = _foreign_runs(plain, ids_C, set_aside_F)
        wanted_R = (words_R > 0) & ~latin_R
        wanted_R = wanted_R if wanted_R.any() else words_R > 0
        ends_R = starts_R + lengths_R
        by_script = list(zip(starts_R[wanted_R].tolist(), ends_R[wanted_R].tolist(), strict=True))
    native = _without(codes_C, set_aside_F)
    own = RELATIVES.get(language, set()) | {language}
    within = _pieces_in_other_languages(native, own) if _foreign_share_within_script(native, language) else []
    # Spans of both kinds may share characters other than letters (full stops, numbers); the first one keeps them.
    found: list[tuple[int, int]] = []
    for start, end in sorted([*by_script, *within]):
        start = max(start, found[-1][1] if found else 0)
        if start < end:
            found.append((start, end))
    return found


def _pieces_in_other_languages(native: bytes, own: set[str]) -> list[tuple[int, int]]:
    """Return (start, end) in characters of the parts of a UTF-8 text that CLD2 finds in languages other than `own`."""
    import pycld2

    _, _, _, pieces = pycld2.detect(native.translate(_CONTROLS), isPlainText=True, returnVectors=True)
    found = []
    for start, num_bytes, _, code in pieces:
        code = code.split("-")[0]
        if code != "un" and _CLD2_CODES.get(code, code) not in own:
            before, piece = native[:start].decode("utf-8", "ignore"), native[start : start + num_bytes]
            letters = piece.decode("utf-8", "ignore")
            first = len(before) + len(letters) - len(letters.lstrip())
            found.append((first, len(before) + len(letters.rstrip())))
    return found


def _together(num_native: int, num_foreign: int, num_latin: int, foreign_share: float) -> LanguageMeasures:
    """Combine both methods: CLD2's share refers to the words in the native script."""
    total = num_native + num_foreign + num_latin
    if total == 0:
        return LanguageMeasures(1.0, 0)
    within = num_native * foreign_share
    return LanguageMeasures((num_native - within) / total, num_foreign + (max(1, round(within)) if within else 0))


def prompt_language(text: str) -> str | None:
    """Return the language of a prompt, ISO 639-1, or `None` if it is too short or too mixed to tell."""
    plain = prose(text)
    codes_C = _codes(plain)
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
    set_aside_F = np.flatnonzero(_set_aside((_IDS[script],))[ids_C])
    found = _detect(_without(codes_C, set_aside_F), best_effort=True)
    known = [(code, percent) for code, percent in found if code in get_args(Language)]
    return known[0][0] if known and known[0][1] > 50 else None


def prose(text: str) -> str:
    """Return the text without code and LaTeX, which belong to no language."""
    return _NO_PROSE.sub(" ", text)


def hidden_prose(text: str) -> str:
    """Return the prose within a text's code and LaTeX, which the measures of this module leave out.

    A reader does not mind it, but what is rewarded for its language may hide all its words there.
    """
    pieces: list[str] = []
    for found in _NO_PROSE.finditer(text):
        pieces += _HIDDEN.findall(found[0]) + _HIDDEN_SENTENCE.findall(found[0])
    return " ".join(pieces)


def _foreign_share_within_script(native: bytes, language: str) -> float:
    """Return the share of the text that CLD2 finds in other languages, in [0, 1]; 0.0 if it is too short."""
    if len(native) < MIN_DETECT_CHARS:
        return 0.0
    found = _detect(native)
    known = sum(percent for _, percent in found)
    own = RELATIVES.get(language, set()) | {language}
    return sum(percent for code, percent in found if code not in own) / known if known else 0.0


def _detect(text: bytes, best_effort: bool = False) -> list[tuple[str, int]]:
    """Return (ISO 639-1 code, percent of the text) of up to three languages, largest first."""
    import pycld2

    _, _, found = pycld2.detect(text.translate(_CONTROLS), isPlainText=True, bestEffort=best_effort)
    # CLD2 uses the old code for Hebrew and a separate code for each Chinese script.
    shares = [(code.split("-")[0], percent) for _, code, percent, _ in found if code != "un"]
    return [(_CLD2_CODES.get(code, code), percent) for code, percent in shares]


@lru_cache
def _native_ids(language: str) -> tuple[int, ...]:
    return tuple(_IDS[script] for script in SCRIPTS.get(language, _LATIN))


@lru_cache
def _is_native(native_ids: tuple[int, ...]) -> Any:
    return np.isin(np.arange(len(_NAMES)), native_ids)


@lru_cache
def _set_aside(native_ids: tuple[int, ...]) -> Any:
    """Return a mask over `_NAMES` of what is hidden from CLD2: other scripts, and what it or UTF-8 rejects."""
    return ~np.isin(np.arange(len(_NAMES)), (_NEUTRAL, *native_ids))


# C = characters of a text, F = selected characters, R = runs of adjacent characters of one script
def _runs(ids_C: Any, places_F: Any) -> tuple[Any, Any, Any]:
    """Return (start, length, script) of each run of adjacent positions of one script."""
    ids_F = ids_C[places_F]
    breaks_F = (np.diff(places_F, prepend=-2) != 1) | (np.diff(ids_F, prepend=_UNSEEN) != 0)
    firsts_R = np.flatnonzero(breaks_F)
    return places_F[firsts_R], np.diff(firsts_R, append=places_F.size), ids_F[firsts_R]


def _count_words(ids_C: Any, places_F: Any) -> int:
    if not places_F.size:
        return 0
    _, lengths_R, ids_R = _runs(ids_C, places_F)
    return int(np.where(_WORD_BY_LETTER[ids_R], lengths_R, 1).sum())


def _count_foreign(text: str, ids_C: Any, places_F: Any) -> tuple[int, int]:
    """Return the number of words in other scripts except Latin, and in Latin; variables are not words."""
    if not places_F.size:
        return 0, 0
    _, _, words_R, latin_R = _foreign_runs(text, ids_C, places_F)
    return int(words_R[~latin_R].sum()), int(words_R[latin_R].sum())


def _foreign_runs(text: str, ids_C: Any, places_F: Any) -> tuple[Any, Any, Any, Any]:
    """Return (start, length, number of words, whether it is Latin) of each run of adjacent characters of one script."""
    starts_R, lengths_R, ids_R = _runs(ids_C, places_F)
    words_R = np.where(_WORD_BY_LETTER[ids_R], lengths_R, 1)
    words_R[(lengths_R < _MIN_LETTERS[ids_R]) | (ids_R == _INVALID)] = 0
    for run in np.flatnonzero((ids_R == _IDS["GREEK"]) & (words_R > 0)).tolist():
        start = int(starts_R[run])
        words_R[run] = _is_greek_word(text[start : start + int(lengths_R[run])])
    return starts_R, lengths_R, words_R, ids_R == _LATIN_ID


def _is_greek_word(letters: str) -> bool:
    """Return whether Greek letters form a word: nearly every word has accents, adjacent variables (αβγ, ΑΒΓΔ) none."""
    return (len(letters) > 3 and not letters.isupper()) or unicodedata.normalize("NFD", letters) != letters


def _without(codes_C: Any, places_F: Any) -> bytes:
    """Return the text in UTF-8 with a space at each of the positions."""
    codes_C = codes_C.copy()
    codes_C[places_F] = ord(" ")
    return bytes(codes_C.tobytes().decode("utf-32-le").encode())


def _codes(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _script_ids(codes_C: Any) -> Any:
    """Return each character's script as an index into `_NAMES`, from a table that is filled on demand."""
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
    if "FILLER" in names:
        return _NEUTRAL
    name = names[1] if names[0] in ("FULLWIDTH", "HALFWIDTH") else names[0]
    return _NEUTRAL if name in _STYLES else _IDS.get(name, _IDS["other"])

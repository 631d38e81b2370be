"""What makes a trace unreadable: another language mixed in, or the same words over and over.

Enters: a text. Leaves: measures in [0, 1] or counts; `unreadable` turns them into reasons.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from distill.recipe import Readability

MIN_COMPRESSED_CHARS = 1_000
"""Shorter texts always compress well or badly by chance."""

MIN_DETECT_CHARS = 200
"""Letters that CLD2 needs to tell languages of one script apart with some certainty."""

LOOP_UNIT_WORDS = (4, 200)
"""Fewest and most words in a piece that counts as a loop when it follows itself."""

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_LATEX = re.compile(
    # Bounded, for a text in a loop may open thousands of formulas and never close one.
    r"\$\$.*?\$\$|\$[^$\n]*\$|\\\[.{0,4000}?\\\]|\\\(.{0,1000}?\\\)|\\begin\{(\w+\*?)\}.{0,4000}?\\end\{\1\}"
    r"|\\[a-zA-Z]+(?:\{[^{}]*\})*",
    re.DOTALL,
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

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

LATIN = ("LATIN",)


def unreadable(text: str, config: Readability) -> list[str]:
    """The reasons for which a text is not fit to learn from (see `distill.records.REASONS`)."""
    reasons = []
    if config.language is not None and language_share(text, config.language) < config.min_language_share:
        reasons.append("mixed_language")
    too_regular = config.max_compression_ratio is not None and compression_ratio(text) > config.max_compression_ratio
    if too_regular or (config.max_loop_repeats is not None and tail_repeats(text) > config.max_loop_repeats):
        reasons.append("repetition")
    return reasons


def prose(text: str) -> str:
    """The text without code and LaTeX, which belong to no language."""
    return _LATEX.sub(" ", _CODE.sub(" ", text))


def language_share(text: str, language: str) -> float:
    """Share of the words that are in `language`, in [0, 1]; 1.0 for a text without words.

    Words in another script are foreign (single foreign letters, such as a Greek variable, are not words). Among words
    of the right script, CLD2's shares count where the text is long enough for it to be reliable. The same measure is
    the language-consistency reward of DeepSeek-R1 (arXiv:2501.12948, section 2.3.2).

    Args:
        text: any text.
        language: ISO 639-1 code.
    """
    scripts = SCRIPTS.get(language, LATIN)
    # Scripts without spaces: each of their letters counts as a word.
    num_native = num_foreign = 0
    native: list[str] = []
    for script, word in _words(text):
        num = len(word) if script in ("CJK", "HIRAGANA", "KATAKANA", "THAI") else 1
        if script in scripts:
            num_native += num
            native.append(word)
        elif len(word) > 1 or script in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL"):
            num_foreign += num
    total = num_native + num_foreign
    if total == 0:
        return 1.0
    return num_native / total * _share_within_script(" ".join(native), language)


def _words(text: str) -> Iterator[tuple[str, str]]:
    """(script, word) of the text's words, cut where the script changes: `πr` is two variables, `then计算` two words."""
    for word in _WORD.findall(prose(text)):
        scripts = {_script(char) for char in word if char.isalpha()}
        if len(scripts) == 1:
            yield scripts.pop(), word
        else:
            for script, letters in groupby(filter(str.isalpha, word), key=_script):
                yield script, "".join(letters)


def _share_within_script(text: str, language: str) -> float:
    """CLD2's share of `language` among the languages that it is sure about; 1.0 where it is not sure."""
    if len(text) < MIN_DETECT_CHARS:
        return 1.0
    import pycld2

    reliable, _, found = pycld2.detect(text, bestEffort=False)
    # CLD2 still calls Hebrew by its old code, and tells Chinese scripts apart.
    shares = [({"iw": "he"}.get(code, code.split("-")[0]), percent) for _, code, percent, _ in found if code != "un"]
    known = sum(percent for _, percent in shares)
    if not reliable or known == 0:
        return 1.0
    return float(sum(percent for code, percent in shares if code == language) / known)


@lru_cache(maxsize=65_536)
def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN").split(" ")[0].split("-")[0]


def compression_ratio(text: str) -> float:
    """Raw size over zlib-compressed size; 1.0 for texts under 1,000 characters."""
    if len(text) < MIN_COMPRESSED_CHARS:
        return 1.0
    raw = text.encode("utf-8", "replace")
    return len(raw) / len(zlib.compress(raw, 6))


def tail_repeats(text: str) -> int:
    """How often the piece of 4 to 200 words at the end of the text follows itself there; 1 means no loop."""
    words = text.split()[-20 * LOOP_UNIT_WORDS[1] :]
    most = 1
    for unit in range(LOOP_UNIT_WORDS[0], min(LOOP_UNIT_WORDS[1], len(words) // 2) + 1):
        if words[-1] != words[-1 - unit]:  # nearly every unit ends here
            continue
        piece, repeats = words[-unit:], 1
        while words[len(words) - (repeats + 1) * unit : len(words) - repeats * unit] == piece:
            repeats += 1
        most = max(most, repeats)
    return most

r"""A text's pieces: its words, five in a row, each piece a 64-bit hash.

Enters: `"Find $x^2 + 1$ for the given x = 3."`, whose words are `find x ^ 2 + 1 for the given x = 3`. Leaves: eight
hashes, one for each five words in a row.

A word is a run of letters and digits, case folded; an operator (`+ - * / ^ = < > | %`, a mathematical symbol) and a
Chinese, Japanese or Thai letter are words of their own. Other punctuation, LaTeX spacing and LaTeX's words for size and
font count for nothing. Words are cut and hashed as arrays, over whole batches of texts: a Python loop over words would
cost several times as much as all that follows.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

Hashes = Any
"""A numpy array of uint64, whose shape each function names."""

Positions = Any
"""A numpy array of indices."""

SHINGLE_WORDS = 5

SEGMENT_BYTES = 1 << 16
"""So much text is worked on at once: what is made of it stays in a core's cache, and a long text takes no more."""

SILENT_COMMANDS = (
    b"left right middle big bigl bigr bigg biggl biggr displaystyle textstyle quad qquad text textrm "
    b"textbf textit mathrm mathbf mathit operatorname limits nolimits"
).split()
"""LaTeX commands that change how a formula looks and not what it says."""

SAME_COMMANDS = {b"dfrac": b"frac", b"tfrac": b"frac", b"cfrac": b"frac", b"leq": b"le", b"geq": b"ge", b"neq": b"ne"}
"""LaTeX commands with several names."""

_BASE = 0x9E3779B97F4A7C15
_OPERATORS = b"+-*/^=<>|%"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def shingles(text: str) -> frozenset[int]:
    """The text's distinct pieces as 64-bit hashes, at least one.

    Of a text of fewer than `SHINGLE_WORDS` words, all its pieces of every length; of one without words, the text.
    """
    return frozenset(flat_shingles([text])[0].tolist())


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """The exact share of pieces that two texts have in common, in [0, 1]."""
    both = len(left & right)
    return both / (len(left) + len(right) - both)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in their order, as many together as have `SEGMENT_BYTES` characters, and at least one."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > SEGMENT_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def flat_shingles(texts: Sequence[str]) -> tuple[Hashes, Hashes]:
    """All pieces of N texts in one row, and where each text's begin and end in it: (P,), (N + 1,)."""
    words, words_before = _word_hashes([_ascii_fold(text) for text in texts])
    num_words = np.diff(words_before)
    row_of_word: Positions = np.repeat(np.arange(len(texts)), num_words)
    inside = row_of_word[: 1 - SHINGLE_WORDS] == row_of_word[SHINGLE_WORDS - 1 :]
    hashes, rows = [_pieces(words, SHINGLE_WORDS)[inside]], [row_of_word[: 1 - SHINGLE_WORDS][inside]]
    for row in np.flatnonzero(num_words < SHINGLE_WORDS):
        few = _pieces_of_few(texts[row], words[words_before[row] : words_before[row + 1]])
        hashes.append(few)
        rows.append(np.full(len(few), row))
    row_of_piece = np.concatenate(rows)
    offsets: Hashes = np.zeros(len(texts) + 1, dtype=np.uint64)
    np.cumsum(np.bincount(row_of_piece, minlength=len(texts)), out=offsets[1:])
    flat = np.concatenate(hashes)
    return (flat if len(rows) == 1 else flat[np.argsort(row_of_piece, kind="stable")]), offsets


def _pieces(words: Hashes, length: int) -> Hashes:
    """The hash of `length` words in a row, from each word on that has so many after it."""
    num_pieces = max(0, len(words) - length + 1)
    piece: Hashes = np.full(num_pieces, length, dtype=np.uint64)
    for step in range(length):
        piece = piece * np.uint64(_BASE) + words[step : step + num_pieces]
    return mix(piece)


def _pieces_of_few(text: str, words: Hashes) -> Hashes:
    """The pieces of every length of a text of a few words; a text without any is one piece itself."""
    if not len(words):
        return np.array([_whole_hash(text)], dtype=np.uint64)
    return np.concatenate([_pieces(words, length) for length in range(1, len(words) + 1)])


def _whole_hash(text: str) -> int:
    folded = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "little")


def _word_hashes(folded: Sequence[bytes]) -> tuple[Hashes, Positions]:
    """All words of N texts in one row, and how many there are before each text and in all: (W,), (N + 1,)."""
    joined = b" ".join(folded)
    begins = [0, *accumulate(len(text) + 1 for text in folded)]
    hashes: list[Hashes] = [np.empty(0, dtype=np.uint64)]
    positions: list[Positions] = [np.empty(0, dtype=np.intp)]
    for start, stop in _segments(joined, begins):
        segment_hashes, segment_positions = _segment_hashes(joined[start:stop])
        hashes.append(segment_hashes)
        positions.append(segment_positions + start)
    return np.concatenate(hashes), np.searchsorted(np.concatenate(positions), begins)


def _segments(joined: bytes, begins: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of at most `SEGMENT_BYTES`: whole texts, and long texts cut at spaces.

    A long text is cut from its own begin on, so that its words do not depend on which texts stand before it.
    """
    start = 0
    for begin, end in pairwise(begins):
        if end - start > SEGMENT_BYTES and begin > start:
            yield start, begin
            start = begin
        while end - start > SEGMENT_BYTES:
            space = joined.rfind(b" ", start, start + SEGMENT_BYTES)
            stop = space + 1 if space >= start else start + SEGMENT_BYTES
            yield start, stop
            start = stop
    if start < len(joined):
        yield start, len(joined)


def _segment_hashes(segment: bytes) -> tuple[Hashes, Positions]:
    """The words' hashes and where each begins.

    A word's hash is a polynomial in its bytes. All come from one running sum of byte times power, in which a word is
    the difference of two places, brought back to the word's begin by the inverse power (arithmetic modulo 2**64).
    """
    forms, operators = _byte_forms()
    powers, inverses = _powers()
    raw = np.frombuffer(segment, dtype=np.uint8)
    form = np.frombuffer(segment.translate(forms), dtype=np.uint8)
    operator = np.frombuffer(segment.translate(operators), dtype=bool)
    breaks: Any = np.ones(len(raw), dtype=bool)
    breaks[1:] = operator[1:] | operator[:-1] | (form[:-1] == 0)
    begins = np.flatnonzero(breaks & (form != 0))
    sums: Hashes = np.zeros(len(raw) + 1, dtype=np.uint64)
    np.cumsum(form.astype(np.uint64) * powers[: len(raw)], out=sums[1:])
    ends = np.append(begins[1:], len(raw))
    hashes = mix((sums[ends] - sums[begins]) * inverses[begins])
    commands = np.flatnonzero(raw[np.maximum(begins, 1) - 1] == ord("\\"))
    return _without_silent(hashes, begins, commands) if len(commands) else (hashes, begins)


def _without_silent(hashes: Hashes, begins: Positions, commands: Positions) -> tuple[Hashes, Positions]:
    """The words without the LaTeX `commands` (their indices) that count for nothing, and one name for synonyms."""
    names, meanings = _latex_hashes()
    place = np.minimum(np.searchsorted(names, hashes[commands]), len(names) - 1)
    known = names[place] == hashes[commands]
    hashes[commands[known]] = meanings[place[known]]
    silent = commands[known][meanings[place[known]] == 0]
    return np.delete(hashes, silent), np.delete(begins, silent)


@lru_cache(maxsize=1)
def _byte_forms() -> tuple[bytes, bytes]:
    """For each of the 256 bytes: what it counts as in a word (0: in none), and 1 where it is a word by itself."""
    forms = bytes(
        byte if byte >= 0x80 or byte in _OPERATORS else ord(chr(byte).lower()) * chr(byte).isalnum()
        for byte in range(256)
    )
    return forms, bytes(byte in _OPERATORS for byte in range(256))


@lru_cache(maxsize=1)
def _powers() -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse modulo 2**64, from 0 on: (SEGMENT_BYTES,) both."""

    def powers(base: int) -> Hashes:
        factors: Hashes = np.full(SEGMENT_BYTES, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


@lru_cache(maxsize=1)
def _latex_hashes() -> tuple[Hashes, Hashes]:
    """Hashes of LaTeX commands in ascending order, and what each means: another's hash, or 0 for nothing."""
    names, _ = _segment_hashes(b" ".join([*SILENT_COMMANDS, *SAME_COMMANDS]))
    plain, _ = _segment_hashes(b" ".join(SAME_COMMANDS.values()))
    order = np.argsort(names)
    return names[order], np.append(np.zeros(len(SILENT_COMMANDS), dtype=np.uint64), plain)[order]


def mix(values: Hashes) -> Hashes:
    """Every bit of the input changes every bit of the output (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _ascii_fold(text: str) -> bytes:
    """The text in UTF-8, what is not ASCII folded; ASCII itself is folded byte by byte later."""
    return (text if text.isascii() else _NOT_ASCII.sub(_fold_match, text)).encode()


def _fold_match(run: re.Match[str]) -> str:
    return _fold_short(run[0]) if len(run[0]) <= 32 else _fold(run[0])


@lru_cache(maxsize=8_192)
def _fold_short(run: str) -> str:
    return _fold(run)


def _fold(run: str) -> str:
    return _UNSPACED.sub(r" \g<0> ", "".join(map(_fold_char, run.casefold())))


@lru_cache(maxsize=65_536)
def _fold_char(char: str) -> str:
    """The minus sign as ASCII has it, mathematical symbols between spaces, other punctuation as a space."""
    if char == "\N{MINUS SIGN}":
        return "-"
    category = unicodedata.category(char)
    if category == "Sm":
        return f" {char} "
    return char if category[0] in "LMN" else " "

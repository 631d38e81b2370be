r"""Word shingles of texts: every five words in a row, as a 64-bit hash.

For example, the words of `"Find $x^2 + 1$ for the given x = 3."` are `find x ^ 2 + 1 for the given x = 3`, which gives
eight hashes.

A word is a run of letters and digits, case folded. An operator (`+ - * / ^ = < > | %`, a mathematical symbol) and a
Chinese, Japanese or Thai letter are words of their own. Other punctuation, LaTeX spacing and LaTeX commands for size
and font are ignored. Words are cut and hashed as arrays over whole batches of texts: a Python loop over words would
cost several times as much as everything else.
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
"""A numpy array of uint64; each function documents the shape."""

Positions = Any
"""A numpy array of indices."""

SHINGLE_WORDS = 5

SEGMENT_BYTES = 1 << 16
"""Text processed at once: its arrays stay in a core's cache, and a long text needs no more memory."""

SILENT_COMMANDS = (
    b"left right middle big bigl bigr bigg biggl biggr displaystyle textstyle quad qquad text textrm "
    b"textbf textit mathrm mathbf mathit operatorname limits nolimits"
).split()
"""LaTeX commands that change only how a formula looks."""

SAME_COMMANDS = {b"dfrac": b"frac", b"tfrac": b"frac", b"cfrac": b"frac", b"leq": b"le", b"geq": b"ge", b"neq": b"ne"}
"""LaTeX synonyms and their canonical commands."""

_BASE = 0x9E3779B97F4A7C15
_OPERATORS = b"+-*/^=<>|%"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def shingles(text: str) -> frozenset[int]:
    """Return the text's distinct pieces as 64-bit hashes, at least one.

    A text of fewer than `SHINGLE_WORDS` words yields its pieces of every length; one without words yields itself.
    """
    return frozenset(flat_shingles([text])[0].tolist())


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """Return the exact share of pieces that two texts have in common, in [0, 1]."""
    both = len(left & right)
    return both / (len(left) + len(right) - both)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield batches of texts, in order, of up to `SEGMENT_BYTES` characters and at least one text each."""
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
    """Return all pieces of N texts in one array, and each text's offsets in it: (P,), (N + 1,)."""
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
    """Return the hashes of every `length` words in a row."""
    num_pieces = max(0, len(words) - length + 1)
    piece: Hashes = np.full(num_pieces, length, dtype=np.uint64)
    for step in range(length):
        piece = piece * np.uint64(_BASE) + words[step : step + num_pieces]
    return mix(piece)


def _pieces_of_few(text: str, words: Hashes) -> Hashes:
    """Return the pieces of every length of a text of few words; a text without words is one piece."""
    if not len(words):
        return np.array([_whole_hash(text)], dtype=np.uint64)
    return np.concatenate([_pieces(words, length) for length in range(1, len(words) + 1)])


def _whole_hash(text: str) -> int:
    folded = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "little")


def _word_hashes(folded: Sequence[bytes]) -> tuple[Hashes, Positions]:
    """Return all words of N texts in one array, and how many precede each text and in total: (W,), (N + 1,)."""
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
    """Yield (start, stop) of segments of at most `SEGMENT_BYTES`: whole texts, and long texts cut at spaces.

    A long text is cut relative to its own start, so that its words do not depend on the texts before it.
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
    """Return the words' hashes and where each word begins.

    A word's hash is a polynomial in its bytes. All come from one running sum of byte times power: the difference of
    two positions, scaled by the inverse power at the word's start (arithmetic modulo 2**64).
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
    """Remove those LaTeX `commands` (indices of words) that are ignored, and give synonyms one hash."""
    names, meanings = _latex_hashes()
    place = np.minimum(np.searchsorted(names, hashes[commands]), len(names) - 1)
    known = names[place] == hashes[commands]
    hashes[commands[known]] = meanings[place[known]]
    silent = commands[known][meanings[place[known]] == 0]
    return np.delete(hashes, silent), np.delete(begins, silent)


@lru_cache(maxsize=1)
def _byte_forms() -> tuple[bytes, bytes]:
    """Return two tables of the 256 bytes: the value in a word (0: none), and 1 for a word by itself."""
    forms = bytes(
        byte if byte >= 0x80 or byte in _OPERATORS else ord(chr(byte).lower()) * chr(byte).isalnum()
        for byte in range(256)
    )
    return forms, bytes(byte in _OPERATORS for byte in range(256))


@lru_cache(maxsize=1)
def _powers() -> tuple[Hashes, Hashes]:
    """Return the powers from 0 of the base and of its inverse modulo 2**64: (SEGMENT_BYTES,) each."""

    def powers(base: int) -> Hashes:
        factors: Hashes = np.full(SEGMENT_BYTES, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


@lru_cache(maxsize=1)
def _latex_hashes() -> tuple[Hashes, Hashes]:
    """Return the hashes of LaTeX commands, ascending, and the hash of what each means, 0 for nothing."""
    names, _ = _segment_hashes(b" ".join([*SILENT_COMMANDS, *SAME_COMMANDS]))
    plain, _ = _segment_hashes(b" ".join(SAME_COMMANDS.values()))
    order = np.argsort(names)
    return names[order], np.append(np.zeros(len(SILENT_COMMANDS), dtype=np.uint64), plain)[order]


def mix(values: Hashes) -> Hashes:
    """Mix hashes so that every input bit affects every output bit (finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _ascii_fold(text: str) -> bytes:
    """Return the text in UTF-8 with non-ASCII characters folded; ASCII is folded byte by byte later."""
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
    """Fold the minus sign to ASCII, put spaces around mathematical symbols, replace other punctuation by a space."""
    if char == "\N{MINUS SIGN}":
        return "-"
    category = unicodedata.category(char)
    if category == "Sm":
        return f" {char} "
    return char if category[0] in "LMN" else " "

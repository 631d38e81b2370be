"""Measures of repetition in a text: compression of windows, verbatim repeats in them, loops at the end. Example:

    measure_repetition("Wait. " * 2_000)   # RepetitionMeasures(compression_ratio=80.3, repeated_share=0.999)

`repeated_spans` and `loop_spans` return the positions, for display.
"""

import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from distill.filters.tandem import find_runs

MIN_COMPRESSED_CHARS = 1_000
"""Compression ratios of shorter texts are unreliable."""

WINDOW_CHARS, STRIDE_CHARS = 4_096, 2_048
"""Windows overlap by half, so that a loop anywhere in a text fills most of one of them."""

PIECE_BYTES = 64
"""Pieces that count as verbatim repeats. Lines of a table or an enumeration are shorter, or differ in a number."""

MIN_LZ4_RATIO = 3.0
"""Windows that LZ4 compresses less (prose 1.5 to 2, worked mathematics up to 3) contain no loop and are not compressed
with zlib, which takes eight times as long."""

LOOP_UNIT_WORDS = (4, 200)
"""Minimum and maximum words in a piece that counts as a loop when repeated."""

MAX_LOOP_WORDS = 20 * LOOP_UNIT_WORDS[1]
MAX_LOOP_CHARS = 10 * MAX_LOOP_WORDS

MIN_CHAR_REPEATS, MIN_LOOP_CHARS = 3, 64
"""Minimum repeats and length of a loop of characters at the end, which is shown if no loop of words is found."""

_WORD = re.compile(r"\S+")


class RepetitionMeasures(NamedTuple):
    """Measures of the window that compresses best; (1.0, 0.0) if even that one shows no loop."""

    compression_ratio: float
    """Raw size over zlib-compressed size."""
    repeated_share: float
    """Share of the 64-byte pieces, one from every byte, that occurred earlier in the window, in [0, 1]."""


def measure_repetition(text: str) -> RepetitionMeasures:
    """Measure compression, and verbatim repeats if it is high. Texts under 1,000 characters count as free of loops.

    Long tables, enumerations of cases and worked divisions compress as well as loops do, but only loops repeat long
    pieces verbatim: in the others, numbers change.
    """
    if len(text) < MIN_COMPRESSED_CHARS:
        return RepetitionMeasures(1.0, 0.0)
    lz4_ratio, raw, _ = _most_regular_window(text)
    if lz4_ratio < MIN_LZ4_RATIO:
        return RepetitionMeasures(1.0, 0.0)
    return RepetitionMeasures(len(raw) / len(zlib.compress(raw, 1)), _repeated_share(raw))


def repeated_spans(text: str) -> list[tuple[int, int]]:
    """Return where the most regular window repeats earlier text in pieces of 64 bytes.

    Returns:
        (start, end) in characters of the text, in order and not adjacent; empty for texts under 1,000 characters.
    """
    if len(text) < MIN_COMPRESSED_CHARS:
        return []
    _, raw, start = _most_regular_window(text)
    if len(raw) <= PIECE_BYTES:
        return []
    hashes_P = _piece_hashes(raw)
    repeats_P = np.ones(hashes_P.size, dtype=bool)
    repeats_P[np.unique(hashes_P, return_index=True)[1]] = False
    # B = bytes of the window: repeated pieces that begin at a byte, less those that end there
    steps_B: Any = np.zeros(len(raw) + 1, dtype=np.int64)
    steps_B[: repeats_P.size] += repeats_P
    steps_B[PIECE_BYTES : PIECE_BYTES + repeats_P.size] -= repeats_P
    edges = np.flatnonzero(np.diff((np.cumsum(steps_B) > 0).astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    ends_C = np.cumsum([len(char.encode("utf-8", "replace")) for char in text[start : start + WINDOW_CHARS]])
    places: Any = start + np.searchsorted(ends_C, edges, side="right")
    return [(low, high) for low, high in places.tolist() if low < high]


def _most_regular_window(text: str) -> tuple[float, bytes, int]:
    """Return (LZ4 ratio, bytes, first character) of the window that compresses best."""
    codec = _lz4()
    return max((len(raw) / len(codec.compress(raw, asbytes=True)), raw, start) for raw, start in _windows(text))


def _windows(text: str) -> Iterator[tuple[bytes, int]]:
    """Yield overlapping windows, the last one of full size too, each with its first character."""
    last = max(0, len(text) - WINDOW_CHARS)
    for start in (*range(0, last, STRIDE_CHARS), last):
        yield text[start : start + WINDOW_CHARS].encode("utf-8", "replace"), start


@lru_cache(maxsize=1)
def _lz4() -> Any:
    import pyarrow as pa

    return pa.Codec("lz4_raw")


def _repeated_share(raw: bytes) -> float:
    """Return the share of the pieces of `PIECE_BYTES` that occurred before."""
    hashes_P = _piece_hashes(raw)
    return 1.0 - float(np.unique(hashes_P).size / hashes_P.size)


def _piece_hashes(raw: bytes) -> Any:
    """Return a hash of the piece of `PIECE_BYTES` at every byte where one starts."""
    # P = positions where a piece starts; the hash of a piece combines those of its halves
    hashes_P = np.ndarray((len(raw) - 7,), "<u8", raw, 0, (1,)) * np.uint64(0x9E3779B97F4A7C15)
    length = 8
    while length < PIECE_BYTES:
        left_P, right_P = hashes_P[:-length], hashes_P[length:]
        hashes_P = (left_P ^ (left_P >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) + right_P
        length *= 2
    return hashes_P


def tail_repeats(text: str) -> int:
    """Return how often the piece of 4 to 200 words at the end of the text occurs there in a row; 1: no loop."""
    return _tail_loop(text)[1]


def loop_at_end(text: str) -> tuple[int, int] | None:
    """Return (start, end) in characters of a loop at the end of the text, or `None`.

    A loop consists of words, as counted by `tail_repeats`, or else of characters: a piece of any length that occurs at
    least `MIN_CHAR_REPEATS` times in a row, the last time possibly cut off.
    """
    unit, repeats = _tail_loop(text)
    if repeats >= MIN_CHAR_REPEATS:
        words = [found.start() for found in _WORD.finditer(text, max(0, len(text) - MAX_LOOP_CHARS))]
        return words[-unit * repeats], len(text)
    return _loop_of_characters(text)


def loop_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) in characters of loops anywhere in the text and at its end, in order and disjoint."""
    spans = [(run.start, run.end) for run in find_runs(text)]
    at_end = loop_at_end(text)
    return spans if at_end is None or (spans and spans[-1][1] > at_end[0]) else [*spans, at_end]


def _loop_of_characters(text: str) -> tuple[int, int] | None:
    tail = text[-MAX_LOOP_CHARS:]
    if len(tail) < MIN_LOOP_CHARS:
        return None
    probe, before = tail[-MIN_LOOP_CHARS // 4 :], len(tail) - 1
    codes_C = np.frombuffer(tail.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    while (end := tail.rfind(probe, 0, before)) >= 0:
        period = len(tail) - len(probe) - end
        if len(tail) < period * MIN_CHAR_REPEATS:
            return None
        differs = np.flatnonzero(codes_C[period:] != codes_C[:-period])
        start = int(differs[-1]) + 1 if differs.size else 0
        if len(tail) - start >= max(MIN_LOOP_CHARS, period * MIN_CHAR_REPEATS):
            return len(text) - len(tail) + start, len(text)
        before = end + len(probe) - 1
    return None


def _tail_loop(text: str) -> tuple[int, int]:
    """Return (words in the piece, number of occurrences) of the loop at the end; (0, 1) without one."""
    tail = text[-MAX_LOOP_CHARS:].rstrip()
    if not _occurs_before(tail):
        return 0, 1
    words = tail.split()[-MAX_LOOP_WORDS:]
    most = (0, 1)
    for unit in range(LOOP_UNIT_WORDS[0], min(LOOP_UNIT_WORDS[1], len(words) // 2) + 1):
        if words[-1] != words[-1 - unit]:  # rules out nearly every unit
            continue
        piece, repeats = words[-unit:], 1
        while words[len(words) - (repeats + 1) * unit : len(words) - repeats * unit] == piece:
            repeats += 1
        if repeats > most[1]:
            most = (unit, repeats)
    return most


def _occurs_before(tail: str) -> bool:
    """Return whether the last words occurred before, as in every loop. Cheaper than comparing all words."""
    rest = tail.rsplit(None, LOOP_UNIT_WORDS[0])
    if len(rest) <= LOOP_UNIT_WORDS[0]:
        return False
    return tail.rfind(tail[len(rest[0]) :].strip(), 0, len(tail) - 1) >= 0

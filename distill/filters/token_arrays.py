r"""Tokens of many texts at once as 64-bit hashes, equivalent to `math_words.tokens`.

The hashes form one array, with a mark after each line and each text. Example:

    hash_tokens(["Let $x^2 \\leq 4$.", "y"])    # let x ^ 2 le 4 END y END, each as its hash

Bytes are classified, cut and hashed as arrays; a Python loop over words would take several times as long as everything
else. Bytes whose role depends on their neighbours (hyphens, decimal points, thousands separators, backslashes) are
settled separately at the few positions where they occur.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from distill.filters.shingles import SEGMENT_BYTES, mix
from distill.sources.math_words import COMMANDS, IGNORED, fold_bytes, fold_characters

# B = bytes of a segment, N = tokens
Hashes: TypeAlias = NDArray[np.uint64]
Places: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

_BASE = 0x9E3779B97F4A7C15
_OTHER, _LETTER, _DIGIT, _ALONE = range(4)
"""Classes of bytes; an `_ALONE` byte is a token by itself."""
_TEXT_END, _LINE_END = b"\0", b"\n"
_OPERATORS = b"+-*/=<>^%&"
_UNSURE = b"-!,.\\"
"""Bytes whose role depends on their neighbours."""
_HYPHEN, _BANG, _COMMA, _POINT, _BACKSLASH = _UNSURE
_MARGIN = 4
"""Positions read before and after a byte."""


def hash_tokens(texts: Sequence[str]) -> Hashes:
    """Hash all tokens of the texts in order, with `LINE` between lines and `END` after each text: (N,).

    Equal tokens have equal hashes; different ones collide with a probability of about 1 in 10^19 per pair.
    """
    found = [_hash_segment(segment) for segment in _folded_segments(texts)]
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def hash_words(words: Sequence[str]) -> Hashes:
    """Hash canonical tokens (`math_words.canonical`) given as strings: (N,)."""
    encoded = [word.encode(errors="replace") for word in words]
    ends = np.fromiter(accumulate(map(len, encoded)), np.int64, len(encoded))
    form = np.frombuffer(b"".join(encoded), np.uint8)
    return _polynomials(form, ends - np.fromiter(map(len, encoded), np.int64, len(encoded)), ends)


def _folded_segments(texts: Sequence[str]) -> Iterator[bytes]:
    """Yield the folded texts in segments that stay in a core's cache, with an end mark after each text.

    A longer text is cut at spaces relative to its own start, so that its tokens do not depend on the texts before it.
    """
    encoded = [text.encode() if text.isascii() else fold_characters(text).encode(errors="replace") for text in texts]
    joined = _TEXT_END.join([*encoded, b""])
    if joined.count(_TEXT_END) > len(encoded):
        joined = _TEXT_END.join([*(text.replace(_TEXT_END, b" ") for text in encoded), b""])
    joined = fold_bytes(joined)
    start = 0
    while start < len(joined):
        stop = start + SEGMENT_BYTES
        cut = len(joined) if stop >= len(joined) else joined.rfind(_TEXT_END, start, stop) + 1
        stop = cut or joined.rfind(b" ", start, stop) + 1 or stop
        yield joined[start:stop]
        start = stop


def _hash_segment(segment: bytes) -> Hashes:
    segment = _without_thousands(segment)
    forms, classes, unsure = _tables()
    form_B: Bytes = np.frombuffer(bytearray(segment.translate(forms)), np.uint8)
    class_B: Bytes = np.zeros(len(segment) + 2 * _MARGIN, np.uint8)
    class_B[_MARGIN:-_MARGIN] = np.frombuffer(segment.translate(classes), np.uint8)
    here = class_B[_MARGIN:-_MARGIN]
    begins_B = (here != class_B[_MARGIN - 1 : -_MARGIN - 1]) | (here == _ALONE)
    begins_B &= here != _OTHER
    at = np.flatnonzero(np.frombuffer(segment.translate(unsure), np.uint8))
    commands = _decide(segment, at, form_B, class_B, begins_B)
    begins: Places = np.flatnonzero(begins_B)
    hashes = _polynomials(form_B, begins, np.append(begins[1:], len(segment)))
    return _without_silent(hashes, np.searchsorted(begins, commands)) if len(commands) else hashes


def _without_thousands(segment: bytes) -> bytes:
    """Remove thousands separators (`1,234`): commas between a digit and exactly three digits."""
    raw = np.frombuffer(segment, np.uint8)
    at = np.flatnonzero(raw == _COMMA)
    if not len(at):
        return segment
    is_digit: NDArray[np.bool_] = np.zeros(len(raw) + 2 * _MARGIN, bool)
    is_digit[_MARGIN:-_MARGIN] = (raw >= ord("0")) & (raw <= ord("9"))
    at = at[is_digit[at + _MARGIN - 1] & is_digit[at + _MARGIN + 1]]
    near = at + _MARGIN
    at = at[is_digit[near + 2] & is_digit[near + 3] & ~is_digit[near + 4]]
    return np.delete(raw, at).tobytes() if len(at) else segment


def _decide(segment: bytes, at: Places, form_B: Bytes, class_B: Bytes, begins_B: NDArray[np.bool_]) -> Places:
    """Settle the unsure bytes in `form_B` and `begins_B`; return where the letters of LaTeX commands begin."""
    kind = np.frombuffer(segment, np.uint8)[at]
    near = at + _MARGIN
    before, after = class_B[near - 1], class_B[near + 1]
    hyphens = at[
        (kind == _HYPHEN) & (before == _LETTER) & (after == _LETTER) & (class_B[near + 2] == _LETTER)
    ]  # as in `four-digit`
    begins_B[hyphens] = False
    form_B[hyphens] = 0
    factorials = at[(kind == _BANG) & (before == _DIGIT)]
    begins_B[factorials] = True
    form_B[factorials] = _BANG
    points = at[(kind == _POINT) & (before == _DIGIT) & (after == _DIGIT)]
    if len(points):
        numbers = np.flatnonzero(begins_B & (class_B[_MARGIN:-_MARGIN] == _DIGIT))
        points = _decimal_points(np.searchsorted(numbers, points), numbers)
        begins_B[points + 1] = False
        form_B[points] = _POINT
    slashes = at[kind == _BACKSLASH]
    if not len(slashes):
        return slashes
    is_first = _places_in_run(np.diff(slashes, prepend=-2) != 1) % 2 == 0
    next_is_slash = (np.diff(slashes, append=-2) == 1)[is_first]
    first = slashes[is_first]
    breaks = first[next_is_slash]
    begins_B[breaks] = True
    form_B[breaks] = _BACKSLASH
    return first[~next_is_slash & (class_B[first + _MARGIN + 1] == _LETTER)] + 1


def _decimal_points(after: Places, numbers: Places) -> Places:
    """Return the points that join two runs of digits to one number: `1.2.3` is `1.2` and `3`.

    Args:
        after: index of the run after each point between two runs.
        numbers: where the runs begin.
    """
    is_joined: NDArray[np.bool_] = np.zeros(len(numbers), bool)
    is_joined[after] = True
    joins = is_joined & (_places_in_run(~is_joined) % 2 == 1)
    return numbers[joins] - 1


def _places_in_run(is_first: NDArray[np.bool_]) -> Places:
    """Return the position of each element within its run; a run begins at each first."""
    index = np.arange(len(is_first))
    return index - np.maximum.accumulate(np.where(is_first, index, 0))


def _polynomials(form_B: Bytes, begins: Places, ends: Places) -> Hashes:
    """Return the hash of each token, a polynomial in its bytes modulo 2**64; see `shingles._segment_hashes`."""
    powers, inverses = _powers(1 << max(16, len(form_B).bit_length()))
    sums: Hashes = np.zeros(len(form_B) + 1, np.uint64)
    np.cumsum(form_B * powers[: len(form_B)], out=sums[1:])
    return mix((sums[ends] - sums[begins]) * inverses[begins])


def _without_silent(hashes: Hashes, commands: Places) -> Hashes:
    """Give commands of the same meaning one hash, and remove those that only affect typesetting."""
    names, meanings = _command_hashes()
    place = np.minimum(np.searchsorted(names, hashes[commands]), len(names) - 1)
    known = names[place] == hashes[commands]
    hashes[commands[known]] = meanings[place[known]]
    silent = commands[known][meanings[place[known]] == 0]
    return np.delete(hashes, silent)


@lru_cache(maxsize=1)
def _tables() -> tuple[bytes, bytes, bytes]:
    """Return three tables of the 256 bytes: the value in a token (0: none), the class, and 1 for unsure bytes."""
    classes = bytearray(256)
    for byte in range(256):
        char = chr(byte)
        if byte >= 0x80 or char.isalpha():
            classes[byte] = _LETTER  # after folding, all other non-ASCII characters are gone
        elif char.isdigit():
            classes[byte] = _DIGIT
    for byte in _OPERATORS + _LINE_END + _TEXT_END:
        classes[byte] = _ALONE
    forms = bytes(byte or 1 if classes[byte] else 0 for byte in range(256))
    return forms, bytes(classes), bytes(byte in _UNSURE for byte in range(256))


@lru_cache(maxsize=2)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Return the powers from 0 of the base and of its inverse modulo 2**64: (size + 1,) each."""

    def powers(base: int) -> Hashes:
        factors: Hashes = np.full(size + 1, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


@lru_cache(maxsize=1)
def _command_hashes() -> tuple[Hashes, Hashes]:
    """Return the hashes of ignored and synonymous commands, ascending, and of what each means, 0 for nothing."""
    silent = [name.removeprefix("\\") for name in IGNORED - {"\n"}]
    same = [name.removeprefix("\\") for name in COMMANDS]
    names = hash_words(silent + same)
    order = np.argsort(names)
    return names[order], np.append(np.zeros(len(silent), np.uint64), hash_words(list(COMMANDS.values())))[order]


LINE, END = _hash_segment(_LINE_END)[0], _hash_segment(_TEXT_END)[0]

"""Index of the 8-word pieces of evaluation items, which finds them in other texts with array operations.

Tokens are numbers of a vocabulary. A piece is looked up by the hash of its first 8 (4, 2) tokens in a bitmap;
candidates that pass are compared by the hashes of all their tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distill.filters.token_arrays import END, LINE, hash_tokens, hash_words

# N = tokens, W = windows of 8 words, M = matches
Ids: TypeAlias = NDArray[np.int32]
Ints: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]

NUM_WORDS = 8
"""Words in a piece, as separated by whitespace in the item."""
SURE_TOKENS = NUM_WORDS
"""A piece of 8 words with fewer tokens (`$A$ , $B$ , $C$ ,`) must also match letter by letter."""
MIN_WHOLE_TOKENS = 4
"""A short item with fewer tokens and no number (`Find x.`) only matches a whole text."""
SEED_SIZES = (8, 4, 2)
BITS_PER_SEED = 16
SLOTS_PER_WORD = 4
"""Table slots per word: with more, fewer words share a slot, but the table takes up more of the cache."""

UNKNOWN_WORD, LINE_END, TEXT_END, FIRST_WORD = range(4)
_MULTIPLIERS = [np.uint64(m) for m in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)]


class Vocabulary:
    """Mapping of the items' tokens to numbers; any other token is `UNKNOWN_WORD`.

    Args:
        names: canonical tokens (`distill.sources.math_words`).
    """

    def __init__(self, names: Iterable[str]) -> None:
        known = sorted(set(names))
        self.names = [""] * FIRST_WORD + known
        hash_of_known = np.concatenate([np.array([LINE, END], np.uint64), hash_words(known)])
        number_of_known = np.array([LINE_END, TEXT_END, *range(FIRST_WORD, len(self.names))], np.int32)
        bits = (len(hash_of_known) * SLOTS_PER_WORD).bit_length()
        self._shift = np.uint64(64 - bits)
        slots: Ints = (hash_of_known >> self._shift).astype(np.int64)
        self._hash_of_slot: Hashes = np.zeros(1 << bits, np.uint64)
        self._number_of_slot: Ids = np.full(1 << bits, UNKNOWN_WORD, np.int32)
        self._hash_of_slot[slots], self._number_of_slot[slots] = hash_of_known, number_of_known
        # If several words share a slot, one of them owns it and the others are found by binary search.
        others = np.flatnonzero(self._hash_of_slot[slots] != hash_of_known)
        others = others[np.argsort(hash_of_known[others])]
        self._other_hashes, self._other_numbers = hash_of_known[others], number_of_known[others]
        self._is_shared: NDArray[np.bool_] = np.zeros(1 << bits, np.bool_)
        self._is_shared[slots[others]] = True

    def stream(self, texts: Sequence[str]) -> Ids:
        """Return the texts' tokens as numbers, with `LINE_END` between lines and `TEXT_END` after each text: (N,)."""
        hash_N = hash_tokens(texts)
        slot_N = (hash_N >> self._shift).astype(np.int64)
        number_N: Ids = np.where(self._hash_of_slot[slot_N] == hash_N, self._number_of_slot[slot_N], UNKNOWN_WORD)
        if len(self._other_hashes):
            at = np.flatnonzero(self._is_shared[slot_N] & (number_N == UNKNOWN_WORD))
            place = np.minimum(np.searchsorted(self._other_hashes, hash_N[at]), len(self._other_hashes) - 1)
            is_other = self._other_hashes[place] == hash_N[at]
            number_N[at[is_other]] = self._other_numbers[place[is_other]]
        return number_N


@dataclass(frozen=True, slots=True)
class Windows:
    """W pieces of items to look for, and where they start in the items' tokens."""

    items: Ints
    starts: Ints
    lengths: Ints
    are_whole: NDArray[np.bool_]
    """Whole short items: the surrounding text must not continue the same formula."""
    need_letters: NDArray[np.bool_]
    """Windows with so few tokens that their letters must match as well."""
    raw: dict[int, str]
    """Window -> its letters."""


class Matches(NamedTuple):
    """M matches: the position of each in the texts' tokens, and its window."""

    places: Ints
    windows: Ints


@dataclass(frozen=True, slots=True)
class _Seeds:
    """Sorted hashes of the first 8 (4, 2) tokens of windows, with a bitmap that quickly rejects non-matches."""

    hashes: Hashes
    windows: Ints
    bitmap: NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, hashes: Hashes, windows: Ints) -> Self:
        order = np.argsort(hashes)
        bits = max(10, int(len(hashes) * BITS_PER_SEED).bit_length())
        shift = np.uint64(64 - bits)
        bitmap: NDArray[np.bool_] = np.zeros(1 << bits, np.bool_)
        bitmap[hashes >> shift] = True
        return cls(hashes[order], windows[order], bitmap, shift)

    def find(self, hashes_N: Hashes) -> Matches:
        """Return the positions that begin like a window, once for each such window."""
        at: Ints = np.flatnonzero(self.bitmap[(hashes_N >> self.shift).astype(np.int64)])
        first: Ints = np.searchsorted(self.hashes, hashes_N[at], "left")
        num: Ints = np.searchsorted(self.hashes, hashes_N[at], "right") - first
        within = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
        return Matches(np.repeat(at, num), self.windows[np.repeat(first, num) + within])


class PieceIndex:
    """Index that finds windows in texts.

    Args:
        windows: the windows to look for.
        words_N: the items' tokens as numbers, without line and text ends.
        hash_of_word: a random hash for each number of the vocabulary.
    """

    def __init__(self, windows: Windows, words_N: Ids, hash_of_word: Hashes) -> None:
        self._windows, self._hash_of_word = windows, hash_of_word
        self._hashes = _hashes(hash_of_word[words_N])
        self._seeds: dict[int, _Seeds] = {}
        longer = np.iinfo(np.int64).max
        for size in SEED_SIZES:
            within = np.flatnonzero((windows.lengths >= size) & (windows.lengths < longer))
            if len(within):
                self._seeds[size] = _Seeds.of(self._hashes[size][windows.starts[within]], within)
            longer = size

    def keys(self) -> Hashes:
        """Return a hash of each window, equal for windows with the same tokens: (W,)."""
        key_W: Hashes = self._windows.lengths.astype(np.uint64)
        for size, seeds in self._seeds.items():
            windows = seeds.windows
            starts, spare = self._windows.starts[windows], self._windows.lengths[windows] - size
            key = key_W[windows]
            for step in range(0, int(spare.max()) + size, size):
                key = key * _MULTIPLIERS[0] + self._hashes[size][starts + np.minimum(step, spare)]
            key_W[windows] = key
        return key_W

    def find(self, stream_N: Ids) -> Matches:
        """Return all windows that occur in the texts' tokens, in the order of the texts."""
        hashes = _hashes(self._hash_of_word[stream_N])
        found = [Matches(np.empty(0, np.int64), np.empty(0, np.int64))]
        for size, seeds in self._seeds.items():
            places, windows = seeds.find(hashes[size])
            same = self._are_same(hashes[size], places, windows, size)
            found.append(Matches(places[same], windows[same]))
        places, windows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(places, kind="stable")
        return Matches(places[order], windows[order])

    def _are_same(self, hashes_N: Hashes, places: Ints, windows: Ints, size: int) -> NDArray[np.bool_]:
        """Return whether all tokens of the windows match at the positions, given that the first `size` do: (M,)."""
        starts, spare = self._windows.starts[windows], self._windows.lengths[windows] - size
        last = len(hashes_N) - 1
        same: NDArray[np.bool_] = self._hashes[size][starts + spare] == hashes_N[np.minimum(places + spare, last)]
        for step in range(size, int(spare.max(initial=0)), size):
            step_M = np.minimum(step, spare)
            same &= self._hashes[size][starts + step_M] == hashes_N[np.minimum(places + step_M, last)]
        return same


def windows_of(
    words: Sequence[Sequence[str]], stream_N: Ids, names: Sequence[str]
) -> tuple[Windows, list[int], list[int]]:
    """Return the windows of all items, and where each item's tokens start and end, not counting line and text ends."""
    is_mark_N = stream_N < FIRST_WORD
    starts_of_word = _starts_of_words(is_mark_N)
    num_of_item = np.array([max(1, len(found)) for found in words], np.int64)
    next_of_item = np.cumsum(num_of_item)
    first_of_item = next_of_item - num_of_item
    starts, ends = starts_of_word[first_of_item], starts_of_word[next_of_item]
    item_of_word: Ints = np.repeat(np.arange(len(words)), num_of_item)
    first_W = np.flatnonzero(np.arange(len(item_of_word)) + NUM_WORDS <= next_of_item[item_of_word])
    item_W, start_W = item_of_word[first_W], starts_of_word[first_W]
    length_W = starts_of_word[first_W + NUM_WORDS] - start_W
    few_W = np.flatnonzero((length_W < SURE_TOKENS) & (length_W >= SEED_SIZES[-1]))
    raw = {}
    for window in few_W.tolist():
        item = int(item_W[window])
        at = int(first_W[window] - first_of_item[item])
        raw[window] = spaced(words[item][at : at + NUM_WORDS])
    ids = stream_N[~is_mark_N]
    whole = [
        item
        for item in np.flatnonzero(num_of_item < NUM_WORDS).tolist()
        if _says_enough([names[i] for i in ids[starts[item] : ends[item]].tolist()])
    ]
    need_letters: NDArray[np.bool_] = np.zeros(len(item_W) + len(whole), bool)
    need_letters[few_W] = True
    windows = Windows(
        np.concatenate([item_W, np.array(whole, np.int64)]),
        np.concatenate([start_W, starts[whole]]),
        np.concatenate([length_W, ends[whole] - starts[whole]]),
        np.arange(len(item_W) + len(whole)) >= len(item_W),
        need_letters,
        raw,
    )
    return windows, starts.tolist(), ends.tolist()


def _starts_of_words(is_mark_N: NDArray[np.bool_]) -> Ints:
    """Return where each word's tokens start, and the total number of tokens last; marks separate the words."""
    tokens_before_N = np.cumsum(~is_mark_N)
    return np.concatenate([[0], tokens_before_N[is_mark_N]]).astype(np.int64)


def _says_enough(words: Sequence[str]) -> bool:
    """Return whether a short item is distinctive enough not to match inside another text by chance."""
    return len(words) >= MIN_WHOLE_TOKENS or (len(words) > 1 and any(word[0].isdigit() for word in words))


def _hashes(hash_N: Hashes) -> dict[int, Hashes]:
    """Return the hashes of the 2, 4 and 8 tokens that start at each position with so many tokens left."""
    a, b, c = _MULTIPLIERS
    two = hash_N[:-1] * a + hash_N[1:]
    four = two[:-2] * b + two[2:]
    return {2: two, 4: four, 8: four[:-4] * c + four[4:]}


def spaced(words: Iterable[str]) -> str:
    """Return the words in lower case, with spaces between and around them."""
    return f" {' '.join(words)} ".lower()

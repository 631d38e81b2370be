"""An index of the pieces of evaluation items, 8 words each, that finds them in other texts as arrays.

Enters: the items' words and, as numbers of a vocabulary, their tokens; then the tokens of texts. Leaves: which pieces
stand where. A piece is looked up by the hash of its first 8 (4, 2) tokens in a bitmap; what passes is compared by the
hashes of all its tokens.
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
"""Words in a piece, as white space parts them in the item."""
SURE_TOKENS = NUM_WORDS
"""A piece of 8 words with fewer tokens (`$A$ , $B$ , $C$ ,`) must also stand there letter by letter."""
MIN_WHOLE_TOKENS = 4
"""A short item with fewer tokens and no number (`Find x.`) is looked for as a whole text only."""
SEED_SIZES = (8, 4, 2)
BITS_PER_SEED = 16
SLOTS_PER_WORD = 4
"""Slots in the table of words for each of them: with more, fewer words share one, and the table fills the cache."""

UNKNOWN_WORD, LINE_END, TEXT_END, FIRST_WORD = range(4)
_MULTIPLIERS = [np.uint64(m) for m in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)]


class Vocabulary:
    """Numbers for the items' tokens; any other token is UNKNOWN_WORD.

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
        # Where several words share a slot one of them has it; the others are found by search.
        others = np.flatnonzero(self._hash_of_slot[slots] != hash_of_known)
        others = others[np.argsort(hash_of_known[others])]
        self._other_hashes, self._other_numbers = hash_of_known[others], number_of_known[others]
        self._is_shared: NDArray[np.bool_] = np.zeros(1 << bits, np.bool_)
        self._is_shared[slots[others]] = True

    def stream(self, texts: Sequence[str]) -> Ids:
        """All tokens of the texts as numbers, a LINE_END between lines and a TEXT_END after each text: (N,)."""
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
    """Pieces of items that are looked for, W of them, and where they start in the items' words."""

    items: Ints
    starts: Ints
    lengths: Ints
    are_whole: NDArray[np.bool_]
    """Whole short items: what follows must not continue the same formula."""
    need_letters: NDArray[np.bool_]
    """With so few tokens that their letters must be the same."""
    raw: dict[int, str]
    """These letters."""


class Matches(NamedTuple):
    """M pieces found: the place of each in the texts' tokens, and the window."""

    places: Ints
    windows: Ints


@dataclass(frozen=True, slots=True)
class _Seeds:
    """The first 8 (4, 2) tokens of windows, hashed and sorted; a bitmap says at once that there is none."""

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
        """The places that begin like a window; a place once for each of these windows."""
        at: Ints = np.flatnonzero(self.bitmap[(hashes_N >> self.shift).astype(np.int64)])
        first: Ints = np.searchsorted(self.hashes, hashes_N[at], "left")
        num: Ints = np.searchsorted(self.hashes, hashes_N[at], "right") - first
        within = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
        return Matches(np.repeat(at, num), self.windows[np.repeat(first, num) + within])


class PieceIndex:
    """Finds windows in texts.

    Args:
        windows: what is looked for.
        words_N: the items' tokens as numbers, without marks.
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
        """A hash of each window, the same for windows of the same tokens: (W,)."""
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
        """All windows that stand in the texts' tokens, in the order of the texts."""
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
        """Whether all tokens of the windows stand at the places, given that the first `size` of them do: (M,)."""
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
    """The windows of all items, and where each item's words start and end; only words are counted."""
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
    """Where each word's tokens start, and after the last word the number of all tokens; marks stand between words."""
    tokens_before_N = np.cumsum(~is_mark_N)
    return np.concatenate([[0], tokens_before_N[is_mark_N]]).astype(np.int64)


def _says_enough(words: Sequence[str]) -> bool:
    """Whether a short item can be told from a chance meeting of words inside another text."""
    return len(words) >= MIN_WHOLE_TOKENS or (len(words) > 1 and any(word[0].isdigit() for word in words))


def _hashes(hash_N: Hashes) -> dict[int, Hashes]:
    """The hash of the 2, 4 and 8 tokens that start at each place; shorter where fewer follow."""
    a, b, c = _MULTIPLIERS
    two = hash_N[:-1] * a + hash_N[1:]
    four = two[:-2] * b + two[2:]
    return {2: two, 4: four, 8: four[:-4] * c + four[4:]}


def spaced(words: Iterable[str]) -> str:
    """Words in lower case with a space before and after each."""
    return f" {' '.join(words)} ".lower()

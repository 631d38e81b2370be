"""Which training problems repeat an evaluation item: 8-word pieces, whole short items, and short items slightly edited.

Enters: evaluation packs, then the texts of training problems. Leaves: `Hit`s that name the item:

    Decontaminator(packs).hits("Find $x$ if … Reason step by step.")
    [Hit(set_name="math-500", item_id="test/algebra/7.json", kind="ngram", matched="x ^ 2 + 3 x …")]

The rule is that of open-r1 and Light-R1 (any 8 words in a row that also stand in an item), on text in one form
(`distill.filters.math_words`), so that typesetting hides nothing. No piece is left out for being common.

Speed: words are numbers of the items' own vocabulary, and each way of writing one is read once; all pieces of all texts
are hashed at once with numpy, and looked up in a bitmap. What passes is compared word by word, so that no two different
pieces are ever taken for one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, NamedTuple, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from distill.filters.math_words import COMMANDS, IGNORED, VERSION, canonical, fold, is_fixed, raw_tokens, tokens
from distill.filters.packs import Pack
from distill.filters.short_items import FILLERS, ShortItems, standing_alone

# N = tokens, W = windows of 8 words, T = texts, S = segments (lines)
Ids: TypeAlias = NDArray[np.int32]
Ints: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]

NUM_WORDS = 8
"""Words in a piece, as white space parts them in the item."""
SURE_TOKENS = NUM_WORDS
"""A piece of 8 words with fewer tokens (`$A$ , $B$ , $C$ ,`) must also stand there letter by letter."""
MIN_WHOLE_TOKENS = 4
"""A short item with fewer tokens and no number (`Find x.`) is looked for as a whole text only."""
CHUNK_CHARS = 1 << 20
"""Texts are hashed together up to this size."""
MAX_REMEMBERED_CHARS = 1 << 21
"""Written words of so many characters together are remembered before they are forgotten and read anew."""
SEED_SIZES = (8, 4, 2)
BITS_PER_SEED = 16

_IGNORED, _UNKNOWN, _LINE, _END = range(4)
_FIRST_WORD = 4
_LINE_MARK, _END_MARK = "\n", " "
"""White space, which no word holds."""
_ID_BYTES = 4
_MULTIPLIERS = [np.uint64(m) for m in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)]

Kind = Literal["exact", "ngram", "fuzzy"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Hit(NamedTuple):
    """An evaluation item that a text repeats."""

    set_name: str
    item_id: str
    kind: Kind
    """`exact`: the whole item; `ngram`: 8 words in a row; `fuzzy`: a short item with a small edit."""
    matched: str
    """What the two have in common, in the item's own words and brought into one form."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """Pieces of items that are looked for, W of them, and where they start in the items' words."""

    items: Ints
    starts: Ints
    lengths: Ints
    are_whole: NDArray[np.bool_]
    """Whole short items: what follows must not go on with the same formula."""
    raw: dict[int, str]
    """The letters of those with too few tokens to tell."""

    def get(self, window: int) -> tuple[int, int, int]:
        """(item, start, length) of a window."""
        return int(self.items[window]), int(self.starts[window]), int(self.lengths[window])


@dataclass(frozen=True, slots=True)
class _Seeds:
    """The first 8 (4, 2) tokens of windows, hashed and sorted; a bitmap says at once that there is none."""

    hashes: Hashes
    windows: Ints
    bitmap: NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, hashes: Hashes, windows: Ints) -> Self:
        order = np.argsort(hashes, kind="stable")
        bits = max(10, int(len(hashes) * BITS_PER_SEED).bit_length())
        shift = np.uint64(64 - bits)
        bitmap: NDArray[np.bool_] = np.zeros(1 << bits, np.bool_)
        bitmap[hashes >> shift] = True
        return cls(hashes[order], windows[order], bitmap, shift)

    def find(self, hashes_N: Hashes) -> tuple[Ints, Ints, Ints]:
        """The places that begin like a window, and for each the range of these windows."""
        at: Ints = np.flatnonzero(self.bitmap[hashes_N >> self.shift])
        first: Ints = np.searchsorted(self.hashes, hashes_N[at], "left")
        last: Ints = np.searchsorted(self.hashes, hashes_N[at], "right")
        real: NDArray[np.bool_] = last > first
        return at[real], first[real], last[real]


class _Numbers(dict[str, int]):
    """Words as they are written -> the place of their tokens' numbers; read when first met, and remembered.

    Args:
        words: the items' words: what is not among their tokens is _UNKNOWN.
    """

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__()
        self._items_words = list(set(words))
        raw = set(raw_tokens(self._items_words))
        known_words = sorted(({canonical(token) for token in raw} | FILLERS) - {""})
        self.names = [""] * _FIRST_WORD + known_words
        number_of = {word: number for number, word in enumerate(known_words, start=_FIRST_WORD)}
        self._number_of_token = {"\\" + word: number for word, number in number_of.items()}
        self._number_of_token |= {token: number_of[word] for token, word in COMMANDS.items() if word in number_of}
        self._number_of_token |= number_of | dict.fromkeys(IGNORED, _IGNORED) | {_LINE_MARK: _LINE}
        self._forget()

    def _forget(self) -> None:
        """All but the items' words."""
        self.clear()
        self |= {_LINE_MARK: 0, _END_MARK: 1}
        self._lengths: Ints = np.ones(2, np.int64)
        self._flat: Ids = np.array([_LINE, _END], np.int32)
        self._num_chars = 0
        self._read(self._items_words)
        self._max_chars = self._num_chars + MAX_REMEMBERED_CHARS

    def _read(self, words: Sequence[str]) -> None:
        """Remember new words; all of them together, for a word alone costs ten times as much."""
        if not words:
            return
        raw = raw_tokens(words)
        stream = np.fromiter(map(self._number_of_token.get, raw, repeat(_UNKNOWN)), np.int32, len(raw))
        is_line = stream == _LINE
        is_token = ~is_line & (stream != _IGNORED)
        starts = np.concatenate([[0], np.cumsum(is_token)[is_line], [is_token.sum()]])
        self |= zip(words, range(len(self._lengths), len(self._lengths) + len(words)), strict=True)
        self._lengths = np.concatenate([self._lengths, np.diff(starts)])
        self._flat = np.concatenate([self._flat, stream[is_token]])
        self._num_chars += sum(map(len, words))

    def stream(self, texts: Iterable[str]) -> Ids:
        """All tokens of the texts as numbers, a _LINE between lines and an _END after each text."""
        if self._num_chars > self._max_chars:
            self._forget()
        words: list[str] = []
        for text in texts:
            if "\n" in text:
                for line in text.split("\n"):
                    words += line.split()
                    words.append(_LINE_MARK)
                words[-1] = _END_MARK
            else:
                words += text.split()
                words.append(_END_MARK)
        place_W = np.fromiter(map(self.get, words, repeat(-1)), np.int64, len(words))
        new = np.flatnonzero(place_W < 0)
        new_words = [words[i] for i in new.tolist()]
        self._read(list(dict.fromkeys(new_words)))
        place_W[new] = [self[word] for word in new_words]
        lengths, flat = self._lengths, self._flat
        length_W = lengths[place_W]
        shift_W = (np.cumsum(lengths) - lengths)[place_W] - (np.cumsum(length_W) - length_W)
        numbers: Ids = flat[np.repeat(shift_W, length_W) + np.arange(length_W.sum())]
        return numbers


class Decontaminator:
    """Looks texts up in evaluation packs. Built once; it does not change, and pickles as its packs alone.

    Args:
        packs: the evaluation sets.
    """

    def __init__(self, packs: Iterable[Pack]) -> None:
        self.packs = tuple(packs)
        self._items = [(pack.name, *item) for pack in self.packs for item in pack.items]
        words = [text.split() for _, _, text in self._items]
        self._numbers = _Numbers(word for found in words for word in found)
        self._names = self._numbers.names
        self._hash_of_word = np.random.default_rng(0).integers(0, 1 << 64, len(self._names), np.uint64)
        is_turning = np.array([bool(name) and name not in FILLERS and is_fixed(name) for name in self._names])
        self._hash_of_fixed = np.where(is_turning, self._hash_of_word, np.uint64(0))
        # A line for each word, so that the tokens tell which word they belong to.
        stream_N = self._numbers.stream("\n".join(found) for found in words)
        self._words = stream_N[stream_N >= _FIRST_WORD]
        self._word_bytes: bytes = self._words.tobytes()
        self._windows, starts, ends = _windows(words, stream_N, self._names)
        self._wholes: dict[bytes, list[int]] = defaultdict(list)
        for item, (start, end) in enumerate(zip(starts, ends, strict=True)):
            self._wholes[self._bytes_of(start, end)].append(item)
        self._seeds = self._make_seeds()
        short = [item for item, found in enumerate(words) if len(found) < 2 * NUM_WORDS]
        self._short = ShortItems((item, self._names_of(starts[item], ends[item])) for item in short)
        sums = [self._hash_of_fixed[self._words[starts[item] : ends[item]]].sum(dtype=np.uint64) for item in short]
        self._short_sums = np.unique(np.array(sums, np.uint64))

    def __reduce__(self) -> tuple[type["Decontaminator"], tuple[tuple[Pack, ...]]]:
        return type(self), (self.packs,)

    def hits(self, text: str) -> list[Hit]:
        """The items that a text repeats, each once, in the packs' order. For many texts, `hits_of_all` is faster."""
        return next(self.hits_of_all([text]))

    def hits_of_all(self, texts: Iterable[str]) -> Iterator[list[Hit]]:
        """The items that each text repeats, in the texts' order; about a million characters are looked at together."""
        chunk: list[str] = []
        num_chars = 0
        for text in texts:
            chunk.append(text)
            num_chars += len(text)
            if num_chars >= CHUNK_CHARS:
                yield from self._hits_of_chunk(chunk)
                chunk, num_chars = [], 0
        yield from self._hits_of_chunk(chunk)

    def _hits_of_chunk(self, texts: list[str]) -> list[list[Hit]]:
        if not texts or not self._items:
            return [[] for _ in texts]
        lines_N = self._numbers.stream(texts)
        stream_N = lines_N[lines_N != _LINE]
        ends_T: Ints = np.flatnonzero(stream_N == _END)
        found: list[dict[int, Hit]] = [{} for _ in texts]
        self._add_wholes(stream_N, ends_T, found)
        self._add_windows(stream_N, ends_T, texts, found)
        self._add_edited(lines_N, texts, found)
        return [[hits[item] for item in sorted(hits)] for hits in found]

    def _add_wholes(self, stream_N: Ids, ends_T: Ints, found: list[dict[int, Hit]]) -> None:
        """Texts that are an item, whatever its length."""
        whole = stream_N.tobytes()
        start = 0
        for text, end in enumerate(ends_T.tolist()):
            for item in self._wholes.get(whole[start : _ID_BYTES * end], ()):
                self._add(found[text], item, "exact", whole[start : _ID_BYTES * end])
            start = _ID_BYTES * (end + 1)

    def _add_windows(self, stream_N: Ids, ends_T: Ints, texts: list[str], found: list[dict[int, Hit]]) -> None:
        """Texts that hold 8 words of an item in a row, or the whole of a short one."""
        whole = stream_N.tobytes()
        hashes = _hashes(self._hash_of_word[stream_N])
        in_context: dict[int, list[tuple[int, int]]] = defaultdict(list)
        letters: dict[int, str] = {}
        for size, seeds in self._seeds.items():
            at, first, last = seeds.find(hashes[size])
            text_of = np.searchsorted(ends_T, at)
            for place, text, low, high in zip(*(a.tolist() for a in (at, text_of, first, last)), strict=True):
                for window in seeds.windows[low:high].tolist():
                    item, start, length = self._windows.get(window)
                    if item in found[text]:
                        continue
                    matched = whole[_ID_BYTES * place : _ID_BYTES * (place + length)]
                    if matched != self._bytes_of(start, start + length):
                        continue
                    if self._windows.are_whole[window]:
                        in_context[text].append((place - _start_of(ends_T, text), window))
                        continue
                    exact_words = self._windows.raw.get(window)
                    if exact_words is not None:
                        if text not in letters:
                            letters[text] = _spaced(texts[text].split())
                        if exact_words not in letters[text]:
                            continue
                    self._add(found[text], item, "ngram", matched)
        for text, candidates in in_context.items():
            spans = [(place, place + int(self._windows.lengths[window])) for place, window in candidates]
            for (_, window), alone in zip(candidates, standing_alone(fold(texts[text]), spans), strict=True):
                item, start, length = self._windows.get(window)
                if alone and item not in found[text]:
                    self._add(found[text], item, "exact", self._bytes_of(start, start + length))

    def _add_edited(self, lines_N: Ids, texts: list[str], found: list[dict[int, Hit]]) -> None:
        """Texts, or single lines of them, that are a short item but for a small edit."""
        lines_of: dict[int, list[str]] = {}
        compared: set[tuple[int, str]] = set()
        for text, line in self._lines_to_compare(lines_N):
            if line is not None and text not in lines_of:
                lines_of[text] = texts[text].split("\n")
            part = texts[text] if line is None else lines_of[text][line]
            if (text, part) in compared:
                continue
            compared.add((text, part))
            for item in self._short.find(tokens(part)):
                if item not in found[text]:
                    name, item_id, question = self._items[item]
                    found[text][item] = Hit(name, item_id, "fuzzy", " ".join(tokens(question)))

    def _lines_to_compare(self, lines_N: Ids) -> Iterator[tuple[int, int | None]]:
        """(text, line) of short lines with the fixed words of some short item; line None is a whole text of several."""
        marks_S: Ints = np.flatnonzero((lines_N == _LINE) | (lines_N == _END))
        ends_T: Ints = np.flatnonzero(lines_N == _END)
        text_of_S: Ints = np.searchsorted(ends_T, marks_S)
        first_of_T: Ints = np.searchsorted(text_of_S, np.arange(len(ends_T)))
        # Beginning with an unsigned zero: together with a signed one, numpy would make floats of them.
        sums_N: Hashes = np.append(np.zeros(1, np.uint64), np.cumsum(self._hash_of_fixed[lines_N], dtype=np.uint64))
        unknown_N: Ints = np.append(0, np.cumsum(lines_N == _UNKNOWN))
        for are_texts, marks in ((False, marks_S), (True, ends_T)):
            starts: Ints = np.concatenate([[0], marks[:-1] + 1]).astype(np.int64)
            likely: NDArray[np.bool_] = (
                (marks - starts > 1)
                & (marks - starts <= self._short.max_tokens)
                & (unknown_N[marks] - unknown_N[starts] <= 1)
                & np.isin(sums_N[marks] - sums_N[starts], self._short_sums)
            )
            for segment in np.flatnonzero(likely).tolist():
                if not are_texts:
                    text = int(text_of_S[segment])
                    yield text, segment - int(first_of_T[text])
                elif np.searchsorted(text_of_S, segment, "right") - first_of_T[segment] > 1:
                    yield segment, None

    def _add(self, found: dict[int, Hit], item: int, kind: Kind, words: bytes) -> None:
        name, item_id, _ = self._items[item]
        ids = np.frombuffer(words, np.int32).tolist()
        found[item] = Hit(name, item_id, kind, " ".join(self._names[i] for i in ids))

    def _bytes_of(self, start: int, end: int) -> bytes:
        return self._word_bytes[_ID_BYTES * start : _ID_BYTES * end]

    def _names_of(self, start: int, end: int) -> list[str]:
        return [self._names[i] for i in self._words[start:end].tolist()]

    def _make_seeds(self) -> dict[int, _Seeds]:
        hashes = _hashes(self._hash_of_word[self._words])
        length_W, seeds = self._windows.lengths, {}
        longer = np.iinfo(np.int64).max
        for size in SEED_SIZES:
            windows = np.flatnonzero((length_W >= size) & (length_W < longer))
            if len(windows):
                seeds[size] = _Seeds.of(hashes[size][self._windows.starts[windows]], windows)
            longer = size
        return seeds


def certificate(packs: Sequence[Pack], num_checked: int, hits: Mapping[str, Sequence[Hit]]) -> dict[str, Any]:
    """What was checked against what, and what was found, ready for JSON.

    Args:
        packs: the evaluation sets.
        num_checked: problems that were looked up.
        hits: by problem id; problems without hits may be there or not.
    """
    found = {problem_id: list(own) for problem_id, own in sorted(hits.items()) if own}
    removed: Counter[str] = Counter(name for own in found.values() for name in {hit.set_name for hit in own})
    kinds = Counter((hit.set_name, hit.kind) for own in found.values() for hit in set(own))
    items = Counter(name for name, _ in {(hit.set_name, hit.item_id) for own in found.values() for hit in own})
    sets = [
        {
            "name": pack.name,
            "source": pack.source,
            "revision": pack.revision,
            "num_items": len(pack.items),
            "sha256": pack.sha256,
            "num_items_hit": items[pack.name],
            "num_problems_removed": removed[pack.name],
            "num_hits": {kind: kinds[pack.name, kind] for kind in KINDS},
        }
        for pack in packs
    ]
    return {
        "schema_version": 1,
        "method": {"ngram_words": NUM_WORDS, "normalisation_version": VERSION, "short_items": "exact and fuzzy"},
        "sets": sets,
        "num_problems_checked": num_checked,
        "num_problems_removed": len(found),
        "hits": {
            problem_id: [{"set": h.set_name, "item": h.item_id, "kind": h.kind, "matched": h.matched} for h in own]
            for problem_id, own in found.items()
        },
    }


def _windows(
    words: Sequence[Sequence[str]], stream_N: Ids, names: Sequence[str]
) -> tuple[_Windows, list[int], list[int]]:
    """The windows of all items, and where each item's words start and end; only words are counted."""
    is_mark_N = stream_N < _FIRST_WORD
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
        raw[window] = _spaced(words[item][at : at + NUM_WORDS])
    ids = stream_N[~is_mark_N]
    whole = [
        item
        for item in np.flatnonzero(num_of_item < NUM_WORDS).tolist()
        if _says_enough([names[i] for i in ids[starts[item] : ends[item]].tolist()])
    ]
    windows = _Windows(
        np.concatenate([item_W, np.array(whole, np.int64)]),
        np.concatenate([start_W, starts[whole]]),
        np.concatenate([length_W, ends[whole] - starts[whole]]),
        np.arange(len(item_W) + len(whole)) >= len(item_W),
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


def _start_of(ends_T: Ints, text: int) -> int:
    return int(ends_T[text - 1]) + 1 if text else 0


def _spaced(words: Iterable[str]) -> str:
    return f" {' '.join(words)} ".lower()

"""Search for training problems that repeat an evaluation item.

A text matches an item if both contain the same 8 words in a row, if it contains a whole short item, or if it is a short
item with a small edit. Example:

    Decontaminator(packs).hits("Find $x$ if … Reason step by step.")
    [Hit(set_name="math-500", item_id="test/algebra/7.json", kind="ngram", matched="x ^ 2 + 3 x …")]

The 8-word rule is that of open-r1 and Light-R1, applied to normalised text (`distill.sources.math_words`) so that
typesetting hides nothing. Pieces that occur in many of the checked problems are set aside
(`distill.filters.boilerplate`) and listed in the certificate.

For speed, tokens are cut, hashed and numbered as arrays (`distill.filters.token_arrays`, `distill.filters.pieces`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from distill.filters.boilerplate import (
    MAX_COMMON_PIECES,
    MAX_COMMON_SHARE,
    MIN_COMMON_PROBLEMS,
    CommonPiece,
    SplitPairs,
    weigh,
)
from distill.filters.pieces import (
    FIRST_WORD,
    LINE_END,
    NUM_WORDS,
    TEXT_END,
    UNKNOWN_WORD,
    Hashes,
    Ids,
    Ints,
    PieceIndex,
    Vocabulary,
    spaced,
    windows_of,
)
from distill.filters.short_items import FILLERS, ShortItems, standing_alone
from distill.sources.evaluation_sets import Pack
from distill.sources.math_words import VERSION, fold, is_fixed, tokens

# N = tokens, T = texts, S = segments (lines)

CHUNK_CHARS = 1 << 18
"""Texts are looked up in chunks of this size, whose token numbers and hashes fit in a core's cache."""
MAX_PIECES_TOLD = 100
"""Most set-aside pieces that the certificate lists."""
_ID_BYTES = 4

Kind = Literal["exact", "ngram", "fuzzy"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Hit(NamedTuple):
    """An evaluation item that a text repeats."""

    set_name: str
    item_id: str
    kind: Kind
    """`exact`: the whole item; `ngram`: 8 words in a row; `fuzzy`: a short item with a small edit."""
    matched: str
    """What both have in common, as normalised tokens of the item."""


class Findings(NamedTuple):
    """Results of a search."""

    hits: dict[int, list[Hit]]
    """Text number -> hits, ascending; each item once, in the packs' order. Texts without hits are left out."""
    common: list[CommonPiece]
    """Pieces that were set aside, most frequent first, at most `MAX_PIECES_TOLD`."""
    num_common: int
    num_passed: int
    """Texts whose only matches were set aside."""


class Decontaminator:
    """Index of evaluation packs in which texts are looked up. Immutable; pickled as its packs alone.

    Args:
        packs: the evaluation sets.
    """

    def __init__(self, packs: Iterable[Pack]) -> None:
        self.packs = tuple(packs)
        self._items = [(pack.name, *item) for pack in self.packs for item in pack.items]
        words = [text.split() for _, _, text in self._items]
        forms = (form for pack in self.packs for form in pack.forms)
        self.vocabulary = Vocabulary({word for form in forms for word in form.split(" ")} | FILLERS)
        self._names = self.vocabulary.names
        hash_of_word = np.random.default_rng(0).integers(0, 1 << 64, len(self._names), np.uint64)
        is_turning = np.array([bool(name) and name not in FILLERS and is_fixed(name) for name in self._names])
        self._hash_of_fixed = np.where(is_turning, hash_of_word, np.uint64(0))
        # One word per line, so that each token can be traced to its word.
        stream_N = self.vocabulary.stream(["\n".join(found) for found in words])
        self._words = stream_N[stream_N >= FIRST_WORD]
        self.windows, starts, ends = windows_of(words, stream_N, self._names)
        self._spans = list(zip(starts, ends, strict=True))
        self._wholes: dict[bytes, list[int]] = defaultdict(list)
        for item, (start, end) in enumerate(self._spans):
            self._wholes[self._words[start:end].tobytes()].append(item)
        self.index = PieceIndex(self.windows, self._words, hash_of_word)
        self.keys_W = self.index.keys()
        short = [item for item, found in enumerate(words) if len(found) < 2 * NUM_WORDS]
        self._short = ShortItems((item, self._names_of(starts[item], ends[item])) for item in short)
        sums_N = _sums(self._hash_of_fixed[self._words])
        self._short_sums = np.unique(sums_N[[ends[item] for item in short]] - sums_N[[starts[item] for item in short]])

    def __reduce__(self) -> tuple[type["Decontaminator"], tuple[tuple[Pack, ...]]]:
        return type(self), (self.packs,)

    def hits(self, text: str) -> list[Hit]:
        """Return the items that a text repeats, each once, in the packs' order. `search` is faster for many texts."""
        return self.hits_of_all([text])[0]

    def hits_of_all(self, texts: Sequence[str]) -> list[list[Hit]]:
        """Return the items that each text repeats, in the texts' order."""
        search = self.search()
        search.add(texts)
        found = search.finish().hits
        return [found.get(number, []) for number in range(len(texts))]

    def search(self, max_items: int | None = None) -> "Search":
        """Start a search. Which pieces are common is known only once all texts have been added.

        Args:
            max_items: words that more items have in common say nothing of one of them; default: any number may.
        """
        return Search(self, max_items)

    def own_windows(self, max_items: int) -> NDArray[np.bool_]:
        """Return which windows are words of their items: at least half of them in no window of more items than this."""
        windows = self.windows
        of_items = np.unique(np.stack([self.keys_W, windows.items.astype(np.uint64)]), axis=1)[0]
        keys, numbers = np.unique(of_items, return_counts=True)
        are_shared_W = np.isin(self.keys_W, keys[numbers > max_items])
        steps_N: NDArray[np.int64] = np.zeros(len(self._words) + 1, np.int64)
        np.add.at(steps_N, windows.starts[are_shared_W], 1)
        np.add.at(steps_N, (windows.starts + windows.lengths)[are_shared_W], -1)
        num_shared_N = np.append(0, np.cumsum(np.cumsum(steps_N) > 0))
        num_shared_W = num_shared_N[windows.starts + windows.lengths] - num_shared_N[windows.starts]
        own: NDArray[np.bool_] = 2 * num_shared_W <= windows.lengths
        return own

    def whole_items(self, stream_N: Ids, ends_T: Ints) -> Iterator[tuple[int, int]]:
        """Yield (text, item) for texts that equal an item of any length."""
        whole = stream_N.tobytes()
        start = 0
        for text, end in enumerate(ends_T.tolist()):
            for item in self._wholes.get(whole[start : _ID_BYTES * end], ()):
                yield text, item
            start = _ID_BYTES * (end + 1)

    def edited_items(self, lines_N: Ids, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield (text, item) where a text, or one line of it, is a short item with a small edit."""
        lines_of: dict[int, list[str]] = {}
        compared: set[tuple[int, str]] = set()
        for text, line in self._lines_to_compare(lines_N):
            if line is not None and text not in lines_of:
                lines_of[text] = texts[text].split("\n")
            part = texts[text] if line is None else lines_of[text][line]
            if (text, part) not in compared:
                compared.add((text, part))
                for item in self._short.find(tokens(part)):
                    yield text, item

    def _lines_to_compare(self, lines_N: Ids) -> Iterator[tuple[int, int | None]]:
        """Yield (text, line) of short lines with the fixed words of a short item; None: the whole multi-line text."""
        marks_S: Ints = np.flatnonzero((lines_N == LINE_END) | (lines_N == TEXT_END))
        ends_T: Ints = np.flatnonzero(lines_N == TEXT_END)
        sums_N = _sums(self._hash_of_fixed[lines_N])
        unknown_N: Ints = np.append(0, np.cumsum(lines_N == UNKNOWN_WORD))
        for are_texts, marks in ((False, marks_S), (True, ends_T)):
            starts: Ints = np.concatenate([[0], marks[:-1] + 1]).astype(np.int64)
            likely: NDArray[np.bool_] = (
                (marks - starts > 1)
                & (marks - starts <= self._short.max_tokens)
                & (unknown_N[marks] - unknown_N[starts] <= 1)
                & np.isin(sums_N[marks] - sums_N[starts], self._short_sums)
            )
            for segment in np.flatnonzero(likely).tolist():
                text = segment if are_texts else int(np.searchsorted(ends_T, marks[segment]))
                first_line = int(np.searchsorted(marks_S, ends_T[text - 1], "right")) if text else 0
                if not are_texts:
                    yield text, segment - first_line
                elif np.searchsorted(marks_S, ends_T[text]) > first_line:
                    yield text, None

    def hit(self, item: int, kind: Kind, window: int | None = None) -> Hit:
        """Return a hit for an item, or for one of its windows."""
        name, item_id, _ = self._items[item]
        matched = " ".join(self._names_of(*self._spans[item])) if window is None else self._text_of(window)
        return Hit(name, item_id, kind, matched)

    def common_pieces(self, weighed: SplitPairs) -> list[CommonPiece]:
        """Return the most frequent of the pieces that were set aside."""
        found = []
        for window, num_texts in weighed.common[:MAX_PIECES_TOLD]:
            items = np.unique(self.windows.items[self.keys_W == self.keys_W[window]])
            found.append(CommonPiece(self._text_of(window), num_texts, len(items)))
        return found

    def _text_of(self, window: int) -> str:
        start = int(self.windows.starts[window])
        return " ".join(self._names_of(start, start + int(self.windows.lengths[window])))

    def _names_of(self, start: int, end: int) -> list[str]:
        return [self._names[number] for number in self._words[start:end].tolist()]


def _sums(hash_N: Hashes) -> Hashes:
    """Return the sum of the hashes before each position, and the total last: (N + 1,)."""
    # The leading zero is unsigned: numpy would promote uint64 and a signed integer to float.
    return np.append(np.zeros(1, np.uint64), np.cumsum(hash_N, dtype=np.uint64))


class Search:
    """Search over many texts.

    Args:
        sets: the index to search.
        max_items: see `Decontaminator.search`.
    """

    def __init__(self, sets: Decontaminator, max_items: int | None = None) -> None:
        self._sets = sets
        self._max_items = max_items
        self._num_texts = 0
        self._hits: dict[int, dict[int, Hit]] = defaultdict(dict)
        """Text -> item -> hit, for hits that are kept even if their pieces are common."""
        self._matches: list[tuple[Ints, Ints]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        """(texts, windows) of each chunk."""

    def add(self, texts: Iterable[str]) -> None:
        """Look up more texts, in chunks of `CHUNK_CHARS`."""
        chunk: list[str] = []
        num_chars = 0
        for text in texts:
            chunk.append(text)
            num_chars += len(text)
            if num_chars >= CHUNK_CHARS:
                self._add_chunk(chunk)
                chunk, num_chars = [], 0
        self._add_chunk(chunk)

    def finish(self) -> Findings:
        """Return what was found in all texts, with common pieces set aside."""
        sets = self._sets
        texts_M, windows_M = (np.concatenate(parts) for parts in zip(*self._matches, strict=True))
        if self._max_items is not None:
            is_own_M = sets.own_windows(self._max_items)[windows_M]
            texts_M, windows_M = texts_M[is_own_M], windows_M[is_own_M]
        weighed = weigh(texts_M, windows_M, sets.windows.items, sets.keys_W)
        passed = set(weighed.texts[weighed.are_set_aside].tolist())
        pairs = zip(weighed.texts.tolist(), weighed.items.tolist(), weighed.windows.tolist(), strict=True)
        for (text, item, window), is_set_aside in zip(pairs, weighed.are_set_aside.tolist(), strict=True):
            found = None if is_set_aside else self._hits[text].get(item)
            if not is_set_aside and (found is None or found.kind == "fuzzy"):
                self._hits[text][item] = sets.hit(item, "ngram", window)
        hits = {text: [found[item] for item in sorted(found)] for text, found in sorted(self._hits.items()) if found}
        return Findings(hits, sets.common_pieces(weighed), len(weighed.common), len(passed - hits.keys()))

    def _add_chunk(self, texts: list[str]) -> None:
        sets, first = self._sets, self._num_texts
        self._num_texts += len(texts)
        if not texts or not sets.packs:
            return
        lines_N = sets.vocabulary.stream(texts)
        stream_N = lines_N[lines_N != LINE_END]
        ends_T: Ints = np.flatnonzero(stream_N == TEXT_END)
        for text, item in sets.whole_items(stream_N, ends_T):
            self._hits[first + text][item] = sets.hit(item, "exact")
        self._add_windows(stream_N, ends_T, texts)
        for text, item in sets.edited_items(lines_N, texts):
            self._hits[first + text].setdefault(item, sets.hit(item, "fuzzy"))

    def _add_windows(self, stream_N: Ids, ends_T: Ints, texts: list[str]) -> None:
        """Record matches of 8 words in a row and of whole short items."""
        sets, first = self._sets, self._num_texts - len(texts)
        windows = sets.windows
        places_M, windows_M = sets.index.find(stream_N)
        texts_M: Ints = np.searchsorted(ends_T, places_M)
        is_sure_M = ~(windows.are_whole | windows.need_letters)[windows_M]
        self._matches.append((first + texts_M[is_sure_M], windows_M[is_sure_M]))
        in_context: dict[int, list[tuple[int, int]]] = defaultdict(list)
        lettered: list[tuple[int, int]] = []
        letters: dict[int, str] = {}
        unsure = (a[~is_sure_M].tolist() for a in (places_M, windows_M, texts_M))
        for place, window, text in zip(*unsure, strict=True):
            if windows.are_whole[window]:
                in_context[text].append((place - (int(ends_T[text - 1]) + 1 if text else 0), window))
                continue
            if text not in letters:
                letters[text] = spaced(texts[text].split())
            if windows.raw[window] in letters[text]:
                lettered.append((first + text, window))
        if lettered:
            texts_L, windows_L = np.array(lettered, np.int64).T
            self._matches.append((texts_L, windows_L))
        for text, candidates in in_context.items():
            spans = [(place, place + int(windows.lengths[window])) for place, window in candidates]
            for (_, window), alone in zip(candidates, standing_alone(fold(texts[text]), spans), strict=True):
                item = int(windows.items[window])
                if alone:
                    self._hits[first + text].setdefault(item, sets.hit(item, "exact"))


def certificate(packs: Sequence[Pack], names: Sequence[str], findings: Findings) -> dict[str, Any]:
    """Return a JSON-ready record of what was checked and what was found.

    Args:
        packs: the evaluation sets.
        names: the id of each problem that was looked up.
        findings: the results, in the same order.
    """
    found = dict(sorted((names[number], hits) for number, hits in findings.hits.items()))
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
        "num_problems_checked": len(names),
        "num_problems_removed": len(found),
        "set_aside": {
            "min_common_problems": MIN_COMMON_PROBLEMS,
            "max_common_pieces": MAX_COMMON_PIECES,
            "max_common_share": MAX_COMMON_SHARE,
            "num_problems": findings.num_passed,
            "num_pieces": findings.num_common,
            "pieces": [piece._asdict() for piece in findings.common],
        },
        "hits": {
            problem_id: [{"set": h.set_name, "item": h.item_id, "kind": h.kind, "matched": h.matched} for h in own]
            for problem_id, own in found.items()
        },
    }

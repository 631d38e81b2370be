"""Matches between texts and evaluation items that rest on boilerplate alone.

An example of boilerplate is "where $m$ and $n$ are relatively prime positive integers". A piece is common if at least
`MIN_COMMON_PROBLEMS` of the checked problems contain it. Common pieces are set aside only if they are a small part of
the item: a problem that contains more of the item repeats it, however many other copies there are.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.filters.pieces import Hashes, Ints

# M = matches of a text and a window, P = pairs of a text and an item

MIN_COMMON_PROBLEMS = 5
"""A piece in this many of the checked problems is common."""
MAX_COMMON_PIECES = 12
"""At most this many common pieces of an item (19 words in a row) are set aside ..."""
MAX_COMMON_SHARE = 0.25
"""... and at most this share of the item's pieces."""


class CommonPiece(NamedTuple):
    """A piece of evaluation items that was set aside."""

    text: str
    """Its tokens, joined by spaces."""
    num_problems: int
    """Checked problems that contain it."""
    num_items: int
    """Evaluation items that contain it."""


@dataclass(frozen=True, slots=True)
class SplitPairs:
    """Pairs of text and item, sorted by both, and whether their common pieces were set aside."""

    texts: Ints
    items: Ints
    windows: Ints
    """The most telling window of each pair: the one whose piece is rarest in the texts."""
    are_set_aside: NDArray[np.bool_]
    common: list[tuple[int, int]]
    """(window, number of texts with its piece) of each piece that was set aside, most frequent first."""


def weigh(texts_M: Ints, windows_M: Ints, items_W: Ints, keys_W: Hashes) -> SplitPairs:
    """Separate pairs that share a rare piece or a large part of the item from pairs that share only boilerplate.

    Args:
        texts_M: the text of each match.
        windows_M: the window of each match.
        items_W: the item of each window.
        keys_W: a hash of each window's piece; windows with the same tokens have the same hash.
    """
    num_windows = max(1, len(items_W))
    texts_M, windows_M = np.divmod(np.unique(texts_M * num_windows + windows_M), num_windows)
    items_M = items_W[windows_M]
    _, examples, pieces_M = np.unique(keys_W[windows_M], return_index=True, return_inverse=True)
    num_pieces = max(1, len(examples))
    num_texts: Ints = np.bincount(np.unique(texts_M * num_pieces + pieces_M) % num_pieces, minlength=num_pieces)
    # Sort by text and item, with the rarest piece of each pair first.
    order = np.lexsort((windows_M, num_texts[pieces_M], items_M, texts_M))
    texts_M, items_M, pieces_M = texts_M[order], items_M[order], pieces_M[order]
    first = np.flatnonzero((np.diff(texts_M, prepend=-1) != 0) | (np.diff(items_M, prepend=-1) != 0))
    num_matched_P = np.diff(np.append(first, len(order)))
    size_of_item = np.bincount(items_W, minlength=1)
    is_small_P = num_matched_P <= np.minimum(MAX_COMMON_PIECES, MAX_COMMON_SHARE * size_of_item[items_M[first]])
    set_aside_P = is_small_P & (num_texts[pieces_M[first]] >= MIN_COMMON_PROBLEMS)
    common = np.unique(pieces_M[np.repeat(set_aside_P, num_matched_P)])
    common = common[np.argsort(-num_texts[common], kind="stable")]
    told = zip(windows_M[examples[common]].tolist(), num_texts[common].tolist(), strict=True)
    return SplitPairs(texts_M[first], items_M[first], windows_M[order][first], set_aside_P, list(told))

"""Pieces that say nothing of where a problem comes from, because many problems have them.

Enters: which pieces of which items stand in which texts. Leaves: the pairs of text and item that only common pieces
join, for example by "where $m$ and $n$ are relatively prime positive integers".

A piece is common from `MIN_COMMON_PROBLEMS` of the checked problems on. Common pieces are set aside only where they are
a small part of the item: a problem that has more of it repeats it, however many other copies there are.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.filters.pieces import Hashes, Ints

# M = matches of a text and a window, P = pairs of a text and an item

MIN_COMMON_PROBLEMS = 5
"""A piece that stands in so many of the checked problems is common."""
MAX_COMMON_PIECES = 12
"""At most so many common pieces of an item (19 words in a row) are set aside ..."""
MAX_COMMON_SHARE = 0.25
"""... and at most this share of the item's pieces."""


class CommonPiece(NamedTuple):
    """A piece of evaluation items that was set aside."""

    text: str
    """Its tokens, a space between them."""
    num_problems: int
    """Checked problems that hold it."""
    num_items: int
    """Evaluation items that hold it."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """Pairs of text and item, in the order of texts and items, and whether their common pieces were set aside."""

    texts: Ints
    items: Ints
    windows: Ints
    """The window that tells most: the rarest in the texts."""
    are_set_aside: NDArray[np.bool_]
    common: list[tuple[int, int]]
    """(window, texts with its piece) of each piece that was set aside, those in most texts first."""


def weigh(texts_M: Ints, windows_M: Ints, items_W: Ints, keys_W: Hashes) -> Weighed:
    """Tell the pairs that a rare piece or a large part of the item joins from those that boilerplate joins.

    Args:
        texts_M: the text of each match.
        windows_M: the window of each match.
        items_W: the item of each window.
        keys_W: the piece of each window, as a hash: windows of the same tokens have the same.
    """
    num_windows = max(1, len(items_W))
    texts_M, windows_M = np.divmod(np.unique(texts_M * num_windows + windows_M), num_windows)
    items_M = items_W[windows_M]
    _, examples, pieces_M = np.unique(keys_W[windows_M], return_index=True, return_inverse=True)
    num_pieces = max(1, len(examples))
    num_texts: Ints = np.bincount(np.unique(texts_M * num_pieces + pieces_M) % num_pieces, minlength=num_pieces)
    # By text and item, the rarest piece of each pair first.
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
    return Weighed(texts_M[first], items_M[first], windows_M[order][first], set_aside_P, list(told))

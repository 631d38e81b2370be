"""Has a sample fallen into a loop? The one definition of it, for every engine.

Enters: the token ids sampled so far. Leaves: the length of the piece that repeats at the end, or `None`.

    loop_period([5, 9, 1, 2, 3, 1, 2, 3, 1, 2, 3], LoopStop(min_repeats=3, min_tokens=16)) is None   # only 9 tokens
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.recipe.sampling import LoopStop

CHECK_EVERY = 128
"""Tokens between two looks at a sample: looking at every token would cost more than it saves."""

NUM_HEAD = 8
"""Tokens at the end that must have been there before, for a shift to be looked at closely."""


def loop_period(token_ids: Sequence[int], loops: LoopStop) -> int | None:
    """The length in tokens of the shortest piece that the end consists of, repeated, or `None` if there is none.

    The end counts as a loop of period p if its last max(`min_tokens`, `min_repeats` * p) tokens have period p, for a
    p of at most `max_period`. Counting up (1, 2, 3, …) or tables that change in each row have no period, so they are
    never stopped.

    Args:
        token_ids: the completion's tokens so far, T of them.
        loops: the thresholds.
    """
    if len(token_ids) < loops.min_tokens:
        return None
    most = min(loops.max_period, len(token_ids) // loops.min_repeats)
    # T = tokens looked at, newest first, so that a period is a shift of the beginning. Most samples end here: only
    # where the newest few tokens were there before is a longer stretch worth copying out of its list.
    newest_T = _newest(token_ids, most + NUM_HEAD)
    windows = np.lib.stride_tricks.sliding_window_view(newest_T, NUM_HEAD)[1:]
    shifts = np.flatnonzero((windows == newest_T[:NUM_HEAD]).all(axis=1)) + 1
    for period in shifts.tolist():
        stretch = max(loops.min_tokens, loops.min_repeats * period)
        if stretch > len(token_ids):
            break
        newest_T = _newest(token_ids, stretch)
        if np.array_equal(newest_T[period:], newest_T[:-period]):
            return int(period)
    return None


def _newest(token_ids: Sequence[int], num: int) -> Any:
    return np.asarray(token_ids[-num:], dtype=np.int64)[::-1]

"""Loop detection in sampled tokens, shared by all engines.

Example:

    loop_period([5, 9, 1, 2, 3, 1, 2, 3, 1, 2, 3], LoopStop(min_repeats=3, min_tokens=16)) is None   # only 9 tokens
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.recipe.sampling import LoopStop

CHECK_EVERY = 128
"""Tokens between two checks of a sample: checking at every token would cost more than it saves."""

NUM_HEAD = 8
"""Tokens at the end that must have occurred before, for a shift to be checked in full."""


def loop_period(token_ids: Sequence[int], loops: LoopStop) -> int | None:
    """Return the length in tokens of the shortest piece that repeats at the end, or `None` if there is no loop.

    The end is a loop of period p if the last max(`min_tokens`, `min_repeats` * p) tokens have period p, for p of at
    most `max_period`. Counting up (1, 2, 3, …) and tables that change in each row have no period and are never stopped.

    Args:
        token_ids: the completion's tokens so far, T of them.
        loops: the thresholds.
    """
    if len(token_ids) < loops.min_tokens:
        return None
    most = min(loops.max_period, len(token_ids) // loops.min_repeats)
    # T = tokens checked, newest first, so that a period is a shift from the start. A longer stretch is copied out of
    # the list only if the newest few tokens occurred before, which is rare.
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


def is_looping(token_ids: Sequence[int], loops: LoopStop | None) -> bool:
    """Return whether the tokens so far end in a loop, looked for only every `CHECK_EVERY` tokens; `None`: never."""
    return loops is not None and len(token_ids) % CHECK_EVERY == 0 and loop_period(token_ids, loops) is not None


def _newest(token_ids: Sequence[int], num: int) -> Any:
    return np.asarray(token_ids[-num:], dtype=np.int64)[::-1]

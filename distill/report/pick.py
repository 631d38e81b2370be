"""Chooses the traces that a report shows, deterministically and in one pass.

Strata (outcome, source, grade, teacher) give one trace each in turn, so that rare kinds are well represented. Within a
stratum the order is by the SHA-256 of the problem's id: the same problems appear in each stratum and in other runs'
reports, whatever the order of rows and files.
"""

import hashlib
import heapq
from collections.abc import Hashable
from itertools import islice, zip_longest
from typing import Generic, TypeVar

from distill.core.records import SampleKey

MAX_TRACES = 2_000
"""Traces on a report at most, however short they are."""

RULE = (
    "Every combination of outcome (kept, or the first reason for the drop), source, grade and writer gives one trace "
    "in turn, until {num:,} are chosen or the page is full; within a combination, problems come in the order of the "
    "SHA-256 of their id. So rare outcomes are shown more often than they occur, while all counts and charts on "
    "this page are those of the whole run."
)


Value = TypeVar("Value")


class Picker(Generic[Value]):
    """Keeps the first `num` traces of each stratum, in the order described in the module's docstring.

    Args:
        num: how many to choose in total.
    """

    def __init__(self, num: int = MAX_TRACES) -> None:
        self.num, self.num_offered = num, 0
        self._best: dict[Hashable, list[tuple[int, int, SampleKey, Value]]] = {}
        self._last = ("", 0)

    def offer(self, stratum: Hashable, key: SampleKey, value: Value) -> None:
        """Consider one trace; identities must be unique."""
        self.num_offered += 1
        best = self._best.setdefault(stratum, [])
        # Negative, so that the smallest heap entry, which is replaced first, is the last in order.
        entry = (-self._order(key[0]), -key[1], key, value)
        if len(best) < self.num:
            heapq.heappush(best, entry)
        elif entry[:3] > best[0][:3]:
            heapq.heapreplace(best, entry)

    def chosen(self) -> list[Value]:
        """Return the values of the chosen traces, in order of preference."""
        ordered = [
            [(value,) for *_, value in sorted(best, key=lambda entry: entry[:3], reverse=True)]
            for _, best in sorted(self._best.items(), key=lambda pair: repr(pair[0]))
        ]
        turns = (some[0] for turn in zip_longest(*ordered) for some in turn if some is not None)
        return list(islice(turns, self.num))

    def _order(self, problem_id: str) -> int:
        if self._last[0] != problem_id:  # traces of a problem usually come in sequence
            digest = hashlib.sha256(problem_id.encode(errors="surrogatepass")).digest()
            self._last = (problem_id, int.from_bytes(digest[:8], "big"))
        return self._last[1]

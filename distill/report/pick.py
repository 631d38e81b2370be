"""Which traces of a large run its report shows: every kind of them, the same ones each time, found in one pass.

Enters: each trace's stratum (outcome, source, grade, who wrote it), identity and whatever else is to be kept of it.
Leaves: those to show, the most telling first. One trace of each stratum in turn, so that rare kinds are shown whole;
within a stratum in the order of the SHA-256 of the problem's id, so that the same problems come up in each stratum and
in another run's report, and neither the order of the rows nor their number of files matters.
"""

import hashlib
import heapq
from collections.abc import Hashable
from itertools import islice, zip_longest
from typing import Generic, TypeVar

from distill.core.records import SampleKey

MAX_TRACES = 2_000
"""A report shows no more traces, however short they are."""

RULE = (
    "Every combination of outcome (kept, or the first reason for the drop), source, grade and writer gives one trace "
    "in turn, until {num:,} are chosen or the page is full; within a combination, problems come in the order of the "
    "SHA-256 of their id. So rare outcomes are shown more often than they occur, while all counts and charts on "
    "this page are those of the whole run."
)


Value = TypeVar("Value")


class Picker(Generic[Value]):
    """Keeps the first `num` identities of each stratum, by the order above.

    Args:
        num: how many are wanted in all.
    """

    def __init__(self, num: int = MAX_TRACES) -> None:
        self.num, self.num_offered = num, 0
        self._best: dict[Hashable, list[tuple[int, int, SampleKey, Value]]] = {}
        self._last = ("", 0)

    def offer(self, stratum: Hashable, key: SampleKey, value: Value) -> None:
        """Consider one trace; no two have the same identity."""
        self.num_offered += 1
        best = self._best.setdefault(stratum, [])
        # Negative: the heap gives up its smallest, which must be the last in order.
        entry = (-self._order(key[0]), -key[1], key, value)
        if len(best) < self.num:
            heapq.heappush(best, entry)
        elif entry[:3] > best[0][:3]:
            heapq.heapreplace(best, entry)

    def chosen(self) -> list[Value]:
        """What was kept of the traces to show; a stratum's last ones come last."""
        ordered = [
            [(value,) for *_, value in sorted(best, key=lambda entry: entry[:3], reverse=True)]
            for _, best in sorted(self._best.items(), key=lambda pair: repr(pair[0]))
        ]
        turns = (some[0] for turn in zip_longest(*ordered) for some in turn if some is not None)
        return list(islice(turns, self.num))

    def _order(self, problem_id: str) -> int:
        if self._last[0] != problem_id:  # traces of a problem come together
            digest = hashlib.sha256(problem_id.encode(errors="surrogatepass")).digest()
            self._last = (problem_id, int.from_bytes(digest[:8], "big"))
        return self._last[1]

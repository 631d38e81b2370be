"""Counts of what one sampling call has drawn, over all sets of problems and for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.core.forecast import Drawn
from distill.core.records import Trace
from distill.engines.base import Engine
from distill.sampling.sample_queue import SampleQueue
from distill.sampling.sets import SampleSet


@dataclass(slots=True)
class SetCounts:
    """What a call has drawn of one set."""

    num_requested: int = 0
    num_sampled: int = 0
    num_errors: int = 0
    num_tokens: int = 0


class CallCounts:
    """What a call has drawn.

    Args:
        sets: the sets, by number.
        waiting: samples of them that are still to be requested.
    """

    def __init__(self, sets: Sequence[SampleSet], waiting: SampleQueue) -> None:
        self._sets, self._waiting = sets, waiting
        self._by_set = [SetCounts() for _ in sets]
        self.num_sampled = self.num_errors = self.num_tokens = 0
        self.num_cut = 0
        """Samples that were cut off or looping."""

    def request(self, number: int) -> None:
        """Count a request for a sample of a set."""
        self._by_set[number].num_requested += 1

    def add(self, number: int, trace: Trace) -> None:
        """Count a finished sample of a set."""
        for counts in (self, self._by_set[number]):
            counts.num_sampled += 1
            counts.num_errors += trace.finish_reason == "error"
            counts.num_tokens += trace.num_completion_tokens
        self.num_cut += trace.finish_reason in ("length", "loop")

    def drawn(self, engine: Engine) -> Drawn:
        """Return the state over all sets."""
        return Drawn(
            num_finished=self.num_sampled - self.num_errors,
            num_errors=self.num_errors,
            num_tokens=self.num_tokens,
            num_in_flight=engine.num_in_flight,
            num_tokens_in_flight=engine.num_tokens_in_flight,
            num_waiting=len(self._waiting) - self._waiting.num_needless,
        )

    def drawn_by_set(self, drawn: Drawn) -> list[tuple[Drawn, int]]:
        """Return the state of each set with its `max_tokens`, from the state over all; empty if there is only one."""
        if len(self._sets) == 1:
            return []
        # The engine does not tell whose tokens are in flight: they are shared out by samples.
        tokens_each = (drawn.num_tokens_in_flight or 0) / max(1, drawn.num_in_flight)
        found = []
        for one, counts, num in zip(self._sets, self._by_set, self._waiting.num_waiting_by_set, strict=True):
            num_in_flight = counts.num_requested - counts.num_sampled
            part = Drawn(
                num_finished=counts.num_sampled - counts.num_errors,
                num_errors=counts.num_errors,
                num_tokens=counts.num_tokens,
                num_in_flight=num_in_flight,
                num_tokens_in_flight=round(num_in_flight * tokens_each),
                num_waiting=num,
            )
            found.append((part, one.sampling.max_tokens))
        return found

"""How fast work goes and how long it goes on. Pure: the caller reads the clock.

Enters: what is done by which moment; of sampling also the tokens of samples that have not finished. Leaves: a rate,
and the seconds to the end where they can be told.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

RECENT_S = 60.0
"""A rate is that of the last so many seconds: start-up, and a neighbour that has gone, are forgotten."""
NUM_MARKS = 10
"""Things that are done less often than that have a rate over the last so many of them."""
MARK_EVERY_S = 1.0


class Rate:
    """How many things are done in a second, of late.

    Args:
        now_s: when the work begins.
        total: how many are done before.
    """

    def __init__(self, now_s: float, total: float = 0) -> None:
        self._latest = now_s, total
        self._marks = deque([self._latest])

    def note(self, now_s: float, total: float) -> None:
        """`total` are done by now."""
        self._latest = now_s, total
        if now_s - self._marks[-1][0] >= MARK_EVERY_S:
            self._marks.append(self._latest)
        while len(self._marks) > NUM_MARKS and now_s - self._marks[1][0] >= RECENT_S:
            self._marks.popleft()

    @property
    def per_s(self) -> float:
        (since_s, before), (now_s, total) = self._marks[0], self._latest
        return max(0.0, total - before) / (now_s - since_s) if now_s > since_s else 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one call has sampled by a moment, and what it has left to sample."""

    num_finished: int
    """Samples, those that ended in errors left out."""
    num_errors: int
    num_tokens: int
    """Completion tokens of all that have finished."""
    num_in_flight: int
    num_tokens_in_flight: int | None
    """Completion tokens that those have so far; `None`: nobody can tell."""
    num_waiting: int
    """Samples that will be asked for."""


class Outlook(NamedTuple):
    """What can be said of a call at a moment."""

    tokens_per_s: float
    seconds_left: float | None
    """`None`: it cannot be told yet."""


class SamplingForecast:
    """The outlook of one call, look by look.

    Args:
        max_tokens: most completion tokens of a sample.
        now_s: when sampling begins.
    """

    def __init__(self, max_tokens: int, now_s: float) -> None:
        self._max_tokens, self._began_s = max_tokens, now_s
        self._tokens = Rate(now_s)

    def look(self, drawn: Drawn, now_s: float) -> Outlook:
        elapsed_s = now_s - self._began_s
        if drawn.num_tokens_in_flight is None:
            # Only whole samples count then, and they come in waves, which a recent rate would take for a change.
            return Outlook(drawn.num_tokens / elapsed_s if elapsed_s > 0 else 0.0, _left_by_samples(drawn, elapsed_s))
        self._tokens.note(now_s, drawn.num_tokens + drawn.num_tokens_in_flight)
        num_left = tokens_left(drawn, self._max_tokens)
        rate = self._tokens.per_s
        return Outlook(rate, num_left / rate if num_left is not None and rate > 0 else None)


def tokens_left(drawn: Drawn, max_tokens: int) -> float | None:
    """Completion tokens still to be drawn; `None` before any sample has finished.

    The mean length is estimated as where a sample is as likely to end at each token as at any other: all tokens so far
    by the samples that have finished. The mean of those alone would be too short at first, since short ones finish
    first. What is in flight has as much before it as a new sample, and nothing has more than `max_tokens`.
    """
    if not drawn.num_finished:
        return None
    so_far = drawn.num_tokens_in_flight or 0
    mean = min(max_tokens, (drawn.num_tokens + so_far) / drawn.num_finished)
    most_in_flight = max(0, drawn.num_in_flight * max_tokens - so_far)
    return drawn.num_waiting * mean + min(drawn.num_in_flight * mean, most_in_flight)


def _left_by_samples(drawn: Drawn, elapsed_s: float) -> float | None:
    """The seconds left by the samples that have finished; before as many have as are in flight, short ones prevail."""
    num = drawn.num_finished + drawn.num_errors
    if num < max(1, drawn.num_in_flight):
        return None
    return (drawn.num_waiting + drawn.num_in_flight) * elapsed_s / num

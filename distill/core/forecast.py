"""Estimate the rate of work and the time left. Pure: the caller reads the clock."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

RECENT_S = 60.0
"""Window over which a rate is measured, so that start-up and a process that has since ended drop out."""
NUM_MARKS = 10
"""Marks that are always kept: rare events are averaged over a longer window than `RECENT_S`."""
MARK_EVERY_S = 1.0


class Rate:
    """A recent rate, in things per second.

    Args:
        now_s: when the work begins.
        total: how many things are done already.
    """

    def __init__(self, now_s: float, total: float = 0) -> None:
        self._latest = now_s, total
        self._marks = deque([self._latest])

    def note(self, now_s: float, total: float) -> None:
        """Record that `total` things are done by now."""
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
    """The state of a sampling call at one moment."""

    num_finished: int
    """Finished samples, without those that ended in errors."""
    num_errors: int
    num_tokens: int
    """Completion tokens of all finished samples."""
    num_in_flight: int
    num_tokens_in_flight: int | None
    """Completion tokens so far of the samples in flight; `None` if unknown."""
    num_waiting: int
    """Samples that are still to be requested."""


class Outlook(NamedTuple):
    """The forecast for a sampling call at one moment."""

    tokens_per_s: float
    seconds_left: float | None
    """`None` if it cannot be estimated yet."""


class SamplingForecast:
    """A forecast of one sampling call, updated by each `look`.

    Args:
        max_tokens: maximum completion tokens of a sample, of any set.
        now_s: when sampling begins.
    """

    def __init__(self, max_tokens: int, now_s: float) -> None:
        self._max_tokens, self._began_s = max_tokens, now_s
        self._tokens = Rate(now_s)

    def look(self, drawn: Drawn, now_s: float, parts: Sequence[tuple[Drawn, int]] = ()) -> Outlook:
        """Return the forecast at a moment.

        Args:
            drawn: the state over all sets of problems.
            now_s: the moment.
            parts: the state of each set with its own maximum, if there are several.
        """
        elapsed_s = now_s - self._began_s
        if drawn.num_tokens_in_flight is None:
            # Only finished samples count here. They arrive in waves, so a recent rate would fluctuate.
            return Outlook(drawn.num_tokens / elapsed_s if elapsed_s > 0 else 0.0, _left_by_samples(drawn, elapsed_s))
        self._tokens.note(now_s, drawn.num_tokens + drawn.num_tokens_in_flight)
        num_left = tokens_left_of(parts) if parts else tokens_left(drawn, self._max_tokens)
        rate = self._tokens.per_s
        return Outlook(rate, num_left / rate if num_left is not None and rate > 0 else None)


def tokens_left(drawn: Drawn, max_tokens: int) -> float | None:
    """Return the completion tokens still to be drawn; `None` before any sample has finished.

    The mean length is estimated as if a sample were equally likely to end at every token: all tokens so far, divided by
    the number of finished samples. The mean of the finished samples alone would be too short at first, because short
    ones finish first. A sample in flight is expected to need as many more tokens as a new one. No sample exceeds
    `max_tokens`.
    """
    return _left_at(drawn, max_tokens, 0.0) if drawn.num_finished else None


def _left_at(drawn: Drawn, max_tokens: int, usual_mean: float) -> float:
    """Return the tokens left, at `usual_mean` tokens a sample if none has finished."""
    so_far = drawn.num_tokens_in_flight or 0
    mean = (drawn.num_tokens + so_far) / drawn.num_finished if drawn.num_finished else usual_mean
    mean = min(max_tokens, mean)
    most_in_flight = max(0, drawn.num_in_flight * max_tokens - so_far)
    return drawn.num_waiting * mean + min(drawn.num_in_flight * mean, most_in_flight)


def tokens_left_of(parts: Sequence[tuple[Drawn, int]]) -> float | None:
    """Return the completion tokens still to be drawn of several sets, each with its own `max_tokens`.

    A set of which no sample has finished is expected to have the mean length of the others, up to its own maximum.
    `None` before any sample has finished.
    """
    num_finished = sum(drawn.num_finished for drawn, _ in parts)
    if not num_finished:
        return None
    num_tokens = sum(drawn.num_tokens + (drawn.num_tokens_in_flight or 0) for drawn, _ in parts)
    mean = num_tokens / num_finished
    return sum(_left_at(drawn, max_tokens, mean) for drawn, max_tokens in parts)


def _left_by_samples(drawn: Drawn, elapsed_s: float) -> float | None:
    """Return the seconds left, estimated from the finished samples."""
    num = drawn.num_finished + drawn.num_errors
    # Short samples finish first, and would bias the estimate until as many have finished as are in flight.
    if num < max(1, drawn.num_in_flight):
        return None
    return (drawn.num_waiting + drawn.num_in_flight) * elapsed_s / num

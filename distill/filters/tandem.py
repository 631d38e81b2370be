"""Search for consecutive repeats anywhere in a text, as written by a model caught in a loop.

A run is a piece that occurs at least three times in a row. Example:

    find_runs("Let me see. " + "Wait, let me check that again. " * 60 + "So it is 4.")   # [Run(12, 1872, 31)]

Only verbatim repeats count: tables, enumerations and worked divisions change a number from row to row. A probe is taken
every `STEP_CHARS` characters; inside a run, the same probe occurs again one period later.
"""

from typing import NamedTuple

MIN_REPEATS = 3
MIN_RUN_CHARS = 300
"""Shorter runs are not looked for."""
MAX_PERIOD_CHARS = 4_096
STEP_CHARS = 176
"""Wherever a run begins, a probe in it then has a period and a probe ahead: 300 characters of period 100 leave 176."""
PROBE_CHARS = 24
MAX_TRIES = 16
"""A probe may occur several times in one period; after this many occurrences the next probe is tried."""
MIN_LETTERS = 3
"""A run with fewer letters and no equals sign (`0 & 0 & `, `|---|`) may be part of a table or a number ..."""
MIN_TABLE_CHARS = 1_000
"""... if it is shorter than this."""


class Run(NamedTuple):
    """A piece of `period` characters that is repeated in a row, the last time possibly cut off."""

    start: int
    end: int
    period: int

    @property
    def num_repeats(self) -> int:
        """Return the number of complete occurrences of the piece."""
        return (self.end - self.start) // self.period

    @property
    def num_repeated_chars(self) -> int:
        """Return the number of characters after the first occurrence of the piece."""
        return self.end - self.start - self.period


def find_runs(text: str) -> list[Run]:
    """Return all runs of at least `MIN_RUN_CHARS`, in order and disjoint. Linear in the text's length."""
    runs: list[Run] = []
    place = 0
    while place + PROBE_CHARS <= len(text):
        run = _run_at(text, place, runs[-1].end if runs else 0)
        if run is None:
            place += STEP_CHARS
            continue
        piece = text[run.start : run.start + max(run.period, PROBE_CHARS)]
        is_said = "=" in piece or sum(map(str.isalpha, piece)) >= MIN_LETTERS
        if is_said or run.end - run.start >= MIN_TABLE_CHARS:
            runs.append(run)
        place = run.end
    return runs


def _run_at(text: str, place: int, first: int) -> Run | None:
    """Return the run around a position, starting at `first` or later, or `None`."""
    probe = text[place : place + PROBE_CHARS]
    again = place
    for _ in range(MAX_TRIES):
        again = text.find(probe, again + 1, place + MAX_PERIOD_CHARS + PROBE_CHARS)
        if again < 0:
            return None
        period = again - place
        # Near the beginning of a run a whole period lies ahead alone, near its end behind alone.
        if text[place:again] in (text[again : again + period], text[max(first, place - period) : place]):
            start = place - _same_before(text, place, period, place - first)
            end = again + _same_after(text, place, period)
            if end - start >= max(MIN_RUN_CHARS, MIN_REPEATS * period):
                return Run(start, end, period)
    return None


def _same_after(text: str, place: int, period: int) -> int:
    """Return how many characters from `place` on equal those one period later."""
    same, step = 0, period
    while step:
        left = text[place + same : place + same + step]
        right = text[place + same + period : place + same + period + step]
        if left == right and len(right) == step:
            same += step
            step *= 2
        else:
            step //= 2
    return same


def _same_before(text: str, place: int, period: int, most: int) -> int:
    """Return how many characters before `place`, at most `most`, equal those one period later."""
    same, step = 0, min(period, most)
    while step:
        low = place - same - step
        if same + step <= most and text[low : low + step] == text[low + period : low + period + step]:
            same += step
            step *= 2
        else:
            step //= 2
    return same

"""Samples that end in errors: they are reported at once, and too many of them stop the call with a `StageError`.

The same command then retries them.
"""

import math
import time
from collections import Counter

from distill.core.progress import ProgressBar
from distill.engines.base import Engine
from distill.errors import StageError
from distill.storage.ledger import LedgerIndex, Tally
from distill.storage.trace_store import Stored

EARLY_ERRORS = 32
"""Sampling stops if at least this many samples have ended and all are errors."""
NUM_WORDS = 3
"""Number of different errors that are quoted."""
TROUBLE_EVERY_S = 60.0
"""An engine that gets no answers is quoted at once, then at this interval."""
NEW_WORDS_EVERY_S = 15.0
"""Minimum interval before a different message is shown: some servers number their messages."""


def stopped_by_errors(found: Stored, index: LedgerIndex, max_share: float) -> bool:
    """Return whether an earlier call stopped because of errors, which must then be retried.

    Args:
        found: the stored samples.
        index: index of the ledger that an unfinished earlier call left.
        max_share: share of errors among the samples above which a call stops at its end.
    """
    if len(found.errors) > max_share * len(found.keys):
        return True
    last = sorted(index.places, key=lambda key: index.places[key].offset)[-EARLY_ERRORS:]
    return len(last) == EARLY_ERRORS and index.errors.issuperset(last)


class ErrorWatch:
    """Monitor for the errors of one call.

    Args:
        title: title of the job, for messages.
        max_share: share of errors among the samples above which a call stops at its end.
        tally: tally of everything in the run folder, updated with this call's samples.
        is_retry: whether this call only retries errors of earlier calls.
    """

    def __init__(self, title: str, max_share: float, tally: Tally, is_retry: bool = False) -> None:
        self.trouble = ""
        """The message shown while the engine gets no answers."""
        self._title, self._max_share, self._tally, self._is_retry = title, max_share, tally, is_retry
        self._num_samples = 0
        self._words: Counter[str] = Counter()
        """This call's errors, by message."""
        self._num_in_row, self._last = 0, ""
        """Errors since the last answered sample, and the last message."""
        self._shown, self._shown_at = "", -math.inf

    def add(self, finish_reason: str, error: str) -> None:
        """Record how a sample of this call ended."""
        self._num_samples += 1
        if finish_reason != "error":
            self._num_in_row = 0
            return
        self._num_in_row, self._last = self._num_in_row + 1, error or "no reason given"
        self._words[self._last] += 1

    def show(self, engine: Engine, progress: ProgressBar) -> None:
        """Quote an engine that gets no answers, or whose first samples or many in a row end in errors."""
        said: str = getattr(engine, "trouble", "")  # only the server engine has it; others answer or fail
        if not said and self._num_in_row >= min(self._num_samples, EARLY_ERRORS):
            said = self._last
        self.trouble = said
        every_s = TROUBLE_EVERY_S if said == self._shown else NEW_WORDS_EVERY_S
        if said and time.monotonic() - self._shown_at >= every_s:
            self._shown, self._shown_at = said, time.monotonic()
            progress.say(f"No answers: {said}" if self._num_answered else f"Nothing has been answered yet: {said}")

    @property
    def _num_answered(self) -> int:
        return self._tally.num_samples - self._tally.finish_reasons["error"]

    def refuse_early(self) -> None:
        """Stop before all samples of a large job become errors.

        Raises:
            StageError: all samples of this call so far ended in errors, unless it is a retry and others were answered.
        """
        if self._max_share >= 1.0 or (self._is_retry and self._num_answered):
            return
        if self._num_samples >= EARLY_ERRORS and self._num_in_row == self._num_samples:
            raise StageError(self._report(f"the first {self._num_samples:,} samples all ended in errors"))

    def refuse(self) -> None:
        """Stop if too many of all samples are errors.

        Raises:
            StageError: more than `compute.max_error_share`.
        """
        num, total = self._tally.finish_reasons["error"], self._tally.num_samples
        if num > self._max_share * total:
            what = f"{num:,} of {total:,} samples ended in errors, more than compute.max_error_share"
            raise StageError(self._report(f"{what} ({self._max_share:g}) allows"))

    def _report(self, what: str) -> str:
        words = "; ".join(f"{said} ({num:,} times)" for said, num in self._words.most_common(NUM_WORDS))
        more = f"; and {len(self._words) - NUM_WORDS:,} other errors" if len(self._words) > NUM_WORDS else ""
        return (
            f"{self._title}: {what}: {words}{more}. Finished work is kept. Once the cause is fixed, the same "
            "command retries these samples."
        )

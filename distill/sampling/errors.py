"""Samples that end in errors: quoted at once, and a reason to stop where they are too many.

Enters: what each sample ended in, and what the engine says of itself. Leaves: lines for the live view, and a
`StageError` with the engine's own words. The same command asks again for the errors of a call that stopped so.
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
"""If so many samples are all errors, sampling stops."""
NUM_WORDS = 3
"""So many different errors are quoted."""
TROUBLE_EVERY_S = 60.0
"""An engine that cannot get answers is quoted at once, then so often."""
NEW_WORDS_EVERY_S = 15.0
"""Other words than those last quoted are shown after so long at least: some servers number them."""


def stopped_by_errors(found: Stored, index: LedgerIndex, max_share: float) -> bool:
    """Whether an earlier call stopped because of errors, so that they are to be asked for again.

    Args:
        found: what is stored.
        index: of the ledger that the earlier call left, if it did not finish.
        max_share: of errors among the samples, above which a call stops at its end.
    """
    if len(found.errors) > max_share * len(found.keys):
        return True
    last = sorted(index.places, key=lambda key: index.places[key].offset)[-EARLY_ERRORS:]
    return len(last) == EARLY_ERRORS and index.errors.issuperset(last)


class ErrorWatch:
    """The errors of one call.

    Args:
        title: of the job, for messages.
        max_share: of errors among the samples, above which a call stops at its end.
        tally: of everything in the run folder, this call's samples included as they come.
        is_retry: whether only errors of earlier calls are asked for.
    """

    def __init__(self, title: str, max_share: float, tally: Tally, is_retry: bool = False) -> None:
        self.trouble = ""
        """What the engine says of itself while it gets no answers."""
        self._title, self._max_share, self._tally, self._is_retry = title, max_share, tally, is_retry
        self._num_samples = 0
        self._words: Counter[str] = Counter()
        """This call's errors, by what was said."""
        self._num_in_row, self._last = 0, ""
        """Errors since the last sample that was answered, and what was said of the last one."""
        self._shown, self._shown_at = "", -math.inf

    def add(self, finish_reason: str, error: str) -> None:
        """Note how a sample of this call ended."""
        self._num_samples += 1
        if finish_reason != "error":
            self._num_in_row = 0
            return
        self._num_in_row, self._last = self._num_in_row + 1, error or "no reason given"
        self._words[self._last] += 1

    def show(self, engine: Engine, progress: ProgressBar) -> None:
        """Quote an engine that gets no answers, or whose samples end in errors: the first ones, or many in a row."""
        said: str = getattr(engine, "trouble", "")  # servers have it; other engines answer or fail
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
        """Stop before all of a large job has become errors.

        Raises:
            StageError: the first samples of this call all ended in errors, and so did all of earlier calls, or they
                were asked for the first time.
        """
        if self._max_share >= 1.0 or (self._is_retry and self._num_answered):
            return
        if self._num_samples >= EARLY_ERRORS and self._num_in_row == self._num_samples:
            raise StageError(self._report(f"the first {self._num_samples:,} samples all ended in errors"))

    def refuse(self) -> None:
        """Stop where too many of all samples are errors.

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
            f"{self._title}: {what}: {words}{more}. What is finished is kept. Once the cause is fixed, the same "
            "command asks again for these samples."
        )

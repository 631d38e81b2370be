"""Progress of long stages: a live bar on a terminal, a periodic line elsewhere, nothing in quiet mode."""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from distill.core.forecast import Rate
from distill.core.formatting import duration
from distill.core.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 15.0
PROGRESS_FD = "DISTILL_PROGRESS_FD"
QUIET = "DISTILL_QUIET"


def terminal() -> TextIO:
    """Return the stream for progress: the file descriptor passed on by the parent process, else standard error."""
    handed = os.environ.get(PROGRESS_FD)
    return os.fdopen(os.dup(int(handed)), "w") if handed else sys.stderr


def note(text: str) -> None:
    """Print a line to the progress stream, unless in quiet mode."""
    if not os.environ.get(QUIET):
        stream = terminal()
        print(printable(text), file=stream, flush=True)
        if stream is not sys.stderr:
            stream.close()


class ProgressBar:
    """A progress bar with a rate, the time left and a note such as `loss 0.43`.

    Use it as a context manager. `advance` may be called with 0 to show a new note.

    Args:
        title: name of the work.
        total: number of things, or `None` if unknown.
        unit: plural noun for the things.
        done: number of things done already.
        forecast: returns the seconds left, or `None` if unknown. Default: extrapolate the recent rate.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str,
        done: int = 0,
        forecast: Callable[[], float | None] | None = None,
    ) -> None:
        self.title, self.total, self.unit, self.num_done = title, total, unit, done
        self._num_before = done
        self._forecast = forecast or self._seconds_left
        self._has_said_once = False
        self._stream = None if os.environ.get(QUIET) else terminal()
        self._stream_is_ours = bool(os.environ.get(PROGRESS_FD))
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        self._rate = Rate(self._started, self.num_done)
        if self._stream is not None and self._stream.isatty():
            self._start_live(self._stream)
        elif self._stream is not None:
            resumed = f", {self.num_done} done before" if self.num_done else ""
            self.say(f"{self.title}: {'' if self.total is None else f'{self.total} '}{self.unit}{resumed}")
        return self

    def _start_live(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(self.unit),
            TextColumn("[dim]{task.fields[note]}"),
            TextColumn("[cyan]{task.fields[left]}"),
            console=Console(file=stream),
        )
        self._task = self._live.add_task(self.title, total=self.total, completed=self.num_done, note="", left="")
        self._live.start()

    def advance(self, num: int = 1, note: str = "") -> None:
        """Count `num` more things as done."""
        self.num_done += num
        now = time.monotonic()
        self._rate.note(now, self.num_done)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self.num_done, note=printable(note), left=self._left())
        elif self._stream is not None and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            parts = [f"{self._count()} {self.unit}", f"{self.per_s:.1f}/s", note, self._left()]
            self.say(f"{self.title}: {', '.join(filter(None, parts))}")

    @property
    def per_s(self) -> float:
        """Return the recent rate, in things per second."""
        return self._rate.per_s

    def _seconds_left(self) -> float | None:
        return None if self.total is None or not self.per_s else (self.total - self.num_done) / self.per_s

    def _left(self) -> str:
        seconds = self._forecast()
        return "" if seconds is None else f"{duration(round(seconds))} left"

    def _count(self) -> str:
        return f"{self.num_done}" if self.total is None else f"{self.num_done}/{self.total}"

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        text = printable(text)  # parts of it may come from a server or a file name
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        elif self._stream is not None:
            print(text, file=self._stream, flush=True)

    def say_once(self, text: str) -> None:
        """Print a line the first time that this is called; print nothing after that."""
        if not self._has_said_once:
            self._has_said_once = True
            self.say(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None and self._task is not None:
            self._live.update(self._task, left=f"in {duration(round(time.monotonic() - self._started))}")
            self._live.stop()
        elif kind is None and self.num_done > self._num_before:
            elapsed = time.monotonic() - self._started
            self.say(f"{self.title}: {self._count()} {self.unit} in {duration(round(elapsed))}")
        if self._stream is not None and self._stream_is_ours:
            self._stream.close()
            self._stream = None

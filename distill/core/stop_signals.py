"""Handle Ctrl-C and SIGTERM while samples are in flight: let them finish, but only until a deadline."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

RING_EVERY_S = 0.1


class Stopping:
    """A signal handler: the first SIGINT or SIGTERM requests a stop, the second one interrupts as usual.

    Use it as a context manager. Only the main thread can set signal handlers; in other threads it does nothing.

    Args:
        within_s: seconds from the first signal to the deadline.
        say: called at the first signal, in a separate thread, because the main one may be in the middle of a long step.
    """

    def __init__(self, within_s: float, say: Callable[[], None]) -> None:
        self._within_s, self._say = within_s, say
        self._asked_at: float | None = None
        self._is_interruptible = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._announce, name="stopping", daemon=True)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            ours = {signal.SIGINT: self._ask, signal.SIGTERM: self._ask, signal.SIGALRM: self._ring}
            self._handlers = {signum: signal.signal(signum, handler) for signum, handler in ours.items()}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handlers:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._wake.set()
        self._thread.join()

    @property
    def is_asked(self) -> bool:
        return self._asked_at is not None

    @property
    def is_over(self) -> bool:
        """Return whether the deadline has passed."""
        return self._asked_at is not None and time.monotonic() >= self._asked_at + self._within_s

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise KeyboardInterrupt inside the block once the deadline has passed."""
        self._is_interruptible = True
        try:
            yield
        finally:
            self._is_interruptible = False

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self._asked_at is not None:
            raise KeyboardInterrupt
        self._asked_at = time.monotonic()
        # The alarm repeats, because the first one may go off outside an interruptible block.
        signal.setitimer(signal.ITIMER_REAL, min(max(self._within_s, 1e-3), threading.TIMEOUT_MAX), RING_EVERY_S)
        self._wake.set()

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        if self._is_interruptible:
            self._is_interruptible = False  # only once, so that clean-up is left alone
            raise KeyboardInterrupt

    def _announce(self) -> None:
        self._wake.wait()
        if self.is_asked:
            self._say()

"""Executions side by side, or one alone, so that a time limit is not reported because the machine was busy."""

import contextlib
import os
import threading
from collections.abc import Iterator


class Turnstile:
    """A lock that many hold together or one holds alone. One that waits to be alone goes before new ones."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget who holds it: in a forked process nobody does."""
        self._changed = threading.Condition()
        self._num_inside = self._num_waiting = 0
        self._is_alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Hold it together with others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._num_waiting)
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone."""
        with self._changed:
            self._num_waiting += 1
            self._changed.wait_for(lambda: not self._is_alone and not self._num_inside)
            self._num_waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


EXECUTIONS = Turnstile()
"""Of all programs that this process has run in sandboxes."""
os.register_at_fork(after_in_child=EXECUTIONS.reset)

"""Sandboxes started before they are needed. Each is used for one program and then ended."""

import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections import deque

from distill.grading.sandbox.process import Sandbox
from distill.grading.sandbox.records import SandboxError

NUM_READY = 2


class Pool:
    """Fresh sandboxes. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: deque[concurrent.futures.Future[Sandbox]] = deque()

    def take(self) -> Sandbox:
        """Return a sandbox that nobody has used, and have another started.

        Raises:
            OSError: bubblewrap cannot be started.
            SandboxError: it ends at once.
        """
        for _ in range(2 * NUM_READY):
            with self._lock:
                while len(self._ready) <= NUM_READY:
                    self._ready.append(_starting().submit(Sandbox))
                first = self._ready.popleft()
            sandbox = first.result()
            if sandbox.is_running:
                return sandbox
            sandbox.close()
        raise SandboxError("sandboxes end as soon as they are started")

    def close(self) -> None:
        """End the sandboxes that wait."""
        with self._lock:
            waiting = list(self._ready)
            self._ready.clear()
        for one in waiting:
            with contextlib.suppress(OSError):
                one.result().close()


_pool: Pool | None = None
_starter: concurrent.futures.ThreadPoolExecutor | None = None
_lock = threading.Lock()


def _starting() -> concurrent.futures.ThreadPoolExecutor:
    """Return the thread that starts all sandboxes: the kernel kills a sandbox when the thread that started it ends."""
    global _starter
    with _lock:
        _starter = _starter or concurrent.futures.ThreadPoolExecutor(1, "sandboxes")
        return _starter


def pool() -> Pool:
    """Return this process's pool."""
    global _pool
    with _lock:
        _pool = _pool or Pool()
        return _pool


@atexit.register
def close_pool() -> None:
    """End the sandboxes that wait. More are started when they are needed."""
    global _pool
    with _lock:
        closing, _pool = _pool, None
    if closing is not None:
        closing.close()


def _forget() -> None:
    """Forget the sandboxes in a forked child: they belong to the parent."""
    global _pool, _starter, _lock
    _pool, _starter, _lock = None, None, threading.Lock()


os.register_at_fork(after_in_child=_forget)

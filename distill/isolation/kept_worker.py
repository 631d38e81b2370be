"""A confined process that is kept between calls, and replaced once it breaks a limit.

worker = KeptWorker(preload=("json",), memory_gib=1.0)
worker.call(render, argument, timeout_s=5.0)
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.isolation import FunctionError, ask, release, shared_server, started_worker
from distill.isolation.processes import Server, Worker


class KeptWorker:
    """A confined process that answers one call at a time. Threads may share it.

    Args:
        preload: modules to import before forking.
        memory_gib: address space that a call may allocate, in GiB.
        read_paths: files and folders that it may read, besides the installation. Its server is then closed with it.
    """

    def __init__(self, preload: Sequence[str], memory_gib: float, read_paths: Sequence[Path] = ()) -> None:
        self._preload, self._memory_gib, self._read_paths = tuple(preload), memory_gib, tuple(read_paths)
        self._lock = threading.Lock()
        self._kept: tuple[Server, Worker] | None = None

    def call(self, function: Callable[[Any], Any], argument: Any, timeout_s: float) -> Any:
        """Return `function(argument)`, evaluated in the confined process.

        Args:
            function: as for `call_isolated`.
            argument: pickled.
            timeout_s: wall-clock limit in seconds, after which the process is killed.

        Raises:
            IsolationError, StageError: as `call_isolated`. After a limit or crash, the next call starts a new process.
        """
        with self._lock:
            server = shared_server(self._preload, self._read_paths)
            if self._kept is None or self._kept[0] is not server:
                self._kept = server, started_worker(server, self._memory_gib)
            server, worker = self._kept
            is_whole = False
            try:
                answer = ask(server, worker, function, argument, timeout_s, self._memory_gib)
                is_whole = True
                return answer
            except FunctionError:
                is_whole = True
                raise
            finally:
                if not is_whole:
                    self._kept = None
                    worker.kill()

    def close(self) -> None:
        """End the process. Another call would start a new one."""
        with self._lock:
            if self._kept is not None:
                server, worker = self._kept
                self._kept = None
                worker.kill()
                if self._read_paths:
                    release(server)

    def forget(self) -> None:
        """Forget the process in a forked child: it belongs to the parent."""
        self._lock, self._kept = threading.Lock(), None

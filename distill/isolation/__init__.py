"""Isolation: what parses, scores or renders text from outside runs where it can do no harm, whatever it is made to do.

    from distill.isolation import call_isolated

    text = call_isolated(render, {"template": template, "messages": messages}, timeout_s=5.0, memory_gib=1.0)

The function runs in a process without network, secrets, programs and other processes, which reads the installation and
what it is given, writes at most 64 MiB into a folder that nobody else sees, and can be killed. What comes back is plain
values, or dataclasses that are named as results (`wire.result`). Which wall holds all that depends on the machine
(`walls.best_wall`, `distill doctor`).
"""

import atexit
import concurrent.futures
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.errors import StageError
from distill.isolation.processes import Server, Worker, WorkerEnded
from distill.isolation.server import ANSWER, FAILED, NO_MEMORY, READY
from distill.isolation.walls import Wall, best_wall

__all__ = [
    "CrashError",
    "FunctionError",
    "IsolationError",
    "MemoryLimitError",
    "Server",
    "TimeLimitError",
    "Worker",
    "WorkerEnded",
    "call_isolated",
    "shared_server",
]

START_S = 120.0
"""A server may import for so long before it is ready."""
LATE_S = 5
"""A worker ends itself so long after its limit: by then its caller would have killed it, so the caller is gone."""


class IsolationError(Exception):
    """A confined function gave no value."""


class TimeLimitError(IsolationError):
    """It took longer than it may."""


class MemoryLimitError(IsolationError):
    """It took more memory than it may."""


class CrashError(IsolationError):
    """Its process ended, or what it returned cannot be sent."""


class FunctionError(IsolationError):
    """It raised an exception. Name and message come from the confined process: they may be anything, but short.

    Args:
        name: of the exception's class.
        said: its message.
    """

    def __init__(self, name: str, said: str) -> None:
        super().__init__(f"{name}: {said}")
        self.name, self.said = name, said


_servers: dict[tuple[Wall, tuple[str, ...], tuple[Path, ...]], Server] = {}
_lock = threading.Lock()
_starter: concurrent.futures.ThreadPoolExecutor | None = None


def shared_server(preload: Sequence[str] = (), read_paths: Sequence[Path] = (), wall: Wall | None = None) -> Server:
    """A server of this process, started where none such is running; it lives as long as this process does.

    Args:
        preload: modules that it imports before it forks workers.
        read_paths: files and folders that workers may read, besides the installation.
        wall: left out: the best that this machine has.
    """
    global _starter
    key = (wall or best_wall(), tuple(preload), tuple(read_paths))
    with _lock:
        server = _servers.get(key)
        if server is not None and not server.is_running:
            server.close()
            server = None
        if server is None:
            # The kernel ends it with the thread that started it, so that is one that lasts.
            _starter = _starter or concurrent.futures.ThreadPoolExecutor(1, "isolation")
            _servers[key] = server = _starter.submit(Server, *key).result()
        return server


def release(server: Server) -> None:
    """End a shared server that will not be asked again."""
    with _lock:
        for key in [key for key, one in _servers.items() if one is server]:
            del _servers[key]
    server.close()


@atexit.register
def _close_all() -> None:
    for server in _servers.values():
        server.close()
    _servers.clear()


def _forget() -> None:
    """In a forked child: the servers are the parent's."""
    global _starter, _lock
    _servers.clear()
    _starter, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def call_isolated(
    function: Callable[[Any], Any],
    argument: Any,
    *,
    timeout_s: float,
    memory_gib: float,
    read_paths: Sequence[Path] = (),
    preload: Sequence[str] = (),
    wall: Wall | None = None,
) -> Any:
    """`function(argument)`, worked out in a process of its own that can do no harm.

    Args:
        function: found by its module and name in that process, so not a lambda and not in a script.
        argument: pickled.
        timeout_s: it is killed after so many seconds by the clock, imports of its module included.
        memory_gib: address space that it may take, in GiB.
        read_paths: files and folders that it may read, besides the installation.
        preload: modules that are imported once, for all calls that name the same.
        wall: left out: the best that this machine has.

    Raises:
        TimeLimitError: it took longer.
        MemoryLimitError: it took more memory.
        CrashError: its process ended, or what it returned cannot be sent.
        FunctionError: it raised an exception.
        StageError: no confined process can be started here.
    """
    server = shared_server(preload, read_paths, wall)
    try:
        return _call(server, function, argument, timeout_s, memory_gib)
    finally:
        if read_paths:
            release(server)


def _call(server: Server, function: Callable[[Any], Any], argument: Any, timeout_s: float, memory_gib: float) -> Any:
    worker = started_worker(server, memory_gib)
    try:
        return ask(server, worker, function, argument, timeout_s, memory_gib)
    finally:
        worker.kill()


def started_worker(server: Server, memory_gib: float) -> Worker:
    """A new worker of a server.

    Raises:
        StageError: the server has ended.
    """
    try:
        return server.start_worker(int(memory_gib * 2**30))
    except WorkerEnded:
        raise StageError(cannot_start(server)) from None


def ask(
    server: Server,
    worker: Worker,
    function: Callable[[Any], Any],
    argument: Any,
    timeout_s: float,
    memory_gib: float,
) -> Any:
    """What a worker makes of a task; the caller kills it after any error but `FunctionError`.

    Raises:
        IsolationError, StageError: as `call_isolated`.
    """
    is_ready = worker.pid is not None
    deadline = time.monotonic() + (timeout_s if is_ready else START_S)
    try:
        worker.ask(function, argument, int(timeout_s) + 1 + LATE_S)
        while True:
            said = _next_word(worker, deadline)
            if said is None:
                raise TimeLimitError(f"it took longer than {timeout_s:g} s")
            kind, value = said
            if kind == READY and not is_ready:
                is_ready, deadline = True, time.monotonic() + timeout_s
            elif kind == ANSWER:
                return value
            elif kind == NO_MEMORY:
                raise MemoryLimitError(f"it took more than {memory_gib:g} GiB of memory")
            elif kind == FAILED and isinstance(value, list) and len(value) == 2:
                raise FunctionError(*map(str, value))
            else:
                raise CrashError("its process says what none of ours does")
    except WorkerEnded:
        if not is_ready:
            raise StageError(cannot_start(server)) from None
        if ran_out_of_memory(worker.status()):
            raise MemoryLimitError(f"it took more than {memory_gib:g} GiB of memory") from None
        raise CrashError("its process ended") from None


def _next_word(worker: Worker, deadline: float) -> tuple[str, Any] | None:
    """What a worker says next; `None`: nothing until the deadline."""
    poll = select.poll()
    while (left := deadline - time.monotonic()) > 0:
        poll.register(worker.socket, select.POLLIN | (select.POLLOUT if worker.has_to_send else 0))
        for _, events in poll.poll(1_000 * left):
            if events & select.POLLOUT:
                worker.send()
            if events & ~select.POLLOUT and (said := worker.receive()) is not None:
                return said
    return None


def ran_out_of_memory(status: int | None) -> bool:
    """Whether an exit code says so: C libraries abort where an allocation fails, and only the kernel, out of memory,
    kills what we do not.
    """
    return status in (-6, -9)


def cannot_start(server: Server) -> str:
    """What to say where a server could not become ready."""
    return (
        "the confined process that parses and scores texts from outside could not start; `distill doctor` says what "
        f"this machine has for it. It said: {server.last_words[-1_500:] or 'nothing'}"
    )

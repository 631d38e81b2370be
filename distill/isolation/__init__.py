"""Run code that parses, scores or renders untrusted text in a confined process.

    from distill.isolation import call_isolated

    text = call_isolated(render, {"template": template, "messages": messages}, timeout_s=5.0, memory_gib=1.0)

The process has no network, no secrets and no access to programs or other processes. It can read the installation and
what it is given, write at most 64 MiB to a private folder, and be killed. It returns plain values, or dataclasses
registered with `wire.result`. The wall that enforces this depends on the machine (`walls.best_wall`, `distill doctor`).
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
"""Time limit for a server's imports, in seconds."""
LATE_S = 5
"""Seconds past its limit after which a worker kills itself, in case its caller is gone and has not done so."""


class IsolationError(Exception):
    """A call of a confined function that returned no value."""


class TimeLimitError(IsolationError):
    """A call that exceeded its time limit."""


class MemoryLimitError(IsolationError):
    """A call that exceeded its memory limit."""


class CrashError(IsolationError):
    """A confined process that ended or sent an invalid message."""


class FunctionError(IsolationError):
    """An exception raised by a confined function. Name and message come from the confined process and are not trusted.

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
    """Return a server with these settings, and start it if none is running. It lives as long as this process.

    Args:
        preload: modules to import before forking workers.
        read_paths: files and folders that workers may read, besides the installation.
        wall: default: the best one on this machine.
    """
    global _starter
    key = (wall or best_wall(), tuple(preload), tuple(read_paths))
    with _lock:
        server = _servers.get(key)
        if server is not None and not server.is_running:
            server.close()
            server = None
        if server is None:
            # The kernel kills the server when the thread that started it ends, so start it from a long-lived one.
            _starter = _starter or concurrent.futures.ThreadPoolExecutor(1, "isolation")
            _servers[key] = server = _starter.submit(Server, *key).result()
        return server


def release(server: Server) -> None:
    """Close a shared server that is no longer needed."""
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
    """Forget the servers in a forked child: they belong to the parent."""
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
    """Return `function(argument)`, evaluated in a confined process of its own.

    Args:
        function: looked up by module and name in that process, so neither a lambda nor defined in a script.
        argument: pickled.
        timeout_s: wall-clock limit in seconds, including the import of the function's module.
        memory_gib: address space that the process may allocate, in GiB.
        read_paths: files and folders that it may read, besides the installation.
        preload: modules that are imported once for all calls that name the same ones.
        wall: default: the best one on this machine.

    Raises:
        TimeLimitError: the call exceeded `timeout_s`.
        MemoryLimitError: the call exceeded `memory_gib`.
        CrashError: the process ended or sent an invalid message.
        FunctionError: the function raised an exception, or its result cannot be sent.
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
    """Start a new worker of a server.

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
    """Return a worker's answer to a task. The caller must kill the worker after any error but `FunctionError`.

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
                raise CrashError("its process sent an unexpected message")
    except WorkerEnded:
        if not is_ready:
            raise StageError(cannot_start(server)) from None
        if ran_out_of_memory(worker.status()):
            raise MemoryLimitError(f"it took more than {memory_gib:g} GiB of memory") from None
        raise CrashError("its process ended") from None


def _next_word(worker: Worker, deadline: float) -> tuple[str, Any] | None:
    """Return a worker's next message; `None` if none arrives before the deadline."""
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
    """Return whether an exit code points to a lack of memory."""
    # C libraries abort when an allocation fails. A SIGKILL that is not distill's comes from the kernel, out of memory.
    return status in (-6, -9)


def cannot_start(server: Server) -> str:
    """Return the message for a server that could not start."""
    return (
        "the confined process that parses and scores texts from outside could not start; `distill doctor` says what "
        f"this machine has for it. It said: {server.last_words[-1_500:] or 'nothing'}"
    )

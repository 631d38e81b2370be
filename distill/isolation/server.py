"""The confined side: a process that imports what its workers need, gives up its privileges and forks them.

`main(SETTINGS)` is started behind the part of the wall that `distill.isolation.walls` sets up from outside, and sets up
the rest itself once its imports are done. Only workers run code on untrusted input.

    control socket, to it     {"start": 3, "memory_bytes": 4294967296, "niceness": 0} and the worker's socket
                              {"kill": 3}
    control socket, from it   {"ended": 3, "status": -9}
    worker's socket, to it    frames of pickled (function, argument, maximum lifetime in seconds)
    worker's socket, from it  frames of JSON (`distill.isolation.wire`): [kind, value]
"""

import array
import contextlib
import importlib
import json
import os
import pickle
import resource
import select
import signal
import socket
from pathlib import Path
from typing import Any

from distill.isolation import kernel, wire
from distill.isolation.syscalls import server_filter, worker_filter
from distill.isolation.walls import BARE_PROC, TEMPORARY, TEMPORARY_BYTES, Wall, readable_paths

READY, ANSWER, FAILED, NO_MEMORY = "ready", "answer", "failed", "no memory"
MAX_MESSAGE = 65_536
MAX_ERROR_CHARS = 2_000
MAX_FILES, MAX_PROCESSES = 256, 512
"""Open files, and threads of all workers together. A thread counts as a process, and workers can start no others."""

_wall: Wall | None = None


def current_wall() -> Wall | None:
    """Return the wall that this process is behind; `None` if it is not confined."""
    return _wall


def main(settings: str) -> None:
    """Serve until the other end closes the control socket.

    Args:
        settings: JSON with `wall`, `control` (a descriptor), `preload` (modules) and `read_paths`.
    """
    told: dict[str, Any] = json.loads(settings)
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C
    control = socket.socket(fileno=told["control"])
    for module in told["preload"]:
        importlib.import_module(module)
    if told["wall"] != "bubblewrap":  # it has --die-with-parent
        kernel.end_with_parent(parent)
    num_pages = kernel.num_pages()  # /proc may not be readable later
    _confine(told["wall"], [Path(path) for path in told["read_paths"]])
    _Server(control, num_pages).serve()


def _confine(wall: Wall, read_paths: list[Path]) -> None:
    """Set up the part of the wall that a process sets up itself."""
    global _wall
    _wall = wall
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    has_folder = wall == "bubblewrap"  # a private one; elsewhere nothing may be written
    limits = {
        resource.RLIMIT_FSIZE: TEMPORARY_BYTES if has_folder else 0,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if has_folder:  # elsewhere the limit counts all processes of the user
        limits[resource.RLIMIT_NPROC] = MAX_PROCESSES
    kernel.limit_resources(limits)
    kernel.drop_privileges()
    if wall in ("bubblewrap", "landlock") and kernel.landlock_version() >= kernel.MIN_LANDLOCK:
        readable = readable_paths(read_paths, ("/proc", "/dev") if has_folder else BARE_PROC)
        kernel.restrict_files(readable, [Path(TEMPORARY)] if has_folder else [])
    if wall != "rlimits" and kernel.has_seccomp():
        kernel.install_filter(server_filter(read_only=not has_folder))


class _Server:
    """A loop that forks workers, kills them and reports their ends."""

    def __init__(self, control: socket.socket, num_pages: int) -> None:
        self._control, self._num_pages = control, num_pages
        self._number_of: dict[int, int] = {}
        """Process id -> the caller's number for the worker."""

    def serve(self) -> None:
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._control.fileno(), woken], [], [])
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, MAX_MESSAGE)
                self._tell_of_ends()
            if self._control.fileno() in ready and not self._take_request(woken, wakes):
                break
        for pid in self._number_of:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    def _tell_of_ends(self) -> None:
        for pid in list(self._number_of):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                told = {"ended": self._number_of.pop(pid), "status": os.waitstatus_to_exitcode(status)}
                self._control.send(json.dumps(told).encode())

    def _take_request(self, *others: int) -> bool:
        """Handle one request of the caller. Return `False` if the caller is gone."""
        content, ancillary, _, _ = self._control.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(4))
        if not content:
            return False
        request = json.loads(content)
        if "kill" in request:
            pid = next((pid for pid, number in self._number_of.items() if number == request["kill"]), None)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            return True
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            for descriptor in others:
                os.close(descriptor)
            _work(socket.socket(fileno=descriptors[0]), request, self._num_pages, server)
        os.close(descriptors[0])
        self._number_of[pid] = request["start"]
        return True


def _work(connection: socket.socket, request: dict[str, Any], num_pages: int, server: int) -> None:
    """Run a worker until its caller is gone."""
    try:
        kernel.end_with_parent(server)
        os.nice(request["niceness"])
        address_space = num_pages * resource.getpagesize() + request["memory_bytes"]
        kernel.limit_resources({resource.RLIMIT_AS: address_space})
        if _wall != "rlimits" and kernel.has_seccomp():
            kernel.install_filter(worker_filter(os.getpid()))
        connection.sendall(wire.framed(wire.encode([READY, None])))
        while (task := _receive(connection)) is not None:
            connection.sendall(wire.framed(_answer(task)))
    except BaseException:  # cannot be reported; the caller sees that the process ended
        os._exit(1)
    os._exit(0)


def _receive(connection: socket.socket) -> bytearray | None:
    """Return the next task; `None` if there will be none."""
    header = _read(connection, wire.HEADER_BYTES)
    return None if header is None else _read(connection, int.from_bytes(header, "big"))


def _read(connection: socket.socket, num_bytes: int) -> bytearray | None:
    content = bytearray(num_bytes)
    left = memoryview(content)
    while left:
        num_read = connection.recv_into(left)
        if num_read == 0:
            return None
        left = left[num_read:]
    return content


def _answer(task: bytearray) -> bytes:
    """Run a task and return its encoded answer."""
    try:
        function, argument, lifetime_s = pickle.loads(task)  # noqa: S301 - from the caller, which is trusted
        signal.alarm(lifetime_s)  # no handler: the kernel kills the process, whatever it is stuck in
        answer = wire.encode([ANSWER, function(argument)])
    except MemoryError as error:
        answer = wire.encode([NO_MEMORY, repr(error)[:MAX_ERROR_CHARS]])
    except Exception as error:  # a parser's bug must not cost more than this text
        name, said = type(error).__name__, str(error)[:MAX_ERROR_CHARS]
        answer = wire.encode([FAILED, [name, said]])
    signal.alarm(0)
    return answer

"""The caller's side: servers behind a wall and their workers, which can be killed at any time.

    server = Server(best_wall(), preload=["sympy"])
    worker = server.start_worker(memory_bytes=1 << 30)
    worker.ask(len, "four", lifetime_s=5)
    worker.socket                                       # readable once there is something for `worker.receive()`

Nothing that a worker writes is trusted: it is read without blocking, up to a size limit, and decoded by
`distill.isolation.wire`.
"""

import contextlib
import itertools
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.isolation import wire
from distill.isolation.walls import SERVER, TEMPORARY, Wall, confined_environment, start_command

END_S = 30.0
"""A killed process that does not end in this time hangs in the kernel, and is abandoned."""
CLOSED_S = 5.0
"""Time limit for a process to end after it has closed its socket, which a hostile one may do without ending."""
CHUNK_BYTES = 1 << 20
MAX_SAID_BYTES = 4_096


class WorkerEnded(Exception):  # noqa: N818 - not always an error
    """A worker has ended or sent an invalid message."""


class Worker:
    """A confined process that answers one task at a time."""

    def __init__(self, server: "Server", number: int, connection: socket.socket) -> None:
        self._server, self._number = server, number
        self.socket = connection
        """For polling: readable once there is something to receive, writable while `has_to_send`."""
        self.pid: int | None = None
        """Its process id in the caller's namespace, once it is ready."""
        self._out = memoryview(b"")
        self._in = bytearray()
        self._has_lied = False

    @property
    def has_to_send(self) -> bool:
        """Return whether part of the task is still to be sent. Nothing is sent before the worker is ready."""
        return self.pid is not None and len(self._out) > 0

    def ask(self, function: Callable[[Any], Any], argument: Any, lifetime_s: int) -> None:
        """Give the worker a task. What does not fit into the socket must be sent with `send`, once the worker is ready.

        Args:
            function: looked up by module and name in the worker.
            argument: what it is called with; pickled.
            lifetime_s: seconds after which the worker ends itself, even if the caller is gone.
        """
        self._out = memoryview(wire.framed(pickle.dumps((function, argument, lifetime_s))))
        self.send()

    def send(self) -> None:
        """Send what the socket accepts without blocking."""
        with contextlib.suppress(BlockingIOError, ConnectionError):  # `receive` reports that it has ended
            while self.has_to_send:
                self._out = self._out[self.socket.send(self._out) :]

    def receive(self) -> tuple[str, Any] | None:
        """Return the worker's message as (kind, value); `None` if it has not arrived completely.

        Raises:
            WorkerEnded: the worker has ended or sent an invalid message.
        """
        try:
            self._receive_bytes()
            whole = self._whole_frame()
            if whole is None:
                return None
            kind, value = wire.decode(whole)
            if not isinstance(kind, str):
                raise TypeError(kind)
        except OSError:
            raise WorkerEnded from None
        except (ValueError, TypeError):
            self._has_lied = True
            raise WorkerEnded from None
        return kind, value

    def _receive_bytes(self) -> None:
        if self.pid is None:
            # The kernel itself fills in the sender's credentials, with its process id in the caller's namespace.
            content, ancillary, _, _ = self.socket.recvmsg(CHUNK_BYTES, socket.CMSG_SPACE(struct.calcsize("3i")))
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    self.pid = struct.unpack("3i", data)[0]
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
                    self._server.mark_ready()
        else:
            content = self.socket.recv(CHUNK_BYTES)
        if not content:
            raise WorkerEnded
        self._in += content

    def _whole_frame(self) -> bytes | None:
        if len(self._in) < wire.HEADER_BYTES:
            return None
        num_bytes = int.from_bytes(self._in[: wire.HEADER_BYTES], "big")
        whole = wire.HEADER_BYTES + num_bytes
        if num_bytes > wire.MAX_BYTES or len(self._in) > whole:
            raise wire.WireError("too long")
        if len(self._in) < whole:
            return None
        content = bytes(self._in[wire.HEADER_BYTES :])
        self._in.clear()
        return content

    def status(self) -> int | None:
        """Return the exit code, negative for a signal; `None` if it has not ended or has sent an invalid message."""
        return None if self._has_lied else self._server.status_of(self._number)

    def kill(self) -> None:
        """Kill the worker, and wait until it has ended."""
        self.socket.close()
        self._server.kill(self._number)


class Server:
    """A confined process that forks workers. Threads may share it.

    Args:
        wall: the wall to put it behind.
        preload: modules to import before it is confined and forks.
        read_paths: files and folders that workers may read, besides the installation.
    """

    def __init__(self, wall: Wall, preload: Sequence[str] = (), read_paths: Sequence[Path] = ()) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._ended: dict[int, int] = {}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._temporary = None if wall == "bubblewrap" else tempfile.mkdtemp(prefix="distill-")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = {
            "wall": wall,
            "control": theirs.fileno(),
            "preload": list(preload),
            "read_paths": [str(path.absolute()) for path in read_paths],
        }
        environment = confined_environment(self._temporary or TEMPORARY)
        command = start_command(
            wall,
            read_paths,
            environment,
            ["-c", f"from {SERVER} import main; main(__import__('sys').argv[1])", json.dumps(told)],
        )
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            env=environment if wall != "bubblewrap" else {"PATH": os.environ.get("PATH", os.defpath)},
            cwd=self._temporary or "/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    @property
    def is_running(self) -> bool:
        """Return whether it can still start workers."""
        return self._process.poll() is None

    @property
    def last_words(self) -> str:
        """Return the end of its output before it was ready, which says why it could not start."""
        size = os.fstat(self._said.fileno()).st_size
        said = os.pread(self._said.fileno(), MAX_SAID_BYTES, max(0, size - MAX_SAID_BYTES))
        text = said.decode("utf-8", "replace").strip()
        return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)

    def start_worker(self, memory_bytes: int, niceness: int = 0) -> Worker:
        """Start a worker, whose first message says that it is ready.

        Args:
            memory_bytes: address space that it may allocate beyond what it starts with.
            niceness: increment of its niceness.

        Raises:
            WorkerEnded: the server itself has ended.
        """
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        with theirs, self._lock:
            number = next(self._numbers)
            request = {"start": number, "memory_bytes": memory_bytes, "niceness": niceness}
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
            except OSError:
                ours.close()
                raise WorkerEnded from None
        return Worker(self, number, ours)

    def kill(self, number: int) -> None:
        """Kill a worker, and wait until it has ended."""
        with self._lock:
            if number in self._ended:
                del self._ended[number]
                return
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"kill": number}).encode())
            self._wait_for(number, END_S)
            self._ended.pop(number, None)

    def status_of(self, number: int) -> int | None:
        """Return a worker's exit code, negative for a signal; `None` if it does not end."""
        with self._lock:
            self._wait_for(number, CLOSED_S)
            return self._ended.get(number)

    def _wait_for(self, number: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while number not in self._ended and (left := deadline - time.monotonic()) > 0:
            try:
                self._control.settimeout(left)
                content = self._control.recv(CHUNK_BYTES)
            except OSError:
                return
            if not content:  # the server has ended, and its workers with it
                return
            told = json.loads(content)
            self._ended[told["ended"]] = told["status"]

    def mark_ready(self) -> None:
        """Remove the temporary folder: after its imports, neither the server nor its workers write anything."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def close(self) -> None:
        """End the server and all its workers."""
        self._control.close()
        wait_for_end(self._process)
        self._said.close()
        self.mark_ready()


def wait_for_end(process: subprocess.Popen[Any]) -> None:
    """Wait until a process that was told to end has ended; kill it after `END_S`."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

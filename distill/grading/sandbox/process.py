"""The caller's side of one sandbox: it starts, runs tests and ends.

Nothing that a test writes is trusted: its pipes are read as it writes, up to a limit, and only the sandbox's first
process, which runs nothing from outside, tells how it ended.
"""

import contextlib
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from distill.grading.sandbox.cgroups import Cgroup, new_cgroup
from distill.grading.sandbox.records import Limits, SandboxError, cleaned
from distill.grading.sandbox.start import command, inside_code, memory_file
from distill.isolation.processes import wait_for_end

DISK_BYTES, NUM_FILES = 64 << 20, 4_096
"""Of a test's /tmp."""
KEPT_ERROR_BYTES = 16_384
CHUNK_BYTES = 1 << 16
START_S, GRACE_S = 60.0, 30.0
"""Seconds for a sandbox to start, and past a test's limits before its sandbox is given up."""
MAX_PROCESSES = 160
"""Threads of a sandbox, where the kernel counts them. It does not count root's: there the first process does."""


@dataclass
class Ended:
    """How a test's process ended."""

    status: int
    """Exit code, negative for a signal."""
    cpu_s: float
    rss_kib: int
    why: str
    """Why the sandbox killed it: `cpu`, `wall`, `memory`, `threads` or `asked`; empty if it did not."""
    fault: str = ""
    """What failed before anything from outside ran."""
    wall_s: float = 0.0
    stdout: bytes = b""
    stderr: bytes = b""
    over: bool = False
    """Whether it wrote more than it may."""


class Sandbox:
    """A sandbox with its first process, in which the usual modules are imported. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._closed = False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._is_ready = False
        self._cgroup: Cgroup | None = None
        self._group_mib = 0
        code = memory_file("sandbox", inside_code())
        try:
            self._process = subprocess.Popen(
                command(theirs.fileno(), code),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
                pass_fds=[theirs.fileno(), code],
                start_new_session=True,
            )
        except OSError:
            self._control.close()
            self._said.close()
            raise
        finally:
            theirs.close()
            os.close(code)

    @property
    def is_running(self) -> bool:
        """Return whether it can still run tests."""
        return not self._closed and self._process.poll() is None

    def load(self, source: bytes, modules: Sequence[str] = ()) -> None:
        """Give it a program, which runs only when a test starts.

        Args:
            source: the program.
            modules: to import before tests are forked.
        """
        self._wait_until_ready()
        file = memory_file("program", source)
        try:
            self._send({"load": True, "modules": list(modules)}, [file])
        finally:
            os.close(file)

    def _wait_until_ready(self) -> None:
        """Wait until its imports are done, and put its first process, and so all others, into a control group."""
        with self._lock:
            if self._is_ready:
                return
            self._control.settimeout(START_S)
            try:
                content, ancillary, _, _ = self._control.recvmsg(16, socket.CMSG_SPACE(struct.calcsize("3i")))
            except OSError as error:
                raise SandboxError(f"the sandbox does not start: {error}") from None
            if not content:
                raise self._failed()
            self._control.settimeout(None)
            self._is_ready = True
            self._cgroup = new_cgroup()
            # The kernel itself fills in the sender, with its process id in this process's namespace.
            for level, kind, data in ancillary:
                if self._cgroup and (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    self._cgroup.add(struct.unpack("3i", data)[0])

    def _limit_group(self, memory_mib: int) -> None:
        with self._lock:
            if self._cgroup is not None and memory_mib > self._group_mib:  # tests side by side have the largest
                self._group_mib = memory_mib
                self._cgroup.limit_memory(memory_mib)

    def _send(self, request: dict[str, object], descriptors: Sequence[int]) -> None:
        try:
            with self._lock:
                socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
        except OSError:
            raise self._failed() from None

    def _failed(self) -> SandboxError:
        """Return the error that says why the sandbox has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        size = os.fstat(self._said.fileno()).st_size if not self._said.closed else 0
        said = os.pread(self._said.fileno(), 2_000, max(0, size - 2_000)) if size else b""
        return SandboxError(f"the sandbox ended: {cleaned(said) or f'exit code {self._process.poll()}'}")

    def start(self, mode: str, limits: Limits, stdin: int, *others: int, **options: object) -> "Test":
        """Start a test.

        Args:
            mode: `run`, `calls`, `tests`, `exec` or `compile`.
            limits: of the test.
            stdin: descriptor of its standard input, which is closed here.
            others: its descriptors after standard error.
            options: for the compiler.

        Raises:
            SandboxError: the sandbox has ended.
        """
        self._limit_group(limits.memory_mib)
        report, their_report = os.pipe2(os.O_CLOEXEC)
        out, their_out = os.pipe2(os.O_CLOEXEC)
        error, their_error = os.pipe2(os.O_CLOEXEC)
        number = next(self._numbers)
        request = {
            "start": number,
            "mode": mode,
            "cpu_s": limits.cpu_s,
            "wall_s": limits.wall if mode in ("run", "exec", "compile") else 0,  # else a call's is measured here
            "memory_mib": limits.memory_mib,
            "disk_bytes": DISK_BYTES,
            "num_files": NUM_FILES,
            "num_processes": MAX_PROCESSES if os.geteuid() else 0,  # root's are not counted
            **options,
        }
        theirs = [their_report, stdin, their_out, their_error, *others]
        try:
            self._send(request, theirs)
        except SandboxError:
            for one in (report, out, error):
                os.close(one)
            raise
        finally:
            for one in theirs:
                os.close(one)
        return Test(self, number, limits, report, out, error)

    def run(self, mode: str, limits: Limits, stdin: int, *others: int, **options: object) -> Ended:
        """Run a test to its end. The arguments are those of `start`.

        Raises:
            SandboxError: the sandbox has ended.
        """
        test = self.start(mode, limits, stdin, *others, **options)
        try:
            return test.wait(limits.wall + GRACE_S)
        finally:
            test.close()

    def kill(self, number: int) -> None:
        """Kill a test."""
        with contextlib.suppress(SandboxError):
            self._send({"kill": number}, [])

    def close(self) -> None:
        """End the sandbox and all that runs in it, and wait until it has ended."""
        if self._closed:
            return
        self._closed = True
        self._control.close()
        wait_for_end(self._process)
        self._said.close()
        if self._cgroup is not None:
            self._cgroup.close()


@dataclass
class Test:
    """A running test: what it writes is kept up to its limits.

    Args:
        sandbox: where it runs.
        number: its number there.
        limits: its own.
        report: pipe that tells how it ended.
        out: its standard output.
        error: its standard error.
    """

    sandbox: Sandbox
    number: int
    limits: Limits
    report: int
    out: int
    error: int
    ended: Ended | None = None
    _over: bool = False
    _killed: bool = False
    _stdout: bytearray = field(default_factory=bytearray)
    _stderr: bytearray = field(default_factory=bytearray)
    _num_out_bytes: int = 0
    _num_error_bytes: int = 0
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._open = {self.report, self.out, self.error}
        self.poll = select.poll()
        for one in self._open:
            os.set_blocking(one, False)
            self.poll.register(one, select.POLLIN)

    def wait(self, timeout_s: float) -> Ended:
        """Return how the test ended, once it has.

        Raises:
            SandboxError: the sandbox has ended, or does not end the test.
        """
        deadline = time.monotonic() + timeout_s
        while self.ended is None:
            self.step(deadline)
            if time.monotonic() > deadline:
                raise SandboxError("the sandbox does not end a test that is over its limits")
        return self.ended

    def step(self, deadline: float) -> list[tuple[int, int]]:
        """Wait for one of the descriptors of `poll` until a deadline, read its own, and return the others."""
        left_ms = max(0.0, deadline - time.monotonic()) * 1_000
        others = []
        for descriptor, events in self.poll.poll(left_ms):
            if descriptor == self.report:
                self._read_report()
            elif descriptor in (self.out, self.error):
                self._read_output(descriptor)
            else:
                others.append((descriptor, events))
        return others

    def _read_output(self, descriptor: int) -> bool:
        """Read what there is; return whether there may be more."""
        try:
            part = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not part:
            self._forget(descriptor)
            return False
        if descriptor == self.out:
            self._num_out_bytes += len(part)
            self._stdout += part[: self.limits.output_bytes - len(self._stdout)]
        else:
            self._num_error_bytes += len(part)
            self._stderr = (self._stderr + part)[-KEPT_ERROR_BYTES:]
        if max(self._num_out_bytes, self._num_error_bytes) > self.limits.output_bytes:
            self._over = True
            self.kill()
        return True

    def kill(self) -> None:
        """Kill the test, once."""
        if not self._killed:
            self._killed = True
            self.sandbox.kill(self.number)

    def _forget(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            self.poll.unregister(descriptor)

    def _read_report(self) -> None:
        content = os.read(self.report, CHUNK_BYTES)
        if not content:
            raise self.sandbox._failed()
        told = json.loads(content)
        self._forget(self.report)
        for descriptor in (self.out, self.error):  # what it wrote last
            while self._read_output(descriptor):
                pass
        wall_s = time.monotonic() - self._started
        self.ended = Ended(
            **told, wall_s=wall_s, stdout=bytes(self._stdout), stderr=bytes(self._stderr), over=self._over
        )

    def close(self) -> None:
        """End the test if it runs, and close its descriptors."""
        if self.ended is None:
            self.kill()
            with contextlib.suppress(SandboxError):
                self.wait(GRACE_S)
        for one in (self.report, self.out, self.error):
            os.close(one)

"""The process inside a sandbox that has the usual modules imported and forks every test. It runs nothing from outside.

    control socket, from it  "ready", once it is
    control socket, to it    {"load": true, "modules": ["numpy"]} and the program as a descriptor
                             {"start": 3, "mode": "run", …limits…} and the test's descriptors, `report` first
                             {"kill": 3}
    report pipe, from it     {"status": -9, "cpu_s": 1.0, "rss_kib": 9000, "why": "cpu"} once the process has ended

A test's process gets mounts of its own with an empty /tmp, loses every privilege, and cannot start a second process, so
that nothing of it is left when it ends. This one watches its CPU time, wall time, memory and threads.
"""

import _sitebuiltins
import _socket
import builtins
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from typing import Any, NamedTuple, NoReturn

from distill.grading.sandbox.inside import compiling
from distill.grading.sandbox.inside.candidate import Channel, run_program, serve_calls, standard_streams
from distill.grading.sandbox.inside.testing import serve_tests
from distill.isolation import kernel
from distill.isolation.syscalls import compiler_filter, test_filter

MODULES = (
    *("bisect", "collections", "copy", "functools", "heapq", "itertools", "json", "math", "operator", "random", "re"),
    *("string", "threading", "time", "typing"),
)
"""Imported once for all tests of a submission: what programs use most. Each more makes every sandbox start later."""
MAY_IMPORT = ("ast", "numpy")
TICK_S = 0.05
MAX_MESSAGE = 1 << 16
HIGH = 64
"""Received descriptors are moved here before they take their places."""
PROGRAM_FILE = 9
"""Descriptor of a compiled program, closed when it is executed."""
FAULT = 10
"""Descriptor of the pipe for faults of the sandbox itself. It is closed before a program from outside runs."""
CANNOT_EXECUTE = 126
"""Exit code for a compiled program that the kernel refuses, as shells have it."""
MAX_FAULT = 1_000
MAX_FILES = 256
MAX_THREADS = 128
OWN_FRAMES = 12
"""Calls below a program's own, which has as many as elsewhere."""
STACK_BYTES = 256 << 20
SPARE_BYTES = 512 << 20
"""Address space beyond the memory limit: stacks of threads and arenas are reserved, but hardly used."""
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")


class Test(NamedTuple):
    """A running test."""

    number: int
    pid: int
    ended: int
    report: int
    limits: dict[str, Any]
    deadline: float
    resident: int
    """Bytes that it shares with this process from the start, which are none of its own."""
    fault: int
    """Pipe in which its process says what failed before it ran anything from outside."""
    why: list[str]
    """Why it was killed, if it was."""


def main(control: int) -> NoReturn:
    """Prepare, then serve until the other end closes the control _socket.

    Args:
        control: descriptor of a `SOCK_SEQPACKET` _socket.
    """
    for module in MODULES:
        importlib.import_module(module)
    for name in [name for name in sys.modules if name.partition(".")[0] == "distill"]:
        del sys.modules[name]
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.own_mounts()
    kernel.mount_memory("/proc", 4096, 1, writable=False)  # tests see no processes, not even themselves
    _open_streams()
    for name in ("exit", "quit"):  # the module that makes them is not imported, but programs use them
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    Zygote(_socket.socket(fileno=control), processes).serve()


def _open_streams() -> None:
    """Open standard streams for tests, on descriptors of the kinds that theirs will have: a file and two pipes."""
    reads, writes = os.pipe2(os.O_CLOEXEC)
    for descriptor in (1, 2):
        os.dup2(writes, descriptor)
    os.close(reads)
    os.close(writes)
    standard_streams()


class Zygote:
    """A loop that forks tests, watches them and reports their ends."""

    def __init__(self, control: _socket.socket, processes: int) -> None:
        self._control, self._processes = control, processes
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._tests: dict[int, Test] = {}
        """By the descriptor that tells of its end."""
        self._source = b""

    def serve(self) -> NoReturn:
        """Serve until the caller is gone."""
        compile("0", "", "exec")  # whose first call makes a hundred types
        gc.freeze()
        self._control.send(b"ready")
        while True:
            for descriptor, _ in self._poll.poll(1_000 * TICK_S if self._tests else None):
                if descriptor == self._control.fileno():
                    self._take_request()
                else:
                    self._tell_of_end(self._tests.pop(descriptor))
            for test in self._tests.values():
                self._watch(test)

    def _take_request(self) -> None:
        content, ancillary, _, _ = self._control.recvmsg(
            MAX_MESSAGE, _socket.CMSG_SPACE(4 * 16), _socket.MSG_CMSG_CLOEXEC
        )
        if not content:
            os._exit(0)  # the kernel ends every process of this sandbox with its first
        request = json.loads(content)
        received = [one for _, _, data in ancillary for (one,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])]
        if "load" in request:
            for name in request["modules"]:
                if name in MAY_IMPORT:
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
            with os.fdopen(received[0], "rb") as file:
                self._source = file.read()
            gc.freeze()
        elif "start" in request:
            self._start(request, received)
        else:
            for test in self._tests.values():
                if test.number == request["kill"]:
                    self._kill(test, "asked")

    def _start(self, request: dict[str, Any], descriptors: list[int]) -> None:
        report, *others = descriptors
        test_filter(1, may_run_programs=request["mode"] == "exec")  # made once, before a process is forked
        address_space, resident = (int(pages) * _PAGE for pages in self._read(os.getpid(), "statm").split()[:2])
        if request["mode"] in ("exec", "compile"):
            resident = 0
        told_fault, tells_fault = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pid = os.fork()
        if pid == 0:
            try:
                _become_test(request, [*others, tells_fault], self._source, address_space)
            except BaseException as error:
                # Nothing can be written there any more once a program from outside runs.
                with contextlib.suppress(BaseException):
                    os.write(FAULT, f"{type(error).__name__}: {error}"[:MAX_FAULT].encode("utf-8", "replace"))
            finally:
                os._exit(1)
        os.close(tells_fault)
        for descriptor in others:
            os.close(descriptor)
        with contextlib.suppress(OSError):  # out of memory, the kernel is to choose it
            file = os.open(f"{pid}/oom_score_adj", os.O_WRONLY, dir_fd=self._processes)
            os.write(file, b"1000")
            os.close(file)
        ended = os.pidfd_open(pid)
        deadline = time.monotonic() + (request["wall_s"] or 1e9)
        self._tests[ended] = Test(request["start"], pid, ended, report, request, deadline, resident, told_fault, [])
        self._poll.register(ended, select.POLLIN)

    def _watch(self, test: Test) -> None:
        """Kill a test that is over one of its limits."""
        try:
            fields = self._read(test.pid, "stat").rpartition(b") ")[2].split()
        except OSError:
            return
        # Field 3 of proc(5) is the first here.
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
        if cpu_s > test.limits["cpu_s"]:
            self._kill(test, "cpu")
        elif time.monotonic() > test.deadline:
            self._kill(test, "wall")
        elif int(fields[17]) > MAX_THREADS:
            self._kill(test, "threads")
        elif int(fields[21]) * _PAGE - test.resident > test.limits["memory_mib"] << 20:
            self._kill(test, "memory")

    def _read(self, pid: int, name: str) -> bytes:
        file = os.open(f"{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._processes)
        with os.fdopen(file, "rb", buffering=0) as opened:
            return opened.readall()

    def _kill(self, test: Test, why: str) -> None:
        if not test.why:
            test.why.append(why)
            os.kill(test.pid, signal.SIGKILL)

    def _tell_of_end(self, test: Test) -> None:
        self._poll.unregister(test.ended)
        os.close(test.ended)
        _, status, used = os.wait4(test.pid, 0)
        told = {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_s": used.ru_utime + used.ru_stime,
            "rss_kib": used.ru_maxrss - (test.resident >> 10),
            "why": "".join(test.why),
            "fault": "",
        }
        with contextlib.suppress(BlockingIOError):
            told["fault"] = os.read(test.fault, MAX_FAULT).decode("utf-8", "replace")
        os.close(test.fault)
        with contextlib.suppress(OSError):
            os.write(test.report, json.dumps(told).encode())
        os.close(test.report)


def _become_test(request: dict[str, Any], descriptors: list[int], source: bytes, started_bytes: int) -> NoReturn:
    """Confine this process for good, and run what it is for."""
    kernel.own_mounts()
    kernel.mount_memory("/tmp", request["disk_bytes"], request["num_files"])  # noqa: S108 - its own
    os.chdir("/tmp")  # noqa: S108
    mode = request["mode"]
    _place(descriptors, mode)
    _limit(request, 0 if mode in ("exec", "compile") else started_bytes)
    kernel.drop_capabilities()
    if mode == "compile":
        kernel.install_filter(compiler_filter())
        compiling.compile_program(source, request["flags"], request["wall_s"])
    kernel.install_filter(test_filter(os.getpid(), may_run_programs=mode == "exec"))
    if mode == "exec":
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and an ignored signal stays ignored
            signal.signal(number, signal.SIG_DFL)
        try:
            os.execve(PROGRAM_FILE, ["program"], dict(os.environ))  # noqa: S606 - what the sandbox is for
        except OSError as error:  # by its headers, which the program's source may choose
            os.write(2, f"it cannot be executed: {error.strerror}\n".encode())
            os._exit(CANNOT_EXECUTE)
    gc.enable()
    sys.setrecursionlimit(sys.getrecursionlimit() + OWN_FRAMES)
    os.close(FAULT)
    if mode == "run":
        run_program(source)
    if mode == "calls":
        serve_calls(source, Channel(3, 4))
    serve_tests(source, Channel(3, 4))


def _place(descriptors: list[int], mode: str) -> None:
    """Give descriptors their numbers, and close all others."""
    places = [0, 1, 2, PROGRAM_FILE] if mode == "exec" else list(range(len(descriptors) - 1))
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, HIGH) for one in descriptors]
    os.closerange(3, HIGH)
    for one, place in zip(moved, [*places, FAULT], strict=True):
        os.dup2(one, place, inheritable=place not in (PROGRAM_FILE, FAULT))
    os.closerange(HIGH, 1 << 20)


def _limit(request: dict[str, Any], started_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: started_bytes + (request["memory_mib"] << 20) + SPARE_BYTES,
        resource.RLIMIT_CPU: int(request["cpu_s"]) + 2,
        resource.RLIMIT_FSIZE: request["disk_bytes"],
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if request["num_processes"]:
        limits[resource.RLIMIT_NPROC] = request["num_processes"]
    kernel.limit_resources(limits)

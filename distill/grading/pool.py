"""Worker processes that can be killed: a hung or crashed grading costs its time-out, and nothing else.

A thread or an alarm cannot stop sympy inside a C call; ending the process can. Memory is limited by the kernel
(`RLIMIT_AS`), which makes an allocation beyond it fail.
"""

import contextlib
import importlib
import math
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Outcome:
    """A marker for a task that gave no answer; compared with `is`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


TIMED_OUT = Outcome("TIMED_OUT")
CRASHED = Outcome("CRASHED")
OUT_OF_MEMORY = Outcome("OUT_OF_MEMORY")


@dataclass(frozen=True, slots=True)
class Settled:
    """A task that needs no worker: its value takes its place among the answers."""

    value: Any


LOOK_AHEAD = 4_096
"""So many tasks may be taken before the first of them is answered: the others go on for a hung one's whole time."""

MEMORY_GIB = 4.0

START_S = 120.0
"""A worker's first task may import sympy or reasoning-gym; its time limit counts from when it is ready."""

STRETCH = 3.0
"""A task that other processes keep from the CPU may take so many times its limit; it must not depend on their load."""

ORPHAN_AFTER_S = 5.0
"""A worker ends itself so long after its last limit: by then the pool would have killed it, so the pool is gone."""

PRELOAD = "distill.grading.preload"
"""Imported once by the server that workers are forked from, so that a killed worker is replaced in an instant."""

_READY = "ready"
_ANSWER, _FAILED, _NO_MEMORY = "answer", "failed", "no memory"


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    task: int | None = None
    """Index of the task it works on, or `None`."""
    deadline: float = 0.0
    last_deadline: float = 0.0
    """Until when `deadline` may be put off."""
    cpu_s: float = 0.0
    """CPU time it had used when it began its task, in seconds."""
    warm: bool = False
    """It has answered once, so that its imports are done."""


class GradingPool:
    """A few processes that run one function on many tasks; use it as a context manager.

    Args:
        workers: number of processes; `None`: one a core.
        timeout_s: a task that takes longer is given up and its worker replaced, in seconds (of CPU time, where the
            machine is busy with something else: up to `STRETCH` times as long by the clock).
        memory_gib: a worker may take so much address space beyond what it starts with, in GiB.
    """

    def __init__(self, workers: int | None = None, timeout_s: float = 10.0, memory_gib: float = MEMORY_GIB) -> None:
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._timeout_s = timeout_s
        self._memory_bytes = int(memory_gib * 2**30)
        # Not fork: a child forked from a process with threads may hang on a lock that nobody will release.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            self._kill(worker)
        self._workers.clear()

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any], look_ahead: int = LOOK_AHEAD) -> Iterator[Any]:
        """`function(task)` of each task, in order; `TIMED_OUT`, `CRASHED` or `OUT_OF_MEMORY` where there is no answer.

        Args:
            function: found by its module and name in the workers, which start with the first task.
            tasks: taken one by one as workers become free; a `Settled` one is answered by its own value.
            look_ahead: at most so many tasks are taken and not yet answered in order, which bounds the memory.
        """
        for worker in [w for w in self._workers if w.task is not None]:  # left over from a map nobody finished
            self._discard(worker)
        source = enumerate(tasks)
        results: dict[int, Any] = {}
        next_in = next_out = 0
        more = True
        while more or next_out < next_in:
            while more and next_in - next_out < look_ahead and self._num_busy() < self._num_workers:
                index, task = next(source, (-1, None))
                if more := index >= 0:
                    next_in = index + 1
                    self._take(index, task, function, results)
                if next_out in results:
                    break  # what is ready goes out before more is taken
            self._collect(results, wait_for_one=next_out not in results)
            while next_out in results:
                yield results.pop(next_out)
                next_out += 1

    def _take(self, index: int, task: Any, function: Callable[[Any], Any], results: dict[int, Any]) -> None:
        if isinstance(task, Settled):
            results[index] = task.value
            return
        worker = next((w for w in self._workers if w.task is None), None)
        if worker is None:
            worker = self._start()
            self._workers.append(worker)
        self._assign(worker, index, function, task)

    def _num_busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._memory_bytes), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _assign(self, worker: _Worker, index: int, function: Callable[[Any], Any], task: Any) -> None:
        worker.task = index
        if worker.warm:
            self._begin(worker)
        else:
            worker.deadline = time.monotonic() + START_S
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `_collect` sees that and says so
            worker.connection.send((function, task, math.ceil(STRETCH * self._timeout_s + ORPHAN_AFTER_S)))

    def _begin(self, worker: _Worker) -> None:
        """Its task's own time starts now."""
        now = time.monotonic()
        worker.deadline, worker.last_deadline = now + self._timeout_s, now + STRETCH * self._timeout_s
        _, worker.cpu_s = _usage(worker.process.pid)

    def _collect(self, results: dict[int, Any], wait_for_one: bool) -> None:
        """Note which tasks have ended, in an answer, a death or at their deadline.

        Args:
            wait_for_one: wait for the next of them, if any worker is busy.
        """
        busy = [worker for worker in self._workers if worker.task is not None]
        if not busy:
            return
        left = max(0.0, min(worker.deadline for worker in busy) - time.monotonic()) if wait_for_one else 0.0
        ready = wait([worker.connection for worker in busy], timeout=left)
        for worker in busy:
            assert worker.task is not None
            if worker.connection in ready:
                self._receive(worker, results)
            elif time.monotonic() >= worker.deadline:
                self._give_up(worker, results)

    def _give_up(self, worker: _Worker, results: dict[int, Any]) -> None:
        """End a task whose time is over; one that waits for the CPU gets the rest of its time."""
        assert worker.task is not None
        runs, cpu_s = _usage(worker.process.pid)
        left = self._timeout_s - (cpu_s - worker.cpu_s)
        now = time.monotonic()
        if worker.warm and runs and left > 0.05 * self._timeout_s and now < worker.last_deadline:
            worker.deadline = min(now + left, worker.last_deadline)
            return
        results[worker.task] = TIMED_OUT
        self._discard(worker)

    def _receive(self, worker: _Worker, results: dict[int, Any]) -> None:
        assert worker.task is not None
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died half-way through sending
            results[worker.task] = _cause_of_death(worker.process)
            self._discard(worker)
            return
        if answer == _READY:  # imports are done
            worker.warm = True
            self._begin(worker)
            return
        kind, value = answer
        results[worker.task] = value if kind == _ANSWER else OUT_OF_MEMORY if kind == _NO_MEMORY else CRASHED
        worker.task = None
        if kind == _NO_MEMORY:  # what it still holds counts against its next task
            self._discard(worker)

    def _discard(self, worker: _Worker) -> None:
        self._kill(worker)
        self._workers.remove(worker)

    @staticmethod
    def _kill(worker: _Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.join()


def _cause_of_death(process: BaseProcess) -> Outcome:
    """C libraries abort where an allocation fails, and only the kernel, out of memory, kills what we do not."""
    process.join(START_S)
    return OUT_OF_MEMORY if process.exitcode in (-signal.SIGABRT, -signal.SIGKILL) else CRASHED


def _usage(pid: int | None) -> tuple[bool, float]:
    """Whether a process runs or could (it does not sleep), and the CPU time that it has used, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return False, 0.0
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(connection: Connection, memory_bytes: int) -> None:
    """A worker: answer tasks until the pool goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    warm = False
    while True:
        try:
            function, task, lifetime_s = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if not warm:
                importlib.import_module(PRELOAD)
                _limit_memory(memory_bytes)
                connection.send(_READY)
                warm = True
            signal.alarm(lifetime_s)  # no handler: the kernel ends the process, whatever it is stuck in
            answer = (_ANSWER, function(task))
        except MemoryError as error:
            answer = (_NO_MEMORY, repr(error)[:200])
        except Exception as error:  # a parser's bug on one row must not end the run; the row is counted as ungraded
            answer = (_FAILED, repr(error)[:200])
        signal.alarm(0)
        try:
            connection.send(answer)
        except OSError:
            return


def _limit_memory(more_bytes: int) -> None:
    """Let this process take so much address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))

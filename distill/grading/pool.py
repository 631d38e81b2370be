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
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Self

from distill.errors import StageError


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

MAX_FAILED_STARTS = 5

STRETCH = 3.0
"""A task that other processes keep from the CPU may take so many times its limit; it must not depend on their load."""

ORPHAN_AFTER_S = 5.0
"""A worker ends itself so long after its last limit: by then the pool would have killed it, so the pool is gone."""

PRELOAD = "distill.grading.preload"
"""Imported once by the server that workers are forked from, so that a killed worker is replaced in an instant."""

_READY = "ready"
_ANSWER, _FAILED, _NO_MEMORY = "answer", "failed", "no memory"


class PoolTask(NamedTuple):
    """Something for a worker to do."""

    tag: Any
    """Comes back with the outcome; it is not sent to the worker."""
    function: Callable[[Any], Any]
    """Found by its module and name in the worker."""
    argument: Any
    timeout_s: float | None = None
    """Left out: the pool's."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    task: PoolTask | None = None
    """What it works on, or `None`."""
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
        self._num_failed_starts = 0
        """Workers in a row that ended before they were ready."""

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
        source = enumerate(tasks)
        results: dict[int, Any] = {}
        next_in = next_out = 0
        more = True

        def next_task() -> PoolTask | None:
            nonlocal next_in, more
            while more and next_in - next_out < look_ahead:
                index, task = next(source, (-1, None))
                if index < 0:
                    more = False
                    break
                next_in = index + 1
                if not isinstance(task, Settled):
                    return PoolTask(index, function, task)
                results[index] = task.value
            return None

        while more or next_out < next_in:
            for index, outcome in self.run(next_task):
                results[index] = outcome
                while next_out in results:
                    yield results.pop(next_out)
                    next_out += 1
            while next_out in results:
                yield results.pop(next_out)
                next_out += 1

    def run(self, next_task: Callable[[], PoolTask | None]) -> Iterator[tuple[Any, Any]]:
        """Each task's tag and outcome, in the order in which they end.

        Args:
            next_task: asked whenever a worker is free; `None`: nothing at the moment, but what is under way may bring
                more. It is over once there is nothing and nothing is under way.
        """
        for worker in [w for w in self._workers if w.task is not None]:  # left over from a run nobody finished
            self._discard(worker)
        while True:
            while self._num_busy() < self._num_workers and (task := next_task()) is not None:
                self._assign(self._free_worker(), task)
            if not self._num_busy():
                return
            yield from self._collect()

    def _check_start(self, worker: _Worker) -> None:
        """One worker that dies before it is ready may have been killed; several in a row cannot work here.

        Raises:
            StageError: no worker gets as far as its first task.
        """
        self._num_failed_starts += not worker.warm
        if self._num_failed_starts >= MAX_FAILED_STARTS:
            raise StageError(
                f"{MAX_FAILED_STARTS} worker processes in a row ended before they could begin; the reason stands "
                "above. Too little memory (filter.grade_memory_gib) or a broken installation are the usual ones."
            )

    def _free_worker(self) -> _Worker:
        worker = next((w for w in self._workers if w.task is None), None)
        if worker is None:
            worker = self._start()
            self._workers.append(worker)
        return worker

    def _num_busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._memory_bytes), daemon=True)
        with _without_main():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _assign(self, worker: _Worker, task: PoolTask) -> None:
        worker.task = task
        if worker.warm:
            self._begin(worker, task)
        else:
            worker.deadline = time.monotonic() + START_S
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `_collect` sees that and says so
            lifetime_s = math.ceil(STRETCH * self._limit_s(task) + ORPHAN_AFTER_S)
            worker.connection.send((task.function, task.argument, lifetime_s))

    def _begin(self, worker: _Worker, task: PoolTask) -> None:
        """Its task's own time starts now."""
        now, limit_s = time.monotonic(), self._limit_s(task)
        worker.deadline, worker.last_deadline = now + limit_s, now + STRETCH * limit_s
        _, worker.cpu_s = _usage(worker.process.pid)

    def _limit_s(self, task: PoolTask) -> float:
        return task.timeout_s or self._timeout_s

    def _collect(self) -> Iterator[tuple[Any, Any]]:
        """Wait for the next answer, death or deadline; the tasks that have ended by then, and what came of them."""
        busy = [worker for worker in self._workers if worker.task is not None]
        left = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        ready = wait([worker.connection for worker in busy], timeout=left)
        for worker in busy:
            task = worker.task
            assert task is not None
            if worker.connection in ready:
                outcome = self._receive(worker, task)
                if outcome is not _READY:
                    yield task.tag, outcome
            elif time.monotonic() >= worker.deadline and not self._is_put_off(worker, task):
                self._discard(worker)
                yield task.tag, TIMED_OUT

    def _is_put_off(self, worker: _Worker, task: PoolTask) -> bool:
        """Whether a task whose time is over gets the rest of it, because it was kept from the CPU."""
        runs, cpu_s = _usage(worker.process.pid)
        limit_s = self._limit_s(task)
        left = limit_s - (cpu_s - worker.cpu_s)
        now = time.monotonic()
        if worker.warm and runs and left > 0.05 * limit_s and now < worker.last_deadline:
            worker.deadline = min(now + left, worker.last_deadline)
            return True
        return False

    def _receive(self, worker: _Worker, task: PoolTask) -> Any:
        """What a worker says: its task's outcome, or that it is ready for it."""
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died half-way through sending
            cause = _cause_of_death(worker.process)
            self._discard(worker)
            self._check_start(worker)
            return cause
        if kind == _READY:  # imports are done
            worker.warm = True
            self._num_failed_starts = 0
            self._begin(worker, task)
            return _READY
        worker.task = None
        if kind == _NO_MEMORY:  # what it still holds counts against its next task
            self._discard(worker)
            return OUT_OF_MEMORY
        return value if kind == _ANSWER else CRASHED

    def _discard(self, worker: _Worker) -> None:
        self._kill(worker)
        self._workers.remove(worker)

    @staticmethod
    def _kill(worker: _Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.join()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep a new process from running the caller's script again: what it will do is all in importable modules.

    multiprocessing has it import `__main__` otherwise, which in a script without `if __name__ == "__main__"` starts all
    over, and fails.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


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
                connection.send((_READY, None))
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

"""Worker processes that can be killed: a hung or crashed grading costs its timeout and nothing else.

A thread or an alarm cannot stop sympy inside a C call; killing the process can. The kernel limits memory (`RLIMIT_AS`),
so that an excessive allocation fails. Workers are confined (`distill.isolation`): whatever model-written text makes a
parser do, it finds no network, no secrets and no files.
"""

import math
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from distill.errors import StageError
from distill.isolation import cannot_start, ran_out_of_memory, release, shared_server
from distill.isolation.processes import Server, Worker, WorkerEnded
from distill.isolation.server import ANSWER, FAILED, NO_MEMORY, READY
from distill.isolation.walls import Wall


class Outcome:
    """A marker for a task without an answer; compare it with `is`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


TIMED_OUT = Outcome("TIMED_OUT")
CRASHED = Outcome("CRASHED")
OUT_OF_MEMORY = Outcome("OUT_OF_MEMORY")


@dataclass(frozen=True, slots=True)
class Settled:
    """A task that needs no worker: its value is yielded in its place."""

    value: Any


LOOK_AHEAD = 4_096
"""Maximum number of tasks taken but not yet yielded: large, so that workers stay busy while one task hangs."""

MEMORY_GIB = 4.0

START_S = 120.0
"""Time limit for a worker's start, which may import sympy and reasoning-gym; a task's time starts when it is ready."""

MAX_FAILED_STARTS = 5

FIRST_LIMIT_S = 1.0
"""Time limit of a task's first try. A task that exceeds it is retried with the full limit after the others."""

STRETCH = 3.0
"""A task starved of CPU may take this many times its limit, so that outcomes do not depend on the machine's load."""

ORPHAN_AFTER_S = 5.0
"""A worker exits by itself this long after its last limit: the pool would have killed it, so the pool is gone."""

PRELOAD = "distill.grading.preload"
"""Imported once by the process from which workers are forked, so that a killed worker is replaced quickly."""
READER_PRELOAD = "distill.filters.facts"
"""The same for workers that read files."""


class PoolTask(NamedTuple):
    """A task for a worker."""

    tag: Any
    """Returned with the outcome; not sent to the worker."""
    function: Callable[[Any], Any]
    """Looked up by module and name in the worker."""
    argument: Any
    timeout_s: float | None = None
    """`None`: the pool's."""
    reads_files: bool = False
    """Needs a worker that can read the pool's `read_paths`; such workers never score model-written answers."""


@dataclass(slots=True)
class _Worker:
    process: Worker
    server: Server
    reads_files: bool
    task: PoolTask | None = None
    """The current task; `None` if idle."""
    deadline: float = 0.0
    last_deadline: float = 0.0
    """Latest time to which `deadline` may be extended."""
    cpu_s: float = 0.0
    """CPU time used before the current task, in seconds."""
    warm: bool = False
    """It has reported that it is ready."""


class GradingPool:
    """A pool of processes that run functions on tasks; use it as a context manager.

    Args:
        workers: number of busy processes at a time; `None`: one per core.
        timeout_s: time limit of a task, in seconds, after which its worker is replaced. A task starved of CPU gets up
            to `STRETCH` times as long by the clock.
        memory_gib: address space that a worker may use beyond what it starts with, in GiB.
        read_paths: files and folders that the workers of tasks with `reads_files` may read.
        niceness: added to the niceness of the workers.
        wall: `None`: the best one on this machine.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: float = 10.0,
        memory_gib: float = MEMORY_GIB,
        read_paths: Sequence[Path] = (),
        niceness: int = 0,
        wall: Wall | None = None,
    ) -> None:
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._timeout_s = timeout_s
        self._memory_bytes = int(memory_gib * 2**30)
        self._read_paths, self._niceness, self._wall = tuple(read_paths), niceness, wall
        self._readers: set[Server] = set()
        """Servers used by this pool only."""
        self._workers: list[_Worker] = []
        self._num_failed_starts = 0
        """Number of workers in a row that ended before they were ready."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.kill()
        self._workers.clear()
        for server in self._readers:
            release(server)
        self._readers.clear()

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any], look_ahead: int = LOOK_AHEAD) -> Iterator[Any]:
        """Yield `function(task)` of each task, in order; `TIMED_OUT`, `CRASHED` or `OUT_OF_MEMORY` if it has no answer.

        Args:
            function: looked up by module and name in the workers, which start with the first task.
            tasks: consumed as workers become free; a `Settled` one yields its own value.
            look_ahead: maximum number of tasks taken but not yet yielded, which bounds the memory.
        """
        source = enumerate(tasks)
        results: dict[int, Any] = {}
        first_s = FIRST_LIMIT_S if self._timeout_s > FIRST_LIMIT_S else None
        begun: dict[int, PoolTask] = {}
        """Tasks in their first try."""
        again: deque[PoolTask] = deque()
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
                    begun[index] = PoolTask(index, function, task, first_s)
                    return begun[index]
                results[index] = task.value
            return again.popleft() if again else None

        while more or next_out < next_in:
            for index, outcome in self.run(next_task):
                tried = begun.pop(index, None)
                if outcome is TIMED_OUT and tried is not None and first_s is not None:
                    again.append(tried._replace(timeout_s=None))
                    continue
                results[index] = outcome
                while next_out in results:
                    yield results.pop(next_out)
                    next_out += 1
            while next_out in results:
                yield results.pop(next_out)
                next_out += 1

    def run(self, next_task: Callable[[], PoolTask | None]) -> Iterator[tuple[Any, Any]]:
        """Yield each task's tag and outcome, in order of completion.

        Args:
            next_task: called whenever a worker is free. `None` means no task at the moment; the run ends when it
                returns `None` and no task is in flight.
        """
        for worker in [w for w in self._workers if w.task is not None]:  # left over from an abandoned run
            self._discard(worker)
        while True:
            while self._num_busy() < self._num_workers and (task := next_task()) is not None:
                self._assign(self._free_worker(task.reads_files), task)
            if not self._num_busy():
                return
            yield from self._collect()

    def _free_worker(self, reads_files: bool) -> _Worker:
        """Return an idle worker of the right kind, starting one if needed.

        Raises:
            StageError: no worker can be started.
        """
        idle = next((w for w in self._workers if w.task is None and w.reads_files == reads_files), None)
        while idle is None:
            server = self._server(reads_files)
            try:
                process = server.start_worker(self._memory_bytes, self._niceness)
            except WorkerEnded:
                self._count_failed_start(server)
                continue
            idle = _Worker(process, server, reads_files)
            self._workers.append(idle)
        return idle

    def _server(self, reads_files: bool) -> Server:
        if not reads_files:
            return shared_server((PRELOAD,), (), self._wall)
        server = shared_server((READER_PRELOAD,), self._read_paths, self._wall)
        self._readers.add(server)
        return server

    def _count_failed_start(self, server: Server) -> None:
        """Count a worker that ended before it was ready.

        Raises:
            StageError: too many in a row did.
        """
        # A single one may have been killed from outside; several in a row cannot work on this machine.
        self._num_failed_starts += 1
        if self._num_failed_starts >= MAX_FAILED_STARTS:
            raise StageError(
                f"{MAX_FAILED_STARTS} worker processes in a row ended before they could begin. Too little memory "
                f"(filter.grade_memory_gib) or a broken installation are the usual reasons: {cannot_start(server)}"
            )

    def _num_busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def _assign(self, worker: _Worker, task: PoolTask) -> None:
        worker.task = task
        if worker.warm:
            self._begin(worker, task)
        else:
            worker.deadline = time.monotonic() + START_S
        worker.process.ask(task.function, task.argument, math.ceil(STRETCH * self._limit_s(task) + ORPHAN_AFTER_S))

    def _begin(self, worker: _Worker, task: PoolTask) -> None:
        """Start the clock of a worker's task."""
        now, limit_s = time.monotonic(), self._limit_s(task)
        worker.deadline, worker.last_deadline = now + limit_s, now + STRETCH * limit_s
        _, worker.cpu_s = usage(worker.process.pid)

    def _limit_s(self, task: PoolTask) -> float:
        return task.timeout_s or self._timeout_s

    def _collect(self) -> Iterator[tuple[Any, Any]]:
        """Wait for the next answer, exit or deadline; yield the tasks that have ended and their outcomes."""
        busy = [worker for worker in self._workers if worker.task is not None]
        left_s = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        poll = select.poll()
        for worker in busy:
            poll.register(worker.process.socket, select.POLLIN | (select.POLLOUT * worker.process.has_to_send))
        events = dict(poll.poll(math.ceil(1_000 * left_s)))
        for worker in busy:
            task = worker.task
            assert task is not None
            event = events.get(worker.process.socket.fileno(), 0)
            if event & select.POLLOUT:
                worker.process.send()
            if event & ~select.POLLOUT:
                yield from self._receive(worker, task)
            elif time.monotonic() >= worker.deadline and not self._is_put_off(worker, task):
                self._discard(worker)
                yield task.tag, TIMED_OUT

    def _is_put_off(self, worker: _Worker, task: PoolTask) -> bool:
        """Extend the deadline of a task that was starved of CPU; return whether it was extended."""
        runs, cpu_s = usage(worker.process.pid)
        limit_s = self._limit_s(task)
        left = limit_s - (cpu_s - worker.cpu_s)
        now = time.monotonic()
        if worker.warm and runs and left > 0.05 * limit_s and now < worker.last_deadline:
            worker.deadline = min(now + left, worker.last_deadline)
            return True
        return False

    def _receive(self, worker: _Worker, task: PoolTask) -> Iterator[tuple[Any, Any]]:
        """Yield the tag and outcome of a worker's task if its message is complete."""
        try:
            said = worker.process.receive()
        except WorkerEnded:
            outcome = OUT_OF_MEMORY if ran_out_of_memory(worker.process.status()) else CRASHED
            self._discard(worker)
            if not worker.warm:
                self._count_failed_start(worker.server)
            yield task.tag, outcome
            return
        if said is None:
            return
        kind, value = said
        if kind == READY and not worker.warm:
            worker.warm = True
            self._num_failed_starts = 0
            self._begin(worker, task)
            return
        # After NO_MEMORY, what the worker still holds would count against its next task. Any other kind is invalid.
        if kind not in (ANSWER, FAILED):
            self._discard(worker)
            yield task.tag, OUT_OF_MEMORY if kind == NO_MEMORY else CRASHED
            return
        worker.task = None
        yield task.tag, value if kind == ANSWER else CRASHED

    def _discard(self, worker: _Worker) -> None:
        worker.process.kill()
        self._workers.remove(worker)


def usage(pid: int | None) -> tuple[bool, float]:
    """Return whether a process is running or runnable, and its CPU time in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return False, 0.0
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""Worker processes that can be killed: a hung or crashed grading costs its time-out, and nothing else.

A thread or an alarm cannot stop sympy inside a C call; ending the process can.
"""

import contextlib
import importlib
import math
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
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

START_S = 120.0
"""A worker's first task may import sympy or reasoning-gym; its time limit counts from when it is ready."""

ORPHAN_AFTER_S = 5.0
"""A worker ends itself so long after its time limit: by then the pool would have killed it, so the pool is gone."""

PRELOAD = "distill.grading.preload"
"""Imported once by the server that workers are forked from, so that a killed worker is replaced in an instant."""

_READY = "ready"


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    task: int | None = None
    """Index of the task it works on, or `None`."""
    deadline: float = 0.0
    warm: bool = False
    """It has answered once, so that its imports are done."""


class GradingPool:
    """A few processes that run one function on many tasks; use it as a context manager.

    Args:
        workers: number of processes; `None`: one a core.
        timeout_s: a task that takes longer is given up and its worker replaced, in seconds.
    """

    def __init__(self, workers: int | None = None, timeout_s: float = 10.0) -> None:
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._timeout_s = timeout_s
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

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """`function(task)` of each task, in order; `TIMED_OUT` or `CRASHED` where there is no answer.

        `function` is found by its module and name in the workers. Workers start with the first task.
        """
        tasks = list(tasks)
        waiting = deque(range(len(tasks)))
        results: dict[int, Any] = {}
        next_out = 0
        for worker in [w for w in self._workers if w.task is not None]:  # left over from a map nobody finished
            self._discard(worker)
        while next_out < len(tasks):
            while len(self._workers) < min(self._num_workers, len(waiting) + self._num_busy()):
                self._workers.append(self._start())
            for worker in self._workers:
                if worker.task is None and waiting:
                    self._assign(worker, waiting.popleft(), function, tasks)
            self._collect(results)
            while next_out in results:
                yield results.pop(next_out)
                next_out += 1

    def _num_busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _assign(self, worker: _Worker, index: int, function: Callable[[Any], Any], tasks: list[Any]) -> None:
        worker.task = index
        worker.deadline = time.monotonic() + (self._timeout_s if worker.warm else START_S)
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `_collect` sees that and says so
            worker.connection.send((function, tasks[index], math.ceil(self._timeout_s + ORPHAN_AFTER_S)))

    def _collect(self, results: dict[int, Any]) -> None:
        """Wait for the next answer, death or deadline, and note what came of it."""
        busy = [worker for worker in self._workers if worker.task is not None]
        if not busy:
            return
        left = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        ready = wait([worker.connection for worker in busy], timeout=left)
        for worker in busy:
            assert worker.task is not None
            if worker.connection in ready:
                self._receive(worker, results)
            elif time.monotonic() >= worker.deadline:
                results[worker.task] = TIMED_OUT
                self._discard(worker)

    def _receive(self, worker: _Worker, results: dict[int, Any]) -> None:
        assert worker.task is not None
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died half-way through sending
            results[worker.task] = CRASHED
            self._discard(worker)
            return
        if answer == _READY:  # imports are done: the task's own time starts now
            worker.warm = True
            worker.deadline = time.monotonic() + self._timeout_s
            return
        succeeded, value = answer
        results[worker.task] = value if succeeded else CRASHED
        worker.task = None

    def _discard(self, worker: _Worker) -> None:
        self._kill(worker)
        self._workers.remove(worker)

    @staticmethod
    def _kill(worker: _Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection) -> None:
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
                connection.send(_READY)
                warm = True
            signal.alarm(lifetime_s)  # no handler: the kernel ends the process, whatever it is stuck in
            answer = (True, function(task))
        except Exception as error:  # a parser's bug on one row must not end the run; the row is counted as ungraded
            answer = (False, repr(error)[:200])
        signal.alarm(0)
        try:
            connection.send(answer)
        except OSError:
            return

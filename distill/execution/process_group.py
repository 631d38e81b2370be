"""The child processes that run one job together: started, watched and stopped. If one dies, all are stopped."""

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distill import errors
from distill.core.progress import PROGRESS_FD, QUIET
from distill.errors import StageError
from distill.storage.files import disk_errors

STOP_WITHIN_S = 5.0
"""Time for a child to end after Ctrl-C or SIGTERM, beyond its job's drain time, before it is killed.

Short, because a user is waiting and finished work is on the disk."""

LAST_WORDS_S = 2.0
"""Time for the others to continue after one has failed, so that the one that knows the cause can report it."""

LISTEN_S = 0.5
CHECK_EVERY_S = 2.0
"""Interval between checks on other machines."""
NUM_LOG_LINES = 12
STORE_FD = "DISTILL_STORE_FD"
"""Environment variable: the bound socket on which the first process serves torch.distributed's store."""


@dataclass(slots=True)
class Worker:
    """A child process and its result."""

    rank: int
    process: subprocess.Popen[bytes]
    pipe: int
    """Receives the result. A pipe and not a file, because a child must be able to report a full disk."""
    log: Path
    answer: bytearray = field(default_factory=bytearray)
    ended_at: float | None = None
    killed_by_us: bool = False

    @property
    def result(self) -> dict[str, Any] | None:
        """Return its answer, once it has ended; `None` if it died without one, or while it wrote it."""
        try:
            parsed: dict[str, Any] | None = json.loads(self.answer) if self.answer else None
        except ValueError:
            return None
        return parsed

    @property
    def has_failed(self) -> bool:
        return self.ended_at is not None and (self.result is None or self.result["error"] is not None)


class ProcessGroup:
    """The processes of one job on this machine."""

    def __init__(
        self, kind: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], drain_s: float
    ) -> None:
        """Prepare to start processes, without starting any.

        Args:
            kind: what they do, in a word.
            command: starts one of them, once the file descriptor for its result is appended.
            folder: where their logs are kept.
            environment: of all of them.
            drain_s: seconds that they may continue after a signal.
        """
        self._kind, self._command, self._folder, self._environment = kind, command, folder, environment
        self._drain_s = drain_s
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On Ctrl-C, or SIGTERM as raised by the CLI, let them store what they have. After an error, kill them at once.
        is_signal = error is not None and not isinstance(error, Exception)
        self._stop(self._drain_s + STOP_WITHIN_S if is_signal else 0.0)

    def start(self, environment: Mapping[str, str], rank: int = 0, store: socket.socket | None = None) -> None:
        """Start one process.

        Args:
            environment: variables besides those of all processes.
            rank: its number; only rank 0 shows progress.
            store: the socket on which to serve the group's store.
        """
        log_file = self._folder / (f"{self._kind}.rank{rank}.log" if rank else f"{self._kind}.log")
        from_child, to_parent = os.pipe()
        progress = os.dup(2)
        environment = {**self._environment, **environment, PROGRESS_FD: str(progress)}
        passed = [progress, to_parent]
        if store is not None:
            environment[STORE_FD] = str(store.fileno())
            passed.append(store.fileno())
        if rank:
            environment[QUIET] = "1"
        try:
            with disk_errors(log_file), log_file.open("w") as log:
                child = subprocess.Popen(
                    [*self._command, str(to_parent)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=passed,
                    env=environment,
                    process_group=0,  # Ctrl-C in a terminal reaches only the parent, which then stops them in order
                )
        except BaseException:
            os.close(from_child)
            raise
        finally:
            os.close(to_parent)
            os.close(progress)
        os.set_blocking(from_child, False)
        self._workers.append(Worker(rank, child, from_child, log_file))

    def wait(self, check: Callable[[], None] | None = None) -> tuple[dict[str, Any], float]:
        """Wait until all have ended.

        Args:
            check: raises if the job cannot succeed for reasons outside this machine.

        Returns:
            The first process's value, and the sum of all peak resident memory in GiB.

        Raises:
            DistillError: what one of them raised, or StageError with the end of the log of the one that died first.
        """
        self._watch(check or _nothing)
        failed = [worker for worker in self._workers if worker.has_failed]
        if failed:
            raise self._cause(failed)
        results = [worker.result or {} for worker in self._workers]
        return results[0]["value"], sum(result["peak_memory_gib"] for result in results)

    def _watch(self, check: Callable[[], None]) -> None:
        """Read the processes' answers until all have ended. Kill the others soon after one has failed."""
        first_failure: float | None = None
        next_check = 0.0
        while running := [worker for worker in self._workers if worker.ended_at is None]:
            _listen(running)
            now = time.monotonic()
            if first_failure is not None:
                if now - first_failure > LAST_WORDS_S:
                    _kill(running)
            elif any(worker.has_failed for worker in self._workers):
                first_failure = now
            elif now > next_check:
                next_check = now + CHECK_EVERY_S
                check()

    def _stop(self, within_s: float) -> None:
        """Ask all to end. Kill them after a second signal or the time limit."""
        for worker in self._workers:
            _close(worker)  # the answer is not read any more, and a child must not block on writing it
        running = [worker for worker in self._workers if worker.process.poll() is None]
        deadline = time.monotonic() + within_s
        try:
            for worker in running if within_s else ():
                worker.process.terminate()
            for worker in running if within_s else ():
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill(running)
            for worker in running:
                worker.process.wait()

    def _cause(self, failed: list[Worker]) -> errors.DistillError:
        """Return why the job failed: a reported error if there is one, else the first death."""
        for worker in failed:
            if worker.result is not None:
                error = worker.result["error"]
                kind_of_error: type[errors.DistillError] = getattr(errors, error["type"], StageError)
                return kind_of_error(error["message"])
        first = min(failed, key=lambda w: (w.killed_by_us, w.process.returncode >= 0, w.ended_at))
        return StageError(_death_notice(self._kind, first, len(self._workers)))


def _listen(running: list[Worker]) -> None:
    """Read the workers' answers for a moment, and note which workers have ended."""
    with selectors.DefaultSelector() as selector:
        for worker in running:
            selector.register(worker.pipe, selectors.EVENT_READ, worker)
        for key, _ in selector.select(LISTEN_S):
            _read(key.data)
    for worker in running:
        # A closed pipe is not the only sign: what the child has forked may hold it open.
        if worker.ended_at is None and worker.process.poll() is not None:
            _read(worker)
            _end(worker)


def _read(worker: Worker) -> None:
    while worker.ended_at is None:
        try:
            piece = os.read(worker.pipe, 1 << 16)
        except BlockingIOError:
            return
        if not piece:
            _end(worker)
        worker.answer += piece


def _end(worker: Worker) -> None:
    worker.ended_at = time.monotonic()
    worker.process.wait()
    _close(worker)


def _close(worker: Worker) -> None:
    if worker.pipe >= 0:
        os.close(worker.pipe)
        worker.pipe = -1


def _kill(workers: list[Worker]) -> None:
    for worker in workers:
        if worker.process.poll() is None:
            worker.killed_by_us = True
            worker.process.kill()


def _nothing() -> None:
    pass


def cause_of_death(code: int | None) -> str:
    """Return what ended a process, in words, from its exit code; a negative one is a signal."""
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = "; if you did not kill it, memory may have run out" if code == -signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{hint}"


def _death_notice(kind: str, worker: Worker, num_workers: int) -> str:
    cause = cause_of_death(worker.process.returncode)
    with worker.log.open(errors="replace") as stream:
        tail = "".join(deque(stream, NUM_LOG_LINES)).rstrip()
    which = f"{kind} process" if num_workers == 1 else f"{kind} process of rank {worker.rank} (of {num_workers} here)"
    return (
        f"the {which} died ({cause}). What it finished is kept: the same command goes on from there.\n"
        f"The end of {worker.log}:\n{tail}"
    )

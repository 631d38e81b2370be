"""Grade traces in the background while an engine generates.

Answers that string comparison settles are graded at once; a thread passes the others to a worker process.
"""

import contextlib
import queue
import threading
from types import TracebackType
from typing import Self

from distill.core.records import Problem, SampleKey, Trace
from distill.grading import Grade, grade_from, grade_slowly, quick_grade
from distill.grading.pool import GradingPool

NUM_WORKERS = 1
"""One, to leave the cores to the engine: grading takes milliseconds, a sample takes seconds."""
NICENESS = 19
"""Lowest priority: on a CPU, an engine's threads synchronise at every step, so preempting one stalls all of them."""
CLOSE_S = 5.0


class BackgroundGrader:
    """A grader that runs beside an engine; use it as a context manager, entered before the engine starts.

    Args:
        timeout_s: time limit of one grading, in seconds; beyond it the answer counts as ungraded.
    """

    def __init__(self, timeout_s: float) -> None:
        self._pool = GradingPool(NUM_WORKERS, timeout_s, niceness=NICENESS)
        self._tasks: queue.SimpleQueue[tuple[SampleKey, Problem, str] | None] = queue.SimpleQueue()
        self._grades: queue.SimpleQueue[tuple[SampleKey, Grade]] = queue.SimpleQueue()
        self._num_waiting = 0
        self._thread = threading.Thread(target=self._work, name="grader", daemon=True)

    def __enter__(self) -> Self:
        # Not later: a thread started after the engine would inherit the cores to which the engine pins this thread.
        self._thread.start()
        return self

    def submit(self, problem: Problem, trace: Trace) -> None:
        """Queue a trace for grading; skip it if the engine failed to answer."""
        if trace.finish_reason == "error":
            return
        self._num_waiting += 1
        grade = quick_grade(problem, trace.content, last_number=False)
        if isinstance(grade, Grade):
            self._grades.put((trace.key, grade))
        else:
            self._tasks.put((trace.key, problem, grade.extracted_answer))

    def ready(self, wait_s: float = 0.0) -> list[tuple[SampleKey, Grade]]:
        """Return the grades that have arrived since the last call.

        Args:
            wait_s: maximum wait for the first one, if any is in flight, in seconds.
        """
        found: list[tuple[SampleKey, Grade]] = []
        try:
            while self._num_waiting:
                found.append(self._grades.get(timeout=wait_s) if wait_s and not found else self._grades.get_nowait())
                self._num_waiting -= 1
        except queue.Empty:
            pass
        return found

    @property
    def num_waiting(self) -> int:
        """Return the number of submitted traces whose grade `ready` has not returned yet."""
        return self._num_waiting

    def _work(self) -> None:
        with self._pool:
            while (task := self._tasks.get()) is not None:
                key, problem, extracted = task
                for outcome in self._pool.map(grade_slowly, [(problem, extracted)]):
                    self._grades.put((key, grade_from(outcome, extracted)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # after an error, pending grades are not needed
            with contextlib.suppress(queue.Empty):
                while True:
                    self._tasks.get_nowait()
        self._tasks.put(None)
        self._thread.join(CLOSE_S)  # do not wait for a hung grading: its worker exits by itself

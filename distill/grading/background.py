"""Grading beside a running engine: traces in, verdicts out whenever they are ready, nobody waits.

What comparing strings settles is settled at once; the rest goes to a worker process through a thread that only waits.
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
"""Leaves the cores to the engine: a grading takes milliseconds, a sample seconds."""
NICENESS = 19
"""On CPU an engine's threads wait for one another at every step: one that is pushed aside holds up all."""
CLOSE_S = 5.0


class BackgroundGrader:
    """Grades traces as they come; use it as a context manager, entered before the engine starts.

    Args:
        timeout_s: a grading that takes longer counts as ungraded, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._pool = GradingPool(NUM_WORKERS, timeout_s, niceness=NICENESS)
        self._tasks: queue.SimpleQueue[tuple[SampleKey, Problem, str] | None] = queue.SimpleQueue()
        self._grades: queue.SimpleQueue[tuple[SampleKey, Grade]] = queue.SimpleQueue()
        self._num_waiting = 0
        self._thread = threading.Thread(target=self._work, name="grader", daemon=True)

    def __enter__(self) -> Self:
        # Now, not later: a thread started after the engine would inherit the cores that it has pinned this one to.
        self._thread.start()
        return self

    def submit(self, problem: Problem, trace: Trace) -> None:
        """Have a trace graded. One that no engine could answer is left out."""
        if trace.finish_reason == "error":
            return
        self._num_waiting += 1
        grade = quick_grade(problem, trace.content, last_number=False)
        if isinstance(grade, Grade):
            self._grades.put((trace.key, grade))
        else:
            self._tasks.put((trace.key, problem, grade.extracted_answer))

    def ready(self, wait_s: float = 0.0) -> list[tuple[SampleKey, Grade]]:
        """The grades that have come in since the last call.

        Args:
            wait_s: wait so long for the first one, if any is on its way, in seconds.
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
        """Traces submitted whose grade `ready` has not given out yet."""
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
        if kind is not None:  # somebody waits for the end and nobody for grades
            with contextlib.suppress(queue.Empty):
                while True:
                    self._tasks.get_nowait()
        self._tasks.put(None)
        self._thread.join(CLOSE_S)  # a hung grading does not hold up the end; its worker ends itself

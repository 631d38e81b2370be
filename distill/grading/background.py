"""Grade traces in the background while an engine generates.

Answers that string comparison settles are graded at once; a thread passes the others to a worker process, and keeps
their grades for the filter.
"""

import contextlib
import functools
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distill.core.records import Problem, SampleKey, Trace
from distill.errors import StoreError
from distill.grading import Grade, grade_from, grade_slowly, quick_grade
from distill.grading.cached import (
    Versions,
    cache_entry,
    gradable,
    grade_from_cache,
    grade_key,
    opened_cache,
    take_golds,
    versions_of,
)
from distill.grading.code.grader import CODE, CodeGrader, backend_of
from distill.grading.gym import FULL_SCORE
from distill.grading.pool import MEMORY_GIB, GradingPool
from distill.recipe.sandbox import SandboxConfig
from distill.storage.fact_cache import FactCache

NUM_WORKERS = 1
"""One, to leave the cores to the engine: grading takes milliseconds, a sample takes seconds."""
NICENESS = 19
"""Lowest priority: on a CPU, an engine's threads synchronise at every step, so preempting one stalls all of them."""
CLOSE_S = 5.0


class BackgroundGrader:
    """A grader that runs beside an engine; use it as a context manager, entered before the engine starts.

    Args:
        timeout_s: time limit of one grading, in seconds; beyond it the answer counts as ungraded.
        memory_gib: memory limit of one grading, in GiB.
        gym_min_score: least score of a reasoning-gym answer that counts as correct.
        cache: the fact cache, from which filter and evaluation take the grades; `None`: they are forgotten.
        last_number: grade as an evaluation does (see `cached.gradable`).
        sandbox: where programs run; `None`: on this machine.
    """

    def __init__(
        self,
        timeout_s: float,
        memory_gib: float = MEMORY_GIB,
        gym_min_score: float = FULL_SCORE,
        cache: Path | None = None,
        last_number: bool = False,
        sandbox: SandboxConfig | None = None,
    ) -> None:
        self._backend = backend_of(sandbox or SandboxConfig())
        self._pool = GradingPool(NUM_WORKERS, timeout_s, memory_gib, niceness=NICENESS)
        self._limits, self._gym_min_score, self._cache = (timeout_s, memory_gib), gym_min_score, cache
        self._last_number = last_number
        self._tasks: queue.SimpleQueue[tuple[SampleKey, Problem, str, str] | None] = queue.SimpleQueue()
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
        text = gradable(problem, trace, self._last_number)
        grade = quick_grade(problem, text, self._last_number)
        if isinstance(grade, Grade):
            self._grades.put((trace.key, grade))
        else:
            self._tasks.put((trace.key, problem, text, grade.extracted_answer))

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
        versions = versions_of(self._backend)
        with self._pool, opened_cache(self._cache) as cache, CodeGrader(self._backend, NUM_WORKERS) as programs:
            while (task := self._tasks.get()) is not None:
                key, problem, text, extracted = task
                try:
                    grade, entries = self._grade(problem, text, extracted, versions, cache, programs)
                except Exception as error:  # the loop waits for a grade of every answer
                    why = f"{type(error).__name__}: {error}"
                    grade, entries = Grade(None, extracted, "ungraded_crash", {"ungraded_crash": why}), {}
                self._grades.put((key, grade))
                _keep(cache, entries)

    def _grade(
        self,
        problem: Problem,
        text: str,
        extracted: str,
        versions: Versions,
        cache: FactCache | None,
        programs: CodeGrader,
    ) -> tuple[Grade, dict[bytes, Any]]:
        """Return the grade of an answer, and what to keep in the cache."""
        cache_key = grade_key(problem, text, versions, self._gym_min_score, self._last_number)
        known = {} if cache is None else cache.get([cache_key])
        if (cached := grade_from_cache(known.get(cache_key), *self._limits)) is not None:
            return cached, {}
        if problem.task == CODE:
            take_golds(programs, cache, [problem])
            grade = programs.grade(problem, extracted)
            return grade, {cache_key: cache_entry(grade, grade, *self._limits), **programs.take_fresh()}
        grade_one = functools.partial(grade_slowly, gym_min_score=self._gym_min_score)
        [outcome] = self._pool.map(grade_one, [(problem, extracted)])
        grade = grade_from(outcome, extracted)
        return grade, {cache_key: cache_entry(grade, outcome, *self._limits)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # after an error, pending grades are not needed
            with contextlib.suppress(queue.Empty):
                while True:
                    self._tasks.get_nowait()
        self._tasks.put(None)
        self._thread.join(CLOSE_S)  # do not wait for a hung grading: its worker exits by itself


def _keep(cache: FactCache | None, entries: Mapping[bytes, Any]) -> None:
    """Store what is to be cached."""
    told = {key: entry for key, entry in entries.items() if entry is not None}
    if cache is not None and told:
        # A grade that cannot be kept is made again by the filter; the ledger reports a full disk.
        with contextlib.suppress(StoreError):
            cache.put(told)

"""Grade traces in the background while an engine generates.

Answers that string comparison settles are graded at once; a thread passes the others to a worker process, and keeps
their grades for the filter.
"""

import contextlib
import functools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from distill.core.records import Problem, SampleKey, Trace
from distill.errors import StoreError
from distill.grading import Grade, grade_from, grade_slowly, quick_grade
from distill.grading.cached import cache_entry, grade_from_cache, grade_key, library_versions
from distill.grading.gym import FULL_SCORE
from distill.grading.pool import MEMORY_GIB, GradingPool
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
        cache: the fact cache, from which the filter takes the grades; `None`: they are forgotten.
    """

    def __init__(
        self,
        timeout_s: float,
        memory_gib: float = MEMORY_GIB,
        gym_min_score: float = FULL_SCORE,
        cache: Path | None = None,
    ) -> None:
        self._pool = GradingPool(NUM_WORKERS, timeout_s, memory_gib, niceness=NICENESS)
        self._limits, self._gym_min_score, self._cache = (timeout_s, memory_gib), gym_min_score, cache
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
        grade = quick_grade(problem, trace.content, last_number=False)
        if isinstance(grade, Grade):
            self._grades.put((trace.key, grade))
        else:
            self._tasks.put((trace.key, problem, trace.content, grade.extracted_answer))

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
        grade_one = functools.partial(grade_slowly, gym_min_score=self._gym_min_score)
        versions = library_versions()
        with self._pool, self._opened_cache() as cache:
            while (task := self._tasks.get()) is not None:
                key, problem, content, extracted = task
                cache_key = grade_key(problem, content, versions, self._gym_min_score)
                known = {} if cache is None else cache.get([cache_key])
                if (cached := grade_from_cache(known.get(cache_key), *self._limits)) is not None:
                    self._grades.put((key, cached))
                    continue
                for outcome in self._pool.map(grade_one, [(problem, extracted)]):
                    grade = grade_from(outcome, extracted)
                    self._grades.put((key, grade))
                    entry = cache_entry(grade, outcome, *self._limits)
                    if cache is not None and entry is not None:
                        # A grade that cannot be kept is made again by the filter; the ledger reports a full disk.
                        with contextlib.suppress(StoreError):
                            cache.put({cache_key: entry})

    @contextlib.contextmanager
    def _opened_cache(self) -> Iterator[FactCache | None]:
        """Open the cache in the thread that uses it, as SQLite requires; `None` if it cannot be opened."""
        opened = None
        if self._cache is not None:
            with contextlib.suppress(StoreError):
                opened = FactCache(self._cache, write=True)
        try:
            yield opened
        finally:
            if opened is not None:
                opened.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # after an error, pending grades are not needed
            with contextlib.suppress(queue.Empty):
                while True:
                    self._tasks.get_nowait()
        self._tasks.put(None)
        self._thread.join(CLOSE_S)  # do not wait for a hung grading: its worker exits by itself

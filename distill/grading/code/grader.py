"""Grade the programs in answers, several at a time, each in a sandbox of its own.

A problem whose own solution fails its tests grades no answer: its tests are wrong, or not tests of that problem.
"""

import itertools
import json
import os
import platform
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

from distill.core.records import CodeTests, Problem
from distill.errors import DistillError, StageError, StoreError
from distill.grading.code.programs import MAX_SHOWN_CHARS, program_in
from distill.grading.code.testing import CODE_VERSION, run_program_tests
from distill.grading.code.verdicts import (
    MAX_TEXT_CHARS,
    CodeVerdict,
    FailedTest,
    end_in_words,
    shortened,
    ungraded,
)
from distill.grading.grades import Grade
from distill.grading.sandbox import BUBBLEWRAP, Backend, sandbox_fails
from distill.grading.sandbox.compiled import NO_COMPILER, compiler
from distill.grading.sandbox.remote import runtimes
from distill.recipe.sandbox import SandboxConfig
from distill.storage.case_files import iter_cases, tests_identity
from distill.storage.fact_cache import fact_key

CODE = "code"
FENCE = "```"
NO_TESTS = "the problem has no tests"


def backend_of(config: SandboxConfig) -> Backend:
    """Return where a recipe's programs run."""
    return BUBBLEWRAP if config.url is None else Backend("remote", config.url)


def check_sandbox(backend: Backend, wanted_by: str) -> None:
    """Refuse to begin what could not be graded.

    Args:
        backend: where programs would run.
        wanted_by: the keys of the recipe that ask for it.

    Raises:
        StageError: no program can be run there.
    """
    if (why := sandbox_fails(backend)) is not None:
        raise StageError(
            f"{wanted_by}: answers are programs, and none can be run safely here, so they could not be graded: {why}. "
            "Nothing is sampled or loaded before that is fixed; `distill doctor` checks it again."
        )


def check_tests(backend: Backend, problems: Iterable[Problem], wanted_by: str) -> None:
    """Refuse to begin what could not be graded, by the tests of the problems.

    Args:
        backend: where programs would run.
        problems: of any task.
        wanted_by: the stage that asks for it.

    Raises:
        StageError: no program can be run there, or not those that some of the tests need.
    """
    tests = [problem.tests for problem in problems if problem.task == CODE and problem.tests is not None]
    if not tests:
        return
    check_sandbox(backend, wanted_by)
    if (why := tests_fail(backend, tests)) is not None:
        raise StageError(
            f"{wanted_by}: some answers could not be graded: {why}. Nothing is sampled before that is fixed; "
            "`distill doctor` checks it again."
        )


def tests_fail(backend: Backend, tests: Iterable[CodeTests]) -> str | None:
    """Return why some tests cannot be run although programs can, and what to do about it; `None` if all can."""
    if backend.url:
        return next(filter(None, (_remote_fails(one) for one in tests)), None)
    is_compiled = any(one.language == "cpp" for one in tests)
    return f"there are tests in C++, and {NO_COMPILER}" if is_compiled and compiler() is None else None


def _remote_fails(tests: CodeTests) -> str | None:
    if tests.language == "python" and any(case["kind"] != "stdin" for case in iter_cases(tests)):
        return (
            "there are calls or assertions in Python among the tests, and a remote runner (sandbox.url) runs whole "
            "programs alone: leave sandbox.url out where bubblewrap can be had, or choose problems of input and output"
        )
    if tests.checker and (why := sandbox_fails(BUBBLEWRAP)) is not None:
        return f"there are checkers among the tests, which run on this machine whatever sandbox.url says: {why}"
    return None


def code_versions(backend: Backend = BUBBLEWRAP) -> str:
    """Return what decides a verdict besides program and tests, as a part of cache keys."""
    own = f"code {CODE_VERSION}, Python {platform.python_version()}"
    if backend.url:
        return f"{own}, {backend.url}, {runtimes(backend.url)}"
    found = compiler()
    return f"{own}, {found[1] if found else 'no compiler'}"


def code_key(problem: Problem, content: str, versions: str) -> bytes:
    """Return the cache key of a grade: a hash over everything that decides it.

    Args:
        problem: the problem.
        content: the answer without the thought.
        versions: see `code_versions`.
    """
    return fact_key("program", versions, _told(problem), content)


def gold_key(problem: Problem, versions: str) -> bytes:
    """Return the cache key of what a problem's own solution does."""
    return fact_key("own solution", versions, _told(problem))


def _told(problem: Problem) -> str:
    tests = None if problem.tests is None else tests_identity(problem.tests)
    return json.dumps([problem.answer, tests], sort_keys=True)


def solution_of(problem: Problem) -> str | None:
    """Return the program of a problem's own solution, which may stand in a text around it."""
    if problem.answer is None:
        return None
    found = program_in(problem.answer, problem.tests) if FENCE in problem.answer else problem.answer
    return found if found is None or found.strip() else None


class NoSandboxError(Exception):
    """A program that cannot be run here."""


class OwnSolution(NamedTuple):
    """What a problem's own solution does with its tests."""

    fault: str = ""
    """Why no answer can be graded by these tests; empty if it passes them, or there is none."""
    weaker: tuple[int, ...] | None = None
    """Numbers of the tests that it passes in its own process alone; `None`: there is no solution."""


class CodeGrader:
    """Threads that grade programs; use it as a context manager. The programs' processes do the work.

    Args:
        backend: where programs run.
        workers: programs tested at a time; `None`: one per core.
    """

    def __init__(self, backend: Backend = BUBBLEWRAP, workers: int | None = None) -> None:
        self.backend, self.versions = backend, code_versions(backend)
        self.num_workers = workers or len(os.sched_getaffinity(0))
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._golds: dict[bytes, Future[OwnSolution]] = {}
        self._fresh: dict[bytes, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def submit(self, problem: Problem, program: str) -> "Future[Grade]":
        """Begin to grade a program in another thread."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.num_workers, "programs")
        return self._threads.submit(self.grade, problem, program)

    def grade(self, problem: Problem, program: str) -> Grade:
        """Return the grade of a program."""
        shown = shortened(program, MAX_SHOWN_CHARS)
        if problem.tests is None:
            return Grade(None, shown, "ungraded_gold", {"ungraded_gold": NO_TESTS})
        try:
            own = self.own_solution(problem)
            if own.fault:
                return Grade(None, shown, "ungraded_gold", {"ungraded_gold": own.fault})
            return grade_of(self._verdict(program, problem.tests, own.weaker), shown)
        except NoSandboxError as error:
            return Grade(None, shown, "ungraded_sandbox", {"ungraded_sandbox": str(error)})
        except StoreError as error:
            return Grade(None, shown, "ungraded_gold", {"ungraded_gold": str(error)}, may_be_kept=False)

    def _verdict(
        self, program: str, tests: CodeTests, weaker: Collection[int] | None, is_own: bool = False
    ) -> CodeVerdict:
        """Return what the tests say of a program.

        An error of the comparison itself, to which a program may lead on purpose, stops no grading of others. It is
        wrong where the tests are known to work with another program, the problem's own solution.
        """
        try:
            return run_program_tests(program, tests, self.backend, weaker)
        except (DistillError, OSError):
            raise
        except Exception as error:
            said = f"it cannot be compared: {type(error).__name__}: {shortened(str(error), MAX_TEXT_CHARS)}"
            if is_own or weaker is None:
                return ungraded(tests.num, "ungraded_crash", said)
            return CodeVerdict(False, tests.num, failed=FailedTest(1, "", "", "", end_in_words("failed"), said))

    def know(self, found: Mapping[bytes, Any]) -> None:
        """Take what is known of problems' own solutions, by `gold_key`."""
        with self._lock:
            for key, entry in found.items():
                if key not in self._golds:
                    known: Future[OwnSolution] = Future()
                    self._golds[key] = known
                    weaker = entry["weaker"]
                    known.set_result(OwnSolution(str(entry["fault"]), None if weaker is None else tuple(weaker)))

    def take_fresh(self) -> dict[bytes, dict[str, Any]]:
        """Return what was found out about problems' own solutions since the last call, by `gold_key`."""
        with self._lock:
            taken, self._fresh = self._fresh, {}
        return taken

    def own_solution(self, problem: Problem) -> OwnSolution:
        """Return what a problem's own solution does with its tests; it is run once.

        Raises:
            NoSandboxError: it cannot be run.
            StoreError: the file of the tests is missing or damaged.
        """
        program = solution_of(problem)
        if program is None or problem.tests is None:
            return OwnSolution()
        key = gold_key(problem, self.versions)
        with self._lock:
            known, is_first = self._golds.get(key), key not in self._golds
            if known is None:
                known = self._golds[key] = Future()
        if is_first:
            try:
                found = _own_solution(self._verdict(program, problem.tests, _All(), is_own=True))
            except BaseException as error:
                with self._lock:
                    self._golds.pop(key, None)  # so that it is tried again
                known.set_exception(error)
                raise
            with self._lock:
                self._fresh[key] = {"fault": found.fault, "weaker": found.weaker}
            known.set_result(found)
        return known.result()


class _All(Collection[int]):
    """All numbers."""

    def __contains__(self, number: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return itertools.count()

    def __len__(self) -> int:
        return sys.maxsize


def _own_solution(verdict: CodeVerdict) -> OwnSolution:
    if verdict.reason == "ungraded_sandbox":
        raise NoSandboxError(verdict.why)
    if verdict.correct is None:
        # Inputs without outputs are what a vote is for; tests that cannot be run are wrong.
        return OwnSolution("" if verdict.outputs else f"its tests cannot be used: {verdict.why}", verdict.weaker)
    if verdict.failed is not None:
        return OwnSolution(f"its own solution fails {verdict.failed.in_words(verdict.num)}", verdict.weaker)
    return OwnSolution("", verdict.weaker)


def grade_of(verdict: CodeVerdict, program: str) -> Grade:
    """Return a verdict as the grade of an answer.

    Args:
        verdict: of its tests.
        program: as it is recorded.
    """
    reason = "wrong_answer" if verdict.correct is False else verdict.reason
    return Grade(verdict.correct, program, reason, verdict.details())

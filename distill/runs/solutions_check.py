"""`distill filter --check-tests`: does each problem's own solution pass its tests?

A problem whose own solution fails grades no answer (`ungraded_gold`). What is found out is kept in the run's fact
cache, where the filter and the evaluation find it.
"""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from distill.core.progress import ProgressBar
from distill.core.records import Problem
from distill.errors import StoreError, UserError
from distill.grading.cached import NUM_PROGRAMS_KEPT, opened_cache, take_golds
from distill.grading.code.grader import (
    CODE,
    NO_TESTS,
    CodeGrader,
    NoSandboxError,
    OwnSolution,
    backend_of,
    check_sandbox,
    solution_of,
)
from distill.recipe.sandbox import measured_programs, trained_programs
from distill.sources.imported_traces import Identities, Skipped, foreign_traces
from distill.stages import RunContext
from distill.storage.layout import FACTS_FILE, TESTS


@dataclass(frozen=True, slots=True)
class Unusable:
    """A problem that grades no answer."""

    problem_id: str
    source: str
    why: str


@dataclass(slots=True)
class SolutionsCheck:
    """What the own solutions of a recipe's problems do with their tests."""

    num_problems: int = 0
    """Of `task: code`."""
    num_checked: int = 0
    """Problems with a solution, which was run."""
    num_weaker: int = 0
    """Problems with tests whose assertions have to be compared in the program's own process."""
    seconds: float = 0.0
    unusable: list[Unusable] = field(default_factory=list)
    """Those that grade no answer, in order."""

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": 1, **asdict(self)}

    def lines(self) -> list[str]:
        """Return it in words."""
        without = self.num_problems - self.num_checked
        found = [
            f"{self.num_problems:,} problems with tests; the own solutions of {self.num_checked:,} were run in "
            f"{self.seconds:.1f} s" + (f", {without:,} have none" if without else "")
        ]
        if self.num_weaker:
            found.append(
                f"{self.num_weaker:,} have tests that can be compared in the program's own process alone, which is "
                "weaker (docs/code.md)"
            )
        if not self.unusable:
            return [*found, "Each solution passes its tests."]
        found.append(f"{len(self.unusable):,} grade no answer (ungraded_gold):")
        return found + [f"  {one.problem_id} ({one.source}): {one.why}" for one in self.unusable]


def check_solutions(run: RunContext) -> SolutionsCheck:
    """Run the own solutions of a recipe's problems against their tests.

    Args:
        run: the recipe, or a round of it, and its folder.

    Raises:
        UserError: the recipe has no problems of `task: code`, or they cannot be loaded.
        StageError: no sandbox can be had.
    """
    recipe = run.recipe
    keys = [*trained_programs(recipe), *measured_programs(recipe)]
    if not keys:
        raise UserError("filter: --check-tests is for recipes with task: code, and this one has no such problems.")
    backend = backend_of(recipe.sandbox)
    check_sandbox(backend, keys[0])
    problems = list(_code_problems(run))
    found = SolutionsCheck(len(problems))
    started = time.monotonic()
    with (
        opened_cache(run.run_dir / FACTS_FILE) as cache,
        CodeGrader(backend, recipe.sandbox.workers) as grader,
        ThreadPoolExecutor(grader.num_workers) as threads,
        ProgressBar("filter: check tests", len(problems), "problems") as progress,
    ):
        take_golds(grader, cache, problems)
        owns = threads.map(lambda one: _own(grader, one), problems)
        for number, (problem, own) in enumerate(zip(problems, owns, strict=True), start=1):
            found.num_checked += solution_of(problem) is not None
            found.num_weaker += bool(own.weaker)
            if own.fault:
                found.unusable.append(Unusable(problem.id, problem.source, own.fault))
            progress.advance(1, f"{len(found.unusable):,} unusable")
            if cache is not None and (number % NUM_PROGRAMS_KEPT == 0 or number == len(problems)):
                cache.put(grader.take_fresh())
    found.seconds = time.monotonic() - started
    return found


def _own(grader: CodeGrader, problem: Problem) -> OwnSolution:
    if problem.tests is None:
        return OwnSolution(NO_TESTS)
    try:
        return grader.own_solution(problem)
    except (NoSandboxError, StoreError) as error:
        return OwnSolution(f"it could not be run: {error}")


def _code_problems(run: RunContext) -> Iterator[Problem]:
    """Yield the distinct problems of `task: code`, trained on or measured."""
    seen: set[str] = set()
    for problem in _problems(run):
        if problem.task == CODE and problem.id not in seen:
            seen.add(problem.id)
            yield problem


def _problems(run: RunContext) -> Iterable[Problem]:
    sets = run.problem_sets
    yield from sets.train
    for several in sets.benchmarks.values():
        yield from several
    identities, skipped = Identities(), Skipped()
    for source in run.recipe.traces:
        if source.task == CODE:
            for problem, _ in foreign_traces(source, skipped, identities, store=run.run_dir / TESTS):
                yield problem

"""Grades in the fact cache: what was graded while sampling is not graded again by the filter or the evaluation."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.records import Problem, Trace
from distill.errors import StoreError
from distill.grading import GRADER_VERSION, UNGRADED, Grade, grade_all
from distill.grading.boxes import boxes_alone
from distill.grading.code.grader import CODE, CodeGrader, backend_of, code_key, code_versions, gold_key
from distill.grading.code.programs import whole_blocks
from distill.grading.gym import FULL_SCORE
from distill.grading.pool import CRASHED, MEMORY_GIB, OUT_OF_MEMORY, TIMED_OUT, GradingPool, Outcome
from distill.grading.sandbox import BUBBLEWRAP, Backend
from distill.recipe.sandbox import SandboxConfig
from distill.storage.fact_cache import FactCache, fact_key

LIBRARIES = ("math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym", "langdetect")
"""Packages whose version decides a grade."""
NUM_AT_ONCE = 1_000
"""Answers that `grade_traces` looks up together."""
NUM_PROGRAMS_KEPT = 32
"""Most grades that a kill may lose where some take as long as a program may run."""


class Versions(NamedTuple):
    """Of what grades, as parts of cache keys."""

    libraries: str
    """The packages that grading depends on."""
    sandbox: str
    """What runs programs, see `distill.grading.code.grader.code_versions`."""


def versions_of(backend: Backend = BUBBLEWRAP) -> Versions:
    """Return the versions of what grades on this machine, with programs run there."""
    return Versions(" ".join(f"{name} {version(name)}" for name in LIBRARIES), code_versions(backend))


def gradable(problem: Problem, trace: Trace, last_number: bool) -> str:
    """Return the text of a trace in which its final answer is looked for.

    With `last_number`, as an evaluation grades, only the boxed answers of a trace that was cut off count: the last
    number of an unfinished text is no answer. Instructions are checked in what there is. An unfinished program is none.
    """
    if problem.task == CODE:
        return whole_blocks(trace.content) if trace.finish_reason == "length" else trace.content
    is_cut = last_number and trace.finish_reason == "length" and problem.task != "instructions"
    return boxes_alone(trace.content) if is_cut else trace.content


def grade_key(
    problem: Problem, content: str, versions: "Versions", gym_min_score: float, last_number: bool = False
) -> bytes:
    """Return the cache key of a grade: a hash over everything that decides it.

    Args:
        problem: the problem.
        content: the answer without the thought.
        versions: of what grades.
        gym_min_score: `filter.gym_min_score`.
        last_number: whether a last number counts as an answer.
    """
    if problem.task == CODE:
        return code_key(problem, content, versions.sandbox)
    gold = json.dumps([problem.task, problem.answer, problem.metadata, gym_min_score], sort_keys=True)
    question = problem.question if problem.task == "choice" else ""
    kind = "grade, last number" if last_number else "grade"
    return fact_key(kind, str(GRADER_VERSION), versions.libraries, gold, question, content)


def cache_entry(grade: Grade, outcome: object, timeout_s: float, memory_gib: float) -> dict[str, Any] | None:
    """Return what to cache of a grading, `None` if it must be repeated: a crash may be the machine's fault.

    Args:
        grade: the grade.
        outcome: what the pool returned for it.
        timeout_s: limit of the grading; a grading that hit it is repeated under a higher one.
        memory_gib: the same for memory.
    """
    if grade.reason == "ungraded_sandbox" or not grade.may_be_kept:
        return None
    told = {key: value for key, value in asdict(grade).items() if key != "details" or value}
    del told["may_be_kept"]
    if outcome is TIMED_OUT:
        return {**told, "limits": [timeout_s, memory_gib]}
    return None if isinstance(outcome, Outcome) else told


def grade_from_cache(entry: dict[str, Any] | None, timeout_s: float, memory_gib: float) -> Grade | None:
    """Return a cached grade, or `None` if there is none or it was given up under tighter limits than these."""
    if entry is None:
        return None
    limits = entry.get("limits")
    if limits is not None and (timeout_s > limits[0] or memory_gib > limits[1]):
        return None
    return Grade(entry["correct"], entry["extracted_answer"], entry["reason"], entry.get("details") or {})


def grade_traces(
    answers: Iterable[tuple[Problem, Trace]],
    facts: Path | None,
    timeout_s: float,
    last_number: bool = False,
    gym_min_score: float = FULL_SCORE,
    memory_gib: float = MEMORY_GIB,
    sandbox: SandboxConfig | None = None,
) -> Iterator[Grade]:
    """Grade traces in order: from the fact cache those that it knows, the others in confined workers or sandboxes.

    New grades are stored, as `BackgroundGrader` stores those that it makes while the traces are sampled. A cache that
    is damaged or cannot be written costs time, never a result.

    Args:
        answers: each problem with a trace; taken `NUM_AT_ONCE` at a time.
        facts: path of the cache; `None`: there is none.
        timeout_s: time limit of one grading, in seconds.
        last_number: see `gradable`.
        gym_min_score: minimum score at which a gym answer is right.
        memory_gib: memory limit of one grading, in GiB.
        sandbox: where programs run; `None`: on this machine.
    """
    sandbox = sandbox or SandboxConfig()
    source, backend = iter(answers), backend_of(sandbox)
    versions = versions_of(backend)
    with (
        GradingPool(timeout_s=timeout_s, memory_gib=memory_gib) as pool,
        CodeGrader(backend, sandbox.workers) as programs,
        opened_cache(facts) as cache,
    ):
        while some := list(islice(source, NUM_AT_ONCE)):
            texts = [(problem, gradable(problem, trace, last_number)) for problem, trace in some]
            keys = [grade_key(problem, text, versions, gym_min_score, last_number) for problem, text in texts]
            found = {} if cache is None else cache.get(keys)
            known = {key: grade_from_cache(entry, timeout_s, memory_gib) for key, entry in found.items()}
            tasks = [known.get(key) or text for key, text in zip(keys, texts, strict=True)]
            take_golds(programs, cache, [problem for problem, _ in texts])
            num_kept = NUM_PROGRAMS_KEPT if any(problem.task == CODE for problem, _ in texts) else NUM_AT_ONCE
            keyed = zip(keys, grade_all(tasks, pool, last_number, gym_min_score, programs), strict=True)
            while graded := list(islice(keyed, num_kept)):
                if cache is not None:
                    fresh = {
                        key: entry
                        for key, grade in graded
                        if known.get(key) is None and (entry := _entry(grade, timeout_s, memory_gib)) is not None
                    }
                    with contextlib.suppress(StoreError):
                        cache.put(fresh | programs.take_fresh())
                yield from (grade for _, grade in graded)


def take_golds(programs: CodeGrader, cache: FactCache | None, problems: Iterable[Problem]) -> None:
    """Tell a grader what the cache knows of the own solutions of code problems."""
    keys = {gold_key(problem, programs.versions) for problem in problems if problem.task == CODE}
    if keys and cache is not None:
        programs.know(cache.get(list(keys)))


@contextlib.contextmanager
def opened_cache(path: Path | None) -> Iterator[FactCache | None]:
    """Open the fact cache for writing, in the thread that uses it; `None` if there is none or it cannot be opened."""
    opened = None
    if path is not None:
        with contextlib.suppress(StoreError):
            opened = FactCache(path, write=True)
    try:
        yield opened
    finally:
        if opened is not None:
            opened.close()


def _entry(grade: Grade, timeout_s: float, memory_gib: float) -> dict[str, Any] | None:
    """Return what to cache of a grade whose outcome in the pool is told by its reason."""
    outcomes = {UNGRADED[outcome]: outcome for outcome in (TIMED_OUT, CRASHED, OUT_OF_MEMORY)}
    return cache_entry(grade, outcomes.get(grade.reason or ""), timeout_s, memory_gib)

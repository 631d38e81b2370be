"""Grades in the fact cache: what was graded while sampling is not graded again by the filter."""

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from distill.core.records import Problem
from distill.grading import GRADER_VERSION, Grade
from distill.grading.pool import TIMED_OUT, Outcome
from distill.storage.fact_cache import fact_key

LIBRARIES = ("math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym")
"""Packages whose version decides a grade."""


def library_versions() -> str:
    """Return the versions of the packages that grading depends on, as a part of cache keys."""
    return " ".join(f"{name} {version(name)}" for name in LIBRARIES)


def grade_key(problem: Problem, content: str, versions: str, gym_min_score: float) -> bytes:
    """Return the cache key of a grade: a hash over everything that decides it.

    Args:
        problem: the problem.
        content: the answer without the thought.
        versions: see `library_versions`.
        gym_min_score: `filter.gym_min_score`.
    """
    gold = json.dumps([problem.task, problem.answer, problem.metadata, gym_min_score], sort_keys=True)
    question = problem.question if problem.task == "choice" else ""
    return fact_key("grade", str(GRADER_VERSION), versions, gold, question, content)


def cache_entry(grade: Grade, outcome: object, timeout_s: float, memory_gib: float) -> dict[str, Any] | None:
    """Return what to cache of a grading, `None` if it must be repeated: a crash may be the machine's fault.

    Args:
        grade: the grade.
        outcome: what the pool returned for it.
        timeout_s: limit of the grading; a grading that hit it is repeated under a higher one.
        memory_gib: the same for memory.
    """
    if outcome is TIMED_OUT:
        return {**asdict(grade), "limits": [timeout_s, memory_gib]}
    return None if isinstance(outcome, Outcome) else asdict(grade)


def grade_from_cache(entry: dict[str, Any] | None, timeout_s: float, memory_gib: float) -> Grade | None:
    """Return a cached grade, or `None` if there is none or it was given up under tighter limits than these."""
    if entry is None:
        return None
    limits = entry.get("limits")
    if limits is not None and (timeout_s > limits[0] or memory_gib > limits[1]):
        return None
    return Grade(entry["correct"], entry["extracted_answer"], entry["reason"])

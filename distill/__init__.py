"""distill: make small reasoning models by distillation.

A teacher's chains of thought are sampled and filtered; a student is trained on those that are correct and readable, and
evaluated. The command line is `distill`. The same from Python:

    import distill

    result = distill.run("recipe.yaml", student="qwen-1.5b")
    result.student_score.pass_at_1

Importing the package imports nothing else: each name below is imported from its module on first use (docs/python.md).
"""

import importlib
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.api import (
        RunResult,
        compare,
        diff,
        doctor,
        make_problem,
        make_trace,
        open_run,
        plan,
        run,
        score,
        write_report,
    )
    from distill.core.records import REASON_KEYS, REASONS, Problem, Trace, Verdict
    from distill.core.thinking import join_reasoning, split_reasoning
    from distill.errors import DistillError, ModelError, ProblemError, RecipeError, StageError, StoreError, UserError
    from distill.estimates.training_report import plan_memory
    from distill.filters.readability import Measures, measure, unreadable
    from distill.filters.rows import rl_row, sft_row
    from distill.filters.select import Candidate, over_limits, per_problem
    from distill.filters.verdicts import judge_traces
    from distill.grading import Grade, grade
    from distill.models.students import STUDENTS, Student, find_student
    from distill.recipe.eval import EvalConfig
    from distill.recipe.filter import FilterConfig
    from distill.recipe.generate import GenerateConfig
    from distill.recipe.loading import load_recipe
    from distill.recipe.model import Recipe
    from distill.recipe.problems import ProblemSource
    from distill.recipe.push import PushConfig
    from distill.recipe.sft import SftConfig
    from distill.results.eval import EvalResult
    from distill.runs.listing import describe_run, list_runs
    from distill.scores.intervals import mean_interval, paired_difference
    from distill.sources.problems import ProblemSets, load_problem_sets, load_problems

__version__ = "0.1.0"

_HOMES = {
    "api": (
        "RunResult",
        "compare",
        "diff",
        "doctor",
        "make_problem",
        "make_trace",
        "open_run",
        "plan",
        "run",
        "score",
        "write_report",
    ),
    "errors": ("DistillError", "ModelError", "ProblemError", "RecipeError", "StageError", "StoreError", "UserError"),
    "filters.readability": ("Measures", "measure", "unreadable"),
    "filters.rows": ("rl_row", "sft_row"),
    "filters.select": ("Candidate", "over_limits", "per_problem"),
    "grading": ("Grade", "grade"),
    "sources.problems": ("ProblemSets", "load_problem_sets", "load_problems"),
    "core.thinking": ("join_reasoning", "split_reasoning"),
    "recipe.eval": ("EvalConfig",),
    "recipe.filter": ("FilterConfig",),
    "recipe.generate": ("GenerateConfig",),
    "recipe.model": ("Recipe",),
    "recipe.problems": ("ProblemSource",),
    "recipe.push": ("PushConfig",),
    "recipe.sft": ("SftConfig",),
    "recipe.loading": ("load_recipe",),
    "core.records": ("REASONS", "REASON_KEYS", "Problem", "Trace", "Verdict"),
    "results.eval": ("EvalResult",),
    "runs.listing": ("describe_run", "list_runs"),
    "scores.intervals": ("mean_interval", "paired_difference"),
    "models.students": ("STUDENTS", "Student", "find_student"),
    "estimates.training_report": ("plan_memory",),
    "filters.verdicts": ("judge_traces",),
}
"""Module -> the names that are imported from it."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "REASONS",
    "REASON_KEYS",
    "STUDENTS",
    "Candidate",
    "DistillError",
    "EvalConfig",
    "EvalResult",
    "FilterConfig",
    "GenerateConfig",
    "Grade",
    "Measures",
    "ModelError",
    "Problem",
    "ProblemError",
    "ProblemSets",
    "ProblemSource",
    "PushConfig",
    "Recipe",
    "RecipeError",
    "RunResult",
    "SftConfig",
    "StageError",
    "StoreError",
    "Student",
    "Trace",
    "UserError",
    "Verdict",
    "__version__",
    "compare",
    "describe_run",
    "diff",
    "doctor",
    "find_student",
    "grade",
    "join_reasoning",
    "judge_traces",
    "list_runs",
    "load_problem_sets",
    "load_problems",
    "load_recipe",
    "make_problem",
    "make_trace",
    "mean_interval",
    "measure",
    "open_run",
    "over_limits",
    "paired_difference",
    "per_problem",
    "plan",
    "plan_memory",
    "rl_row",
    "run",
    "score",
    "sft_row",
    "split_reasoning",
    "unreadable",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a name from its module on first use; the arguments of functions are checked on each call.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in _HOME_OF:
        raise AttributeError(f"module 'distill' has no attribute {name!r}; dir(distill) lists what it has")
    value = getattr(importlib.import_module(f"distill.{_HOME_OF[name]}"), name)
    if isinstance(value, types.FunctionType):
        value = importlib.import_module("distill.core.call_checks").checked(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF} - {"importlib", "types", "TYPE_CHECKING", "Any"})

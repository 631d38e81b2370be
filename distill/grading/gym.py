"""reasoning-gym answers, scored by the task's own scorer.

The scorer needs the whole entry, which is made again from the problem's metadata (task, options, size, seed, index).
"""

import ast
import functools
import json
import re
from typing import Any

from distill.problems import gym_dataset
from distill.records import Problem

FULL_SCORE = 1.0
"""reasoning-gym gives part of a point for a right answer in the wrong form; by default only a whole one is right."""

EVALUATING = frozenset(
    {
        "binary_matrix",
        "bitwise_arithmetic",
        "composite",  # may hold any of them
        "countdown",
        "intermediate_integration",
        "n_queens",
        "number_sorting",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Tasks whose scorers hand an answer to Python's or sympy's evaluation."""

_FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "arcsin", "arccos", "arctan", "sinh", "cosh",
    "tanh", "exp", "log", "ln", "sqrt", "abs", "Abs",
})  # fmt: skip
_MARKS = re.compile(r"""['"`#\\@{]|:=|__|\b(?:for|lambda|import|exec|eval|yield|await)\b""")
_BEFORE_BRACKET = re.compile(r"(\w+|\S)?\s*\(")
_OPERATORS = frozenset("+-*/%^=<>,:;&|~!([")


def grade_gym(problem: Problem, extracted: str, min_score: float = FULL_SCORE) -> bool | None:
    """Right from `min_score` on. May hang on hostile text: run it in the pool."""
    return gym_score(problem, extracted) >= min_score


def gym_score(problem: Problem, extracted: str) -> float:
    """The score in [0, 1] that the task's own scorer gives an answer.

    Raises:
        KeyError: the problem does not say how its entry was made.
    """
    made_from = problem.metadata["gym"]
    if made_from["task"] in EVALUATING and could_run(extracted):
        return 0.0
    dataset = _dataset(json.dumps({k: made_from[k] for k in ("task", "options", "size", "seed")}, sort_keys=True))
    entry = dataset[made_from["index"]]
    return float(dataset.score_answer(answer=extracted, entry=entry))


@functools.lru_cache(maxsize=32)
def _dataset(recipe: str) -> Any:
    return gym_dataset(json.loads(recipe))


def could_run(answer: str) -> bool:
    """Whether evaluating an answer, which a model wrote, could do more than arithmetic: call anything but a known
    function, or build text that is evaluated in its turn.
    """
    try:
        ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        pass
    else:
        return False
    if _MARKS.search(answer):
        return True
    return not all(_may_stand_before_a_bracket(found[1]) for found in _BEFORE_BRACKET.finditer(answer))


def _may_stand_before_a_bracket(word: str | None) -> bool:
    return word is None or word in _FUNCTIONS or word in _OPERATORS or word.isdecimal()

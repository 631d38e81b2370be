"""Score reasoning-gym answers with the task's own scorer.

A scorer needs the whole entry. It is regenerated from the problem's metadata (task, options, size, seed, index) in a
confined process with a fixed hash seed, because some tasks' entries depend on the hash seed. If the regenerated entry
differs from the problem, an answer is scored only if the scorer needs nothing but the expected answer.
"""

import copy
import functools
import json
from typing import Any, Never

from distill.core.records import Problem
from distill.grading.gym_answers import MAX_DEPTH, TooLargeError, as_expression, as_list, depth, readings, yes_or_no
from distill.grading.gym_tasks import gym_dataset
from distill.grading.pool import PRELOAD
from distill.isolation import IsolationError, MemoryLimitError, TimeLimitError, call_isolated
from distill.isolation.server import current_wall
from distill.isolation.walls import MAY_EVALUATE

FULL_SCORE = 1.0
"""Default minimum score of a right answer; reasoning-gym gives partial credit for a right answer in a wrong form."""

EXPRESSIONS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Tasks whose scorers pass an answer to sympy, which evaluates it."""
LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Tasks whose scorers pass an answer to Python's `eval`, to read a list."""
EVALUATING = EXPRESSIONS | LISTS
"""Tasks whose scorers evaluate an answer; `composite` does if its entry comes from one of these."""
GOLD_EVALUATING = EVALUATING | {"number_sorting"}
"""Tasks whose scorers also evaluate the expected answer."""

ALONE_TIMEOUT_S, ALONE_GIB = 60.0, 4.0
"""Limits for an answer scored outside a pool."""


class UngradedError(Exception):
    """An answer that cannot be scored.

    Args:
        reason: of `distill.core.records.REASONS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def grade_gym(problem: Problem, extracted: str, min_score: float = FULL_SCORE) -> bool:
    """Return whether the score of an answer is at least `min_score`.

    Raises:
        UngradedError: the answer cannot be scored.
    """
    return gym_score(problem, extracted) >= min_score


def gym_score(problem: Problem, extracted: str) -> float:
    """Return the score in [0, 1] from the task's own scorer, which runs in a confined process (here, if this is one).

    Raises:
        UngradedError: the answer cannot be scored.
    """
    if current_wall() is not None:
        return _score_here(problem, extracted)
    try:
        score = call_isolated(
            _score_or_reason,
            (problem, extracted),
            timeout_s=ALONE_TIMEOUT_S,
            memory_gib=ALONE_GIB,
            preload=(PRELOAD,),
        )
    except TimeLimitError:
        raise UngradedError("ungraded_timeout") from None
    except MemoryLimitError:
        raise UngradedError("ungraded_memory") from None
    except IsolationError:
        raise UngradedError("ungraded_crash") from None
    if isinstance(score, float):
        return score
    raise UngradedError(score if isinstance(score, str) else "ungraded_crash")


def _score_or_reason(task: tuple[Problem, str]) -> float | str:
    try:
        return _score_here(*task)
    except UngradedError as error:
        return error.reason


def _score_here(problem: Problem, extracted: str) -> float:
    if depth(extracted) > MAX_DEPTH:
        raise UngradedError("ungraded_crash")
    made_from = problem.metadata["gym"]
    recipe = json.dumps({k: made_from[k] for k in ("task", "options", "size", "seed")}, sort_keys=True)
    dataset = _dataset(recipe)
    entry, task = _asked_entry(problem, recipe, made_from)
    wall = current_wall()
    if task in EVALUATING and wall is not None and wall not in MAY_EVALUATE:
        raise UngradedError("ungraded_isolation")
    # Compared here, because the scorer of game_of_life_halting accepts any non-empty text.
    if problem.answer is not None and (is_right := yes_or_no(extracted, problem.answer)) is not None:
        return FULL_SCORE if is_right else 0.0
    try:
        return _best_score(problem, dataset, entry, task, extracted)
    finally:
        if isinstance(entry["metadata"], _Untold) and entry["metadata"].was_asked:
            raise UngradedError("ungraded_entry")


def _best_score(problem: Problem, dataset: Any, entry: dict[str, Any], task: str, extracted: str) -> float:
    """Return the best score over the readings of an answer.

    Raises:
        UngradedError: the answer is too large to be read.
        Exception: the scorer fails on every reading.
    """
    scores: list[float] = []
    failure: Exception | None = None
    for reading in readings(extracted, problem.answer):
        try:
            scores.append(_score_reading(dataset, entry, task, reading))
        except TooLargeError:
            raise UngradedError("ungraded_crash") from None
        except Exception as error:  # some scorers raise if an answer is not a number
            failure = error
        if scores and scores[-1] >= FULL_SCORE:
            break
    if not scores and failure is not None:
        raise failure
    return max(scores, default=0.0)


@functools.lru_cache(maxsize=32)
def _dataset(recipe: str) -> Any:
    return gym_dataset(json.loads(recipe))


@functools.lru_cache(maxsize=512)
def _made_entry(recipe: str, index: int) -> Any:
    return _dataset(recipe)[index]


class _Untold(dict[str, Any]):
    """The unknown metadata of an entry; it records whether a scorer asked for them."""

    was_asked = False

    def _refuse(self, *_: object) -> Never:
        self.was_asked = True
        raise KeyError("the entry's metadata are not known")

    __getitem__ = get = keys = items = values = __iter__ = __contains__ = _refuse  # type: ignore[assignment]


def _asked_entry(problem: Problem, recipe: str, made_from: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the problem's entry, and the task that scores it.

    Raises:
        UngradedError: the regenerated entry is another one, and the problem's cannot be scored without it.
    """
    made, index, task = None, made_from["index"], made_from["task"]
    if isinstance(index, int) and 0 <= index < made_from["size"]:
        made = copy.deepcopy(_made_entry(recipe, index))  # scorers may modify the entry
    if made is not None and _is_asked(problem, made):
        return made, made["metadata"]["source_dataset"] if task == "composite" else task
    if problem.answer is None or task == "composite" or not _is_harmless_gold(task, problem.answer):
        raise UngradedError("ungraded_entry")
    return {"question": problem.question, "answer": problem.answer, "metadata": _Untold()}, task


def _is_asked(problem: Problem, made: dict[str, Any]) -> bool:
    answer = None if made["answer"] is None else str(made["answer"])
    return made["question"] in problem.question and answer == problem.answer


def _is_harmless_gold(task: str, gold: str) -> bool:
    """Return whether a scorer may see an expected answer that was not regenerated here and so is untrusted."""
    try:
        return task not in GOLD_EVALUATING or (as_expression(gold) or as_list(gold) or _is_words(gold)) is not None
    except TooLargeError:
        return False


def _is_words(gold: str) -> str | None:
    """Return plain words and numbers, as in `string_insertion` and matrices, else `None`."""
    return gold if all(char.isalnum() or char in " \n_" for char in gold) else None


def _score_reading(dataset: Any, entry: dict[str, Any], task: str, reading: str) -> float:
    """Return the scorer's own score; a scorer that evaluates gets only what was parsed as arithmetic or as a list.

    Raises:
        TooLargeError: the answer is too large to be parsed.
    """
    if task in EXPRESSIONS:
        variable = entry["metadata"].get("variable") if not isinstance(entry["metadata"], _Untold) else None
        expression = as_expression(reading, frozenset({variable} if isinstance(variable, str) else ()))
        return 0.0 if expression is None else float(dataset.score_answer(answer=expression, entry=entry))
    if task in LISTS:
        known = entry["answer"], *([] if task != "n_queens" else entry["metadata"]["valid_answers"])
        if reading in known or reading.strip() == str(entry["answer"]).strip():
            return FULL_SCORE
        written = as_list(reading)
        return 0.0 if written is None else float(dataset.score_answer(answer=written, entry=entry))
    return float(dataset.score_answer(answer=reading, entry=entry))

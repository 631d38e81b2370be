"""Generate entries of reasoning-gym tasks from a description, which may be untrusted.

Example: `{"task": "chain_sum", "options": {"min_terms": 3}, "size": 500, "seed": 0}`.
"""

import difflib
import re
import warnings
from collections.abc import Mapping
from typing import Any

from distill.errors import ProblemError
from distill.recipe.problems import unsafe_texts

MAX_GYM_SIZE = 1_000_000


def gym_questions(recipe: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the question and answer of each entry of a data set. Runs in a confined process."""
    entries = gym_dataset(recipe)
    made: list[tuple[str, str | None]] = []
    for index in range(len(entries)):
        try:
            entry = entries[index]
        except Exception as error:  # options that pass the task's own check and then break its generator
            raise _refused(recipe, error) from None
        made.append((str(entry["question"]), None if entry["answer"] is None else str(entry["answer"])))
    return made


def import_gym() -> Any:
    """Import reasoning-gym's factory with every task registered; takes seconds."""
    with warnings.catch_warnings():
        # cellpylib, which reasoning-gym imports, compares with `is "…"`; Python warns when it first compiles it.
        warnings.simplefilter("ignore", SyntaxWarning)
        import reasoning_gym.factory

    return reasoning_gym.factory


def gym_dataset(recipe: Mapping[str, Any]) -> Any:
    """Create the reasoning-gym data set described by `{"task", "options", "size", "seed"}`.

    Raises:
        ProblemError: an unknown task, options that it rejects or could evaluate, or too many entries.
    """
    check_gym_recipe(recipe)
    factory = import_gym()
    task = recipe["task"]
    if task not in factory.DATASETS:
        near = difflib.get_close_matches(task, factory.DATASETS, n=1)
        hint = f" Did you mean gym:{near[0]}?" if near else ""
        raise ProblemError(f"gym:{task}: reasoning-gym has no such task.{hint}")
    try:
        return factory.create_dataset(task, size=recipe["size"], seed=recipe["seed"], **recipe["options"])
    except Exception as error:  # a task's own check may raise anything
        raise _refused(recipe, error) from None


def check_gym_recipe(recipe: Any) -> None:
    """Check an untrusted description of a data set.

    Raises:
        ProblemError: it is malformed, or holds a text that a task could evaluate.
    """
    if not isinstance(recipe, Mapping):
        raise ProblemError(f"a gym data set is described by task, options, size and seed, not by {recipe!r:.60}.")
    task, options = recipe.get("task"), recipe.get("options")
    if not isinstance(task, str) or not re.fullmatch(r"\w{1,60}", task):
        raise ProblemError(f"gym:{task!r:.60}: not the name of a reasoning-gym task.")
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ProblemError(f"gym:{task}: options are keys and values, not {options!r:.60}.")
    if (text := next(unsafe_texts(options), None)) is not None:
        raise ProblemError(f"gym:{task}: options may not hold the text {text[:40]!r}, which the task could evaluate.")
    size, seed = recipe.get("size"), recipe.get("seed")
    if type(size) is not int or not 1 <= size <= MAX_GYM_SIZE:
        raise ProblemError(f"gym:{task}: {size!r:.40} entries; a data set has 1 to {MAX_GYM_SIZE:,}. Change limit:.")
    if type(seed) is not int or abs(seed) >= 1 << 64:
        raise ProblemError(f"gym:{task}: {seed!r:.40} is not a valid seed.")


def _refused(recipe: Mapping[str, Any], error: Exception) -> ProblemError:
    options = dict(recipe["options"])
    return ProblemError(f"gym:{recipe['task']}: options {options} are refused: {str(error)[:500]}. Fix options:.")

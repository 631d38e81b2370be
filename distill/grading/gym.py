"""reasoning-gym answers, scored by the task's own scorer.

The scorer needs the whole entry, which is made again from the problem's metadata (task, options, size, seed, index).
"""

import functools
import json
from typing import Any

from distill.problems import gym_dataset
from distill.records import Problem

FULL_SCORE = 1.0
"""reasoning-gym gives part of a point for a right answer in the wrong form; by default only a whole one is right."""


def grade_gym(problem: Problem, extracted: str, min_score: float = FULL_SCORE) -> bool | None:
    """Right from `min_score` on. May hang on hostile text: run it in the pool."""
    return gym_score(problem, extracted) >= min_score


def gym_score(problem: Problem, extracted: str) -> float:
    """The score in [0, 1] that the task's own scorer gives an answer.

    Raises:
        KeyError: the problem does not say how its entry was made.
    """
    made_from = problem.metadata["gym"]
    dataset = _dataset(json.dumps({k: made_from[k] for k in ("task", "options", "size", "seed")}, sort_keys=True))
    entry = dataset[made_from["index"]]
    return float(dataset.score_answer(answer=extracted, entry=entry))


@functools.lru_cache(maxsize=32)
def _dataset(recipe: str) -> Any:
    return gym_dataset(json.loads(recipe))

"""reasoning-gym answers, scored by the task's own scorer.

The scorer needs the whole entry, which is made again from the problem's metadata (task, options, size, seed, index).
"""

import functools
import json
from typing import Any

from distill.problems import gym_dataset
from distill.records import Problem

FULL_SCORE = 1.0
"""reasoning-gym gives part of a point for a right answer in the wrong form; only a whole one counts as right."""


def grade_gym(problem: Problem, extracted: str) -> bool | None:
    """Right if the task's scorer gives the full score. May hang on hostile text: run it in the pool."""
    made_from = problem.metadata["gym"]
    dataset = _dataset(json.dumps({k: made_from[k] for k in ("task", "options", "size", "seed")}, sort_keys=True))
    entry = dataset[made_from["index"]]
    return bool(dataset.score_answer(answer=extracted, entry=entry) >= FULL_SCORE)


@functools.lru_cache(maxsize=32)
def _dataset(recipe: str) -> Any:
    return gym_dataset(json.loads(recipe))

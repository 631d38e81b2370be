"""The schema of a lock, validated before use because a lock may come from outside, like a recipe."""

import copy
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from distill import __version__
from distill.errors import RecipeError
from distill.recipe.steps import stage_of
from distill.recipe.value_errors import sentence
from distill.recipe.yaml_tree import short

LOCK_KEY = "lock_version"
LOCK_VERSION = 1
_REPEATED = re.compile(r"(.*)-repeat(?:-([1-9][0-9]{0,5}))?")
MAX_NAME_CHARS = 96
UPDATE = "Update your checkout of distill: git pull, then make install."


class StageInLock(BaseModel):
    """A stage in a lock."""

    fingerprint: str
    versions: dict[str, str] = {}
    outputs: dict[str, dict[str, Any]] = {}
    results: dict[str, Any] = {}


class ScoreInLock(BaseModel):
    """A score in a lock."""

    pass_at_1: float
    interval_95: Annotated[list[float], Field(min_length=2, max_length=2)]


class DatasetInLock(BaseModel):
    """A Hub dataset in a lock."""

    source: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    """The commit that was used, or the recipe's value if the commit is unknown."""
    recipe_revision: str | None = None
    """The recipe's value."""


class LockShape(BaseModel):
    """The parts of a lock that distill uses."""

    recipe: dict[str, Any]
    datasets: list[DatasetInLock] = []
    files: dict[str, str] = {}
    stages: dict[str, StageInLock] = {}


def recipe_in_lock(lock: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the recipe in a lock, renamed so that the original run is not touched.

    Args:
        lock: the tree of the file.
        place: where its version is, for messages.

    Raises:
        RecipeError: it has another version, or is not as distill writes it.
    """
    if lock[LOCK_KEY] != LOCK_VERSION:
        raise RecipeError(
            f"{place}: a lock of version {short(lock[LOCK_KEY])}; this distill ({__version__}) reads version "
            f"{LOCK_VERSION}. A newer distill may. {UPDATE}"
        )
    try:
        shape = LockShape.model_validate(dict(lock))
        for step, one in shape.stages.items():
            for score in one.results.values() if stage_of(step) == "eval" else ():
                ScoreInLock.model_validate(score)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{place}: the lock is not as distill writes it ({where}: {sentence([first])})") from None
    tree = copy.deepcopy(shape.recipe)
    if isinstance(tree.get("name"), str):
        tree["name"] = _name_of_repetition(tree["name"])
    return tree


def _name_of_repetition(name: str) -> str:
    """Return `x-repeat` for x, `x-repeat-2` for x-repeat and so on, so that each repetition has its own folder."""
    found = _REPEATED.fullmatch(name)
    stem, suffix = (found[1], f"-repeat-{int(found[2] or 1) + 1}") if found else (name, "-repeat")
    return stem[: MAX_NAME_CHARS - len(suffix)] + suffix

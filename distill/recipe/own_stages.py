"""Stages of a team's own: another section of a recipe, and its place in the order.

`distill.stages.table.own_stage` calls this with the section that the stage's module declares.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distill.recipe.base import Strict
from distill.recipe.model import Recipe, RoundRecipe
from distill.recipe.rounds import OWN_SECTIONS, SECTIONS, Round
from distill.recipe.steps import STAGE_NAMES

_MODELS: tuple[type[BaseModel], ...] = (Round, Recipe, RoundRecipe)
"""Inner models first, because the others contain their schema."""


@contextmanager
def own_section(name: str, model: type[Strict], before: str) -> Iterator[None]:
    """Let recipes and rounds have another section until the context ends.

    Args:
        name: of the stage, of its section and of its folder.
        model: what the section says; its docstring describes the stage.
        before: the stage that it runs before.

    Raises:
        ValueError: a recipe has that key already.
    """
    if name in Recipe.model_fields:
        raise ValueError(f"a recipe has a key {name!r} already")
    STAGE_NAMES.insert(STAGE_NAMES.index(before), name)
    for sections in (SECTIONS, OWN_SECTIONS):
        sections.append(name)
    for one in _MODELS:
        one.model_fields[name] = FieldInfo(annotation=model | None, default=None, description=model.__doc__)  # type: ignore[arg-type]
    _rebuild()
    try:
        yield
    finally:
        for names in (STAGE_NAMES, SECTIONS, OWN_SECTIONS):
            names.remove(name)
        for one in _MODELS:
            del one.model_fields[name]
        _rebuild()


def _rebuild() -> None:
    for one in _MODELS:
        one.model_rebuild(force=True)

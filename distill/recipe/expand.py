"""The steps of a run: which stage of which round runs after which."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.core.formatting import mapping
from distill.recipe.model import Recipe
from distill.recipe.rounds import OWN_SECTIONS
from distill.recipe.steps import MAKING_MODELS, PUBLISHING, STAGE_NAMES, stage_of


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of one round."""

    stage: str
    recipe: Recipe
    """The round as a recipe without rounds; the recipe itself if it has none."""

    @property
    def round(self) -> str | None:
        return self.recipe.round_name

    @property
    def id(self) -> str:
        """Return its name, which is also its folder in the run: `sft`, or `<round>/sft`."""
        return self.stage if self.round is None else f"{self.round}/{self.stage}"


def expand(recipe: Recipe) -> list[Step]:
    """Return the steps of a recipe in running order: round by round, and what is published last."""
    steps = [Step(stage, part) for part in recipe.parts for stage in part.stage_names]
    return sorted(steps, key=lambda step: step.stage == PUBLISHING)


def steps_in(recipe: Mapping[str, Any]) -> list[str]:
    """Return the ids of the steps of a recipe as keys and values, which need not be valid."""
    rounds = [mapping(one) for one in recipe.get("rounds") or ()]
    if not rounds:
        return stages_in(recipe) if recipe else []
    makers = [one.get("name") for one in rounds if any(one.get(stage) is not None for stage in MAKING_MODELS)]
    published = mapping(recipe.get(PUBLISHING)).get("round") or (makers[-1] if makers else None)
    steps = []
    for one in rounds:
        merged = {**recipe, **one}
        stages = stages_in({**merged, "of": {"trains": merged.get(MAKING_MODELS[0]) is not None}})
        steps += [f"{one.get('name')}/{name}" for name in stages if name != PUBLISHING or one.get("name") == published]
    return sorted(steps, key=lambda step: stage_of(step) == PUBLISHING)


def stages_in(recipe: Mapping[str, Any], there: Iterable[str] = ()) -> list[str]:
    """Return the stages of a recipe without rounds, or of one round, as keys and values, in order.

    Args:
        recipe: it need not be valid; empty if it is not known.
        there: stages that have begun.
    """
    has, of = set(there), mapping(recipe.get("of"))
    models = mapping(recipe.get("eval")).get("models")
    has |= {"measure"} if models else set()
    trains = of or recipe.get("generate") or recipe.get("traces") or recipe.get(MAKING_MODELS[-1]) is not None
    if models and not trains:
        return [name for name in STAGE_NAMES if name in has or (name in OWN_SECTIONS and recipe.get(name) is not None)]
    only_reinforces = not of and bool(recipe) and not (recipe.get("traces") or recipe.get("generate"))
    only_reinforces = only_reinforces and recipe.get(MAKING_MODELS[-1]) is not None
    imports = bool(recipe.get("traces")) or ("import" in has and "generate" not in has)
    has |= {name for name in OWN_SECTIONS if recipe.get(name) is not None}
    if not only_reinforces and (not of or recipe.get("traces") or recipe.get("generate")):
        has |= {"import" if imports else "generate", "filter"}
    first, *others = MAKING_MODELS
    makers = {first} if of.get("trains", not only_reinforces) else set()
    makers |= {name for name in others if recipe.get(name) is not None}
    if makers:
        has |= {*makers, *(name for name in ("eval", PUBLISHING) if recipe.get(name))}
        has |= set() if recipe else {"eval"}
    return [name for name in STAGE_NAMES if name in has]

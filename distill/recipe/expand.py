"""The steps of a run: which stage of which round runs after which."""

from dataclasses import dataclass

from distill.recipe.model import Recipe
from distill.recipe.steps import PUBLISHING


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

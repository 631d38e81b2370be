"""The order of the stages, and the steps of a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.recipe.model import Recipe

STAGE_NAMES = ("generate", "import", "filter", "sft", "eval", "push")
"""All stages in running order; a round has `generate` or `import`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of one round."""

    stage: str
    recipe: "Recipe"
    """The round as a recipe without rounds; the recipe itself if it has none."""

    @property
    def round(self) -> str | None:
        return self.recipe.round_name

    @property
    def id(self) -> str:
        """Return its name, which is also its folder in the run: `sft`, or `<round>/sft`."""
        return self.stage if self.round is None else f"{self.round}/{self.stage}"


def expand(recipe: "Recipe") -> list[Step]:
    """Return the steps of a recipe in running order: round by round, and what is published last."""
    steps = [Step(stage, part) for part in recipe.parts for stage in part.stage_names]
    return sorted(steps, key=lambda step: step.stage == STAGE_NAMES[-1])


def stage_of(step_id: str) -> str:
    """Return the stage of a step, from the step's id."""
    return step_id.rpartition("/")[2]

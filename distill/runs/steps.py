"""The stages of a run in order, and the decision to skip, run or refuse each."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from distill.recipe.model import Recipe
from distill.stages import eval, filter, generate, import_traces, push, sft
from distill.storage.fingerprints import differences
from distill.storage.run_folder import StageFolder

STAGES: dict[str, ModuleType] = {
    "generate": generate,
    "import": import_traces,
    "filter": filter,
    "sft": sft,
    "eval": eval,
    "push": push,
}
"""The stages in order; a recipe has `generate` or `import`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a stage."""

    action: str
    """`skip`, `run` (new, or resumed) or `refuse`."""
    changed: dict[str, tuple[Any, Any]]
    """Identity keys that differ from what the folder was made from."""


def decide(
    folder: StageFolder, identity: dict[str, Any], grows: Callable[[dict[str, tuple[Any, Any]]], bool]
) -> Decision:
    """Decide what to do with a stage by comparing its identity with that in its folder.

    Args:
        folder: the stage's folder.
        identity: the identity now.
        grows: returns whether a change leaves everything in the folder valid.
    """
    before = folder.identity
    if before is None:
        return Decision("run", {})
    changed = differences(before, identity)
    if not changed:
        return Decision("skip" if folder.is_complete else "run", {})
    return Decision("run" if grows(changed) else "refuse", changed)


def stages_of(recipe: Recipe) -> list[str]:
    """Return a recipe's stages in order."""
    has = {recipe.traces_stage, "filter", "sft"} | ({"eval"} if recipe.eval else set())
    has |= {"push"} if recipe.push else set()
    return [name for name in STAGES if name in has]

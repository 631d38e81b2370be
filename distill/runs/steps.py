"""The choice of steps, and the decision to skip, run or refuse each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.recipe.expand import Step, expand
from distill.recipe.model import Recipe
from distill.recipe.steps import PUBLISHING, STAGE_NAMES
from distill.stages import RunContext, contexts_of
from distill.stages.table import STAGES
from distill.storage.fingerprints import differences
from distill.storage.run_folder import StageFolder


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a stage."""

    action: str
    """`skip`, `run` (new, or resumed) or `refuse`."""
    changed: dict[str, tuple[Any, Any]]
    """Identity keys that differ from what the folder was made from."""


def decide(
    folder: StageFolder, identity: dict[str, Any], keeps_results: Callable[[dict[str, tuple[Any, Any]]], bool]
) -> Decision:
    """Decide what to do with a stage by comparing its identity with that in its folder.

    Args:
        folder: the stage's folder.
        identity: the identity now.
        keeps_results: returns whether a change leaves everything in the folder valid.
    """
    before = folder.identity
    if before is None:
        return Decision("run", {})
    changed = differences(before, identity)
    if not changed:
        return Decision("skip" if folder.is_complete else "run", {})
    return Decision("run" if keeps_results(changed) else "refuse", changed)


def chosen_steps(
    recipe: Recipe,
    stages: Sequence[str] | None = None,
    rounds: Sequence[str] | None = None,
    until: str | None = None,
) -> list[Step]:
    """Return the steps to run, in order.

    Args:
        recipe: the recipe.
        stages: only these stages; left out: all.
        rounds: only these rounds; left out: all.
        until: the last step: `sft`, or in a recipe with rounds `<round>/sft` or a round's name.

    Raises:
        UserError: a name is unknown, or no step is left.
    """
    if unknown := [name for name in stages or () if name not in STAGES]:
        raise UserError(f"stages: there is no stage {unknown[0]!r}. There are: {', '.join(STAGES)}.")
    # Without rounds, a stage that the recipe has no section for says itself what is missing.
    steps = [Step(name, recipe) for name in STAGE_NAMES] if stages and not recipe.rounds else expand(recipe)
    names = [part.round_name for part in recipe.parts if part.round_name is not None]
    for name in rounds or ():
        if name not in names:
            raise UserError(f"--round: {_no_round(name, names)}")
    if until is not None:
        of_round = [step.id for step in steps if step.round == until and step.stage != PUBLISHING]
        ends = [place for place, step in enumerate(steps) if step.id in (until, *of_round[-1:])]
        if not ends:
            raise UserError(f"--until: there is no step {until!r}. There are: {', '.join(step.id for step in steps)}.")
        steps = steps[: ends[-1] + 1]
    steps = [step for step in steps if (not rounds or step.round in rounds) and (not stages or step.stage in stages)]
    if not steps and (rounds or names):
        what = f"{' and '.join(stages)} stage" if stages else "step"
        where = f"round {' or '.join(rounds)}" if rounds else "any round"
        raise UserError(f"the recipe has no {what} in {where}. Its steps: {', '.join(s.id for s in expand(recipe))}.")
    return steps


def chosen_part(recipe: Recipe, stage: str, name: str | None) -> Recipe:
    """Return the round that a command about one stage means, as a recipe without rounds.

    Args:
        recipe: the recipe.
        stage: the stage.
        name: of the round; left out: the only one that has the stage.

    Raises:
        UserError: there is no such round, or several have the stage.
    """
    names = [part.round_name for part in recipe.parts if part.round_name is not None]
    if name is not None and name not in names:
        raise UserError(f"--round: {_no_round(name, names)}")
    meant = [part for part in recipe.parts if name in (None, part.round_name)]
    found = [part for part in meant if not names or stage in part.stage_names]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{stage}: {f'round {name} has' if name else 'no round has'} this stage.")
    which = ", ".join(str(part.round_name) for part in found)
    raise UserError(f"{stage}: several rounds have this stage ({which}). Name one with --round.")


def chosen_run(recipe: Recipe, run_dir: Path, stage: str, name: str | None, **settings: Any) -> RunContext:
    """Return the context of the round that a command about one stage means; see `chosen_part`."""
    wanted = chosen_part(recipe, stage, name).round_name
    return next(run for run in contexts_of(recipe, run_dir, **settings) if run.recipe.round_name == wanted)


def _no_round(name: str, names: Sequence[str]) -> str:
    if not names:
        return f"the recipe has no rounds:, so it has no round {name!r}. Leave --round out."
    return f"there is no round {name!r}. There are: {', '.join(names)}."

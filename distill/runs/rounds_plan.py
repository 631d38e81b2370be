"""Estimates what a run with rounds will take: a plan for each round, and their total.

Example: plan_rounds(recipe, Path("runs"), this_machine(), load_prices()).to_json()
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.estimates.limits import TightLimit
from distill.estimates.machine import Machine
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range
from distill.recipe.model import Recipe
from distill.runs.plan import Looked, Plan, left_in_all, plan_recipe
from distill.stages import contexts_of


@dataclass(frozen=True, slots=True)
class RoundsPlan:
    """The plans of all rounds."""

    rounds: Mapping[str, Plan]
    """By name, in order."""

    @property
    def whole(self) -> Plan:
        """Return one plan of all steps; a step is called `<round>/<stage>`."""
        first = next(iter(self.rounds.values()))
        steps = [
            replace(stage, stage=f"{name}/{stage.stage}") for name, plan in self.rounds.items() for stage in plan.stages
        ]
        downloads = {name: gib for plan in self.rounds.values() for name, gib in plan.downloads.items()}
        limits: dict[str, TightLimit] = {}
        for name, plan in self.rounds.items():
            for limit in plan.limits:
                limits.setdefault(limit.message, replace(limit, message=f"round {name}: {limit.message}"))
        return replace(first, stages=tuple(steps), limits=tuple(limits.values()), downloads=downloads)

    def total_of(self, name: str) -> dict[str, Range]:
        """Return what one round has left to spend, without downloads."""
        return left_in_all(self.rounds[name].stages, Range.exact(0.0))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as described in docs/json.md: of the whole run, with a total for each round."""
        return {
            **self.whole.to_json(),
            "rounds": {
                name: {quantity: left.to_json() for quantity, left in self.total_of(name).items()}
                for name in self.rounds
            },
        }


def plan_rounds(recipe: Recipe, runs_dir: Path, machine: Machine, prices: Prices) -> RoundsPlan:
    """Estimate what a run with rounds will take.

    Args:
        recipe: of the run.
        runs_dir: folder of the run folder `<recipe name>/`, which need not exist.
        machine: that it would run on.
        prices: price table.
    """
    found: dict[str, Plan] = {}
    looked: Looked = {}
    for run in contexts_of(recipe, runs_dir / recipe.name, needs_weights=False):
        found[str(run.recipe.round_name)] = plan_recipe(run.recipe, runs_dir, machine, prices, run, looked=looked)
    return RoundsPlan(found)


def plan_any(recipe: Recipe, runs_dir: Path, machine: Machine, prices: Prices) -> Plan | RoundsPlan:
    """Estimate what a run with or without rounds will take; see `plan_rounds`."""
    return (plan_rounds if recipe.rounds else plan_recipe)(recipe, runs_dir, machine, prices)

"""What is asked before and after a run, from Python: `distill plan`, `doctor`, `report`, `recipes diff` as functions.

Enters: recipes and runs, by whatever names them. Leaves: what the commands' `--json` prints, as objects or dicts:

    plan("recipe.yaml", gpus=8, gpu="h100").totals["cost"].high
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.api import RunResult, as_recipe
from distill.errors import UserError
from distill.planning.doctor import Diagnosis, diagnose
from distill.planning.machine import chosen_machine
from distill.planning.plan import Plan, plan_recipe
from distill.planning.prices import load_prices
from distill.recipe import Recipe
from distill.recipe_files.diff import Difference, recipe_differences, recipe_of
from distill.recipe_yaml import read_recipe
from distill.report import Run, gather_run, render_report
from distill.report.compare import compare_runs
from distill.report.on_page import REPORT
from distill.runs import find_run
from distill.store import atomic_write

RecipeGiven = Recipe | Mapping[str, Any] | str | Path
RunGiven = RunResult | str | Path


def plan(
    recipe: RecipeGiven = "recipe.yaml",
    *,
    run_dir: str | Path = "runs",
    gpus: int | None = None,
    gpu: str | None = None,
    gpu_memory_gib: float | None = None,
    gpu_price: float | None = None,
    prices: str | Path | None = None,
) -> Plan:
    """What a run will take, before anything runs; `to_json()` is as in docs/json.md.

    Args:
        recipe: a file, a dict or a recipe; one from outside need not have been accepted, as nothing of it is run.
        run_dir: folder in which `<recipe name>/` is, or will be.
        gpus: GPUs to plan for (with `gpu="cpu"`: cores); left out: this machine's.
        gpu: kind of GPU (`h100`, `4090`, …), or `cpu`.
        gpu_memory_gib: memory of one GPU.
        gpu_price: money for an hour of one GPU.
        prices: YAML with prices of your own (docs/planning.md).

    Raises:
        UserError: a mistake in what was asked for; the message says what to do.
    """
    for name, number, least in (("gpus", gpus, 1), ("gpu_memory_gib", gpu_memory_gib, 1)):
        if number is not None and not number >= least:
            raise UserError(f"plan: {name} is {number}, and should be {least} or more.")
    machine = chosen_machine(gpus, gpu, gpu_memory_gib)
    known = load_prices(None if prices is None else Path(prices), gpu_price)
    return plan_recipe(_looked_at(recipe), Path(run_dir), machine, known)


def doctor(recipe: RecipeGiven | None = None, *, run_dir: str | Path = "runs") -> Diagnosis:
    """What this machine lacks, and what a recipe lacks on it, with the command that fixes each.

    Args:
        recipe: a file, a dict or a recipe; left out: the machine alone.
        run_dir: folder for runs.

    Raises:
        RecipeError: the dict is no recipe. (Of a file that is none, the diagnosis tells.)
    """
    if recipe is None:
        return diagnose(None, Path(run_dir))
    if isinstance(recipe, str | Path):
        return diagnose(lambda: as_recipe(recipe), Path(run_dir), str(recipe))
    made = as_recipe(recipe)
    return diagnose(lambda: made, Path(run_dir), made.name)


def write_report(run: RunGiven, *, run_dir: str | Path = "runs", output: str | Path | None = None) -> Path:
    """Write the page about a run, finished or not, and tell where it is.

    Args:
        run: its name in `run_dir`, its folder, or the result of `distill.run`.
        run_dir: folder of runs.
        output: where the page goes; left out: `report.html` in the run's folder.

    Raises:
        UserError: there is no such run.
    """
    found = _gathered(run, run_dir)
    path = Path(output) if output is not None else found.folder / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, render_report(found))
    return path


def compare(first: RunGiven, second: RunGiven, *, run_dir: str | Path = "runs") -> dict[str, Any]:
    """What sets two runs apart: funnel, scores with intervals, recipes; `comparison` of `distill report --json`.

    Args:
        first: as `write_report` takes a run, and so is `second`.
        second: the other.
        run_dir: folder of runs.

    Raises:
        UserError: there is no such run.
    """
    return compare_runs(_gathered(first, run_dir), _gathered(second, run_dir))


def diff(before: RecipeGiven, after: RecipeGiven, *, run_dir: str | Path = "runs") -> list[Difference]:
    """How two recipes differ in meaning, what changes the result first.

    Args:
        before: a recipe as `plan` takes it, or a run by its name or folder.
        after: the same.
        run_dir: folder of runs.

    Raises:
        RecipeError: it is neither a recipe nor a run.
    """
    return recipe_differences(_recipe_or_ran(before, run_dir), _recipe_or_ran(after, run_dir))


def _looked_at(recipe: RecipeGiven) -> Recipe:
    return read_recipe(recipe).recipe if isinstance(recipe, str | Path) else as_recipe(recipe)


def _recipe_or_ran(given: RecipeGiven, run_dir: str | Path) -> Recipe:
    return recipe_of(str(given), Path(run_dir))[1] if isinstance(given, str | Path) else as_recipe(given)


def _gathered(run: RunGiven, run_dir: str | Path) -> Run:
    return gather_run(run.folder if isinstance(run, RunResult) else find_run(Path(run_dir), str(run)))

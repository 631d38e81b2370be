"""`distill plan` and `distill doctor`: what a run will take, and whether this machine is ready for it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.app import DEFAULT_RECIPE, PREPARE_PANEL, CommonOptions, recipe_command
from distill.cli.output import console, print_json
from distill.errors import UserError


@recipe_command(
    "plan",
    about="Show what a run will take, before anything runs: tokens, time, money, memory and disk by stage.",
    examples=[
        "distill plan",
        "distill plan recipe.yaml --gpus 8 --gpu h100  # on another machine than this",
        "distill plan --gpu 4090 --gpu-price 0.45",
    ],
    panel=PREPARE_PANEL,
    without=("accept_recipe", "force", "quiet"),
)
def plan(
    given: CommonOptions,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", min=1, max=65_536, help="GPUs to plan for (with --gpu cpu: cores); left out: this machine's."
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME", help="Kind of GPU: h100, h200, b200, a100-80, l40s, 4090 …, or cpu."),
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", metavar="GIB", min=1, help="GiB of memory of a GPU.")
    ] = None,
    gpu_price: Annotated[
        float | None, typer.Option("--gpu-price", metavar="MONEY", min=0, help="Money for an hour of one GPU.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="YAML with prices of your own (docs/planning.md).")
    ] = None,
) -> None:
    """Show what a run will take."""
    from distill.estimates.machine import chosen_machine
    from distill.estimates.prices import load_prices
    from distill.runs.plan_table import print_plan
    from distill.runs.rounds_plan import plan_any

    # Planning sends nothing to what the recipe names, so the recipe need not be accepted.
    recipe = given.look().recipe
    found = plan_any(recipe, given.run_dir, chosen_machine(gpus, gpu, gpu_memory), load_prices(prices, gpu_price))
    if given.as_json:
        print_json(found.to_json())
    else:
        print_plan(found, console(), shlex.join(given.arguments()) or DEFAULT_RECIPE)


@recipe_command(
    "doctor",
    about="Check this machine and what a recipe needs; each finding comes with the command that fixes it. Exits with "
    "2 if something is missing.",
    examples=[
        "distill doctor",
        "distill doctor recipe.yaml --run-dir /data/runs",
    ],
    panel=PREPARE_PANEL,
    without=("force", "quiet"),
)
def doctor(given: CommonOptions) -> None:
    """Check the machine and the recipe."""
    from distill.runs.checks import MISSING
    from distill.runs.doctor import diagnose, print_diagnosis

    has_recipe = given.recipe != DEFAULT_RECIPE or Path(DEFAULT_RECIPE).exists()
    found = diagnose(given.load if has_recipe else None, given.run_dir, given.recipe)
    if given.as_json:
        print_json(found.to_json())
    else:
        print_diagnosis(found, console())
    if found.worst == MISSING:
        raise typer.Exit(UserError.exit_code)

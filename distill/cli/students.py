"""`distill students`, and what `distill sft --plan` shows: memory and layouts."""

import math
from pathlib import Path
from typing import Any

import typer

from distill.cli.app import DEFAULT_RECIPE, PREPARE_PANEL, CommonOptions, JsonOption, command
from distill.cli.output import print_json
from distill.cli.tables import print_table


@command(
    "students",
    about="List the students: bases, licences, templates, learning rates, R1's scores, layouts.",
    examples=["distill students", "distill students --json  # all of it, for programs"],
    panel=PREPARE_PANEL,
)
def students(as_json: JsonOption = False) -> None:
    """List the students."""
    from distill.estimates.training_report import student_entries, student_tables

    entries = student_entries()
    if as_json:
        print_json({"schema_version": 1, "students": entries})
    else:
        _print_tables(student_tables(entries))


def show_memory_plan(
    given: CommonOptions, gpus: int | None, gpu_memory: float | None, of_round: str | None = None
) -> None:
    """Print what training takes on GPUs, from the recipe's `sft:` or the defaults."""
    from distill.engines.memory import visible_gpus
    from distill.estimates.training_report import DEFAULT_GPU_GIB, DEFAULT_GPUS, plan_entry, plan_tables
    from distill.models.students import STUDENTS
    from distill.recipe.loading import read_recipe
    from distill.recipe.sft import SftConfig
    from distill.runs.steps import chosen_part

    named = [given.student] if given.student not in (None, "all") else []
    if given.recipe == DEFAULT_RECIPE and not Path(DEFAULT_RECIPE).exists() and not given.overrides:
        config = SftConfig()
    else:
        recipe = chosen_part(read_recipe(given.recipe, given.overrides or ()).recipe, given.command, of_round)
        config, named = recipe.sft, named or ([] if given.student == "all" else [recipe.student])
    there = list(visible_gpus().values())
    gpu_memory = gpu_memory or min((gib for gib in there if math.isfinite(gib)), default=DEFAULT_GPU_GIB)
    num_gpus = gpus or len(there) or DEFAULT_GPUS
    entries = [plan_entry(name, config, num_gpus, gpu_memory) for name in named or STUDENTS]
    if given.as_json:
        print_json({"schema_version": 1, "students": entries})
    else:
        _print_tables([table for entry in entries for table in plan_tables(entry)])


def _print_tables(tables: list[Any]) -> None:
    for number, table in enumerate(tables):
        if number:
            typer.echo()
        print_table(table)

"""Prints a plan: the table, the basis of its numbers, tight limits, and the next commands. Needs 60 columns."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from distill.estimates.quantities import Range, duration, duration_span, span
from distill.estimates.stage import (
    ADDS_UP,
    CHANGED,
    COST,
    CPU_HOURS,
    DISK,
    DONE,
    GPU_HOURS,
    MEMORY,
    NEW,
    PARTLY,
    SECONDS,
    TOKENS,
    StageEstimate,
)
from distill.runs.plan import Plan
from distill.runs.rounds_plan import RoundsPlan

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DASH = "–"
UNKNOWN = "unknown"
SHOWN_BASES = (TOKENS, SECONDS, MEMORY, COST)
BASIS_NAMES = {TOKENS: "tokens", SECONDS: "time", MEMORY: "memory", COST: "cost"}


def print_plan(found: Plan | RoundsPlan, console: "Console", recipe: str) -> None:
    """Print a plan.

    Args:
        found: the plan of a run, with or without rounds.
        console: where to print it.
        recipe: the recipe as given on the command line, for the next commands.
    """
    plan = found.whole if isinstance(found, RoundsPlan) else found
    columns = _columns(plan)
    console.print(f"{plan.name} on {plan.machine.name}", style="bold", markup=False)
    table_of = partial(_rounds_table, found) if isinstance(found, RoundsPlan) else _table
    groups = [list(columns)] if _width(table_of(plan, columns)) <= console.width else _halves(list(columns))
    for group in groups if not plan.is_done else []:
        console.print(table_of(plan, {name: columns[name] for name in group}))
    console.print(_grid(_bases(plan), (8, 6)))
    if plan.limits and not plan.is_done:
        console.print("\nTight:")
        console.print(_grid([("stops" if tight.stops else "-", tight.message) for tight in plan.limits]))
    if plan.notes:
        console.print("\nNotes:")
        console.print(_grid([("-", note) for note in plan.notes]))
    console.print("\nNext:")
    for command, about in next_commands(plan, recipe):
        if command:  # on one line, so that it can be copied
            console.print(f"  {command}  # {about}", markup=False, soft_wrap=True)
        else:
            console.print(_grid([("", about)], (1,)))


def next_commands(plan: Plan, recipe: str) -> list[tuple[str, str]]:
    """Return the commands to run next, each with its purpose; "" for advice without a command."""
    named = "" if recipe == "recipe.yaml" else f" {recipe}"
    if plan.is_done:
        return [("", "Nothing to do: every stage is done.")]
    changed = [stage.stage for stage in plan.stages if stage.standing.state == CHANGED]
    if changed:
        why = f"{changed[0]} was made with another recipe; this moves the old results aside"
        return [(f"distill run{named} --force", why), (f"distill run{named} --set name=…", "or make a separate run")]
    if any(tight.stops for tight in plan.limits):
        return [("", f"First fix what stops the run, then check again with `distill plan{named}`.")]
    if not plan.machine.is_this:
        return [(f"distill doctor{named}", "on that machine, before the run")]
    if any(stage.standing.state in (DONE, PARTLY) for stage in plan.stages):
        return [(f"distill run{named}", "resumes")]
    return [(f"distill doctor{named}", "checks that nothing is missing"), (f"distill run{named}", "all stages")]


def _columns(plan: Plan) -> dict[str, str]:
    """Return quantity -> heading for the quantities that any stage has."""
    memory = "GiB/GPU" if plan.machine.num_gpus else "memory GiB"
    headings = {
        SECONDS: "time",
        TOKENS: "tokens",
        GPU_HOURS: "GPU-hours",
        CPU_HOURS: "core-hours",
        COST: plan.prices.currency,
        MEMORY: memory,
        DISK: "disk GiB",
    }
    totals = plan.totals
    there = {name for stage in plan.stages for name in stage.left} | totals.keys()
    return {name: heading for name, heading in headings.items() if name in there}


def _halves(names: list[str]) -> list[list[str]]:
    return [names[:3], names[3:]] if len(names) > 3 else [names]


def _table(plan: Plan, columns: dict[str, str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in plan.stages:
        table.add_row(_stage_cell(stage), *(_cell(stage, name) for name in columns))
    table.add_section()
    table.add_row("left in all", *(_total_cell(plan, name) for name in columns))
    return table


def _rounds_table(rounds: RoundsPlan, plan: Plan, columns: dict[str, str]) -> "Table":
    """Return a table of the rounds, each with its total and then its stages."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("round", no_wrap=True)
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, of_round in rounds.rounds.items():
        left = rounds.total_of(name)
        totals = [_shown(quantity, left[quantity]) if quantity in left else "" for quantity in columns]
        table.add_row(Text(name, style="bold"), *(Text(cell, style="bold") for cell in totals))
        for stage in of_round.stages:
            table.add_row(f"  {_stage_cell(stage)}", *(_cell(stage, quantity) for quantity in columns))
        table.add_section()
    table.add_row("left in all", *(_total_cell(plan, quantity) for quantity in columns))
    return table


def _width(table: "Table") -> int:
    """Return the width of a table when nothing has to be wrapped."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=1_000)
    return Measurement.get(console, console.options, table).maximum


def _stage_cell(stage: StageEstimate) -> str:
    state = stage.standing.state
    return stage.stage if state == NEW else f"{stage.stage} ({state})"


def _cell(stage: StageEstimate, name: str) -> str:
    range_ = stage.left.get(name)
    if range_ is None:
        return UNKNOWN if stage.is_unknown(name) else ""
    return _shown(name, range_)


def _total_cell(plan: Plan, name: str) -> str:
    """Return the total; if parts of it are unknown, a lower bound."""
    range_ = plan.totals.get(name)
    if range_ is None:
        return UNKNOWN
    if name not in ADDS_UP or not any(stage.is_unknown(name) for stage in plan.stages):
        return _shown(name, range_)
    return f"over {_shown(name, Range.exact(range_.low))}"


def _shown(name: str, range_: Range) -> str:
    return duration_span(range_, DASH) if name == SECONDS else span(range_, DASH)


def _bases(plan: Plan) -> list[tuple[str, str, str]]:
    """Return (stage, quantity, basis of its numbers) rows."""
    lines = []
    for stage in plan.stages:
        standing = stage.standing
        if standing.state == DONE:
            took = f"done in {duration(standing.seconds)}" if standing.seconds is not None else "done"
            said = f"{took}, is skipped{f' ({standing.why})' if standing.why else ''}"
            lines.append((stage.stage, "", said))
            continue
        rows = [("", standing.why)] if standing.why else []
        rows += [
            (BASIS_NAMES[name], stage.left[name].basis)
            for name in SHOWN_BASES
            if name in stage.left and stage.left[name].basis
        ]
        if stage.is_unknown(SECONDS) and stage.notes:
            rows.append((BASIS_NAMES[SECONDS], f"{UNKNOWN}: {stage.notes[-1]}"))
        lines += [(stage.stage if number == 0 else "", *row) for number, row in enumerate(rows)]
    if plan.download_gib.high > 0:
        lines.append(("download", "", f"{span(plan.download_gib)} GiB: {plan.download_gib.basis}"))
    return lines


def _grid(lines: Sequence[tuple[str, ...]], widths: tuple[int, ...] = (0,)) -> "Table":
    """Return a grid of narrow columns and a last column of wrapped text."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    for width in widths:
        grid.add_column(no_wrap=True, min_width=width)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(*(Text(cell) for cell in line))
    return grid

"""`distill runs`: list runs, show one, remove some."""

import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from distill.cli.app import DEFAULT_RUN_DIR, RESULTS_PANEL, JsonOption, RunDirOption, command, group
from distill.cli.completion import complete_run
from distill.cli.output import console, print_json, print_note, print_result
from distill.cli.scores import score_table
from distill.cli.tables import print_table
from distill.core.terminal import printable
from distill.errors import UserError

WIDE = 80
"""Minimum width of a terminal for the column of students."""

runs = group(
    "runs",
    about="List runs, show one in detail, or remove some.",
    examples=[
        "distill runs ls",
        "distill runs show quickstart",
        "distill runs rm old-run --keep-traces",
    ],
    panel=RESULTS_PANEL,
)

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Name of a run, or its folder.", autocompletion=complete_run)
]
RunNames = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Names of runs, or their folders.", autocompletion=complete_run)
]


@command(
    "ls",
    about="List the runs: how far each is, its score, its size, when it changed; the latest first.",
    examples=["distill runs ls", "distill runs ls --run-dir /data/runs --json"],
    panel=RESULTS_PANEL,
    to=runs,
)
def ls(run_dir: RunDirOption = DEFAULT_RUN_DIR, as_json: JsonOption = False) -> None:
    """List the runs."""
    from distill.runs.listing import SCHEMA_VERSION, list_runs

    found = list_runs(run_dir)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "run_dir": str(run_dir), "runs": found})
    elif not found:
        print_result(f"No runs in {run_dir} yet. Begin one with `distill run`; for runs elsewhere give --run-dir.")
    else:
        shown = console()
        print_table(_runs_table(found, shown.width))


@command(
    "show",
    about="Show a run: stages, what was dropped and why, score, files, what to do next.",
    examples=["distill runs show quickstart", "distill runs show /data/runs/quickstart --json"],
    panel=RESULTS_PANEL,
    to=runs,
)
def show(name: RunName, run_dir: RunDirOption = DEFAULT_RUN_DIR, as_json: JsonOption = False) -> None:
    """Show a run."""
    from distill.runs.listing import describe_run, find_run

    run = describe_run(find_run(run_dir, name))
    if as_json:
        print_json(run)
    else:
        _print_story(run)


@command(
    "rm",
    about="Remove runs permanently, after showing what would be deleted and asking.",
    examples=[
        "distill runs rm old-run  # shows what would go, then asks",
        "distill runs rm old-run --keep-traces  # keeps what the teacher wrote",
        "distill runs rm a b --yes",
    ],
    panel=RESULTS_PANEL,
    to=runs,
)
def rm(
    names: RunNames,
    keep_traces: Annotated[
        bool, typer.Option("--keep-traces", help="Keep the traces (generate/ or import/); remove all else.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    as_json: JsonOption = False,
) -> None:
    """Remove runs."""
    from distill.runs.listing import SCHEMA_VERSION, find_run, finish_removal, remove_run, what_would_go

    left = [name for name in names if not dry_run and finish_removal(run_dir, name) and not (run_dir / name).exists()]
    found = [find_run(run_dir, name) for name in names if name not in left]
    # A folder that is named twice is removed once. The last part is not resolved, so that a link is refused.
    folders = list({folder.parent.resolve() / folder.name: folder for folder in found}.values())
    plans = [what_would_go(folder, keep_traces) for folder in folders]
    for plan in plans:
        (print_note if as_json else print_result)("\n".join(_removal_lines(plan)))
    if not dry_run and plans:
        _ask(yes)
        for folder in folders:
            remove_run(folder, keep_traces)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "removed": not dry_run, "runs": plans})
    elif not dry_run:
        print_note("Removed.")


def _ask(yes: bool) -> None:
    """Ask the user to confirm.

    Raises:
        UserError: there is no terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(
            "runs rm: cannot ask for confirmation (no terminal), so nothing was removed. Add --yes to confirm."
        )
    typer.confirm("Remove permanently?", abort=True, err=True)


def _runs_table(found: list[dict[str, Any]], width: int) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from distill.core.formatting import size

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    is_wide = width >= WIDE
    for column in ("run", *(["student"] if is_wide else []), "stages", "pass@1", "size", "changed"):
        table.add_column(column, justify="right" if column in ("pass@1", "size") else "left", overflow="fold")
    for run in found:
        # As Text: in a plain string, rich would take brackets for markup.
        name, student = Text(run["name"]), [Text(str(run["student"] or ""))] if is_wide else []
        score = _score_words(run["score"])
        table.add_row(name, *student, _stage_words(run), score, size(run["num_bytes"]), _when(run["changed_at"]))
    return table


def _stage_words(run: dict[str, Any]) -> str:
    """Return the progress: `4 of 4`, `1 of 4, filter running`."""
    states = {one["stage"]: one["state"] for one in run["stages"]}
    words = f"{sum(state == 'complete' for state in states.values())} of {len(states)}"
    at_work = next((f"{stage} {state}" for stage, state in states.items() if state not in ("complete", "waiting")), "")
    if not at_work and run["state"] == "running":
        at_work = "running"
    return f"{words}, {at_work}" if at_work else words


def _score_words(score: dict[str, Any] | None) -> str:
    if score is None:
        return ""
    return f"{score['student']['pass_at_1']:.1%} ({100 * score['difference']['pass_at_1']:+.1f})"


def _when(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _print_story(run: dict[str, Any]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from distill.core.formatting import duration, size
    from distill.results.eval import Scores

    shown = console()

    def line(text: str = "", indent: int = 0) -> None:
        # Some of it may come from an untrusted recipe. It is escaped first, since the layout counts characters.
        shown.print(Padding(Text(printable(text)), (0, 0, 0, indent), expand=False) if text else "")

    progress, _, at_work = _stage_words(run).partition(", ")
    head = [f"{run['name']}: {progress} stages done", at_work, f"student {run['student']}" if run["student"] else ""]
    line(", ".join(filter(None, head)))
    if run["description"]:
        line(run["description"], 2)
    line()
    for one in run["stages"]:
        time = f" in {duration(one['seconds'])}" if one["seconds"] is not None else ""
        line(f"{one['stage']}: {'done' if one['state'] == 'complete' else one['state']}{time}")
        if one["result"]:
            line(one["result"], 2)
    if run["stopped"]:
        line(f"Stopped in {run['stopped'].get('stage')} ({run['stopped'].get('at')}): {run['stopped'].get('error')}")
    if run["funnel"]:
        line("\nTraces")
        shown.print(_funnel_table(run["funnel"]))
    if run["score"]:
        line()
        print_table(score_table(Scores.from_json(run["score"])))
    line(f"\nWhere things are ({size(run['num_bytes'])}, changed {_when(run['changed_at'])})")
    for name, place in run["places"].items():
        shown.print(f"  {name.replace('_', ' '):<12}  {place}", markup=False, soft_wrap=True)
    line("\n" + _advice(run))
    if run["next_command"]:
        shown.print(f"  {run['next_command']}", markup=False, soft_wrap=True)


def _funnel_table(funnel: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in funnel:
        is_drop = step["step"] not in ("sampled", "kept")
        table.add_row(f"  {'-' if is_drop else ''}{step['num_traces']:,}", Text(step["step"]), Text(step["about"]))
    return table


def _advice(run: dict[str, Any]) -> str:
    if run["process"] is not None:
        watch = "; `distill generate --status` shows the progress" if _is_at(run, "generate") else ""
        return f"It is running (process {run['process'] or 'unknown'}){watch}."
    if run["next_command"]:
        return "Continue with:"
    if run["state"] == "complete":
        return f"It is done: every stage that the recipe has. `distill report {run['folder']} --open` shows it all."
    return "Continue with the command that started it."


def _is_at(run: dict[str, Any], stage: str) -> bool:
    return any(one["stage"] == stage and one["state"] == "running" for one in run["stages"])


def _removal_lines(plan: dict[str, Any]) -> list[str]:
    from distill.core.formatting import size

    room = max((len(part["path"]) for part in plan["parts"]), default=0)
    lines = [f"{plan['folder']}: {size(plan['num_bytes'])} would go"]
    lines += [f"  {part['path']:<{room}}  {size(part['num_bytes']):>9}" for part in plan["parts"]]
    if plan["num_traces"]:
        lines.append(f"  This includes {plan['num_traces']:,} traces; --keep-traces would keep them.")
    elif not plan["keeps_traces"] and not plan["traces_are_whole"]:
        lines.append("  This includes traces of an unfinished stage; --keep-traces would keep them.")
    if plan["has_unpublished_student"]:
        lines.append("  This includes the trained student, which has not been published.")
    if plan["keeps_traces"]:
        lines.append("  The traces are kept.")
    return lines

"""`distill report`: the report of a run, or of two side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.app import DEFAULT_RUN_DIR, RESULTS_PANEL, JsonOption, RunDirOption, command
from distill.cli.completion import complete_run
from distill.cli.output import print_json, print_note, print_result
from distill.core.file_kinds import FILE, MISSING, is_file, kind_of
from distill.errors import UserError

if TYPE_CHECKING:
    from distill.report import Run

SCHEMA_VERSION = 1


@command(
    "report",
    about="Write the report of a run, finished or not, or one that puts two runs side by side.",
    examples=[
        "distill report  # the newest run under runs/",
        "distill report quickstart --open  # in the browser",
        "distill report gsm8k-lora gsm8k-full -o both.html  # two runs side by side",
        "distill report /data/runs/quickstart --json  # the same facts for a script",
    ],
    panel=RESULTS_PANEL,
)
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="One run or two: a name under --run-dir, a run's folder, or a recipe. Left out: the newest run.",
            show_default=False,
            autocompletion=complete_run,
        ),
    ] = None,
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where the page goes; left out: report.html in the run's folder, or A-and-B.html in --run-dir.",
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the page and print its path."""
    from distill.report import render_any
    from distill.report.compare import compare_runs, render_comparison
    from distill.storage.files import atomic_write

    if runs is not None and len(runs) > 2:
        raise UserError(f"distill report: {len(runs)} runs were given. It shows one, or puts two side by side.")
    found = [_find(given, run_dir) for given in runs] if runs else [_newest(run_dir)]
    comparison = None
    if len(found) == 2 and found[0].folder.resolve() == found[1].folder.resolve():
        raise UserError(f"distill report: {runs and runs[0]} was given twice. Name two runs, or one.")
    if len(found) == 2 and (several := [run for run in found if "rounds" in run.facts]):
        names = ", ".join(f"{several[0].folder.name}/{one['name']}" for one in several[0].facts["rounds"])
        raise UserError(f"distill report: {several[0].folder.name} has rounds. Name two of them, such as: {names}.")
    if len(found) == 2:
        comparison = compare_runs(found[0], found[1])
        html = render_comparison(found[0], found[1], comparison)
        path = output or run_dir / f"{found[0].folder.name}-and-{found[1].folder.name}.html"
    else:
        html = render_any(found[0])
        path = output or found[0].folder / "report.html"
    path = _may_replace(path)
    atomic_write(path, html)
    if as_json:
        facts = [run.facts for run in found]
        print_json({"schema_version": SCHEMA_VERSION, "report": str(path), "runs": facts, "comparison": comparison})
    else:
        print_result(str(path))
    if open_it and not _opened(path):
        print_note(f"No browser could be started here. Open {path.resolve().as_uri()} in one.")


def _may_replace(path: Path) -> Path:
    """Return the path to write the page to, with a link followed.

    Raises:
        UserError: something other than a report is there.
    """
    from distill.report import is_report

    try:
        kind = kind_of(path)
        is_other_file = kind == FILE and not is_report(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give another --output.") from None
    if kind not in (FILE, MISSING):
        raise UserError(f"{path}: is {kind}, so no page can be written there. Name a file, such as page.html.")
    if is_other_file:
        raise UserError(
            f"{path}: is not a report of distill, and a report would replace it. Give another --output, or remove the "
            "file first."
        )
    return path.resolve() if path.is_symlink() else path


def _find(given: str, run_dir: Path) -> "Run":
    """Return the run that a name, a folder or a recipe refers to.

    Raises:
        UserError: there is none.
    """
    from distill.recipe.loading import load_recipe
    from distill.report import gather_any
    from distill.runs.listing import find_run
    from distill.storage.run_folder import is_run

    path = Path(given)
    if is_file(path):
        recipe = load_recipe(path)
        return gather_any(run_dir / recipe.name, recipe.model_dump(mode="json"))
    folder = next((one for one in (run_dir / given, path) if is_run(one)), None)
    return gather_any(folder or find_run(run_dir, given))


def _newest(run_dir: Path) -> "Run":
    from distill.report import gather_any
    from distill.report.gather import last_change
    from distill.runs.listing import run_folders

    there = run_folders(run_dir)
    if not there:
        raise UserError(f"{run_dir}: no run here yet. `distill run` makes one; --run-dir names another folder of runs.")
    return gather_any(max(there, key=last_change))


def _opened(path: Path) -> bool:
    import webbrowser

    return webbrowser.open(path.resolve().as_uri())

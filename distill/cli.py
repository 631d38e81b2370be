"""The command line: thin commands, heavy imports inside them.

Exit codes: 0 done, 2 the user's mistake, 130 and 143 stopped by Ctrl-C and SIGTERM, 1 anything else.
"""

import json
import math
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from distill import __version__
from distill.errors import DistillError, UserError

if TYPE_CHECKING:
    from distill.recipe import Recipe

app = typer.Typer(
    name="distill",
    help="Make small reasoning models: sample a teacher, keep what is right and readable, train a student, measure it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file.", show_default=True)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrule a recipe key, e.g. --set sft.epochs=2. Repeatable."),
]
StudentOption = Annotated[
    str | None, typer.Option("--student", help="Student: an alias (qwen-1.5b), a Hub id or a folder.")
]
TeacherOption = Annotated[str | None, typer.Option("--teacher", help="Teacher: a Hub id or a folder.")]
RunDirOption = Annotated[
    Path, typer.Option("--run-dir", help="Folder for runs; results go to <run-dir>/<recipe name>/.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Move results of a changed recipe aside instead of stopping. Deletes nothing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only errors.")]

DEFAULT_RECIPE = Path("recipe.yaml")
DEFAULT_RUN_DIR = Path("runs")


class Terminated(BaseException):
    """SIGTERM, raised where the main thread is, so that children are stopped and files closed."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of distill itself."""


COMMANDS = {
    "run": "Run all stages of a recipe, skipping those that are done.",
    "generate": "Sample the teacher on each problem; asks only for what is missing.",
    "import": "Take in traces made elsewhere (the recipe's traces: section).",
    "filter": "Keep the right, readable and clean traces; every drop has its reasons.",
    "sft": "Fine-tune the student on the kept traces.",
    "eval": "Measure base and student on problems that were never trained on.",
    "push": "Publish the student, and if asked its training data, on the Hugging Face Hub.",
}
"""Command -> its help. `run` stands for every stage, the others for theirs."""


def _add_command(name: str) -> None:
    def command(
        recipe: RecipeArgument = DEFAULT_RECIPE,
        overrides: SetOption = None,
        student: StudentOption = None,
        teacher: TeacherOption = None,
        run_dir: RunDirOption = DEFAULT_RUN_DIR,
        force: ForceOption = False,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
    ) -> None:
        stage = None if name == "run" else name
        _run(stage, recipe, overrides, student, teacher, run_dir, force, as_json, quiet)

    app.command(name, help=COMMANDS[name])(command)


_add_command("run")


@app.command("generate", help=COMMANDS["generate"])
def generate(
    recipe: RecipeArgument = DEFAULT_RECIPE,
    overrides: SetOption = None,
    student: StudentOption = None,
    teacher: TeacherOption = None,
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only show how far it is, from the files alone; starts nothing.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again for the samples that ended in errors.")
    ] = False,
) -> None:
    """Sample the teacher, or show how far that is."""
    if status:
        _show_status(recipe, overrides, student, teacher, run_dir, as_json)
    else:
        _run("generate", recipe, overrides, student, teacher, run_dir, force, as_json, quiet, retry_errors)


_add_command("import")


@app.command("filter", help=COMMANDS["filter"])
def filter_traces(
    recipe: RecipeArgument = DEFAULT_RECIPE,
    overrides: SetOption = None,
    student: StudentOption = None,
    teacher: TeacherOption = None,
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="ID", help="Tell one trace's story (problem_id/sample_index), or a problem's."
        ),
    ] = None,
) -> None:
    """Filter the traces, or tell what became of one."""
    if explain is not None:
        _explain(recipe, overrides, student, teacher, run_dir, as_json, explain)
    else:
        _run("filter", recipe, overrides, student, teacher, run_dir, force, as_json, quiet)


@app.command("sft", help=COMMANDS["sft"])
def sft(
    recipe: RecipeArgument = DEFAULT_RECIPE,
    overrides: SetOption = None,
    student: StudentOption = None,
    teacher: TeacherOption = None,
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only look at the kept rows as they will be trained, and at what training will take; loads no "
            "weights. Exit code 2 where they would be trained wrongly.",
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only work out memory and layouts, from the recipe's sft: or its defaults, for its student, --student "
            "or (--student all, or no recipe) every alias; loads nothing.",
        ),
    ] = False,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="With --plan: number of GPUs; left out: this machine's, else 8.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            "--gpu-memory", min=1, help="With --plan: GiB of memory of a GPU; left out: this machine's, else 80."
        ),
    ] = None,
) -> None:
    """Train the student, check its rows, or plan its memory."""
    if check:
        _check_sft(recipe, overrides, student, teacher, run_dir, as_json, quiet)
    elif plan:
        _plan(recipe, overrides, student, gpus, gpu_memory, as_json)
    else:
        _run("sft", recipe, overrides, student, teacher, run_dir, force, as_json, quiet)


_add_command("eval")


def _check_sft(
    recipe_path: Path,
    overrides: list[str] | None,
    student: str | None,
    teacher: str | None,
    run_dir: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    from rich.console import Console

    from distill.progress import QUIET
    from distill.recipe_yaml import load_recipe
    from distill.sft_check import check_sft, print_check

    if quiet:
        os.environ[QUIET] = "1"
    recipe = load_recipe(recipe_path, overrides or (), {"student": student, "generate.teacher": teacher})
    found = check_sft(recipe, run_dir)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_check(found, Console())
    found.preflight.raise_if_refused()


@app.command("students")
def students(as_json: JsonOption = False) -> None:
    """List the students: bases, licences, templates, learning rates, R1's scores, layouts."""
    from distill.training.plan_report import student_entries, student_tables

    entries = student_entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
    else:
        _print_tables(student_tables(entries))


def _plan(
    recipe_path: Path,
    overrides: list[str] | None,
    student: str | None,
    gpus: int | None,
    gpu_memory: float | None,
    as_json: bool,
) -> None:
    from distill.engines.memory import visible_gpus
    from distill.recipe import SftConfig
    from distill.recipe_yaml import load_recipe
    from distill.students import STUDENTS
    from distill.training.plan_report import DEFAULT_GPU_GIB, DEFAULT_GPUS, plan_entry, plan_tables

    named = [student] if student not in (None, "all") else []
    if recipe_path == DEFAULT_RECIPE and not recipe_path.exists() and not overrides:
        config = SftConfig()
    else:
        recipe = load_recipe(recipe_path, overrides or ())
        config, named = recipe.sft, named or ([] if student == "all" else [recipe.student])
    there = list(visible_gpus().values())
    gpu_memory = gpu_memory or min((gib for gib in there if math.isfinite(gib)), default=DEFAULT_GPU_GIB)
    num_gpus = gpus or len(there) or DEFAULT_GPUS
    entries = [plan_entry(name, config, num_gpus, gpu_memory) for name in named or STUDENTS]
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
    else:
        _print_tables([table for entry in entries for table in plan_tables(entry)])


def _print_tables(tables: list[Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for table in tables:
        console.print(table)


@app.command("push", help=COMMANDS["push"])
def push(
    recipe: RecipeArgument = DEFAULT_RECIPE,
    overrides: SetOption = None,
    student: StudentOption = None,
    teacher: TeacherOption = None,
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cards and the exact files; sends nothing, asks nobody.")
    ] = False,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="ORG/NAME", help="Model repository; overrules push.repo.")
    ] = None,
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="Who sees repositories that are made (default: private).")
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Push although the teacher's licence forbids training on its output."),
    ] = False,
    replace_readme: Annotated[
        bool, typer.Option("--replace-readme", help="Replace a README.md on the Hub that distill did not write.")
    ] = False,
) -> None:
    """Publish, or show what would be published."""
    flags = {
        "push.repo": repo,
        "push.private": None if public is None else not public,
        "push.accept_licence": accept_licence or None,
        "push.replace_readme": replace_readme or None,
    }
    if dry_run:
        _show_plan(recipe, overrides, {"student": student, "generate.teacher": teacher, **flags}, run_dir, as_json)
    else:
        _run("push", recipe, overrides, student, teacher, run_dir, force, as_json, quiet, flags=flags)


def _show_plan(
    recipe_path: Path, overrides: list[str] | None, flags: dict[str, Any], run_dir: Path, as_json: bool
) -> None:
    from distill.publish.preview import plan_json, plan_text
    from distill.recipe_yaml import load_recipe
    from distill.stages import RunContext
    from distill.stages.push import dry_run

    recipe = load_recipe(recipe_path, overrides or (), flags)
    plan = dry_run(RunContext(recipe, run_dir / recipe.name))
    typer.echo(json.dumps(plan_json(plan), indent=2) if as_json else plan_text(plan))


def _show_status(
    recipe_path: Path,
    overrides: list[str] | None,
    student: str | None,
    teacher: str | None,
    run_dir: Path,
    as_json: bool,
) -> None:
    from distill.recipe_yaml import load_recipe
    from distill.status import sampling_status, status_lines

    recipe = load_recipe(recipe_path, overrides or (), {"student": student, "generate.teacher": teacher})
    price = recipe.generate.price if recipe.generate else None
    status = sampling_status(run_dir / recipe.name / "generate", price)
    typer.echo(json.dumps(status, indent=2) if as_json else "\n".join(status_lines(status)))


def _explain(
    recipe_path: Path,
    overrides: list[str] | None,
    student: str | None,
    teacher: str | None,
    run_dir: Path,
    as_json: bool,
    wanted: str,
) -> None:
    from distill.explain import explain, story
    from distill.recipe_yaml import load_recipe

    recipe = load_recipe(recipe_path, overrides or (), {"student": student, "generate.teacher": teacher})
    found = explain(run_dir / recipe.name, recipe.traces_stage, wanted)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(story(found)))


def _run(
    stage: str | None,
    recipe_path: Path,
    overrides: list[str] | None,
    student: str | None,
    teacher: str | None,
    run_dir: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
    retry_errors: bool = False,
    flags: dict[str, Any] | None = None,
) -> None:
    from distill.errors import RecipeError
    from distill.pipeline import run_recipe
    from distill.progress import QUIET
    from distill.ranks import Follower, joined, launched_place
    from distill.recipe_yaml import load_recipe

    place = launched_place()
    if place is not None and stage != "sft":
        raise UserError(
            f"{place.world_size} processes were started, and only `distill sft` shares its work among several. Run the "
            "other stages in one process; they use all GPUs of the machine by themselves."
        )
    if quiet:
        os.environ[QUIET] = "1"
    named = {"student": student, "generate.teacher": teacher, **(flags or {})}
    recipe = load_recipe(recipe_path, overrides or (), named)
    section = "traces" if stage == "import" else stage
    if section is not None and not getattr(recipe, section):
        raise RecipeError(f"{recipe_path}: has no {section}: section. Add one to use `distill {stage}`.")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        stages = None if stage is None else [stage]
        with joined(place, run_dir / recipe.name) as member:
            if isinstance(member, Follower):
                from distill.stages.sft import train_along

                train_along(run_dir / recipe.name, member)
                return
            summary = run_recipe(recipe, run_dir, stages, force, _silent if quiet else _say, retry_errors, member)
    except (KeyboardInterrupt, Terminated) as stopped:
        _say("Stopped. What is finished is kept: the same command goes on from here.")
        raise typer.Exit(143 if isinstance(stopped, Terminated) else 130) from None
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    elif not quiet:
        _print_closing(recipe, summary, run_dir)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _silent(text: str) -> None:
    pass


def _print_closing(recipe: "Recipe", summary: dict[str, Any], run_dir: Path) -> None:
    """The result in a small table, and where everything is."""
    folder = run_dir / recipe.name
    if "eval" in summary:
        from rich.console import Console

        Console().print(_score_table(summary["eval"]))
    typer.echo(f"Report:  {folder / 'report.html'}")
    if "sft" in summary:
        typer.echo(f"Student: {folder / 'sft' / 'student'}")
    if "push" in summary:
        typer.echo(f"On the Hub: {summary['push']['url']}")


def _score_table(metrics: dict[str, Any]) -> Any:
    from rich.table import Table

    first = metrics["base"]
    k = first["samples_per_problem"]
    table = Table(title=f"pass@1 on {first['num_problems']} problems, {k} sample{'s' if k > 1 else ''} each")
    for column in ("", "pass@1", "95% interval", "cut off"):
        table.add_column(column, justify="left" if not column else "right")
    for role in ("base", "student"):
        result = metrics[role]
        low, high = result["interval_95"]
        cells = f"{result['pass_at_1']:.1%}", f"{low:.1%} to {high:.1%}", f"{result['truncated_share']:.1%}"
        table.add_row(role, *cells)
    gain = metrics["difference"]
    low, high = (100 * bound for bound in gain["interval_95"])
    table.add_row("difference", f"{100 * gain['pass_at_1']:+.1f}", f"{low:+.1f} to {high:+.1f}", "")
    return table


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> None:
    """The console script: an error is one message, and exit codes are what scripts can rely on."""
    try:
        app()
    except DistillError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)

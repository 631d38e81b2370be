"""`distill suites`: the evaluation suites that come with distill, and a team's own."""

from typing import Annotated, Any

import typer

from distill.cli.app import PREPARE_PANEL, JsonOption, command, group
from distill.cli.output import console, print_json, print_result
from distill.cli.tables import print_table

suites = group(
    "suites",
    about="List the evaluation suites, or show all of one.",
    examples=["distill suites ls", "distill suites show gpqa-diamond"],
    panel=PREPARE_PANEL,
)


@suites.callback(invoke_without_command=True, no_args_is_help=False)
def suites_alone(context: typer.Context) -> None:
    """List the suites if no other command is given."""
    if context.invoked_subcommand is None:
        list_suites()


@command(
    "ls",
    about="List the suites: what they measure, how many samples, what decides the score, licence.",
    examples=["distill suites ls", "distill suites ls --json"],
    panel=PREPARE_PANEL,
    to=suites,
)
def list_suites(as_json: JsonOption = False) -> None:
    """List the suites."""
    from rich.table import Table

    from distill.recipe.suites import load_suite, suite_names

    found = {name: load_suite(name) for name in suite_names()}
    if as_json:
        rows = [{"name": name, **suite.model_dump(mode="json")} for name, suite in found.items()]
        print_json({"schema_version": 1, "suites": rows})
        return
    table = Table()
    for column in ("suite", "samples", "score", "about"):
        table.add_column(column, justify="right" if column == "samples" else "left")
    for name, suite in found.items():
        score = f"{suite.benchmark.metric}{', judged' if suite.benchmark.is_judged else ''}"
        k = suite.benchmark.samples_per_problem
        table.add_row(name, str(k or ""), score, f"{suite.about}{' Gated.' if suite.gated else ''}")
    print_table(table)
    print_result("Also: gym:TASK (reasoning-gym), and file:path of your own (docs/suites.md).")


@command(
    "show",
    about="Show all of a suite: source, prompt, sampling, grader, licence, whose protocol it follows.",
    examples=["distill suites show aime24", "distill suites show file:suites/ours.yaml --json"],
    panel=PREPARE_PANEL,
    to=suites,
)
def show_suite(
    name: Annotated[str, typer.Argument(metavar="SUITE", help="A suite's name, gym:TASK or file:path.")],
    as_json: JsonOption = False,
) -> None:
    """Show all of one suite."""
    from distill.recipe.suites import load_suite

    suite = load_suite(name)
    if as_json:
        print_json({"schema_version": 1, "suite": {"name": name, **suite.model_dump(mode="json")}})
        return
    print_result(f"{suite.title} ({name})\n{suite.about}\n")
    dumped = suite.model_dump(mode="json", exclude_defaults=True)
    benchmark = dumped.pop("benchmark")
    for key in ("title", "about"):
        dumped.pop(key)
    for key, value in [*dumped.items(), *benchmark.items()]:
        _print_key(key, value)
    print_result(f"\nMeasure it: distill eval --model MODEL --suite {name}")


def _print_key(key: str, value: Any) -> None:
    from rich.padding import Padding
    from rich.text import Text

    shown = console()
    label = key.replace("_", " ")
    if isinstance(value, list) and value and isinstance(value[0], dict):
        lines = ["; ".join(f"{inner} {said}" for inner, said in one.items()) for one in value]
    elif isinstance(value, dict):
        lines = [f"{inner}: {_said(said)}" for inner, said in value.items()]
    elif isinstance(value, bool):
        lines = ["yes" if value else "no"]
    else:
        lines = str(value).splitlines() or [""]
    shown.print(Text(f"{label}:"))
    for line in lines:
        shown.print(Padding(Text(line), (0, 0, 0, 2), expand=False))


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{inner} from {said}" for inner, said in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

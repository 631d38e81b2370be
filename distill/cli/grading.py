"""`distill grade`: grade one answer, and show every candidate for its final answer."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.app import RESULTS_PANEL, JsonOption, command
from distill.cli.output import console, print_json
from distill.core.file_kinds import is_file
from distill.errors import UserError

if TYPE_CHECKING:
    from distill.grading.explanation import Explanation

TASKS = ("math", "choice", "exact", "numeric", "regex")
MAX_BYTES = 20_000_000
"""Longest answer that is read; a larger file was probably named by mistake."""


@command(
    "grade",
    about="Grade one answer and show every place where its final answer may be, which one counts and why.",
    examples=[
        "distill grade 'The answer is 72, in total.' --gold 72",
        "distill grade 'Answer: (B)' --gold B --task choice --option London --option Paris",
        "distill grade --file answer.txt --gold 3/4 --json",
        "distill grade - --gold 42 --last-number  # from standard input, as eval grades it",
    ],
    panel=RESULTS_PANEL,
)
def grade(
    gold: Annotated[str, typer.Option("--gold", help="The expected answer.")],
    answer: Annotated[
        str | None, typer.Argument(metavar="ANSWER", help="The answer's text; - reads it from standard input.")
    ] = None,
    task: Annotated[str, typer.Option("--task", help=f"How it is graded: {', '.join(TASKS)}.")] = "math",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option to choose from, in order. Repeatable.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Read the answer from a file.")] = None,
    last_number: Annotated[
        bool,
        typer.Option("--last-number", help="Take the last number where nothing is boxed or announced, as eval does."),
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=600, help="Seconds that grading may take.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Grade one answer and show why."""
    from distill.core.records import Problem
    from distill.core.thinking import split_reasoning
    from distill.grading import grade_all
    from distill.grading.explanation import explain
    from distill.grading.pool import GradingPool

    if task not in TASKS:
        raise UserError(f"--task: {task!r} is not one of {', '.join(TASKS)}.")
    text = _text(answer, file)
    content = split_reasoning(text).content
    offset = text.rfind(content) if content else len(text)
    problem = Problem("answer", [], gold, task, "", {"options": option} if option else {})
    with GradingPool(1, timeout) as pool:
        (found,) = grade_all([(problem, content)], pool, last_number)
    explanation = explain(problem, text, found, last_number, (offset, offset + len(content)))
    if as_json:
        print_json(explanation.to_json())
    else:
        _print(explanation)


def _text(answer: str | None, file: Path | None) -> str:
    """Return the answer from the argument, standard input or a file.

    Raises:
        UserError: it was given twice, not at all, or cannot be read.
    """
    if (answer is None) == (file is None):
        raise UserError("Give the answer either as an argument (- for standard input) or with --file.")
    if file is None:
        return sys.stdin.read(MAX_BYTES) if answer == "-" else answer or ""
    if not is_file(file):
        raise UserError(f"--file: {file} is not a file.")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"--file: {file} has more than {MAX_BYTES:,} bytes. Is it an answer?")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"--file: {file} is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"--file: {file} cannot be read ({error.strerror}).") from None


def _print(explanation: "Explanation") -> None:
    from rich.table import Table
    from rich.text import Text

    from distill.cli.tables import print_table
    from distill.core.terminal import printable  # the text comes from a model

    table = Table(box=None, pad_edge=False)
    for name in ("", "place", "kind", "says", "why"):
        table.add_column(name)
    for candidate in explanation.candidates:
        said = candidate.text if candidate.answer is None else candidate.answer
        cells = (
            "->" if candidate.chosen else "",
            f"{candidate.line}:{candidate.column}",
            candidate.kind.replace("_", " "),
            printable(" ".join(said.split()))[:80],
            printable(candidate.why),
        )
        table.add_row(*map(Text, cells))  # as Text: rich would take [1, 2] for markup
    if explanation.candidates:
        print_table(table)
    else:
        typer.echo("No place for a final answer was found.")
    result = explanation.to_json()
    verdict = {True: "right", False: "wrong", None: "ungraded"}[result["correct"]]
    because = f": {result['reason_text']}" if result["reason_text"] else ""
    extracted = "nothing" if result["extracted_answer"] is None else printable(result["extracted_answer"])[:200]
    console().print(f"extracted {extracted}, expected {printable(result['gold'])}: {verdict}{because}", markup=False)

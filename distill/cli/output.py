"""Output of commands: results on standard output, everything else on standard error."""

import json
import os
from typing import TYPE_CHECKING, Any

import typer

from distill.core.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


PIPE_COLUMNS = 10_000
"""Width of output to a file or pipe, in characters: no line is that long."""


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2))


def console() -> "Console":
    """Return a console for tables and text on standard output.

    Output to a file or a pipe is not wrapped, so that names and numbers stay whole, unless COLUMNS sets a width.
    """
    from distill.cli.safe_console import SafeConsole

    shown = SafeConsole(highlight=False)
    if not shown.is_terminal and not os.environ.get("COLUMNS"):
        shown.width = PIPE_COLUMNS
    return shown


def print_result(text: str, end: str = "\n") -> None:
    """Print a result on standard output, with control characters escaped."""
    typer.echo(printable(text) + end, nl=False)


def print_note(text: str) -> None:
    """Print a message on standard error, with control characters escaped."""
    typer.echo(printable(text), err=True)

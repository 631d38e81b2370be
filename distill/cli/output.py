"""What commands print: results on standard output, everything else on standard error."""

import json
import os
from typing import TYPE_CHECKING, Any

import typer

from distill.core.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


PIPE_COLUMNS = 10_000
"""Width of what is no terminal, in characters: nothing is that long."""


def print_json(value: Any) -> None:
    """Show a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2))


def console() -> "Console":
    """For tables and text on standard output: as wide as the terminal, colours only where they are wanted.

    Into a file or a pipe nothing is wrapped, so that names and numbers stay whole; COLUMNS sets a width all the same.
    """
    from distill.cli.safe_console import SafeConsole

    shown = SafeConsole(highlight=False)
    if not shown.is_terminal and not os.environ.get("COLUMNS"):
        shown.width = PIPE_COLUMNS
    return shown


def tell(text: str, end: str = "\n") -> None:
    """Print a result on standard output; whatever others wrote in it cannot command the terminal."""
    typer.echo(printable(text) + end, nl=False)


def say(text: str) -> None:
    """Tell something beside the result: on standard error, as safely."""
    typer.echo(printable(text), err=True)

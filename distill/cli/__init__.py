"""The command line: thin commands, a module a group of them, heavy imports inside their bodies.

Exit codes: see `distill.cli.entry`.
"""

# Each adds its commands, in the order that --help shows.
from distill.cli import planning, runs, stages, students  # noqa: F401
from distill.cli.app import app
from distill.cli.entry import main

__all__ = ["app", "main"]

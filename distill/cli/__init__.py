"""The command line: thin commands, one module per group, with heavy imports inside their bodies.

Exit codes: see `distill.cli.entry`.
"""

from distill.cli import planning, recipes, stages, students, suites  # noqa: F401 - importing adds the commands

# isort: split
from distill.cli import grading, report, runs  # noqa: F401 - after the stages, as --help shows them
from distill.cli.app import app
from distill.cli.entry import main

__all__ = ["app", "main"]

"""The command line: thin commands, a module a group of them, heavy imports inside their bodies.

Exit codes: 0 done, 2 the user's mistake, 130 and 143 stopped by Ctrl-C and SIGTERM, 1 anything else.
"""

from distill.cli import planning, recipes, stages, students  # noqa: F401 - each adds its commands, as --help shows
from distill.cli.app import app, main

__all__ = ["app", "main"]

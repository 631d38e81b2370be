"""What takes a run further, from the note that the command which began it left in the run's folder.

{"schema_version": 1, "stage": null, "arguments": ["recipe.yaml", "--set", "seed=4"], "folder": "/home/me/work",
 "student": "qwen-1.5b", "stages": ["generate", "filter", "sft", "eval"], "started_at": "2026-11-01T09:00:00+00:00"}
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import StoreError
from distill.store import read_json

COMMAND = "command.json"


def next_command(note: Mapping[str, Any], to_do: Sequence[str]) -> str | None:
    """The command that resumes a run, for the folder that it was begun in; `None` where nothing tells it.

    Args:
        note: as `noted_command` reads it.
        to_do: stages that are not complete, in running order.
    """
    arguments = note.get("arguments")
    if not isinstance(arguments, list) or not to_do:
        return None
    return shlex.join(["distill", "run" if note.get("stage") is None else to_do[0], *map(str, arguments)])


def noted_command(run_dir: Path) -> dict[str, Any]:
    """The note; empty where there is none, or it is damaged."""
    with contextlib.suppress(StoreError, OSError):
        found = read_json(run_dir / COMMAND)
        return found if isinstance(found, dict) else {}
    return {}

"""The command that resumes a run, derived from the command that began it. The run's folder stores that one:

{"schema_version": 1, "stage": null, "arguments": ["recipe.yaml", "--set", "seed=4"], "folder": "/home/me/work",
 "student": "qwen-1.5b", "stages": […], "started_at": "2026-11-01T09:00:00+00:00"}
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.core.json_shape import NOTHING, TEXT, fault
from distill.errors import StoreError
from distill.recipe.steps import stage_of
from distill.results.kinds import command_for
from distill.storage.files import read_object
from distill.storage.layout import COMMAND

RUN_DIR_OPTION, DEFAULT_RUN_DIR = "--run-dir", "runs"
_SHAPE = {
    "stage": (TEXT, NOTHING),
    "arguments": [TEXT],
    "folder": TEXT,
    "name?": TEXT,
    "student?": TEXT,
    "stages?": [TEXT],
}


def noted_command(run_dir: Path) -> dict[str, Any]:
    """Return the stored command; empty if it is missing or damaged."""
    with contextlib.suppress(StoreError):
        found = read_object(run_dir / COMMAND)
        return found if found is not None and not fault(found, _SHAPE) else {}
    return {}


def next_command(note: Mapping[str, Any], to_do: Sequence[str], run_dir: Path) -> str | None:
    """Return the command that resumes a run, for the folder where it was begun; `None` if unknown.

    Args:
        note: as `noted_command` returns it.
        to_do: stages that are not complete, in running order.
        run_dir: `runs/<name>`; it may have been moved.
    """
    if not note or not to_do or not Path(note["folder"]).is_dir():
        return None
    command, of_round = "run", []
    if note["stage"] is not None:
        name, command = to_do[0].rpartition("/")[0], command_for(stage_of(to_do[0]))
        of_round = ["--round", name] if name else []
    arguments = _without_round(_arguments_from_here(note, run_dir)) if of_round else _arguments_from_here(note, run_dir)
    return shlex.join(["distill", command, *arguments, *of_round])


def _without_round(arguments: list[str]) -> list[str]:
    at = arguments.index("--round") if "--round" in arguments[:-1] else len(arguments)
    return [*arguments[:at], *arguments[at + 2 :]]


def _arguments_from_here(note: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the stored arguments, adapted to the present location and name of the run's folder."""
    arguments, run_dir = list(note["arguments"]), Path(DEFAULT_RUN_DIR)
    if RUN_DIR_OPTION in arguments[:-1]:
        at = arguments.index(RUN_DIR_OPTION)
        run_dir = Path(arguments[at + 1])
        del arguments[at : at + 2]
    noted = Path(note["folder"]) / run_dir
    if not _is_same(noted, folder.parent):
        run_dir = folder.parent.resolve()
    if run_dir != Path(DEFAULT_RUN_DIR):
        arguments += [RUN_DIR_OPTION, str(run_dir)]
    if note.get("name", folder.name) != folder.name:
        arguments += ["--set", f"name={folder.name}"]
    return arguments


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False

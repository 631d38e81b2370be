"""Progress of an unfinished stage, from its files alone. Example:

{"stage": …, "num_done": 431, "num_wanted": 1200, "unit": "samples"}
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.report.damage import Damage
from distill.storage.layout import IDENTITY

UNKNOWN = {"num_done": None, "num_wanted": None, "unit": ""}


def begun_stage(folder: Path, to_do: Sequence[str], damage: Damage) -> dict[str, Any] | None:
    """Return the last unfinished stage that has begun, with its progress, or `None`.

    Args:
        folder: `runs/<name>`.
        to_do: stages that are not complete, in order.
        damage: records what cannot be read.
    """
    for name in reversed(to_do):
        stage = folder / name
        if (stage / IDENTITY).is_file():
            found = dict(UNKNOWN)
            with damage.tolerate(stage):
                # Imported here: the page of a finished run needs none of the stages, which import most of the package.
                from distill.stages.table import STAGES

                progress = getattr(STAGES.get(name), "progress", None)
                found = progress(stage) if progress else found
            return {"stage": name, **found}
    return None


def run_state(is_complete: bool, is_stopped: bool, process: int | None) -> str:
    """Return the state of a run, or of a stage that has begun, in the terms of docs/json.md.

    Args:
        is_complete: whether it is complete.
        is_stopped: whether it recorded why it ended early.
        process: id of the process that works on it, or `None`. It may be this one, which reports how the run ended.
    """
    if process not in (None, os.getpid()):
        return "running"
    if is_complete or is_stopped:
        return "complete" if is_complete else "stopped"
    return "unfinished" if process is None else "running"

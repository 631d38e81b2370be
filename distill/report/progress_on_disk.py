"""Progress of an unfinished stage, from its files alone. Example:

{"stage": "generate", "num_done": 431, "num_wanted": 1200, "unit": "samples"}
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping, number
from distill.report.damage import Damage
from distill.storage.files import read_json
from distill.storage.layout import IDENTITY, LEDGER, PROBLEMS
from distill.storage.ledger import index_ledger
from distill.storage.trace_store import stored_without_repair


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
            found = _nothing(stage)
            with damage.tolerate(stage):
                found = _PROGRESS.get(name, _nothing)(stage)
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


def _sampled(stage: Path) -> dict[str, Any]:
    found = stored_without_repair(stage).with_ledger(index_ledger(stage / LEDGER))
    identity = mapping(read_json(stage / IDENTITY))
    per_problem = number(identity.get("samples_per_problem"))
    num_wanted = None if per_problem is None else int(per_problem) * _num_whole_lines(stage / PROBLEMS)
    return {"num_done": len(found.keys), "num_wanted": num_wanted, "unit": "samples"}


def _trained(stage: Path) -> dict[str, Any]:
    return {"num_done": _num_whole_lines(stage / "metrics.jsonl"), "num_wanted": None, "unit": "steps"}


def _answered(stage: Path) -> dict[str, Any]:
    identity = mapping(read_json(stage / IDENTITY))
    k = number(identity.get("samples_per_problem")) or 1
    done = sum(len(index_ledger(stage / role / LEDGER).places) for role in ("base", "student"))
    num_wanted = 2 * int(k) * _num_whole_lines(stage / PROBLEMS) or None
    return {"num_done": done, "num_wanted": num_wanted, "unit": "answers"}


def _nothing(stage: Path) -> dict[str, Any]:
    return {"num_done": None, "num_wanted": None, "unit": ""}


def _num_whole_lines(file: Path) -> int:
    """Count the lines, without a last one that a kill cut short."""
    if not file.is_file():
        return 0
    with file.open("rb") as stream:
        return sum(line.endswith(b"\n") for line in stream)


_PROGRESS = {"generate": _sampled, "import": _sampled, "sft": _trained, "eval": _answered}

"""Checkpoints that can be trusted: each is sealed with the hash of every file, and checked before training goes on.

Enters: the folder of a stage's checkpoints (`checkpoint-<step>/`, as transformers' Trainer writes them). Leaves: the
newest one that is whole. One without a seal was cut short; one that differs from its seal is moved aside, not used.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distill.errors import StoreError
from distill.manifest_shape import COUNT, TEXT, fault
from distill.store import read_json, sha256_of, write_json

SEAL = "distill_seal.json"
"""Written into a checkpoint last: whose it is, and size and sha256 of every file."""
_SEAL_SHAPE = {"owner": TEXT, "files": {"*": {"bytes": COUNT, "sha256": TEXT}}}
MAX_HASHERS = 16


def seal(folder: Path, owner: str) -> None:
    """Declare a checkpoint complete.

    Args:
        folder: the checkpoint, every file of it written.
        owner: fingerprint of what is trained; only the same training goes on from here.
    """
    files = _files(folder)
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_HASHERS)) as pool:
        hashes = list(pool.map(sha256_of, files))
    listed = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256}
        for file, sha256 in zip(files, hashes, strict=True)
    }
    write_json(folder / SEAL, {"owner": owner, "files": listed})


def set_damaged_aside(folder: Path) -> list[str]:
    """Move checkpoints that differ from their seal out of the way, newest first, until one is whole.

    Returns:
        What was found, a line each; empty where the newest sealed checkpoint is whole or there is none.
    """
    found = []
    for checkpoint in reversed(_sealed(folder)):
        damage = _damage(checkpoint)
        if damage is None:
            break
        aside = _free_name(checkpoint.with_name(f"damaged-{checkpoint.name}"))
        checkpoint.rename(aside)
        found.append(f"{checkpoint.name} is damaged ({damage}), so it is not used; it is now {aside}")
    return found


def newest_checkpoint(folder: Path, owner: str) -> Path | None:
    """The newest sealed checkpoint, or `None`.

    Raises:
        StoreError: it belongs to another training.
    """
    sealed = _sealed(folder)
    if not sealed:
        return None
    told = read_json(sealed[-1] / SEAL)
    if wrong := fault(told, _SEAL_SHAPE):
        raise StoreError(f"{sealed[-1] / SEAL}: {wrong}, so nobody can tell whose it is. Move the checkpoint away.")
    if told["owner"] != owner:
        raise StoreError(
            f"{folder} holds checkpoints of another training (other rows, student or settings). Move the folder away "
            "to start anew, or go back to the recipe that they were made with."
        )
    return sealed[-1]


def remove_unsealed(folder: Path) -> None:
    """Remove what a kill left half-written; the Trainer would count it among the checkpoints to keep."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / SEAL).exists():
            shutil.rmtree(checkpoint)


def step_of(checkpoint: Path) -> int:
    """The number of optimiser steps that a checkpoint was taken after."""
    return int(checkpoint.name.rpartition("-")[2])


def _sealed(folder: Path) -> list[Path]:
    """Sealed checkpoints, oldest first."""
    sealed = (path.parent for path in folder.glob(f"checkpoint-*/{SEAL}"))
    return sorted((one for one in sealed if one.name.removeprefix("checkpoint-").isdecimal()), key=step_of)


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a sealed checkpoint."""
    try:
        told = read_json(checkpoint / SEAL)
    except StoreError:
        return f"{SEAL} cannot be read"
    if wrong := fault(told, _SEAL_SHAPE):
        return f"{SEAL} cannot be read ({wrong})"
    listed: dict[str, dict[str, Any]] = told["files"]
    if (odd := next((name for name in listed if not _lies_within(name)), None)) is not None:
        return f"{SEAL} names {odd!r}, which is no file of the checkpoint"
    wrong_size = (name for name, facts in listed.items() if _size(checkpoint / name) != facts["bytes"])
    if (name := next(wrong_size, None)) is not None:
        return f"{name} is missing" if not (checkpoint / name).exists() else f"{name} was cut short or has grown"
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_HASHERS)) as pool:
        hashes = pool.map(sha256_of, (checkpoint / name for name in listed))
        changed = (name for name, now in zip(listed, hashes, strict=True) if now != listed[name]["sha256"])
        name = next(changed, None)
    return None if name is None else f"the content of {name} has changed"


def _lies_within(name: str) -> bool:
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _free_name(path: Path) -> Path:
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free

"""Checkpoints that can be trusted: each is sealed with the hash of every file, and checked before training goes on.

Enters: the folder of a stage's checkpoints (`checkpoint-<step>/`, as transformers' Trainer writes them). Leaves: the
newest one that is whole. One without a seal was cut short; one that differs from its seal is moved aside, not used.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

from distill.core.json_shape import COUNT, TEXT, fault
from distill.errors import StoreError
from distill.storage.files import read_json, write_json
from distill.storage.fingerprints import MAX_HASHERS, sha256_of
from distill.storage.layout import SEAL

_SEAL_SHAPE = {"owner": TEXT, "files": {"*": {"bytes": COUNT, "sha256": TEXT}}}

CORES_A_HASHER = 4
"""While training goes on, a hasher for so many cores, so that most of them stay training's alone."""
PIECE_BYTES = 1 << 20
"""Hashed at once. A hasher that others keep from a core holds up those who wait for it for a piece at most."""


class Sealing:
    """Declares checkpoints complete, each in the background while training goes on, and then removes older ones.

    A checkpoint is removed only once a newer one is sealed. Use as a context manager around training: at its end all
    that was begun is sealed.
    """

    def __init__(self, owner: str, num_kept: int | None) -> None:
        """Begin nothing yet.

        Args:
            owner: fingerprint of what is trained; only the same training goes on from its checkpoints.
            num_kept: sealed checkpoints that stay, the newest; `None`: all.
        """
        self._owner, self._num_kept = owner, num_kept
        self._thread = ThreadPoolExecutor(1, "seal")
        self._hurry = Event()
        self._checkpoint, self._hashes = Path(), list[_FileHash]()
        self._background: Future[bool] | None = None

    def start(self, checkpoint: Path) -> None:
        """Begin to seal a checkpoint, every file of it written; the one before it must be finished."""
        assert self._background is None
        self._checkpoint, self._hashes = checkpoint, [_FileHash(file) for file in _files(checkpoint)]
        self._hurry.clear()
        hashers = _hashers(_num_cores() // CORES_A_HASHER, _give_way)
        self._background = self._thread.submit(self._seal, hashers, self._hurry)

    def check(self) -> None:
        """Raise what sealing has failed with so far; wait for nothing."""
        if self._background is not None and self._background.done():
            self._background.result()

    def finish(self) -> None:
        """Seal what was begun, now with all cores; raise what that fails with."""
        background, self._background = self._background, None
        if background is not None:
            self._hurry.set()
            if not background.result():
                self._seal(_hashers(_num_cores()), Event())

    def _seal(self, hashers: ThreadPoolExecutor, stop: Event) -> bool:
        """Hash what is left, write the seal, remove older checkpoints; `False`: stopped before all was hashed."""
        with hashers:
            are_hashed = list(hashers.map(lambda one: one.go_on(stop), self._hashes))
        if not all(are_hashed):
            return False
        files = {
            one.file.relative_to(self._checkpoint).as_posix(): {"bytes": one.num_bytes, "sha256": one.sha256}
            for one in self._hashes
        }
        write_json(self._checkpoint / SEAL, {"owner": self._owner, "files": files})
        if self._num_kept is not None:
            for old in _sealed(self._checkpoint.parent)[: -self._num_kept]:
                (old / SEAL).unlink()  # first, so that what a kill leaves of it is not taken for whole
                shutil.rmtree(old, ignore_errors=True)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
            elif issubclass(kind, Exception):
                with contextlib.suppress(Exception):  # what has ended training is what must be heard of
                    self.finish()
        finally:
            self._hurry.set()
            self._thread.shutdown(wait=False)


class _FileHash:
    """SHA-256 of a file, begun by one thread and finished by another."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.num_bytes = 0
        """Hashed so far."""
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def go_on(self, stop: Event) -> bool:
        """Hash to the end of the file, or until told to stop; whether the end is reached."""
        piece = memoryview(bytearray(PIECE_BYTES))
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.num_bytes)
            while num_read := stream.readinto(piece):
                self._hash.update(piece[:num_read])
                self.num_bytes += num_read
                if stop.is_set():
                    return False
        return True


def _give_way() -> None:
    """Let this thread run on cores that nobody else wants: training's threads wait for the slowest of them."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


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
    with _hashers(_num_cores()) as pool:
        hashes = pool.map(sha256_of, (checkpoint / name for name in listed))
        changed = (name for name, now in zip(listed, hashes, strict=True) if now != listed[name]["sha256"])
        name = next(changed, None)
    return None if name is None else f"the content of {name} has changed"


def _lies_within(name: str) -> bool:
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _hashers(num: int, at_start: Callable[[], None] | None = None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(max(1, num), MAX_HASHERS), "hash", at_start)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _free_name(path: Path) -> Path:
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free

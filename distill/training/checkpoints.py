"""Seal checkpoints with the hash of every file, and verify the seal before training resumes.

Checkpoints are `checkpoint-<step>/`, as transformers' Trainer writes them. One without a seal is incomplete; one that
differs from its seal is moved aside and not used.
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
"""Cores per hashing thread during training, so that most cores are left to training."""
PIECE_BYTES = 1 << 20
"""Bytes hashed between two checks of the stop event: how much `finish` may have to wait for."""


class CheckpointSealer:
    """Background thread that seals checkpoints during training and removes older ones.

    A checkpoint is removed only once a newer one is sealed. Use as a context manager around training: on exit, a seal
    in progress is finished.
    """

    def __init__(self, owner: str, num_kept: int | None) -> None:
        """Create the idle thread.

        Args:
            owner: fingerprint of the training; only the same training resumes from its checkpoints.
            num_kept: number of newest sealed checkpoints to keep; `None`: all.
        """
        self._owner, self._num_kept = owner, num_kept
        self._thread = ThreadPoolExecutor(1, "seal")
        self._hurry = Event()
        self._checkpoint, self._hashes = Path(), list[_FileHash]()
        self._background: Future[bool] | None = None

    def start(self, checkpoint: Path) -> None:
        """Start to seal a fully written checkpoint; the previous seal must be finished."""
        assert self._background is None
        self._checkpoint, self._hashes = checkpoint, [_FileHash(file) for file in _files(checkpoint)]
        self._hurry.clear()
        hashers = _hashers(_num_cores() // CORES_A_HASHER, _give_way)
        self._background = self._thread.submit(self._seal, hashers, self._hurry)

    def check(self) -> None:
        """Raise the error of the seal in progress, if any, without waiting."""
        if self._background is not None and self._background.done():
            self._background.result()

    def finish(self) -> None:
        """Finish the seal in progress with all cores, and raise its error, if any."""
        background, self._background = self._background, None
        if background is not None:
            self._hurry.set()
            if not background.result():
                self._seal(_hashers(_num_cores()), Event())

    def _seal(self, hashers: ThreadPoolExecutor, stop: Event) -> bool:
        """Hash the rest, write the seal and remove older checkpoints; return `False` if stopped while hashing."""
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
                (old / SEAL).unlink()  # first, so that a half-removed checkpoint does not count as sealed
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
                with contextlib.suppress(Exception):  # the error that ended training matters more
                    self.finish()
        finally:
            self._hurry.set()
            self._thread.shutdown(wait=False)


class _FileHash:
    """SHA-256 of a file that one thread can start and another can finish."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.num_bytes = 0
        """Bytes hashed so far."""
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def go_on(self, stop: Event) -> bool:
        """Hash until the end of the file or until `stop` is set; return whether the end was reached."""
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
    """Let this thread run only on idle cores."""
    # Training's threads wait for the slowest of them, so one that loses its core slows all of them down.
    with contextlib.suppress(OSError):  # sandboxes may forbid it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def set_damaged_aside(folder: Path) -> list[str]:
    """Move checkpoints that differ from their seal aside, newest first, until one matches.

    Returns:
        One message per checkpoint; empty if the newest sealed checkpoint is intact or there is none.
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
    """Return the newest sealed checkpoint, or `None`.

    Raises:
        StoreError: it belongs to another training, or its seal is damaged.
    """
    sealed = _sealed(folder)
    if not sealed:
        return None
    told = read_json(sealed[-1] / SEAL)
    if wrong := fault(told, _SEAL_SHAPE):
        raise StoreError(f"{sealed[-1] / SEAL}: {wrong}, so its training is unknown. Move the checkpoint away.")
    if told["owner"] != owner:
        raise StoreError(
            f"{folder} holds checkpoints of another training (other rows, student or settings). Move the folder away "
            "to start over, or go back to the recipe that they were made with."
        )
    return sealed[-1]


def remove_unsealed(folder: Path) -> None:
    """Remove incomplete checkpoints of an interrupted process."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / SEAL).exists():
            shutil.rmtree(checkpoint)


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def _sealed(folder: Path) -> list[Path]:
    """Return the sealed checkpoints, oldest first."""
    sealed = (path.parent for path in folder.glob(f"checkpoint-*/{SEAL}"))
    return sorted((one for one in sealed if one.name.removeprefix("checkpoint-").isdecimal()), key=step_of)


def _damage(checkpoint: Path) -> str | None:
    """Return what differs from a checkpoint's seal, or `None`."""
    try:
        told = read_json(checkpoint / SEAL)
    except StoreError:
        return f"{SEAL} cannot be read"
    if wrong := fault(told, _SEAL_SHAPE):
        return f"{SEAL} cannot be read ({wrong})"
    listed: dict[str, dict[str, Any]] = told["files"]
    if (odd := next((name for name in listed if not _lies_within(name)), None)) is not None:
        return f"{SEAL} names {odd!r}, which is not a file of the checkpoint"
    wrong_size = (name for name, facts in listed.items() if _size(checkpoint / name) != facts["bytes"])
    if (name := next(wrong_size, None)) is not None:
        return f"{name} is missing" if not (checkpoint / name).exists() else f"{name} was cut short or has grown"
    with _hashers(_num_cores()) as pool:
        hashes = pool.map(sha256_of, (checkpoint / name for name in listed))
        changed = (name for name, now in zip(listed, hashes, strict=True) if now != listed[name]["sha256"])
        name = next(changed, None)
    return None if name is None else f"the content of {name} has changed"


def _lies_within(name: str) -> bool:
    # A damaged seal must not make distill read files elsewhere; a NUL byte makes file functions raise ValueError.
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

"""A run folder on disk: manifests, hashes of outputs, and a lock for the one writer.

runs/<name>/<stage>/identity.json   what determines the stage's result; written when the stage starts
runs/<name>/<stage>/manifest.json   written last and atomically: if it exists, the stage is complete
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from distill.errors import StoreError
from distill.results.kinds import command_for, fault_of
from distill.storage.files import disk_errors, num_bytes_of, read_object, remove_partial_files, write_json
from distill.storage.fingerprints import hash_of_hashes, hashes_of, sha256_of
from distill.storage.layout import IDENTITY, MANIFEST, SUMMARY, WRITER_LOCK

NUM_TRIES, TRY_AGAIN_S = 5, 0.1
"""Retries are needed because a process that only checks whether a folder is in use holds its lock for a moment."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of a finished stage."""

    stage: str
    fingerprint: str
    identity: dict[str, Any]
    """What the fingerprint is computed from: configuration, inputs and the stage's version."""
    config: dict[str, Any]
    """The stage's whole resolved configuration, including `compute:`."""
    outputs: dict[str, dict[str, Any]]
    """Relative path -> sha256 and, for tables, num_rows."""
    metrics: dict[str, Any]
    versions: dict[str, str]
    """Python and package versions."""
    hardware: dict[str, Any]
    git_commit: str | None
    seconds: float
    """Duration of the call that finished the stage."""
    peak_memory_gib: float
    """Peak resident memory of the runner so far plus that of the stage's job process, in GiB."""
    finished_at: str
    """UTC, ISO 8601."""
    schema_version: int = 1
    recipe: dict[str, Any] | None = None
    """The whole recipe that made it; `None` if an older distill wrote the manifest."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the local files that the recipe names, by their names there (`file:…`)."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class StageFolder:
    """One stage's folder in a run."""

    def __init__(self, root: Path) -> None:
        self.path = root

    @property
    def is_complete(self) -> bool:
        """Return whether the stage has a manifest, valid or not."""
        return (self.path / MANIFEST).exists()

    @property
    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest, or `None` while the stage is not complete.

        Raises:
            StoreError: it is damaged: not JSON, or with values that no stage writes.
        """
        found = read_object(self.path / MANIFEST)
        if found is not None and (what := fault_of(found, self.path.name)):
            command = f"distill {command_for(self.path.name)}"
            raise StoreError(
                f"{self.path / MANIFEST}: damaged ({what}). Remove the file and run `{command}` again: it reuses what "
                "is there."
            )
        return found

    @property
    def identity(self) -> dict[str, Any] | None:
        """Return what the content was made from, complete or not; `None` for a new folder.

        Raises:
            StoreError: the file is damaged.
        """
        return read_object(self.path / IDENTITY)

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Record what the content will be made from, before any of it exists."""
        write_json(self.path / IDENTITY, identity)

    def reopen(self) -> None:
        """Mark the stage as not complete. Its files stay."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Rename the folder instead of deleting it. Return the new path, or `None` if there was no folder."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.replaced-{number}")).exists():
            number += 1
        with disk_errors(self.path):
            self.path.rename(aside)
        return aside

    def complete(self, manifest: Manifest) -> None:
        """Write the manifest, which marks the stage as complete."""
        write_json(self.path / MANIFEST, manifest.to_json())


def is_run(folder: Path) -> bool:
    """Return whether a folder belongs to a run, finished or not."""
    try:
        return folder.is_dir() and any((folder / name).exists() for name in (WRITER_LOCK, SUMMARY))
    except (OSError, ValueError):  # a name that is too long or holds a NUL byte
        return False


def writer_of(run_dir: Path) -> int | None:
    """Return the id of the process that works in a run folder, 0 if it is unknown; `None` if no process does."""
    try:
        with (run_dir / WRITER_LOCK).open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                text = stream.read().strip()
                return int(text) if text.isdigit() else 0
    except OSError:
        pass
    return None


@contextlib.contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Lock a run folder and remove what killed writers left half-written. The lock ends with this process.

    Raises:
        StoreError: another process is working in this run folder.
    """
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        stream = (run_dir / WRITER_LOCK).open("a+")
    with stream:
        if not _locked(stream):
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            raise StoreError(
                f"{run_dir}: another distill (process {owner}) is working here. Wait for it, stop it, "
                "or give this run another name (--set name=…) or --run-dir."
            )
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        with disk_errors(run_dir):
            remove_partial_files(run_dir)
        yield


def _locked(stream: IO[str]) -> bool:
    for attempt in range(NUM_TRIES):
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if attempt < NUM_TRIES - 1:
            time.sleep(TRY_AGAIN_S)
    return False


def describe_outputs(root: Path, outputs: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """Return each output's sha256, size in bytes and, where given, number of rows, for the manifest.

    A folder's sha256 is that of its files' names and sha256, which are listed too.
    """
    described: dict[str, dict[str, Any]] = {}
    for name, num_rows in outputs.items():
        path = root / name
        if path.is_dir():
            files = hashes_of(path)
            described[name] = {"sha256": hash_of_hashes(files), "num_bytes": num_bytes_of(path), "files": files}
        else:
            described[name] = {"sha256": sha256_of(path), "num_bytes": num_bytes_of(path)}
        if num_rows is not None:
            described[name]["num_rows"] = num_rows
    return described


def damaged_outputs(
    root: Path, outputs: Mapping[str, Mapping[str, Any]], names: Iterable[str] | None = None, by_hash: bool = True
) -> dict[str, str]:
    """Return the outputs that do not match their manifest, each with what is wrong with it.

    Args:
        root: the stage's folder.
        outputs: from the manifest.
        names: outputs to check. Default: all.
        by_hash: whether to read them whole. Otherwise only existence and size are checked.
    """
    found = {}
    for name in outputs if names is None else names:
        try:
            what = _damage(root / name, outputs.get(name, {}), by_hash)
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
        if what:
            found[name] = what
    return found


def _damage(path: Path, described: Mapping[str, Any], by_hash: bool) -> str:
    """Return what is wrong with an output; empty if nothing is."""
    files = described.get("files")
    if not path.exists() or (files is not None and not path.is_dir()):
        return "gone"
    if files is not None and (gone := [name for name in files if not (path / name).is_file()]):
        return f"{', '.join(sorted(gone)[:3])} gone"
    size = described.get("num_bytes")
    if not by_hash:
        return "" if size in (None, num_bytes_of(path)) else "of another size"
    if not path.is_dir():
        return "" if sha256_of(path) == described.get("sha256") else "checksum"
    there = hashes_of(path)
    if hash_of_hashes(there) == described.get("sha256"):
        return ""
    changed = [name for name, sha256 in there.items() if files is not None and files.get(name) != sha256]
    return f"checksum of {', '.join(sorted(changed)[:3])}" if changed else "checksum"


@dataclass(slots=True)
class Summary:
    """What a stage returns to the runner: its metrics and its files (relative path -> rows or `None`)."""

    metrics: dict[str, Any]
    outputs: dict[str, int | None]
    peak_memory_gib: float = 0.0
    scratch: tuple[str, ...] = ()
    """Folders that only an unfinished stage needs. Removed once the manifest is written."""

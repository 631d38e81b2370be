"""A run folder on disk: fingerprints, manifests that mean *complete*, atomic writes, one writer at a time.

runs/<name>/<stage>/identity.json   what decides the stage's result; written when the stage starts
runs/<name>/<stage>/manifest.json   written last and atomically: its existence means that the stage is complete
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from distill.errors import DiskError, StoreError

MANIFEST = "manifest.json"
IDENTITY = "identity.json"
SUMMARY = "summary.json"
LOCK = ".lock"
NUM_TRIES, TRY_AGAIN_S = 5, 0.1
"""Who only looks whether a folder is in use holds its lock for a moment."""
FULL_BELOW_BYTES = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished stage leaves behind about itself."""

    stage: str
    fingerprint: str
    identity: dict[str, Any]
    """What the fingerprint is taken over: configuration, inputs and the stage's version."""
    config: dict[str, Any]
    """The stage's whole resolved configuration, `compute:` included."""
    outputs: dict[str, dict[str, Any]]
    """Relative path -> sha256 and, for tables, num_rows."""
    metrics: dict[str, Any]
    versions: dict[str, str]
    """Python and package versions."""
    hardware: dict[str, Any]
    git_commit: str | None
    seconds: float
    """Of the call that finished the stage."""
    peak_memory_gib: float
    """Largest resident memory of the runner so far and of the stage's job process, added up, in GiB."""
    finished_at: str
    """UTC, ISO 8601."""
    schema_version: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the canonical JSON of what decides a result."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys (dotted) whose values differ, with both values; `None` stands for absent."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's files with their relative names."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into a message that says what to do; what was written before stays.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if isinstance(error, OSError) and number in _NO_PLACE:
            raise StoreError(
                f"{path}: no folder can be made there ({error.strerror}). Give another --run-dir, or --output for a "
                "report."
            ) from error
        is_forbidden = number in (errno.EACCES, errno.EROFS, errno.EPERM)
        # torch and safetensors report a full disk as errors of their own; then the disk itself tells.
        is_full = number in _DISK_FULL or (not is_forbidden and _is_full(path))
        if not isinstance(error, OSError) and not is_full:
            raise
        if is_full:
            what = "the disk is full. Free some space"
        elif is_forbidden:
            what = "no permission to write there. Make it writable or give another --run-dir"
        else:
            what = f"writing failed ({error}). Check the disk"
        raise DiskError(f"{path}: {what}; nothing finished is lost, and the same command goes on from here.") from error


def _is_full(path: Path) -> bool:
    """Less than `FULL_BELOW_BYTES` free on the disk that would hold `path`."""
    return free_bytes(path) < FULL_BELOW_BYTES


def free_bytes(path: Path) -> int:
    """Free on the disk that holds a path, or would hold it.

    Raises:
        OSError: the disk does not tell.
    """
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def atomic_write(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops half-way.

    Args:
        path: the file.
        content: all of it.
        sync: wait for the disk; `False` for what nobody misses after the machine has stopped.

    Raises:
        StoreError: the disk is full or not writable; an older file stays as it was.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                if sync:
                    stream.flush()
                    os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable, not just the files in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make everything under a folder durable: files, then folders."""
    for path in sorted(root.rglob("*"), reverse=True):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(root)


def write_json(path: Path, value: Any, sync: bool = True) -> None:
    """Write a JSON file atomically, indented for people; `sync` as for `atomic_write`."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n", sync)


def read_json(path: Path) -> Any:
    """A JSON file's value, or `None` where there is no such file.

    Raises:
        StoreError: the file is not valid JSON, which distill never writes.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{path}: not valid JSON ({error}). Remove the file and run the command again.") from None


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON file's object, or `None` where there is no such file.

    Raises:
        StoreError: the file holds something else, which distill never writes there.
    """
    value = read_json(path)
    if value is None and not path.exists():
        return None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: not a JSON object. Remove the file and run the command again.")
    return value


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Lone surrogates survive as escapes."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that distill wrote."""
    with path.open() as stream:
        return [json.loads(line) for line in stream]


class Closing:
    """A context manager that closes itself at the end of its block."""

    def close(self) -> None:
        """Give back what is held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StageFolder:
    """One stage's folder in a run, and what is known about it."""

    def __init__(self, root: Path) -> None:
        self.path = root

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or `None` while the stage is not complete; raises StoreError where it is damaged."""
        return read_object(self.path / MANIFEST)

    @property
    def identity(self) -> dict[str, Any] | None:
        """What the content was made from, complete or not; `None` for a new folder, StoreError for a damaged file."""
        return read_object(self.path / IDENTITY)

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Write down what the content will be made from, before any of it exists."""
        write_json(self.path / IDENTITY, identity)

    def reopen(self) -> None:
        """Take the stage back to *not complete*; its files stay."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Move the folder out of the way without losing it; the new place, or `None` where there was nothing."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.replaced-{number}")).exists():
            number += 1
        with disk_errors(self.path):
            self.path.rename(aside)
        return aside

    def complete(self, manifest: Manifest) -> None:
        """Write the manifest: from here on the stage counts as done."""
        write_json(self.path / MANIFEST, manifest.to_json())


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, however far it came."""
    return folder.is_dir() and any((folder / name).exists() for name in (LOCK, SUMMARY))


def writer_of(run_dir: Path) -> int | None:
    """The id of the process that works in a run folder, 0 where it cannot be told; `None` where none does."""
    try:
        with (run_dir / LOCK).open() as stream:
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
    """Hold a run folder; the lock ends with this process, however it ends.

    Raises:
        StoreError: another process is working in this run folder.
    """
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        stream = (run_dir / LOCK).open("a+")
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
        yield


def _locked(stream: IO[str]) -> bool:
    for attempt in range(NUM_TRIES):
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if attempt < NUM_TRIES - 1:
            time.sleep(TRY_AGAIN_S)
    return False


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in place of `target`: there whole or not at all.

    Raises:
        StoreError: the disk is full or not writable.
    """
    with disk_errors(target):
        if target.exists():
            shutil.rmtree(target)
        new.rename(target)
        sync_folder(target.parent)


def describe_outputs(root: Path, outputs: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """For the manifest: each output's sha256 and, where given, its number of rows."""
    described: dict[str, dict[str, Any]] = {}
    for name, num_rows in outputs.items():
        described[name] = {"sha256": sha256_of(root / name)}
        if num_rows is not None:
            described[name]["num_rows"] = num_rows
    return described


@dataclass(slots=True)
class Summary:
    """What a stage hands to the runner: its metrics, and the files it leaves (relative path -> rows or `None`)."""

    metrics: dict[str, Any]
    outputs: dict[str, int | None]
    peak_memory_gib: float = 0.0
    scratch: tuple[str, ...] = ()
    """Folders that only an unfinished stage needs; removed once the manifest is written."""

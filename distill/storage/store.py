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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from distill.core.file_kinds import FILE, LOOP, MISSING, kind_of
from distill.core.json_shape import fault_of
from distill.errors import DiskError, StoreError
from distill.storage.layout import IDENTITY, MANIFEST, SUMMARY, WRITER_LOCK

NUM_TRIES, TRY_AGAIN_S = 5, 0.1
"""Who only looks whether a folder is in use holds its lock for a moment."""
FULL_BELOW_BYTES = 1 << 20
MAX_HASHERS = 16
"""Threads that hash a folder's files."""
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
    recipe: dict[str, Any] | None = None
    """The whole recipe that made it; `None`: of an older distill."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the local files that the recipe names, by their names there (`file:…`)."""

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
        if _are_lists_of_objects(before, after):
            before, after = _by_place(before), _by_place(after)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def _by_place(items: Any) -> dict[str, Any]:
    return {str(place): item for place, item in enumerate(items)}


def _are_lists_of_objects(one: Any, other: Any) -> bool:
    """Whether two lists are best compared item by item."""
    both = isinstance(one, list) and isinstance(other, list) and len(one) == len(other)
    return both and all(isinstance(item, Mapping) for item in (*one, *other))


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's files with their relative names."""
    if path.is_dir():
        return hash_of_hashes(hashes_of(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """Each file's SHA-256 (hex) by its name in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_HASHERS)) as pool:
        return {
            file.relative_to(folder).as_posix(): sha256
            for file, sha256 in zip(files, pool.map(sha256_of, files), strict=True)
        }


def hash_of_hashes(hashes: Mapping[str, str]) -> str:
    """SHA-256 (hex) of a folder, from those of its files in the order of `hashes_of`."""
    return hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in hashes.items()).encode()).hexdigest()


def num_bytes_of(path: Path) -> int:
    """Size of a file, or of all files in a folder, in bytes."""
    files = (one for one in path.rglob("*") if one.is_file()) if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


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


def refuse_pipe(path: Path) -> None:
    """Refuse what is neither a file nor a folder: opened, a pipe waits for its writer, and a device may never end.

    Raises:
        StoreError: it is a pipe, a socket or a device.
        OSError: the system does not tell.
    """
    if (kind := kind_of(path)) not in (FILE, MISSING, LOOP, "a folder"):
        raise StoreError(f"{path}: is {kind}, where distill keeps a file. Remove it and run the command again.")


def read_json(path: Path) -> Any:
    """A JSON file's value, or `None` where there is no such file.

    Raises:
        StoreError: the file is not valid JSON, which distill never writes, or cannot be read.
    """
    try:
        refuse_pipe(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). Move what is in the way elsewhere.") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not valid JSON ({error}). Remove the file and run the command again.") from None


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON file's object, or `None` where there is no such file.

    Raises:
        StoreError: the file holds something else, or what no file of distill's holds: numbers that are none, half
            characters.
    """
    value = read_json(path)
    if value is None and not os.path.lexists(path):
        return None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: not a JSON object. Remove the file and run the command again.")
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged ({error}). Remove the file and run the command again.") from None
    return value


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Lone surrogates survive as escapes."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that distill wrote.

    Raises:
        StoreError: it is gone or cannot be read, or holds what distill never writes.
    """
    return list(iter_jsonl(path))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The same, a row at a time."""
    num_read = 0
    try:
        refuse_pipe(path)
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                num_read += 1
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
                yield row
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). Run the stage that writes it again.") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path}:{max(1, num_read)}: damaged ({error}). Remove the file and run the stage that writes it again."
        ) from None


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
    def is_complete(self) -> bool:
        """Whether the stage has a manifest, whatever it holds."""
        return (self.path / MANIFEST).exists()

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or `None` while the stage is not complete.

        Raises:
            StoreError: it is damaged: not JSON, or with values that no stage writes.
        """
        found = read_object(self.path / MANIFEST)
        if found is not None and (what := fault_of(found, self.path.name)):
            raise StoreError(
                f"{self.path / MANIFEST}: damaged ({what}). Remove the file and run `distill {self.path.name}` again: "
                "it reuses what is there."
            )
        return found

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
    try:
        return folder.is_dir() and any((folder / name).exists() for name in (WRITER_LOCK, SUMMARY))
    except (OSError, ValueError):  # a name too long, a NUL
        return False


def writer_of(run_dir: Path) -> int | None:
    """The id of the process that works in a run folder, 0 where it cannot be told; `None` where none does."""
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
    """Hold a run folder; the lock ends with this process, however it ends.

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
    """For the manifest: each output's sha256 and size in bytes and, where given, its number of rows.

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
    """The outputs that are not as their manifest describes them, each with what is wrong with it.

    Args:
        root: the stage's folder.
        outputs: of the manifest.
        names: of those to look at; left out: all.
        by_hash: read them whole; `False`: only see that they are there and as large as they were.
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
    """What is wrong with an output; empty where nothing is."""
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
    """What a stage hands to the runner: its metrics, and the files it leaves (relative path -> rows or `None`)."""

    metrics: dict[str, Any]
    outputs: dict[str, int | None]
    peak_memory_gib: float = 0.0
    scratch: tuple[str, ...] = ()
    """Folders that only an unfinished stage needs; removed once the manifest is written."""

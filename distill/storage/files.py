"""Files that survive a kill: written under a temporary name, synced and renamed. Also JSON, JSONL and disk errors."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distill.core.file_kinds import FILE, LOOP, MISSING, kind_of
from distill.errors import DiskError, StoreError

FULL_BELOW_BYTES = 1 << 20
PARTIAL = ".partial"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def num_bytes_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    files = (one for one in path.rglob("*") if one.is_file()) if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into a message that says what to do. What was written before stays.

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
        # torch and safetensors raise errors of their own when the disk is full, so check the free space.
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
    """Return whether less than `FULL_BELOW_BYTES` is free on the disk that would hold `path`."""
    return free_bytes(path) < FULL_BELOW_BYTES


def free_bytes(path: Path) -> int:
    """Return the bytes that are free on the disk that holds a path, or would hold it.

    Raises:
        OSError: the disk cannot be inspected.
    """
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def atomic_write(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write a file completely or not at all, even if the machine stops half-way.

    Args:
        path: the file.
        content: all of it.
        sync: whether to wait for the disk. Not needed for files that may be lost when the machine stops.

    Raises:
        StoreError: the disk is full or not writable. An existing file is unchanged.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                if sync:
                    stream.flush()
                    os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)  # mkstemp lets only the owner read
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)


def remove_partial_files(root: Path) -> None:
    """Remove what killed processes had begun to write beneath a folder in which no other process writes now."""
    for path in root.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable, not just the files in it."""
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
    """Write a JSON file atomically and indented; `sync` as for `atomic_write`."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n", sync)


def refuse_pipe(path: Path) -> None:
    """Raise if a path is neither a file nor a folder: opening a pipe blocks, and reading a device may never end.

    Raises:
        StoreError: it is a pipe, a socket or a device.
        OSError: the path cannot be inspected.
    """
    if (kind := kind_of(path)) not in (FILE, MISSING, LOOP, "a folder"):
        raise StoreError(f"{path}: is {kind}, where distill keeps a file. Remove it and run the command again.")


def read_json(path: Path) -> Any:
    """Return the value in a JSON file, or `None` if there is no such file.

    Raises:
        StoreError: the file cannot be read or is not valid JSON.
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
    """Return the object in a JSON file, or `None` if there is no such file.

    Raises:
        StoreError: the file does not hold an object, or holds NaN, infinity or lone surrogates.
    """
    value = read_json(path)
    if value is None and not os.path.lexists(path):
        return None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: not a JSON object. Remove the file and run the command again.")
    try:
        # Python's JSON parser accepts what distill never writes.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged ({error}). Remove the file and run the command again.") from None
    return value


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Lone surrogates are preserved as escapes."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))


def num_whole_lines(path: Path) -> int:
    """Count the lines of a file, without a last one that a kill cut short; 0 if there is no file."""
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return sum(line.endswith(b"\n") for line in stream)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file that distill wrote.

    Raises:
        StoreError: it is missing, cannot be read, or holds what distill never writes.
    """
    return list(iter_jsonl(path))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file. Raises as `read_jsonl`."""
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


class Closing(ABC):
    """A context manager that closes itself at the end of its block."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; a kill leaves none or the whole of it.

    Raises:
        DiskError: the disk is full or not writable.
    """
    new = target.with_name(f".{target.name}.new")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, new)
        new.replace(target)


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in place of `target`.

    Raises:
        StoreError: the disk is full or not writable.
    """
    with disk_errors(target):
        if target.exists():
            shutil.rmtree(target)
        new.rename(target)
        sync_folder(target.parent)

"""The append-only ledger: one durable JSON line for each finished sample, so that a kill loses only what was in flight.

Enters: traces, in the order in which they finish. Leaves: the same, whole, whatever happened in between.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from distill.errors import StoreError
from distill.records import SampleKey, Trace
from distill.store import disk_errors, sync_folder


class Ledger:
    """Open for appending; `done` holds the identities that are safely in.

    A last line that a kill cut short is cut off on opening. Writing to the same ledger from two processes is refused.

    Raises:
        StoreError: another process writes to it, a line other than the last is damaged, or the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            self._file = path.open("ab+", buffering=0)
            if is_new:
                sync_folder(path.parent)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StoreError(f"{path}: another process is writing to it. Wait for it or stop it.") from None
        try:
            self._recover()
        except BaseException:
            self._file.close()
            raise

    def _recover(self) -> None:
        """Read what is in, and cut off a torn last record."""
        self.done: set[SampleKey] = set()
        self._end = 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    break
                self.done.add(_parse(self.path, number, line).key)
                self._end += len(line)
        with disk_errors(self.path):
            self._file.truncate(self._end)

    def append(self, traces: Iterable[Trace]) -> None:
        """Write finished samples and wait until they are on the disk: one fdatasync for all of them.

        Raises:
            StoreError: the disk is full or broken; a half-written record is cut off again.
        """
        traces = list(traces)
        if not traces:
            return
        block = "".join(json.dumps(t.to_json(), ensure_ascii=True) + "\n" for t in traces).encode()
        with disk_errors(self.path):
            try:
                view = memoryview(block)
                while view:  # a short write is legal, and what a nearly full disk gives
                    view = view[self._file.write(view) or 0 :]
                os.fdatasync(self._file.fileno())
            except OSError:
                self._file.truncate(self._end)
                raise
        self._end += len(block)
        self.done.update(t.key for t in traces)

    def close(self) -> None:
        """Give the ledger back; everything appended is on the disk already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_ledger(path: Path) -> Iterator[Trace]:
    """The whole records of a ledger, in the order in which they finished; a torn last one is left out."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                yield _parse(path, number, line)


def _parse(path: Path, number: int, line: bytes) -> Trace:
    try:
        return Trace.from_json(json.loads(line))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{path}:{number}: damaged record ({error}). The records before and after it are whole: remove this line, "
            "and the same command samples it again."
        ) from None

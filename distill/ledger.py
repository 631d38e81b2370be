"""The append-only ledger: one durable JSON line for each finished sample, so that a kill loses only what was in flight.

Enters: traces, in the order in which they finish. Leaves: the same, whole, whatever happened in between. One line:

    {"crc32": "5f0c…", "trace": {"problem_id": "9f2c…", "sample_index": 0, "text": "<think>…", …}}

A sample that will not be asked for has a line too, with the reason, until somebody asks for it after all:

    {"crc32": "81d2…", "skip": {"problem_id": "9f2c…", "sample_index": 3, "why": "2 samples are right already"}}
"""

import fcntl
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from distill.errors import StoreError
from distill.records import SampleKey, Trace
from distill.store import disk_errors, sync_folder

NUM_HEAD_BYTES = len(b'{"crc32": "00000000", ')


@dataclass(slots=True)
class Tally:
    """Counts over traces."""

    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def num_samples(self) -> int:
        return self.finish_reasons.total()

    def add(self, finish_reason: str, num_prompt_tokens: int, num_completion_tokens: int) -> None:
        """Count one trace."""
        self.finish_reasons[finish_reason] += 1
        self.num_prompt_tokens += num_prompt_tokens
        self.num_completion_tokens += num_completion_tokens

    def add_all(self, other: "Tally") -> None:
        """Count what another tally has counted."""
        self.finish_reasons.update(other.finish_reasons)
        self.num_prompt_tokens += other.num_prompt_tokens
        self.num_completion_tokens += other.num_completion_tokens


class Place(NamedTuple):
    """Where a line stands in its file, in bytes."""

    offset: int
    length: int


@dataclass(slots=True)
class LedgerIndex:
    """What a ledger holds, without the texts."""

    places: dict[SampleKey, Place] = field(default_factory=dict)
    skipped: dict[SampleKey, str] = field(default_factory=dict)
    """Samples that were not asked for, and why."""
    tally: Tally = field(default_factory=Tally)
    damaged: list[Place] = field(default_factory=list)
    """Lines whose checksum does not fit: their samples count as missing."""
    end: int = 0
    """Where the last whole line ends; what follows was cut short by a kill."""


def index_ledger(path: Path) -> LedgerIndex:
    """Read through a ledger once. A missing one is empty."""
    index = LedgerIndex()
    if not path.exists():
        return index
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            place = Place(index.end, len(line))
            index.end += len(line)
            record = _parse(line)
            if isinstance(record, Trace):
                if record.key not in index.places:
                    index.places[record.key] = place
                    index.tally.add(record.finish_reason, record.num_prompt_tokens, record.num_completion_tokens)
                index.skipped.pop(record.key, None)
            elif record is not None:
                index.skipped[(record["problem_id"], record["sample_index"])] = record["why"]
            else:
                index.damaged.append(place)
    return index


def read_ledger(path: Path) -> Iterator[Trace]:
    """The whole traces of a ledger, in the order in which they finished; torn and damaged lines are left out."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            record = _parse(line)
            if isinstance(record, Trace):
                yield record


def read_at(path: Path, places: Iterable[Place]) -> Iterator[Trace]:
    """The traces at some places of a ledger, in the places' order.

    Raises:
        StoreError: a line that was whole when the ledger was indexed is not any more.
    """
    with path.open("rb") as stream:
        for place in places:
            stream.seek(place.offset)
            record = _parse(stream.read(place.length))
            if not isinstance(record, Trace):
                raise StoreError(f"{path}: damaged at byte {place.offset} since it was read. Run the command again.")
            yield record


class Ledger:
    """Open for appending; `index.places` holds the identities that are safely in.

    A last line that a kill cut short is cut off on opening. Writing to the same ledger from two processes is refused.

    Raises:
        StoreError: another process writes to it, or the disk fails.
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
            if not _lock(self._file.fileno()):
                raise StoreError(f"{path}: another process is writing to it. Wait for it or stop it.")
            self.index = index_ledger(path)
            with disk_errors(path):
                self._file.truncate(self.index.end)
        except BaseException:
            self._file.close()
            raise

    def append(self, traces: Iterable[Trace]) -> None:
        """Write finished samples and wait until they are on the disk: one fdatasync for all of them.

        Raises:
            StoreError: the disk is full or broken; a half-written record is cut off again.
        """
        traces = list(traces)
        places = self._write([_line("trace", trace.to_json()) for trace in traces])
        for trace, place in zip(traces, places, strict=True):
            self.index.places[trace.key] = place
            self.index.skipped.pop(trace.key, None)
            self.index.tally.add(trace.finish_reason, trace.num_prompt_tokens, trace.num_completion_tokens)

    def skip(self, keys: Iterable[SampleKey], why: str) -> None:
        """Note durably that samples will not be asked for, and why.

        Raises:
            StoreError: as for `append`.
        """
        keys = list(keys)
        self._write([_line("skip", {"problem_id": name, "sample_index": i, "why": why}) for name, i in keys])
        self.index.skipped.update((key, why) for key in keys)

    def _write(self, lines: list[bytes]) -> list[Place]:
        if not lines:
            return []
        with disk_errors(self.path):
            try:
                view = memoryview(b"".join(lines))
                while view:  # a short write is legal, and what a nearly full disk gives
                    view = view[self._file.write(view) or 0 :]
                os.fdatasync(self._file.fileno())
            except OSError:
                self._file.truncate(self.index.end)
                raise
        places = []
        for line in lines:
            places.append(Place(self.index.end, len(line)))
            self.index.end += len(line)
        return places

    def close(self) -> None:
        """Give the ledger back; everything appended is on the disk already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_being_written(path: Path) -> bool:
    """Whether a process has the ledger open for appending."""
    if not path.exists():
        return False
    with path.open("rb") as stream:
        return not _lock(stream.fileno())


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _line(kind: str, content: dict[str, Any]) -> bytes:
    # Lone surrogates survive as escapes.
    member = f'"{kind}": {json.dumps(content, ensure_ascii=True)}'.encode()
    return b'{"crc32": "%08x", %s}\n' % (zlib.crc32(member), member)


def _parse(line: bytes) -> Trace | dict[str, Any] | None:
    """A line's trace, or its skip as a dict; `None` for a line that is torn or damaged."""
    member = line[NUM_HEAD_BYTES:].removesuffix(b"}\n")
    if line != b'{"crc32": "%08x", %s}\n' % (zlib.crc32(member), member):
        return None
    content: dict[str, Any]
    ((kind, content),) = json.loads(b"{%s}" % member).items()
    return Trace.from_json(content) if kind == "trace" else content

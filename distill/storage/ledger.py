"""The append-only ledger of finished samples: one durable JSON line each, so that a kill loses only samples in flight.

A line holds a trace:

    {"crc32": "5f0c…", "trace": {"problem_id": "9f2c…", "sample_index": 0, "text": "<think>…", …}}

or a skipped sample with the reason, until it is requested after all:

    {"crc32": "81d2…", "skip": {"problem_id": "9f2c…", "sample_index": 3, "why": "2 samples are right already"}}
"""

import fcntl
import json
import os
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from distill.core.records import FinishReason, SampleKey, Trace
from distill.errors import StoreError
from distill.storage.files import Closing, disk_errors, sync_folder

NUM_HEAD_BYTES = len(b'{"crc32": "00000000", ')


@dataclass(slots=True)
class Tally:
    """Counts over traces."""

    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_uncounted: int = 0
    """Traces without a token count: answered, but with no completion tokens."""
    finish_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def num_samples(self) -> int:
        return self.finish_reasons.total()

    @property
    def by_reason(self) -> dict[str, int]:
        """Return the number of traces for every finish reason."""
        return {reason: self.finish_reasons[reason] for reason in get_args(FinishReason)}

    def add(self, finish_reason: str, num_prompt_tokens: int, num_completion_tokens: int) -> None:
        """Count one trace."""
        self.finish_reasons[finish_reason] += 1
        self.num_prompt_tokens += num_prompt_tokens
        self.num_completion_tokens += num_completion_tokens
        self.num_uncounted += not num_completion_tokens and finish_reason != "error"

    def add_all(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        self.finish_reasons.update(other.finish_reasons)
        self.num_prompt_tokens += other.num_prompt_tokens
        self.num_completion_tokens += other.num_completion_tokens
        self.num_uncounted += other.num_uncounted


class RecordLocation(NamedTuple):
    """The position of a line in its file, in bytes."""

    offset: int
    length: int


@dataclass(slots=True)
class LedgerIndex:
    """The content of a ledger, without the texts."""

    places: dict[SampleKey, RecordLocation] = field(default_factory=dict)
    skipped: dict[SampleKey, str] = field(default_factory=dict)
    """Samples that were not requested, and why."""
    tally: Tally = field(default_factory=Tally)
    errors: set[SampleKey] = field(default_factory=set)
    """Samples of `places` that the engine failed to answer."""
    damaged: list[RecordLocation] = field(default_factory=list)
    """Lines with a wrong checksum. Their samples count as missing."""
    end: int = 0
    """End of the last complete line. What follows was cut short by a kill."""

    def add(self, trace: Trace, place: RecordLocation) -> None:
        """Add a trace. Of several with one key the first counts, unless it is an error and a later one is not."""
        is_error = trace.finish_reason == "error"
        if trace.key in self.places:
            if is_error or trace.key not in self.errors:
                return
            self.errors.remove(trace.key)
            self.tally.finish_reasons["error"] -= 1
        elif is_error:
            self.errors.add(trace.key)
        self.places[trace.key] = place
        self.skipped.pop(trace.key, None)
        self.tally.add(trace.finish_reason, trace.num_prompt_tokens, trace.num_completion_tokens)


def index_ledger(path: Path) -> LedgerIndex:
    """Index a ledger in one pass. A missing file counts as empty."""
    index = LedgerIndex()
    if not path.exists():
        return index
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            place = RecordLocation(index.end, len(line))
            index.end += len(line)
            record = _parse(line)
            if isinstance(record, Trace):
                index.add(record, place)
            elif record is not None:
                index.skipped[(record["problem_id"], record["sample_index"])] = record["why"]
            else:
                index.damaged.append(place)
    return index


def read_ledger(path: Path) -> Iterator[Trace]:
    """Yield the intact traces of a ledger, in the order in which they finished. Skip torn and damaged lines."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            record = _parse(line)
            if isinstance(record, Trace):
                yield record


def read_at(path: Path, places: Iterable[RecordLocation]) -> Iterator[Trace]:
    """Yield the traces at the given places of a ledger, in that order; without any, the file need not exist.

    Raises:
        StoreError: a line has been damaged since the ledger was indexed.
    """
    places = list(places)
    if not places:
        return
    with path.open("rb") as stream:
        for place in places:
            stream.seek(place.offset)
            record = _parse(stream.read(place.length))
            if not isinstance(record, Trace):
                raise StoreError(
                    f"{path}: damaged at byte {place.offset} since it was read. Run the command again: "
                    "samples that fail their checksum are drawn again."
                )
            yield record


class Ledger(Closing):
    """A ledger that is open for appending. `index.places` holds the keys of its traces.

    A record survives the process once `append` has returned, and the machine after the next `sync`, which a separate
    thread performs continuously so that appending never waits for the disk. Opening truncates a last line that a kill
    cut short. Only one process can write to a ledger.

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
        self._syncer = _Syncer(self._file.fileno(), self.index.end)

    def append(self, traces: Iterable[Trace]) -> None:
        """Write finished samples. One fdatasync makes durable all that were written while the previous one ran.

        Raises:
            StoreError: the disk is full or broken. What has not reached it is truncated.
        """
        traces = list(traces)
        places = self._write([_line("trace", trace.to_json()) for trace in traces])
        for trace, place in zip(traces, places, strict=True):
            self.index.add(trace, place)

    def skip(self, keys: Iterable[SampleKey], why: str) -> None:
        """Record that samples will not be requested, and why.

        Raises:
            StoreError: as for `append`.
        """
        keys = list(keys)
        self._write([_line("skip", {"problem_id": name, "sample_index": i, "why": why}) for name, i in keys])
        self.index.skipped.update((key, why) for key in keys)

    def sync(self) -> None:
        """Wait until everything appended is on the disk.

        Raises:
            StoreError: as for `append`.
        """
        self._cut_back_if_broken(self._syncer.wait())

    def _write(self, lines: list[bytes]) -> list[RecordLocation]:
        if not lines:
            return []
        with disk_errors(self.path):
            try:
                view = memoryview(b"".join(lines))
                while view:  # writes may be short, as on a nearly full disk
                    view = view[self._file.write(view) or 0 :]
            except OSError:
                self._file.truncate(self.index.end)
                raise
        places = []
        for line in lines:
            places.append(RecordLocation(self.index.end, len(line)))
            self.index.end += len(line)
        self._cut_back_if_broken(self._syncer.written(self.index.end))
        return places

    def _cut_back_if_broken(self, error: OSError | None) -> None:
        if error is not None:
            with disk_errors(self.path):
                self._file.truncate(self._syncer.durable_end)
                raise error

    def close(self) -> None:
        """Close the ledger once everything appended is on the disk.

        Raises:
            StoreError: as for `append`.
        """
        if self._file.closed:
            return
        try:
            self.sync()
        finally:
            self._syncer.stop()
            self._file.close()


class _Syncer:
    """A thread that calls fdatasync, once for everything written during the previous call."""

    def __init__(self, descriptor: int, end: int) -> None:
        self._descriptor = descriptor
        self.durable_end = end
        """The file is on the disk up to this byte."""
        self._end = end
        self._error: OSError | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def written(self, end: int) -> OSError | None:
        """Report how far the file has been written. Return an error that syncing has met, if any."""
        with self._changed:
            self._end = end
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-sync", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._error

    def wait(self) -> OSError | None:
        """Wait until everything written is durable. Return an error that syncing has met, if any."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self.durable_end >= self._end)
            return self._error

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self.durable_end < self._end)
                if self._stopping:
                    return
                end = self._end
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self.durable_end = end
                self._changed.notify_all()


def is_being_written(path: Path) -> bool:
    """Return whether a process has the ledger open for appending."""
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
    # ASCII escapes preserve lone surrogates, which UTF-8 cannot encode.
    member = f'"{kind}": {json.dumps(content, ensure_ascii=True)}'.encode()
    return b'{"crc32": "%08x", %s}\n' % (zlib.crc32(member), member)


def _parse(line: bytes) -> Trace | dict[str, Any] | None:
    """Return a line's trace, or its skip as a dict; `None` for a torn or damaged line."""
    member = line[NUM_HEAD_BYTES:].removesuffix(b"}\n")
    if line != b'{"crc32": "%08x", %s}\n' % (zlib.crc32(member), member):
        return None
    content: dict[str, Any]
    ((kind, content),) = json.loads(b"{%s}" % member).items()
    return Trace.from_json(content) if kind == "trace" else content

"""Rows of a Parquet file, decoded in a confined process with limits: a file of 2 kB may stand for terabytes.

Enters: a path. Leaves: rows as plain values, a few megabytes in memory at a time; `None` for a row whose bytes are no
text.

A dictionary, a run or a compressed page may say the same long text any number of times. So the rows of a batch are
bounded by the largest that each could be, and the process by its address space and its time.
"""

import datetime
import decimal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from distill.errors import ProblemError
from distill.isolation import CrashError, FunctionError, IsolationError, MemoryLimitError, TimeLimitError
from distill.isolation.kept_worker import KeptWorker

PRELOAD = ("pyarrow.parquet",)
READ_ROWS = 64
"""Rows that are decoded at a time, at most."""
BATCH_BYTES = 256 << 20
"""What they may take decoded, where each were as large as its whole column."""
ANSWER_BYTES = 4 << 20
"""Rows that travel together."""
SENT_BYTES = 16 << 20
"""A file of this size or less is sent; a larger one is read by the confined process, which is then one of its own."""
MEMORY_GIB = 3.0
TIMEOUT_S = 60.0
"""For the next few megabytes of rows, in seconds."""
MAX_ROWS_PER_BYTE = 1_000
"""More rows than this times the file's size hold nothing: they would only be counted, for years."""
_SENT_AS_TEXT = {
    decimal.Decimal: decimal.Decimal,
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
}
"""Classes that JSON does not have -> how one is made of its text."""
_MARK = "as text"


def parquet_rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """The rows of a Parquet file; `None` stands for one whose bytes are no text (Parquet writers do not all check).

    Raises:
        ProblemError: it is broken, or decoding it takes too much memory or time.
    """
    is_small = path.stat().st_size <= SENT_BYTES
    read_paths = () if is_small else (path.resolve(),)
    num_rows = 0
    with closing(KeptWorker(PRELOAD, MEMORY_GIB, read_paths)) as worker:
        try:
            worker.call(open_table, path.read_bytes() if is_small else str(path.resolve()), TIMEOUT_S)
            while rows := worker.call(next_rows, None, TIMEOUT_S):
                for row in rows:
                    num_rows += 1
                    yield None if row is None else {name: _unpacked(value) for name, value in row.items()}
        except IsolationError as error:
            after = f" after row {num_rows}" if num_rows else ""
            raise ProblemError(f"file:{path}: {_why(error)}{after}.") from None


def _why(error: IsolationError) -> str:
    smaller = "write it with smaller row groups and pages, or as JSONL"
    if isinstance(error, FunctionError) and error.name == "WireError":
        return f"a row is too large to be used; {smaller}; it failed"
    if isinstance(error, FunctionError):
        return f"not a Parquet file that can be read ({' '.join(error.said.split())[:300]})"
    if isinstance(error, MemoryLimitError):
        return f"decoding it takes more than {MEMORY_GIB:g} GiB of memory; {smaller}; it failed"
    if isinstance(error, TimeLimitError):
        return f"decoding it takes longer than {TIMEOUT_S:g} s for the next rows; {smaller}; it failed"
    assert isinstance(error, CrashError)
    return f"not a Parquet file that can be read: the process that decodes it ended; {smaller}; it failed"


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unpacked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unpacked(inner) for inner in value]
    if isinstance(value, tuple):
        if len(value) == 3 and value[0] == _MARK:  # a pair of a map has two
            return next((make(value[2]) for kind, make in _SENT_AS_TEXT.items() if kind.__name__ == value[1]), value[2])
        return tuple(_unpacked(inner) for inner in value)
    return value


# From here on: the confined process.

_rows: Iterator[list[dict[str, Any] | None]] = iter(())


def open_table(source: bytes | str) -> None:
    """Open a file, given by its content or its path, for `next_rows`."""
    global _rows
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_memory_pool(pa.system_memory_pool())  # others reserve address space ahead, which is bounded here
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    table = pq.ParquetFile(reader, buffer_size=1 << 20, pre_buffer=False)
    if table.metadata.num_rows > MAX_ROWS_PER_BYTE * size:
        raise ValueError(f"it claims {table.metadata.num_rows:,} rows in {size:,} bytes")
    _rows = _answers(table)


def next_rows(_: None) -> list[dict[str, Any] | None]:
    """The next rows of the file that was opened; empty at its end."""
    return next(_rows, [])


def _answers(table: Any) -> Iterator[list[dict[str, Any] | None]]:
    answer: list[dict[str, Any] | None] = []
    num_bytes = 0
    for group in range(table.num_row_groups):
        about = table.metadata.row_group(group)
        size = sum(about.column(i).total_uncompressed_size for i in range(about.num_columns))
        num_rows = max(1, min(READ_ROWS, BATCH_BYTES // max(1, size)))
        for batch in table.iter_batches(batch_size=num_rows, row_groups=[group], use_threads=False):
            parts = [batch] if batch.nbytes <= ANSWER_BYTES else (batch.slice(i, 1) for i in range(batch.num_rows))
            for part in parts:
                answer += _values(part)
                num_bytes += batch.nbytes * part.num_rows // max(1, batch.num_rows)
                if num_bytes >= ANSWER_BYTES:
                    yield answer
                    answer, num_bytes = [], 0
    if answer:
        yield answer


def _values(batch: Any) -> list[dict[str, Any] | None]:
    try:
        return [{name: _packed(value) for name, value in row.items()} for row in batch.to_pylist()]
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for i in range(batch.num_rows) for row in _values(batch.slice(i, 1))]


def _packed(value: Any) -> Any:
    """A value that can be sent (`distill.isolation.wire`)."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if isinstance(value, list):
        return [_packed(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _packed(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_packed(inner) for inner in value)
    text = value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
    return (_MARK, next((kind.__name__ for kind in _SENT_AS_TEXT if type(value) is kind), "str"), text)

"""Decode the rows of a Parquet file in a confined process with limits: a file of 2 kB may expand to terabytes.

A dictionary, a run or a compressed page may repeat the same long text any number of times. So the number of rows in a
batch is bounded by the largest size that each could have, and the process by its address space and time.
"""

import base64
import datetime
import decimal
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from distill.core.table_cells import plain_row
from distill.errors import ProblemError
from distill.isolation import CrashError, FunctionError, IsolationError, MemoryLimitError, TimeLimitError
from distill.isolation.kept_worker import KeptWorker

PRELOAD = ("pyarrow.parquet",)
READ_ROWS = 64
"""Maximum number of rows decoded at a time."""
BATCH_BYTES = 256 << 20
"""Maximum decoded size of these rows, if each were as large as its whole row group."""
ANSWER_BYTES = 4 << 20
"""Size of the rows that are sent back together."""
SENT_BYTES = 16 << 20
"""A file up to this size is sent to a shared process; a larger one is read by a confined process of its own."""
MEMORY_GIB = 3.0
TIMEOUT_S = 60.0
"""Time limit for the next few megabytes of rows, in seconds."""
MAX_ROWS_PER_BYTE = 100
"""With more rows per byte of file, the rows are empty, and merely counting them could take years."""
MAX_ROW_BYTES = 64 << 20
MAX_GROWTH, FREE_BYTES = 1_000, 256 << 20
"""A file may expand by this factor, and in any case to this size; text expands tenfold to a hundredfold."""
_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "bytes": base64.b64decode,
    "Decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
}
"""Class that JSON lacks -> function that makes an instance from text."""
_MARK = "\0class"
_MARK_IN_JSON = json.dumps(_MARK)


def parquet_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    """Yield the rows of a Parquet file; instead of an unreadable row, the reason as text (some writers do not check).

    Raises:
        ProblemError: the file is broken, or decoding it takes too much memory or time.
    """
    is_small = path.stat().st_size <= SENT_BYTES
    read_paths = () if is_small else (path.resolve(),)
    num_rows = 0
    with closing(KeptWorker(PRELOAD, MEMORY_GIB, read_paths)) as worker:
        try:
            worker.call(open_table, path.read_bytes() if is_small else str(path.resolve()), TIMEOUT_S)
            while answer := worker.call(next_rows, None, TIMEOUT_S):
                for row in _decoded(answer):
                    num_rows += 1
                    yield row
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


def _decoded(answer: Any) -> list[dict[str, Any] | str]:
    """Decode rows from the confined process, which the file may have compromised.

    Raises:
        CrashError: they are not rows.
    """
    try:
        rows = json.loads(answer, object_hook=_instance if _MARK_IN_JSON in answer else None)
        if all(isinstance(row, dict | str) for row in rows):
            return list(rows)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        pass
    raise CrashError("its reply is not a list of rows")


def _instance(found: dict[str, Any]) -> Any:
    return _FROM_TEXT[found[_MARK]](found["text"]) if found.get(_MARK) in _FROM_TEXT else found


# Everything below runs in the confined process.

_rows: Iterator[list[dict[str, Any] | str]] = iter(())


def open_table(source: bytes | str) -> None:
    """Open a file, given by its content or its path, for `next_rows`."""
    global _rows
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_memory_pool(pa.system_memory_pool())  # other pools reserve address space ahead, which is limited here
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    table = pq.ParquetFile(reader, buffer_size=1 << 20, pre_buffer=False)
    if table.metadata.num_rows > MAX_ROWS_PER_BYTE * size:
        raise ValueError(f"it claims {table.metadata.num_rows:,} rows in {size:,} bytes")
    _rows = _answers(table, max(FREE_BYTES, MAX_GROWTH * size))


def next_rows(_: None) -> str:
    """Return the next rows of the open file as a JSON list; empty at its end."""
    rows = next(_rows, None)
    # As one text: encoding each value for transport costs twenty times as much.
    return "" if rows is None else json.dumps(rows, separators=(",", ":"), default=_as_text)


def _answers(table: Any, bytes_left: int) -> Iterator[list[dict[str, Any] | str]]:
    answer: list[dict[str, Any] | str] = []
    num_bytes = 0
    for group in range(table.num_row_groups):
        about = table.metadata.row_group(group)
        size = sum(about.column(i).total_uncompressed_size for i in range(about.num_columns))
        num_rows = max(1, min(READ_ROWS, BATCH_BYTES // max(1, size)))
        for batch in table.iter_batches(batch_size=num_rows, row_groups=[group], use_threads=False):
            batch = _without_dictionaries(batch)
            parts = [batch] if batch.nbytes <= ANSWER_BYTES else (batch.slice(i, 1) for i in range(batch.num_rows))
            for part in parts:
                num_bytes += part.nbytes
                bytes_left -= part.nbytes
                if part.num_rows == 1 and part.nbytes > MAX_ROW_BYTES:
                    raise ValueError(f"a row takes {part.nbytes:,} bytes, of at most {MAX_ROW_BYTES:,}")
                if bytes_left < 0:
                    raise ValueError("decoded, it takes more than a thousand times its size")
                answer += _values(part)
                if num_bytes >= ANSWER_BYTES:
                    yield answer
                    answer, num_bytes = [], 0
    if answer:
        yield answer


def _without_dictionaries(batch: Any) -> Any:
    """Expand dictionary columns, so that the size of the batch is what its rows take."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if pa.types.is_dictionary(field.type):
            batch = batch.set_column(place, field.name, batch.column(place).dictionary_decode())
    return batch


def _values(batch: Any) -> list[dict[str, Any] | str]:
    try:
        return [*map(plain_row(batch.schema), batch.to_pylist())]
    except (ValueError, OverflowError) as error:
        if batch.num_rows > 1:
            return [row for i in range(batch.num_rows) for row in _values(batch.slice(i, 1))]
        if isinstance(error, UnicodeDecodeError):
            return ["its text is not UTF-8."]
        return [f"a date or number of it is out of range ({error})."]


def _as_text(value: Any) -> dict[str, str] | str:
    if isinstance(value, bytes):
        return {_MARK: "bytes", "text": base64.b64encode(value).decode()}
    name = type(value).__name__
    if name not in _FROM_TEXT:
        return str(value)
    return {_MARK: name, "text": str(value) if name == "Decimal" else value.isoformat()}

"""Write rows to Parquet shards named `train-00000-of-00003.parquet`, each with its sha256 and number of rows."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import StoreError
from distill.storage.files import refuse_pipe
from distill.storage.fingerprints import sha256_of

if TYPE_CHECKING:
    import pyarrow

SHARD_BYTES = 256 << 20
"""A shard is closed once its file has this size."""
ROW_GROUP_BYTES = 32 << 20
ROW_GROUP_ROWS = 1_024


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Report every failure to read a shard with the same message.

    Raises:
        StoreError: it is missing, not Parquet, or has other columns than distill writes.
    """
    import pyarrow as pa

    try:
        refuse_pipe(path)
        yield
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        why = str(error).partition("\n")[0][:200]
        stage = path.parent.parent.name.partition(".")[0]
        raise StoreError(f"{path}: cannot be read ({why}). `distill {stage}` makes it again.") from None


class ShardWriter:
    """A writer of one Parquet file after another, which `close` gives their final names.

    Args:
        folder: a new folder for the files.
        schema: columns and types, given explicitly so that every shard has the same.
    """

    def __init__(self, folder: Path, schema: "pyarrow.Schema") -> None:
        folder.mkdir(parents=True)
        self._folder, self._schema = folder, schema
        self._num_rows: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0
        self._file: Any = None
        self._writer: Any = None

    def write(self, row: dict[str, Any], num_bytes: int) -> None:
        """Add a row whose texts take about `num_bytes`."""
        self._rows.append(row)
        self._num_bytes += num_bytes
        if self._num_bytes >= ROW_GROUP_BYTES or len(self._rows) >= ROW_GROUP_ROWS:
            self._write_row_group()

    def _write_row_group(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._file = (self._folder / str(len(self._num_rows))).open("wb")
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
            self._num_rows.append(0)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._num_rows[-1] += len(self._rows)
        self._rows, self._num_bytes = [], 0
        if self._file.tell() >= SHARD_BYTES:
            self._close_file()

    def _close_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None

    def close(self, at_least_one: bool = True) -> dict[str, dict[str, Any]]:
        """Close the last file, and give all files their final names.

        Args:
            at_least_one: whether to write an empty file if there were no rows.

        Returns:
            File name -> its sha256 (hex) and its number of rows.
        """
        if self._rows or (at_least_one and not self._num_rows):
            self._write_row_group()
        self._close_file()
        shards = {}
        for number, num_rows in enumerate(self._num_rows):
            name = f"train-{number:05d}-of-{len(self._num_rows):05d}.parquet"
            file = (self._folder / str(number)).rename(self._folder / name)
            shards[name] = {"sha256": sha256_of(file), "num_rows": num_rows}
        return shards

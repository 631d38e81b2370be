"""Read rows of JSONL, JSON, CSV or Parquet files and of Hub datasets, each with its place.

    ("file:/data/rows.jsonl:12", {"problem": "What is 2 + 2?", "answer": "4"})

JSONL, CSV, Parquet and Hub rows are streamed; a JSON file is read whole, up to 256 MiB. Folders, pipes and devices are
rejected, because they may never end.
"""

import csv
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from distill.core.file_kinds import FILE, MISSING, kind_of
from distill.core.table_cells import plain_row
from distill.errors import ProblemError
from distill.sources.parquet_tables import parquet_rows

Row = tuple[str, Mapping[str, Any]]
"""The place of a row (`file.jsonl:12`), and the row."""

OnBad = Callable[[str, str], None]
"""Callback for a row that cannot be read, with its place and the reason."""

KINDS = (".jsonl", ".json", ".csv", ".parquet")
MAX_LINE_BYTES = 32 << 20
"""Maximum length of a JSONL line; one that only opens lists takes forty times its size in memory."""
MAX_LONG_LINE_BYTES = 256 << 20
"""The same where rows hold the tests of programs, as long as most of the line is text: it may have no more brackets and
commas than a line of the other length."""
MAX_JSON_BYTES = 256 << 20


def refuse(place: str, why: str) -> None:
    """Raise at a bad row: the default of `on_bad`.

    Raises:
        ProblemError: always, with the place and the reason.
    """
    raise ProblemError(f"{place}: {why}")


def file_rows(path: Path, on_bad: OnBad = refuse, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: `.jsonl`, `.json` (a list of objects), `.csv` (with a header) or `.parquet`.
        on_bad: called for each row that cannot be read; if it returns, the next row is read.
        max_line_bytes: longest line of JSONL.

    Raises:
        ProblemError: the file is missing, of an unknown kind, or broken as a whole; by default also at a bad row.
    """
    suffix = path.suffix.lower()
    try:
        kind = kind_of(path)
        if kind == MISSING:
            raise ProblemError(f"file:{path}: no such file. A relative path is relative to the recipe's folder.")
        if kind != FILE:
            raise ProblemError(f"file:{path}: is {kind}. Name a file of rows: .jsonl, .json, .csv or .parquet.")
        if suffix not in KINDS:
            raise ProblemError(
                f"file:{path}: unknown kind of file {suffix!r}; expected .jsonl, .json, .csv or .parquet."
            )
        path.open("rb").close()
    except OSError as error:
        raise ProblemError(f"file:{path}: cannot be read ({error.strerror}).") from None
    readers: dict[str, Callable[[Path, OnBad], Iterator[tuple[str, Any]]]] = {
        ".jsonl": functools.partial(_jsonl_rows, max_line_bytes=max_line_bytes),
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    for place, row in readers[suffix](path, on_bad):
        if isinstance(row, dict):
            yield place, row
        else:
            on_bad(place, f"expected an object with columns, found a {type(row).__name__}.")


def hub_rows(
    name: str, config: str | None, split: str, revision: str | None, files: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield the rows of a Hub dataset's split, or of some files in its repository.

    Raises:
        ProblemError: the dataset or the file cannot be loaded (see `distill.models.hub.load_hub_dataset`).
    """
    from distill.models.hub import hub_dataset_file, load_hub_dataset

    for file in files:
        path = hub_dataset_file(name, file, (name, config, split, revision))
        for place, row in file_rows(path, max_line_bytes=MAX_LONG_LINE_BYTES):
            yield f"hf:{name}/{file}{place.removeprefix('file:').rpartition(Path(file).name)[2]}", row
    if files:
        return

    rows = load_hub_dataset(name, config, split, revision)
    plain = plain_row(rows.features.arrow_schema) if hasattr(rows, "features") else dict
    for number, row in enumerate(rows):
        yield f"hf:{name}[{split}] row {number}", plain(row)


def _jsonl_rows(path: Path, on_bad: OnBad, max_line_bytes: int) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(_lines(stream, max_line_bytes), start=1):
            if line is not None and not line.strip():
                continue
            place = f"file:{path}:{number}"
            if line is None:
                on_bad(place, f"the line is longer than {max_line_bytes >> 20} MiB. A row of JSONL is one line.")
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                on_bad(place, "not UTF-8. Save the file as UTF-8.")
            except json.JSONDecodeError as error:
                on_bad(place, f"not valid JSON: {error.msg}.")
            except (ValueError, RecursionError) as error:
                on_bad(place, f"not usable JSON: {_unusable(error)}.")
            else:
                yield place, row


def _lines(stream: BinaryIO, most: int) -> Iterator[bytes | None]:
    """Yield the lines of a file; `None` for a line that is too long."""
    while line := stream.readline(most + 1):
        is_whole = len(line) <= most or line.endswith(b"\n")
        if is_whole and (len(line) <= MAX_LINE_BYTES or sum(map(line.count, (b"[", b"{", b","))) <= MAX_LINE_BYTES):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(most)
        yield None


def _json_rows(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ProblemError(
            f"file:{path}: larger than {MAX_JSON_BYTES >> 20} MiB, and a JSON file is read whole. Save it as JSONL, "
            "which is read row by row."
        )
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ProblemError(f"file:{path}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ProblemError(f"file:{path}:{error.lineno}: not valid JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"file:{path}: not usable JSON: {_unusable(error)}.") from None
    if not isinstance(rows, list):
        raise ProblemError(f"file:{path}: expected a list of objects, found a {type(rows).__name__}. Wrap it in [ ].")
    yield from ((f"file:{path} row {number}", row) for number, row in enumerate(rows, start=1))


def _csv_rows(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream, strict=True)
        try:
            for row in rows:
                place = f"file:{path}:{rows.line_num}"
                if None in row or None in row.values():
                    on_bad(place, f"has another number of cells than the header ({len(rows.fieldnames or ())}).")
                else:
                    yield place, row
        except UnicodeDecodeError:
            raise ProblemError(f"file:{path}: not UTF-8. Save it as UTF-8.") from None
        except csv.Error as error:
            raise ProblemError(f"file:{path}:{rows.line_num}: not valid CSV: {error}.") from None


def _unusable(error: Exception) -> str:
    """Return why valid JSON cannot be used."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    limit = sys.get_int_max_str_digits()
    return f"it holds a number of more than {limit:,} digits" if "digits" in str(error) else str(error)


def _parquet_rows(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(parquet_rows(path), start=1):
        place = f"file:{path} row {number}"
        if isinstance(row, str):
            on_bad(place, row)
        else:
            yield place, row

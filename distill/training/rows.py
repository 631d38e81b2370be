"""Render kept rows with the chat template and tokenise them, with the loss on the completion only.

The input is a folder of Parquet files with `prompt` and `completion`, both chat messages. The result is a memory-mapped
`datasets.Dataset` in the order of the files' rows:

    {"input_ids": [1, 4093, …, 2, 198], "labels": [-100, -100, …, 2, 198], "length": 214}

Tokens and labels equal those of TRL's SFTTrainer with `completion_only_loss`: the prompt and the whole conversation are
rendered and tokenised separately, and the completion starts where they diverge. Text that a template puts after the
stop token (ChatML's line break) is trained too, as in TRL.

`<cache>/<key>/` holds one Arrow stream for each row group of the source, and `index.json` with their order. The key is
a hash of the rows' bytes, the tokenizer and its template, so rows of another template are never read.
"""

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.progress import ProgressBar
from distill.errors import ModelError, ProblemError, StoreError
from distill.execution.jobs import end_with_parent
from distill.models.chat_templates import TemplateError, render_all
from distill.models.tokenizers import Tokenizer, encode_all
from distill.storage.files import disk_errors, read_object, replace_folder, sync_tree, write_json
from distill.storage.fingerprints import sha256_of

if TYPE_CHECKING:
    import numpy as np

    from distill.core.records import Message

VERSION = 1
"""Increased when the same rows and tokenizer give other token rows."""

IGNORED = -100
"""Label of a token excluded from the loss."""

COLUMNS = ("prompt", "completion")
IDENTITY = ("problem_id", "sample_index")
INDEX = "index.json"
BATCH_ROWS = 64
"""Rows in memory at a time, and per record batch."""
PARALLEL_FROM_BYTES = 64 << 20
"""For less text than this, starting processes takes longer than they save."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A kept row before it is rendered."""

    name: str
    """`problem_id/sample_index`, else file and row number."""
    prompt: "list[Message]"
    completion: "list[Message]"


@dataclass(frozen=True, slots=True)
class _Part:
    """A row group of a Parquet file."""

    file: Path
    row_group: int
    first_row: int
    """Index of its first row in the file."""
    num_rows: int
    num_bytes: int
    """Uncompressed."""


def token_rows(kept: Path, tokenizer: Tokenizer, cache: Path, workers: int | None = None) -> Any:
    """Return the rows of `kept` as token rows, made once and then read from `cache`.

    If several processes ask for the same rows at once, one makes them and the others wait.

    Args:
        kept: folder of Parquet files with `prompt` and `completion`.
        tokenizer: from `load_tokenizer`, with the chat template to train.
        cache: a folder used by this run only; rows of other content in it are removed.
        workers: tokenising processes; left out: one per core for large data, else none.

    Returns:
        A memory-mapped `datasets.Dataset` with `input_ids` and `labels` (T,) and `length` (T).

    Raises:
        ProblemError: no rows, wrong columns, or malformed messages.
        ModelError: the chat template cannot render a row.
        StoreError: the disk is full or not writable; incomplete rows are never used.
    """
    parts = _parts_of(kept)
    key = _content_key(kept, tokenizer)
    folder = cache / key
    with _only_maker(cache):
        if _indexed(folder) is None:
            _remove_other_rows(cache)
            _make(parts, tokenizer, folder, workers)
    return _open(folder)


def count_rows(kept: Path) -> int:
    """Return the number of rows in `kept`, reading only the files' footers.

    Raises:
        ProblemError: no rows, or wrong columns.
    """
    return sum(part.num_rows for part in _parts_of(kept))


def row_lengths(rows: Any) -> "np.ndarray[Any, Any]":
    """Return the number of tokens of each row, (N,)."""
    lengths: np.ndarray[Any, Any] = rows.select_columns(["length"]).with_format("numpy")[:]["length"]
    return lengths


def source_rows(kept: Path) -> Iterator[SourceRow]:
    """Yield the rows of `kept` in the order of their token rows, with a few in memory at a time.

    Raises:
        ProblemError: no rows, wrong columns, or malformed messages.
    """
    for part in _parts_of(kept):
        for rows in _batches(part):
            yield from rows


def source_row(kept: Path, number: int) -> SourceRow:
    """Return row `number` of `kept`, counted from 0 over all files; reads at most one row group."""
    for part in _parts_of(kept):
        if number < part.num_rows:
            return next(islice((row for rows in _batches(part) for row in rows), number, None))
        number -= part.num_rows
    raise IndexError(number)


def tokenise(tokenizer: Tokenizer, rows: list[SourceRow]) -> list[tuple[list[int], int]]:
    """Return, for each row, the ids of the whole conversation (T,) and the number of leading ids that are not trained.

    Raises:
        ModelError: the chat template cannot render a row.
    """
    prompts = render_rows(tokenizer, rows, whole=False)
    wholes = render_rows(tokenizer, rows, whole=True)
    ids = encode_all(tokenizer, prompts + wholes)
    pairs = zip(ids[: len(rows)], ids[len(rows) :], strict=True)
    return [(whole, _common_prefix(prompt, whole)) for prompt, whole in pairs]


def render_rows(tokenizer: Tokenizer, rows: Sequence[SourceRow], whole: bool) -> list[str]:
    """Return each row's text, whole or up to the assistant's turn.

    Raises:
        ModelError: the chat template cannot render a row.
    """
    conversations = [row.prompt + row.completion if whole else row.prompt for row in rows]
    try:
        return render_all(tokenizer, conversations, add_generation_prompt=not whole)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in conversations[error.index])
        raise ModelError(
            f"row {rows[error.index].name}: the chat template cannot render it ({error.why}); its roles are {roles}. "
            "Give the student another template with sft.chat_template."
        ) from None


def _common_prefix(ids: list[int], others: list[int]) -> int:
    """Return the number of leading ids that two sequences share."""
    num = min(len(ids), len(others))
    if ids[:num] == others[:num]:
        return num
    return next(i for i in range(num) if ids[i] != others[i])


def _parts_of(kept: Path) -> list[_Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: list[_Part] = []
    for file in sorted(kept.glob("*.parquet")):
        try:
            with closing(pq.ParquetFile(file)) as table:
                _check_columns(file, table.schema_arrow)
                groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise ProblemError(
                f"{file}: not a Parquet file that can be read ({str(error).strip()[:200]}). "
                "Move the filter's folder away and run `distill filter` again."
            ) from None
        starts = [0]
        for group in groups:
            starts.append(starts[-1] + group.num_rows)
        parts += [
            _Part(file, i, start, end - start, groups[i].total_byte_size)
            for i, (start, end) in enumerate(pairwise(starts))
            if end > start
        ]
    if not parts:
        raise ProblemError(
            f"{kept}: holds no rows to train on. Expected Parquet files with the columns prompt and completion, both "
            "chat messages; `distill filter` writes them."
        )
    return parts


def _check_columns(file: Path, schema: Any) -> None:
    expected = "Expected: prompt and completion, each a list of chat messages with role and content."
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        found = ", ".join(schema.names) or "none"
        raise ProblemError(f"{file}: has no column {' and no '.join(missing)}; its columns are {found}. {expected}")
    for name in COLUMNS:
        if not _holds_messages(schema.field(name).type):
            raise ProblemError(f"{file}: column {name} is of type {schema.field(name).type}. {expected}")


def _holds_messages(kind: Any) -> bool:
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {field.name: field.type for field in kind.value_type}
    is_text: Callable[[Any], bool] = lambda t: pa.types.is_string(t) or pa.types.is_large_string(t)  # noqa: E731
    return all(name in fields and is_text(fields[name]) for name in ("role", "content"))


def _batches(part: _Part) -> Iterator[list[SourceRow]]:
    import pyarrow.parquet as pq

    number = part.first_row
    with closing(pq.ParquetFile(part.file)) as table:
        columns = [name for name in (*COLUMNS, *IDENTITY) if name in table.schema_arrow.names]
        for batch in table.iter_batches(batch_size=BATCH_ROWS, row_groups=[part.row_group], columns=columns):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:
                raise ProblemError(
                    f"{part.file}: a text in rows {number} to {number + batch.num_rows - 1} is not UTF-8. "
                    "Move the filter's folder away and run `distill filter` again."
                ) from None
            yield [_source_row(part, number + i, row) for i, row in enumerate(rows)]
            number += len(rows)


def _source_row(part: _Part, number: int, row: Mapping[str, Any]) -> SourceRow:
    has_identity = row.get("problem_id") is not None and row.get("sample_index") is not None
    name = f"{row['problem_id']}/{row['sample_index']}" if has_identity else f"{part.file.name} row {number}"
    for column in COLUMNS:
        messages = row[column]
        if not messages or any(m is None or m["role"] is None or m["content"] is None for m in messages):
            raise ProblemError(
                f"{part.file}: row {name}: {column} is empty or has a message without role or content. Every row needs "
                "chat messages in prompt and completion."
            )
    if row["completion"][-1]["role"] != "assistant":
        role = row["completion"][-1]["role"]
        raise ProblemError(
            f"{part.file}: row {name}: the completion ends with a message of {role!r}. It must end with the "
            "assistant's, which is what the student learns."
        )
    return SourceRow(name, row["prompt"], row["completion"])


def _content_key(kept: Path, tokenizer: Tokenizer) -> str:
    """Return a hash (24 hex digits) of everything that determines the token rows; file names determine their order."""
    digest = hashlib.sha256(f"{VERSION}\n".encode())
    for file in sorted(kept.glob("*.parquet")):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    digest.update(json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str).encode())
    digest.update(json.dumps(tokenizer.chat_template, sort_keys=True).encode())
    if getattr(tokenizer, "is_fast", False):
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    return digest.hexdigest()[:24]


@contextmanager
def _only_maker(cache: Path) -> Iterator[None]:
    """Hold the lock of the cache; other processes wait."""
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        stream = (cache / ".lock").open("a")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the OS releases it even if this process is killed
        yield


def _remove_other_rows(cache: Path) -> None:
    """Remove incomplete rows and those of other content, which take eight bytes per token."""
    for folder in cache.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _make(parts: list[_Part], tokenizer: Tokenizer, folder: Path, workers: int | None) -> None:
    staging = folder.with_name(f"{folder.name}.partial")
    names = [f"rows-{number:05d}.arrow" for number in range(len(parts))]
    if workers is None:
        is_large = sum(part.num_bytes for part in parts) >= PARALLEL_FROM_BYTES
        workers = len(os.sched_getaffinity(0)) if is_large else 1
    with disk_errors(staging), ProgressBar("tokenise", sum(part.num_rows for part in parts), "rows") as progress:
        staging.mkdir()
        tasks = [(part, staging / name) for part, name in zip(parts, names, strict=True)]
        if min(workers, len(tasks)) > 1:
            _write_parts_in_parallel(tasks, tokenizer, min(workers, len(tasks)), progress)
        else:
            for part, target in tasks:
                _write_part(part, target, tokenizer)
                progress.advance(part.num_rows)
        sync_tree(staging)
        write_json(staging / INDEX, {"files": names, "num_rows": [part.num_rows for part in parts]})
    replace_folder(staging, folder)


def _write_parts_in_parallel(
    tasks: list[tuple[_Part, Path]], tokenizer: Tokenizer, workers: int, progress: ProgressBar
) -> None:
    # Spawned, not forked: this process may already have threads (torch, Arrow) whose locks a fork would copy.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(tokenizer,))
    try:
        futures = [(pool.submit(_work, part, target), part.num_rows) for part, target in tasks]
        for future, num_rows in futures:
            future.result()
            progress.advance(num_rows)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker_tokenizer: Tokenizer = None


def _start_worker(tokenizer: Tokenizer) -> None:
    global _worker_tokenizer
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is already one process per core
    _worker_tokenizer = tokenizer


def _work(part: _Part, target: Path) -> None:
    _write_part(part, target, _worker_tokenizer)


def _write_part(part: _Part, target: Path, tokenizer: Tokenizer) -> None:
    """Write a row group as an Arrow stream, which `datasets` memory-maps."""
    import pyarrow as pa

    ids_type = pa.list_(pa.int32())
    schema = pa.schema({"input_ids": ids_type, "labels": ids_type, "length": pa.int32()})
    with pa.OSFile(str(target), "wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for rows in _batches(part):
            tokenised = tokenise(tokenizer, rows)
            columns = [
                [ids for ids, _ in tokenised],
                [[IGNORED] * start + ids[start:] for ids, start in tokenised],
                [len(ids) for ids, _ in tokenised],
            ]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _open(folder: Path) -> Any:
    from datasets import Dataset, concatenate_datasets

    return concatenate_datasets([Dataset.from_file(str(folder / name)) for name in _indexed(folder) or []])


def _indexed(folder: Path) -> list[str] | None:
    """Return the names of the files of complete rows; `None` if there are none, or if the index is damaged."""
    try:
        names = (read_object(folder / INDEX) or {}).get("files")
    except StoreError:
        return None
    is_whole = isinstance(names, list) and all(isinstance(name, str) and (folder / name).is_file() for name in names)
    return names if is_whole else None

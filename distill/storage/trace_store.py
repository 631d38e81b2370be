"""Finished traces as Parquet shards with checksums.

`finalise` makes them from the ledger in one atomic step, and then removes the ledger.

<folder>/ledger.jsonl                           grows while sampling
<folder>/traces/train-00000-of-00002.parquet    what the recipe asks for, sorted by key
<folder>/unused/train-00000-of-00001.parquet    drawn for problems or samples that the recipe no longer has
<folder>/shards.json                            each shard's sha256 and number of rows; only listed shards count
<folder>/damaged/                               what failed its checksum, kept for inspection
"""

import heapq
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from distill.core.json_shape import COUNT, FLAG, TEXT, fault
from distill.core.records import SampleKey, Trace
from distill.errors import StoreError
from distill.storage.files import disk_errors, read_object, sync_folder, sync_tree, write_json
from distill.storage.fingerprints import sha256_of
from distill.storage.layout import LEDGER, PROBLEMS, TRACES
from distill.storage.ledger import LedgerIndex, Tally, index_ledger, read_at
from distill.storage.run_folder import StageFolder, damaged_outputs
from distill.storage.shards import ShardWriter, readable

if TYPE_CHECKING:
    import pyarrow

UNUSED = "unused"
INDEX = "shards.json"
NEW = ".new"
DAMAGED = "damaged"
OVERSIZE = "oversize.jsonl"

_INDEX_SHAPE = {"is_moving": FLAG, "shards": {"*": {"sha256": TEXT, "num_rows": COUNT}}}
MAX_ROW_BYTES = 2_000_000
"""Limit for the texts of one row: viewers and loaders fail on larger ones."""
READ_ROWS = 64


def check_stored(folder: StageFolder, again: str) -> list[str]:
    """Verify a stage's stored traces and problems. Mark the stage as not complete if any are damaged.

    Args:
        folder: of the stage.
        again: a clause that ends the messages: what happens to the rows of damaged shards.

    Returns:
        What was found, in words.

    Raises:
        StoreError: as for `check_shards`.
    """
    if not folder.path.exists():
        return []
    manifest = folder.manifest
    outputs = manifest["outputs"] if manifest is not None else {}
    damaged = check_shards(folder.path, outputs)
    found = [f"{folder.path / name}: damaged (checksum); {again}" for name in damaged]
    if PROBLEMS in outputs and (lost := damaged_outputs(folder.path, outputs, [PROBLEMS])):
        found.append(f"{folder.path / PROBLEMS}: damaged ({lost[PROBLEMS]}); rewritten")
    listed = {name: shard["sha256"] for name, shard in _index(folder.path)["shards"].items()}
    told = {name: one["sha256"] for name, one in outputs.items() if name.startswith(f"{TRACES}/")}
    if not found and any(listed.get(name) != sha256 for name, sha256 in told.items()):
        found.append(f"{folder.path / INDEX}: lists other shards than the manifest; rebuilt")
    if found:
        folder.reopen()
    return found


def check_shards(folder: Path, outputs: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> list[str]:
    """Finish or undo an interrupted `finalise`, then verify every shard's checksum.

    A damaged shard is moved to `damaged/`, and only its samples count as missing. A lost `shards.json` is rebuilt.

    Args:
        folder: where ledger and shards are.
        outputs: from the stage's manifest, if it has one: the checksums for a lost `shards.json`.

    Returns:
        The shards that are missing or have a wrong checksum.

    Raises:
        StoreError: the disk is full or not writable.
    """
    _finish_interrupted(folder)
    if not (folder / INDEX).exists():
        _write_lost_index(folder, outputs)
    index = _index(folder)
    damaged = [
        name
        for name, shard in index["shards"].items()
        if not (folder / name).is_file() or sha256_of(folder / name) != shard["sha256"]
    ]
    for name in damaged:
        if (folder / name).exists():
            with disk_errors(folder):
                target = _free_name(folder / DAMAGED / Path(name).name)
                target.parent.mkdir(exist_ok=True)
                (folder / name).rename(target)
    if damaged:
        shards = {name: shard for name, shard in index["shards"].items() if name not in damaged}
        write_json(folder / INDEX, {**index, "shards": shards})
    return damaged


@dataclass(slots=True)
class Stored:
    """The content of a folder, without the texts."""

    keys: set[SampleKey] = field(default_factory=set)
    errors: set[SampleKey] = field(default_factory=set)
    """Samples of `keys` that the engine failed to answer."""
    tally: Tally = field(default_factory=Tally)

    def with_ledger(self, index: LedgerIndex) -> "Stored":
        """Return the content of shards and ledger together. A key is in both only if an error was retried."""
        tally = Tally()
        tally.add_all(self.tally)
        tally.add_all(index.tally)
        tally.finish_reasons["error"] -= len(self.errors & index.places.keys())
        errors = (self.errors - index.places.keys()) | index.errors
        return Stored(self.keys | index.places.keys(), errors, tally)


def stored(folder: Path) -> Stored:
    """Return the content of the shards, after finishing what a kill interrupted."""
    _finish_interrupted(folder)
    return stored_without_repair(folder)


def stored_without_repair(folder: Path) -> Stored:
    """Return the content of the shards without writing; counts may be off while an interrupted move is unfinished."""
    found = Stored()
    columns = ["problem_id", "sample_index", "finish_reason", "num_prompt_tokens", "num_completion_tokens"]
    there = [name for name in _index(folder)["shards"] if (folder / name).exists()]
    if not there:
        return found
    import pyarrow.parquet as pq

    for shard in there:
        with readable(folder / shard):
            for batch in pq.ParquetFile(folder / shard).iter_batches(columns=columns):
                table = batch.to_pydict()
                for name, sample_index, *counts in zip(*(table[column] for column in columns), strict=True):
                    found.keys.add((name, sample_index))
                    if counts[0] == "error":
                        found.errors.add((name, sample_index))
                    found.tally.add(*counts)
    return found


def stored_traces(folder: Path, kind: str = TRACES) -> Iterator[Trace]:
    """Yield the traces of all shards of a kind (`traces` or `unused`), sorted by key, a few in memory at a time."""
    for file in shard_files(folder, kind):
        yield from read_shard(file)


def shard_files(folder: Path, kind: str = TRACES) -> list[Path]:
    """Return the shards of a kind, in the order of their keys."""
    return [folder / name for name in sorted(_index(folder)["shards"]) if name.startswith(f"{kind}/")]


def num_rows(files: Iterable[Path]) -> int:
    """Return the number of rows of Parquet files, from their footers."""
    import pyarrow.parquet as pq

    total = 0
    for file in files:
        with readable(file):
            total += pq.read_metadata(file).num_rows
    return total


def traces_of(folder: Path, problem_id: str) -> list[Trace]:
    """Return the traces of one problem, reading only the parts of the shards that may hold it."""
    import pyarrow.parquet as pq

    wanted = [("problem_id", "=", problem_id)]
    found = []
    for file in shard_files(folder):
        with readable(file):
            found += [Trace.from_json(row) for row in pq.read_table(file, filters=wanted).to_pylist()]
    return found


def read_shard(path: Path) -> Iterator[Trace]:
    """Yield the traces of one Parquet file."""
    import pyarrow.parquet as pq

    with readable(path), closing(pq.ParquetFile(path)) as shard:
        for batch in shard.iter_batches(batch_size=READ_ROWS):
            yield from map(Trace.from_json, batch.to_pylist())


def finalise(
    folder: Path, is_wanted: Callable[[SampleKey], bool], index: LedgerIndex | None = None
) -> tuple[dict[str, int | None], Tally]:
    """Merge ledger and shards into new shards, then remove the ledger.

    All new files are first written beside the old ones. They count from the moment `shards.json` names them. The
    remaining steps (moving them into place, removing the old ones) are repeated after a kill.

    Args:
        folder: where ledger and shards are; no other process may write there.
        is_wanted: whether a trace belongs in `traces/`; the others go to `unused/`.
        index: of the ledger, if it has been read already.

    Returns:
        The files of `traces/` with their number of rows, and counts over the wanted traces.

    Raises:
        StoreError: the disk is full or not writable; no stored sample is lost, and the next call repairs it.
    """
    _finish_interrupted(folder)
    index = index or index_ledger(folder / LEDGER)
    ordered = sorted(index.places)
    sources = [
        stored_traces(folder, TRACES),
        stored_traces(folder, UNUSED),
        read_at(folder / LEDGER, (index.places[key] for key in ordered)),
    ]
    tally = Tally()
    with disk_errors(folder):
        _keep_damaged_lines(folder, index.damaged)
        writers = {kind: ShardWriter(folder / NEW / kind, _schema()) for kind in (TRACES, UNUSED)}
        for key, same in groupby(heapq.merge(*sources, key=attrgetter("key")), key=attrgetter("key")):
            # A key has several traces if an error was retried.
            trace = min(same, key=lambda trace: trace.finish_reason == "error")
            wanted = is_wanted(key)
            trace = _within_a_row(trace, folder / OVERSIZE)
            num_chars = len(trace.text) + len(trace.reasoning) + len(trace.content)  # near enough to bytes
            writers[TRACES if wanted else UNUSED].write(trace.to_json(), num_chars)
            if wanted:
                tally.add(trace.finish_reason, trace.num_prompt_tokens, trace.num_completion_tokens)
        shards = {
            f"{kind}/{name}": shard
            for kind, writer in writers.items()
            for name, shard in writer.close(at_least_one=kind == TRACES).items()
        }
        sync_tree(folder / NEW)
    write_json(folder / INDEX, {"schema_version": 1, "is_moving": True, "shards": shards})
    _finish_interrupted(folder)
    rows: dict[str, int | None] = {name: shard["num_rows"] for name, shard in shards.items() if name.startswith(TRACES)}
    return rows, tally


def clear(folder: Path) -> None:
    """Remove ledger and shards, which hold nothing worth keeping.

    Raises:
        StoreError: the files cannot be removed.
    """
    with disk_errors(folder):
        for name in (INDEX, LEDGER):  # the index first, so that the shards no longer count
            (folder / name).unlink(missing_ok=True)
        for name in (TRACES, UNUSED, NEW):
            shutil.rmtree(folder / name, ignore_errors=True)


def _index(folder: Path) -> dict[str, Any]:
    index = read_object(folder / INDEX)
    if index is None:
        return {"schema_version": 1, "is_moving": False, "shards": {}}
    if what := fault(index, _INDEX_SHAPE):
        raise StoreError(f"{folder / INDEX}: damaged ({what}). Remove the file and run the command again.")
    return index


def _write_lost_index(folder: Path, outputs: Mapping[str, Mapping[str, Any]]) -> None:
    """List the shards that exist, and those in the manifest with its checksums, even if they are missing."""
    there = [f"{kind}/{file.name}" for kind in (TRACES, UNUSED) for file in sorted((folder / kind).glob("*.parquet"))]
    told = [name for name in outputs if name.startswith(f"{TRACES}/")]
    if not there and not told:
        return
    shards = {}
    for name in dict.fromkeys([*there, *told]):
        known = outputs.get(name)
        shards[name] = {
            "sha256": known["sha256"] if known else sha256_of(folder / name),
            "num_rows": known["num_rows"] if known else num_rows([folder / name]),
        }
    write_json(folder / INDEX, {"schema_version": 1, "is_moving": False, "shards": shards})


def _finish_interrupted(folder: Path) -> None:
    """Complete an interrupted `finalise` if its shards count already, else delete its unfinished files."""
    index = _index(folder)
    with disk_errors(folder):
        if index["is_moving"]:
            for name in index["shards"]:
                if (folder / NEW / name).exists():
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / NEW / name).replace(folder / name)
            for kind in (TRACES, UNUSED):
                for file in (folder / kind).glob("*.parquet"):
                    if f"{kind}/{file.name}" not in index["shards"]:
                        file.unlink()
                if (folder / kind).is_dir():
                    sync_folder(folder / kind)
            (folder / LEDGER).unlink(missing_ok=True)
            sync_folder(folder)
            write_json(folder / INDEX, {**index, "is_moving": False})
        if (folder / NEW).exists():
            shutil.rmtree(folder / NEW)


def _keep_damaged_lines(folder: Path, places: Iterable[Any]) -> None:
    """Copy ledger lines with a wrong checksum to `damaged/`."""
    places = list(places)
    if not places:
        return
    target = _free_name(folder / DAMAGED / LEDGER)
    target.parent.mkdir(exist_ok=True)
    with (folder / LEDGER).open("rb") as source, target.open("wb") as stream:
        for place in places:
            source.seek(place.offset)
            stream.write(source.read(place.length))


def _free_name(path: Path) -> Path:
    number = 0
    while (found := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return found


def _within_a_row(trace: Trace, oversize: Path) -> Trace:
    """Return the trace, or a stand-in if its texts are too large for a row. It is then kept whole beside the shards."""
    num_bytes = sum(len(text.encode(errors="surrogatepass")) for text in (trace.text, trace.reasoning, trace.content))
    if num_bytes <= MAX_ROW_BYTES:
        return trace
    with oversize.open("a") as stream:
        stream.write(json.dumps(trace.to_json(), ensure_ascii=True) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    why = f"{num_bytes:,} bytes of text: over the {MAX_ROW_BYTES:,} of a row; the whole trace is in {oversize.name}"
    return replace(trace, text="", reasoning="", content="", finish_reason="error", error=why)


def _schema() -> "pyarrow.Schema":
    """Return an explicit schema, so that every shard has the same columns and types."""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    sampling = {"temperature": pa.float64(), "top_p": pa.float64(), "top_k": number, "max_tokens": number}
    return pa.schema(
        {
            "problem_id": text,
            "sample_index": number,
            "teacher": text,
            "teacher_revision": text,
            "text": text,
            "reasoning": text,
            "content": text,
            "finish_reason": text,
            "num_prompt_tokens": number,
            "num_completion_tokens": number,
            "seed": number,
            "sampling": pa.struct(sampling),
            "error": text,
        }
    )

"""Records per second of the ledger at 50 KB a record, over one fsync a record and over SQLite in WAL mode.

All three make each record durable before the next group is asked for; the ledger and SQLite commit in groups of 16, as
an engine that finishes several samples in a step does. They write the same texts into the same folder, taking turns.

    python benchmarks/ledger.py [--rounds 5] [--records 512] [--group 16] [--folder DIR]

The last line is JSON: the ledger's rate over each of the others', and every round.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from distill.core.records import Trace
from distill.storage.ledger import Ledger

RECORD_BYTES = 50_000


def main() -> None:
    """Take turns, print each round, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (the median counts)")
    parser.add_argument("--records", type=int, default=512, help="records a round")
    parser.add_argument("--group", type=int, default=16, help="records that finish together")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: this one)")
    options = parser.parse_args()
    traces = make_traces(options.records)
    groups = [traces[i : i + options.group] for i in range(0, len(traces), options.group)]
    writers: dict[str, Callable[[Path, list[list[Trace]]], None]] = {
        "ledger": write_ledger,
        "fsync_each": write_fsync_each,
        "sqlite_wal": write_sqlite,
    }
    rates: dict[str, list[float]] = {name: [] for name in writers}
    names = list(writers)
    for turn in range(options.rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            folder = Path(tempfile.mkdtemp(dir=options.folder or Path.cwd(), prefix=".ledger-benchmark-"))
            try:
                started = time.monotonic()
                writers[name](folder, groups)
                rates[name].append(len(traces) / (time.monotonic() - started))
            finally:
                shutil.rmtree(folder)
            print(f"{name:>10}: {rates[name][-1]:,.0f} records/s", flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {f"over_{name}": medians["ledger"] / medians[name] for name in names[1:]}
    print(json.dumps({"ratio": ratios["over_sqlite_wal"], **ratios, "records_per_second": medians, "rounds": rates}))


def make_traces(num: int) -> list[Trace]:
    """Traces of about `RECORD_BYTES` as JSON, their texts words that do not repeat as a block."""
    dice = random.Random(0)
    words = ["sum", "so", "then", "we", "have", "that", "7", "x^2", "therefore", "check"]
    traces = []
    for i in range(num):
        thought = " ".join(dice.choices(words, k=RECORD_BYTES // 10))
        text = f"<think>\n{thought}\n</think>\n\n4"
        traces.append(Trace(f"p{i:06d}", 0, "org/teacher", "f48b", text, thought, "4", "stop", 100, 10_000, i))
    return traces


def write_ledger(folder: Path, groups: list[list[Trace]]) -> None:
    """distill's ledger: one write and one fdatasync a group, waited for."""
    with Ledger(folder / "ledger.jsonl") as ledger:
        for group in groups:
            ledger.append(group)
            ledger.sync()


def write_fsync_each(folder: Path, groups: list[list[Trace]]) -> None:
    """JSON lines, each followed by an fsync."""
    with (folder / "plain.jsonl").open("wb", buffering=0) as stream:
        for trace in (trace for group in groups for trace in group):
            stream.write(json.dumps(trace.to_json()).encode() + b"\n")
            os.fsync(stream.fileno())


def write_sqlite(folder: Path, groups: list[list[Trace]]) -> None:
    """SQLite with journal_mode=WAL and synchronous=FULL: one transaction a group, synced on commit."""
    connection = sqlite3.connect(folder / "traces.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE traces (problem_id TEXT, sample_index INT, body TEXT, PRIMARY KEY (problem_id, sample_index))"
    )
    for group in groups:
        with connection:
            rows = [(trace.problem_id, trace.sample_index, json.dumps(trace.to_json())) for trace in group]
            connection.executemany("INSERT INTO traces VALUES (?, ?, ?)", rows)
    connection.close()


if __name__ == "__main__":
    main()

"""What became of every trace, read once from a finished filter's files: which traces to show, lengths, languages.

Enters: `filter/` of a run: `verdicts.jsonl`, and the tables `kept` and `dropped`, whose rows are in the same order.
Leaves: counts over all traces, and the verdicts of those to show with their places in the tables.
"""

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from distill.filters.language import prompt_language
from distill.report.pick import Picker

NUM_BINS = 32
"""Most bins of lengths; rounding their width leaves 13 or more."""
READ_ROWS = 1_024
UNKNOWN = "cannot be told"
"""The language of a question that is too short, or has too few words."""
QUESTION_CHARS = 2_000
"""So much of a question is looked at to tell its language."""


class Outcome(NamedTuple):
    """One trace: its verdict, and where its text is."""

    verdict: dict[str, Any]
    table: str
    """`kept` or `dropped`."""
    row: int
    """In that table, counted over all its files; -1: not in it."""
    source: str
    length: int


@dataclass(slots=True)
class Outcomes:
    """All traces in numbers, some of them by name."""

    num_traces: int = 0
    chosen: list[Outcome] = field(default_factory=list)
    lengths: dict[str, Any] = field(default_factory=dict)
    """Histogram, see `distill.report.charts.histogram`."""
    languages: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each language of questions yields: `num_problems, num_traces, num_correct, num_kept`."""


def read_outcomes(filter_dir: Path, picker: Picker[Outcome], unit: str) -> Outcomes:
    """Go through all verdicts once; one problem's are in memory at a time.

    Args:
        filter_dir: `runs/<name>/filter`, complete.
        picker: chooses the traces to show.
        unit: of lengths: `tokens` as the teacher counts them, or `characters` where nobody counted.
    """
    found = Outcomes()
    lengths = {"kept": array("Q"), "dropped": array("Q")}
    with_prompts = _with_rows(filter_dir, unit)
    for _, group in groupby(with_prompts, key=lambda pair: pair[0].verdict["problem_id"]):
        pairs = list(group)
        language = prompt_language(question_of(pairs[0][1])[:QUESTION_CHARS]) or UNKNOWN
        outcomes = [outcome for outcome, _ in pairs]
        _count(found.languages.setdefault(language, {}), outcomes)
        found.num_traces += len(outcomes)
        for outcome in outcomes:
            verdict = outcome.verdict
            lengths[outcome.table].append(outcome.length)
            stratum = (verdict["reasons"][0] if verdict["reasons"] else "", outcome.source, verdict["correct"])
            picker.offer(stratum, (verdict["problem_id"], verdict["sample_index"]), outcome)
    found.chosen = picker.chosen()
    found.lengths = histogram_of(lengths["kept"], lengths["dropped"], unit)
    return found


def outcomes_of(filter_dir: Path, names: Set[str], unit: str) -> list[Outcome]:
    """The traces of some problems, in the order of their identities; arguments as for `read_outcomes`."""
    return [outcome for outcome, _ in _with_rows(filter_dir, unit) if outcome.verdict["problem_id"] in names]


def problem_names(filter_dir: Path) -> set[str]:
    """Ids of all problems that the filter has seen traces of."""
    if not (filter_dir / "verdicts.jsonl").is_file():
        return set()
    with (filter_dir / "verdicts.jsonl").open() as stream:
        return {json.loads(line)["problem_id"] for line in stream}


def question_of(prompt: Any) -> str:
    """The text of the last user message of a prompt."""
    messages = prompt if isinstance(prompt, list) else []
    return next((m["content"] or "" for m in reversed(messages) if m["role"] == "user"), "")


def _with_rows(filter_dir: Path, unit: str) -> Iterator[tuple[Outcome, Any]]:
    """Every verdict with its row of the tables; the prompt beside it."""
    tables = {name: enumerate(_rows(filter_dir / name, name, unit)) for name in ("kept", "dropped")}
    nothing: tuple[int, dict[str, Any]] = (-1, {"source": "", "length": 0, "prompt": None})
    if not (filter_dir / "verdicts.jsonl").is_file():  # removed since
        return
    with (filter_dir / "verdicts.jsonl").open() as stream:
        for line in stream:
            verdict = json.loads(line)
            table = "dropped" if verdict["reasons"] else "kept"
            place, row = next(tables[table], nothing)
            yield Outcome(verdict, table, place, row["source"] or "", row["length"] or 0), row["prompt"]


def _rows(folder: Path, table: str, unit: str) -> Iterator[dict[str, Any]]:
    """`source, length, prompt` of each row; texts are read only where their length is asked for."""
    import pyarrow.parquet as pq

    text = "text" if table == "dropped" else "completion"
    wanted = ["source", "num_completion_tokens", "prompt", *([text] if unit == "characters" else [])]
    for file in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(file) as shard:
            for batch in shard.iter_batches(batch_size=READ_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    length = row["num_completion_tokens"]
                    if unit == "characters":
                        said = row[text]
                        length = len(said or "") if table == "dropped" else sum(len(m["content"]) for m in said)
                    yield {"source": row["source"], "length": length, "prompt": row["prompt"]}


def _count(into: dict[str, int], outcomes: list[Outcome]) -> None:
    """Add one problem's traces."""
    counts = {
        "num_problems": 1,
        "num_traces": len(outcomes),
        "num_correct": sum(one.verdict["correct"] is True for one in outcomes),
        "num_kept": sum(not one.verdict["reasons"] for one in outcomes),
    }
    for name, num in counts.items():
        into[name] = into.get(name, 0) + num


def histogram_of(kept: "array[int]", dropped: "array[int]", unit: str) -> dict[str, Any]:
    """Counts of both over the same bins of round width; the last bin has no end."""
    import numpy as np

    both = np.concatenate([np.frombuffer(kept, dtype=np.uint64), np.frombuffer(dropped, dtype=np.uint64)])
    if not both.size or not both.any():
        return {}
    high = float(np.quantile(both, 0.98))
    width = _round_width(max(high, 1.0) / NUM_BINS)
    num_bins = max(1, math.ceil((high + 1) / width))
    counts = {}
    for name, lengths in (("kept", kept), ("dropped", dropped)):
        bins_N = np.minimum(np.frombuffer(lengths, dtype=np.uint64) // np.uint64(width), num_bins)
        counts[name] = np.bincount(bins_N.astype(np.int64), minlength=num_bins + 1).tolist()
        counts[f"median_{name}"] = float(np.median(np.frombuffer(lengths, dtype=np.uint64))) if lengths else None
    return {"unit": unit, "edges": [width * place for place in range(num_bins + 1)], **counts}


def _round_width(rough: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, … that is not under `rough`."""
    power = int(10 ** int(math.log10(max(rough, 1.0))))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def texts_of(filter_dir: Path, outcomes: list[Outcome]) -> Iterator[tuple[Outcome, Mapping[str, Any]]]:
    """The wanted rows of both tables, whole, in the tables' order; one row group's texts are in memory at a time."""
    import pyarrow.parquet as pq

    for table in ("kept", "dropped"):
        wanted = {one.row: one for one in outcomes if one.table == table and one.row >= 0}
        first = 0
        for file in sorted((filter_dir / table).glob("*.parquet")):
            with pq.ParquetFile(file) as shard:
                for group in range(shard.num_row_groups):
                    num_rows = shard.metadata.row_group(group).num_rows
                    here = [row for row in range(first, first + num_rows) if row in wanted]
                    if here:
                        rows = shard.read_row_group(group).take([row - first for row in here])
                        yield from zip((wanted[row] for row in here), rows.to_pylist(), strict=True)
                    first += num_rows

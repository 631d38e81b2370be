"""Reads a finished filter's files in one pass: counts over all traces, and the traces to show.

`filter/verdicts.jsonl`, the tables `kept` and `dropped` and the traces' own shards (for the teachers' names) are all
sorted by the traces' identities, so they are read in parallel. Missing and unreadable rows are recorded and skipped.
"""

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.records import SampleKey
from distill.filters.language import prompt_language
from distill.report.damage import MISSING, Damage
from distill.report.pick import Picker
from distill.storage.layout import VERDICTS
from distill.storage.run_files import RunFiles
from distill.storage.trace_store import shard_files

NUM_BINS = 32
"""Length bins at most; rounding the width leaves at least 13."""
READ_ROWS = 1_024
UNKNOWN = "cannot be told"
"""Language of a question that is too short, or has too few words."""
UNNAMED = "not named"
"""Teacher of a trace without a teacher's name."""
QUESTION_CHARS = 2_000
"""Beginning of a question from which its language is detected."""
TABLES = ("kept", "dropped")
STUDENT_TOKENS = "num_student_tokens"
"""Column of both tables: the student's tokens of reasoning and answer; null if not counted."""
TEACHER_TOKENS = "num_completion_tokens"
"""Column of both tables: the teacher's tokens; null or 0 if not counted."""


class TraceLocation(NamedTuple):
    """Location of a trace's row."""

    file: str
    """Name of a shard in the table's folder."""
    row: int
    """Index in that file."""


class Outcome(NamedTuple):
    """One trace: its verdict, and the location of its text."""

    verdict: dict[str, Any]
    table: str
    """`kept` or `dropped`."""
    place: TraceLocation | None
    """`None`: its row is missing."""
    source: str
    length: int | None
    """In tokens; `None` if not counted."""
    teacher: str


@dataclass(slots=True)
class Outcomes:
    """Counts over all traces, and the traces to show."""

    num_traces: int = 0
    chosen: list[Outcome] = field(default_factory=list)
    lengths: dict[str, Any] = field(default_factory=dict)
    """Histogram, see `distill.report.charts.histogram`."""
    languages: dict[str, dict[str, int]] = field(default_factory=dict)
    """By language of the question: `num_problems, num_traces, num_correct, num_kept`."""
    teachers: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same counts by teacher."""
    counted_by: str | None = None
    """Whose tokens lengths are in: `student` or `teacher`; `None`: not counted."""


def read_outcomes(run_dir: Path, source: Path, picker: Picker[Outcome], damage: Damage) -> Outcomes:
    """Read all verdicts once, holding one problem's in memory at a time.

    Args:
        run_dir: `runs/<name>`, whose filter is complete.
        source: folder of the traces.
        picker: chooses the traces to show.
        damage: records what cannot be read.
    """
    found = Outcomes(counted_by=counted_by(RunFiles(run_dir).graded, damage))
    lengths = {table: array("Q") for table in TABLES}
    num_missing = dict.fromkeys(TABLES, 0)
    with_prompts = _with_rows(run_dir, source, found.counted_by, damage)
    for _, group in groupby(with_prompts, key=lambda pair: pair[0].verdict["problem_id"]):
        pairs = list(group)
        language = prompt_language(question_of(pairs[0][1])[:QUESTION_CHARS]) or UNKNOWN
        outcomes = [outcome for outcome, _ in pairs]
        _count(found.languages.setdefault(language, {}), outcomes)
        for teacher in {outcome.teacher for outcome in outcomes}:
            theirs = [outcome for outcome in outcomes if outcome.teacher == teacher]
            _count(found.teachers.setdefault(teacher or UNNAMED, {}), theirs)
        found.num_traces += len(outcomes)
        for outcome in outcomes:
            verdict = outcome.verdict
            num_missing[outcome.table] += outcome.place is None
            if outcome.length is not None:
                lengths[outcome.table].append(outcome.length)
            first = verdict["reasons"][0] if verdict["reasons"] else ""
            stratum = (first, outcome.source, verdict["correct"], outcome.teacher)
            picker.offer(stratum, (verdict["problem_id"], verdict["sample_index"]), outcome)
    for table, num in num_missing.items():
        if num:
            damage.note(RunFiles(run_dir).graded / table, f"{num:,} of its rows are missing or cannot be read")
    found.chosen = picker.chosen()
    found.lengths = histogram_of(lengths["kept"], lengths["dropped"], found.counted_by)
    return found


def outcomes_of(run_dir: Path, source: Path, names: Set[str], counts: str | None, damage: Damage) -> list[Outcome]:
    """Return the traces of some problems, sorted by identity. Other arguments are those of `read_outcomes`.

    Args:
        names: ids of the problems.
        counts: whose token counts to use, as `counted_by` returns it.
    """
    rows = _with_rows(run_dir, source, counts, damage)
    return [outcome for outcome, _ in rows if outcome.verdict["problem_id"] in names]


def problem_names(filter_dir: Path, damage: Damage) -> set[str]:
    """Return the ids of all problems in the filter's verdicts."""
    return {verdict["problem_id"] for verdict in _verdicts(filter_dir, damage)}


def question_of(prompt: Any) -> str:
    """Return the text of the last user message of a prompt."""
    messages = prompt if isinstance(prompt, list) else []
    return next((m["content"] or "" for m in reversed(messages) if m["role"] == "user"), "")


def counted_by(filter_dir: Path, damage: Damage) -> str | None:
    """Return whose token counts to use for all traces, so that lengths are comparable: `student` or `teacher`."""
    if any(_has_counts(filter_dir / table, STUDENT_TOKENS, damage) for table in TABLES):
        return "student"
    return "teacher" if any(_has_counts(filter_dir / table, TEACHER_TOKENS, damage) for table in TABLES) else None


def _has_counts(folder: Path, column: str, damage: Damage) -> bool:
    """Return whether any row of a table has a count above 0."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for file in _shards(folder):
        with damage.tolerate(file), pq.ParquetFile(file) as shard:
            if column not in shard.schema_arrow.names:
                continue
            for batch in shard.iter_batches(columns=[column]):
                if (pc.max(batch.column(0)).as_py() or 0) > 0:
                    return True
    return False


def _verdicts(filter_dir: Path, damage: Damage) -> Iterator[dict[str, Any]]:
    """Yield the verdicts up to the first damaged line."""
    file = filter_dir / VERDICTS
    if not file.is_file():
        damage.note(file, MISSING)
        return
    with damage.tolerate(file), file.open() as stream:
        for line in stream:
            verdict = json.loads(line)
            # Raises inside `tolerate` if a key is missing.
            verdict["problem_id"], verdict["sample_index"], verdict["reasons"], verdict["correct"]
            yield verdict


class _Aligned:
    """Values sorted by identity, looked up in ascending order; some may be missing."""

    def __init__(self, pairs: Iterable[tuple[SampleKey, Any]]) -> None:
        self._pairs = iter(pairs)
        self._next = next(self._pairs, None)

    def at(self, key: SampleKey) -> Any:
        """Return the value of an identity, or `None`; values before it are skipped."""
        while self._next is not None and self._next[0] < key:
            self._next = next(self._pairs, None)
        return self._next[1] if self._next is not None and self._next[0] == key else None


def _with_rows(run_dir: Path, source: Path, counts: str | None, damage: Damage) -> Iterator[tuple[Outcome, Any]]:
    """Yield the outcome and the prompt of every verdict."""
    filter_dir = RunFiles(run_dir).graded
    tables = {table: _Aligned(_rows(filter_dir / table, counts, damage)) for table in TABLES}
    teachers = _Aligned(_teachers(source, damage))
    for verdict in _verdicts(filter_dir, damage):
        key = (verdict["problem_id"], verdict["sample_index"])
        table = "dropped" if verdict["reasons"] else "kept"
        row = tables[table].at(key) or {}
        teacher = teachers.at(key) or row.get("teacher") or ""
        place, source_name = row.get("place"), row.get("source") or ""
        yield Outcome(verdict, table, place, source_name, row.get("length"), teacher), row.get("prompt")


def _rows(folder: Path, counts: str | None, damage: Damage) -> Iterator[tuple[SampleKey, dict[str, Any]]]:
    """Yield `place, source, length, prompt` (for kept rows also `teacher`) of each row, without reading other texts."""
    import pyarrow.parquet as pq

    column = {"student": STUDENT_TOKENS, "teacher": TEACHER_TOKENS}.get(counts or "", "")
    wanted = {"problem_id", "sample_index", "source", "prompt", "teacher", column}
    for file in _shards(folder):
        with damage.tolerate(file), pq.ParquetFile(file) as shard:
            columns = [name for name in shard.schema_arrow.names if name in wanted]
            number = 0
            for batch in shard.iter_batches(batch_size=READ_ROWS, columns=columns):
                for row in batch.to_pylist():
                    key = row.pop("problem_id"), row.pop("sample_index")
                    yield key, {**row, "place": TraceLocation(file.name, number), "length": row.get(column) or None}
                    number += 1


def _teachers(source_dir: Path, damage: Damage) -> Iterator[tuple[SampleKey, str]]:
    """Yield each trace's teacher."""
    for row in stored_columns(source_dir, ("teacher",), damage):
        yield (row["problem_id"], row["sample_index"]), row["teacher"] or ""


def stored_columns(source_dir: Path, names: Iterable[str], damage: Damage) -> Iterator[dict[str, Any]]:
    """Yield identities and some columns of all stored traces; unreadable shards are recorded and skipped."""
    import pyarrow.parquet as pq

    columns = ["problem_id", "sample_index", *names]
    files: list[Path] = []
    with damage.tolerate(source_dir):
        files = shard_files(source_dir)
    for file in files:
        with damage.tolerate(file), pq.ParquetFile(file) as shard:
            for batch in shard.iter_batches(columns=columns):
                yield from batch.to_pylist()


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _count(into: dict[str, int], outcomes: list[Outcome]) -> None:
    """Add one problem's traces to the counts."""
    counts = {
        "num_problems": 1,
        "num_traces": len(outcomes),
        "num_correct": sum(one.verdict["correct"] is True for one in outcomes),
        "num_kept": sum(not one.verdict["reasons"] for one in outcomes),
    }
    for name, num in counts.items():
        into[name] = into.get(name, 0) + num


def histogram_of(kept: "array[int]", dropped: "array[int]", counts: str | None) -> dict[str, Any]:
    """Return the counts of both in the same bins of round width; the last bin is open. Empty without lengths."""
    import numpy as np

    both = np.concatenate([np.frombuffer(kept, dtype=np.uint64), np.frombuffer(dropped, dtype=np.uint64)])
    if not both.size or not both.any():
        return {}
    high = float(np.quantile(both, 0.98))
    width = _round_width(max(high, 1.0) / NUM_BINS)
    num_bins = max(1, math.ceil((high + 1) / width))
    found = {}
    for name, lengths in (("kept", kept), ("dropped", dropped)):
        bins_N = np.minimum(np.frombuffer(lengths, dtype=np.uint64) // np.uint64(width), num_bins)
        found[name] = np.bincount(bins_N.astype(np.int64), minlength=num_bins + 1).tolist()
        found[f"median_{name}"] = float(np.median(np.frombuffer(lengths, dtype=np.uint64))) if lengths else None
    return {"unit": "tokens", "counted_by": counts, "edges": [width * n for n in range(num_bins + 1)], **found}


def _round_width(rough: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, … that is at least `rough`."""
    power = int(10 ** int(math.log10(max(rough, 1.0))))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def texts_of(filter_dir: Path, outcomes: list[Outcome], damage: Damage) -> Iterator[tuple[Outcome, Mapping[str, Any]]]:
    """Yield the full rows of outcomes in the tables' order, holding one row group in memory at a time."""
    import pyarrow.parquet as pq

    for table in TABLES:
        wanted = {one.place: one for one in outcomes if one.table == table and one.place is not None}
        for name in sorted({place.file for place in wanted}):
            file = filter_dir / table / name
            with damage.tolerate(file), pq.ParquetFile(file) as shard:
                first = 0
                for group in range(shard.num_row_groups):
                    num_rows = shard.metadata.row_group(group).num_rows
                    here = [row for row in range(first, first + num_rows) if TraceLocation(name, row) in wanted]
                    if here:
                        rows = shard.read_row_group(group).take([row - first for row in here])
                        yield from zip(
                            (wanted[TraceLocation(name, row)] for row in here), rows.to_pylist(), strict=True
                        )
                    first += num_rows

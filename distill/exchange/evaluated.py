"""Read a finished or interrupted evaluation from its folder, one model on one benchmark at a time.

    eval/problems.jsonl  benchmarks.jsonl  manifest.json
    eval/student/ledger.jsonl  verdicts.jsonl

A row of `benchmarks.jsonl`, which says what was asked of each model:

    {"name": "gsm8k", "protocol": {"hash": "5f0c…", "samples_per_problem": 4, "temperature": 0.6, …},
     "problems": ["9f2c…", …]}
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.core.formatting import interval, mapping, number
from distill.core.json_shape import COUNT, PROBLEM, TEXT, VERDICT, Shape, fault
from distill.core.records import Problem, SampleKey, Trace, Verdict
from distill.errors import ExchangeError
from distill.evaluation.scoring import sample_score
from distill.storage.files import iter_jsonl, read_object
from distill.storage.layout import BENCHMARKS, LEDGER, MANIFEST, PROBLEMS, VERDICTS
from distill.storage.ledger import LedgerIndex, index_ledger, read_at

_BENCHMARK: Shape = {"name": TEXT, "protocol": {"samples_per_problem": COUNT, "hash?": TEXT}, "problems": [TEXT]}


@dataclass(frozen=True, slots=True)
class Sample:
    """One wanted sample. Without a trace it is missing; without a verdict it is not graded yet."""

    problem: Problem
    sample_index: int
    trace: Trace | None
    verdict: Verdict | None

    @property
    def is_answered(self) -> bool:
        return self.trace is not None and self.trace.finish_reason != "error"

    @property
    def score(self) -> float | None:
        """Return the share of credit of the answer, from 0 to 1; `None` if it is missing, failed or ungraded."""
        return sample_score(self.verdict) if self.verdict is not None and self.is_answered else None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What one model answered on one benchmark."""

    run: str
    role: str
    """`base`, `student` or another model's folder."""
    model: str
    """Its name for others: a Hub id, or run and role for a model that is a folder."""
    benchmark: str
    protocol: Mapping[str, Any]
    problems: list[Problem]
    samples_per_problem: int
    """Of an adaptive benchmark that has ended: those that were drawn."""
    finished_at: datetime
    seconds: float
    """Duration of the whole evaluation; 0 if it has not ended."""
    pass_at_1: float | None
    interval_95: tuple[float, float] | None
    _ledger: Path
    _index: LedgerIndex = field(repr=False)
    _verdicts: Mapping[SampleKey, Verdict] = field(repr=False)

    @property
    def num_wanted(self) -> int:
        return len(self.problems) * self.samples_per_problem

    @property
    def num_missing(self) -> int:
        return sum(key not in self._index.places for key in self._keys())

    @property
    def num_failed(self) -> int:
        return sum(key in self._index.errors for key in self._keys())

    @property
    def num_ungraded(self) -> int:
        """Return how many answers have no grade."""
        answered = (key for key in self._keys() if key in self._index.places and key not in self._index.errors)
        return sum(getattr(self._verdicts.get(key), "correct", None) is None for key in answered)

    def _keys(self) -> Iterator[SampleKey]:
        return ((problem.id, i) for problem in self.problems for i in range(self.samples_per_problem))

    def scores_by_problem(self) -> dict[str, float | None]:
        """Return each problem's mean score over its graded answers; `None` if none is graded."""
        found: dict[str, float | None] = {}
        for problem in self.problems:
            keys = [(problem.id, i) for i in range(self.samples_per_problem)]
            scores = [sample_score(self._verdicts[key]) for key in keys if key in self._verdicts and self._counts(key)]
            graded = [score for score in scores if score is not None]
            found[problem.id] = sum(graded) / len(graded) if graded else None
        return found

    def _counts(self, key: SampleKey) -> bool:
        return key in self._index.places and key not in self._index.errors

    def samples_of(self, problem: Problem) -> list[Sample]:
        """Read a problem's samples from the disk, by index.

        Raises:
            StoreError: the ledger has changed since it was indexed.
        """
        keys = [(problem.id, i) for i in range(self.samples_per_problem)]
        there = [key for key in keys if key in self._index.places]
        traces = dict(zip(there, read_at(self._ledger, (self._index.places[key] for key in there)), strict=True))
        return [Sample(problem, key[1], traces.get(key), self._verdicts.get(key)) for key in keys]

    def samples(self) -> Iterator[Sample]:
        """Yield all wanted samples, problem after problem; only one problem's texts are in memory."""
        for problem in self.problems:
            yield from self.samples_of(problem)


def read_evaluations(folder: Path) -> Iterator[Evaluated]:
    """Yield what each model answered on each benchmark.

    Args:
        folder: the `eval` folder of a run.

    Raises:
        ExchangeError: no model has answered there, or a benchmark names a problem that is not there.
        StoreError: a file is damaged.
    """
    roles = sorted(path.parent.name for path in folder.glob(f"*/{LEDGER}"))
    if not roles:
        raise ExchangeError(
            f"{folder}: no model's answers are there. Name the run of a finished or interrupted `distill eval`."
        )
    problems = {row["id"]: Problem.from_json(row) for row in _rows(folder / PROBLEMS, PROBLEM)}
    manifest = read_object(folder / MANIFEST) or {}
    benchmarks = list(_benchmarks(folder / BENCHMARKS, problems))
    taken: set[str] = set()
    for role in roles:
        ledger = folder / role / LEDGER
        index = index_ledger(ledger)
        rows = _rows(folder / role / VERDICTS, VERDICT) if (folder / role / VERDICTS).exists() else iter(())
        verdicts = {verdict.key: verdict for verdict in map(Verdict.from_json, rows)}
        own = f"{folder.absolute().parent.name}/{role}"
        model = _hub_id(ledger, index)
        model = own if model is None or model in taken else model
        taken.add(model)
        for name, protocol, ids in benchmarks:
            score = _recorded_score(mapping(manifest.get("metrics")), name, role)
            yield Evaluated(
                run=folder.absolute().parent.name,
                role=role,
                model=model,
                benchmark=name,
                protocol=protocol,
                problems=[problems[one] for one in ids],
                samples_per_problem=_num_samples(int(protocol["samples_per_problem"]), ids, index),
                finished_at=_finished_at(manifest, ledger),
                seconds=float(number(manifest.get("seconds")) or 0.0),
                pass_at_1=score[0],
                interval_95=score[1],
                _ledger=ledger,
                _index=index,
                _verdicts=verdicts,
            )


def file_slug(text: str) -> str:
    """Return a text as part of a file name: letters, digits, dots and hyphens, at most 80 characters."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.")[:80] or "unnamed"


def _rows(path: Path, shape: Shape) -> Iterator[dict[str, Any]]:
    for number_of_line, row in enumerate(iter_jsonl(path), 1):
        if wrong := fault(row, shape):
            raise ExchangeError(f"{path}:{number_of_line}: {wrong}. Run `distill eval` again.")
        yield row


def _benchmarks(path: Path, problems: Mapping[str, Problem]) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Yield name, protocol and problem ids of each benchmark."""
    for place, row in enumerate(_rows(path, _BENCHMARK), 1):
        if unknown := [one for one in row["problems"] if one not in problems]:
            raise ExchangeError(
                f"{path}:{place}: {row['name']} names the problem {unknown[0]!r}, which {PROBLEMS} does not have. "
                "Run `distill eval` again."
            )
        yield row["name"], row["protocol"], row["problems"]


def _num_samples(most: int, problems: list[str], index: LedgerIndex) -> int:
    """Return the number of samples a problem without those that an adaptive benchmark did not need."""
    num_skipped = Counter(name for name, number_of_sample in index.skipped if number_of_sample < most)
    return max((most - num_skipped[name] for name in problems), default=most)


def _hub_id(ledger: Path, index: LedgerIndex) -> str | None:
    """Return the Hub id that the answers name; a folder of this machine is nobody else's business."""
    for trace in read_at(ledger, list(index.places.values())[:1]):
        if re.fullmatch(r"[\w.-]+/[\w.-]+", trace.teacher) and not Path(trace.teacher).exists():
            return trace.teacher
    return None


def _recorded_score(
    metrics: Mapping[str, Any], benchmark: str, role: str
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the pass@1 and the interval that the manifest has for a model on a benchmark."""
    listed = metrics.get("benchmarks")
    rows = [mapping(row) for row in listed] if isinstance(listed, list) else []
    row = next((row for row in rows if row.get("name") == benchmark), {})
    score = mapping(row.get(role)) or mapping(mapping(row.get("models")).get(role))
    return number(score.get("pass_at_1")), interval(score.get("interval_95"))


def _finished_at(manifest: Mapping[str, Any], ledger: Path) -> datetime:
    """Return when the evaluation ended, or when its last answer came."""
    try:
        found = datetime.fromisoformat(str(manifest.get("finished_at")))
    except ValueError:
        return datetime.fromtimestamp(int(ledger.stat().st_mtime), UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)

"""Stage 1 without a teacher: import traces made elsewhere into the format of sampled ones.

Writes `problems.jsonl`, `traces/*.parquet` (see `distill.storage.trace_store`) and `skipped.json` with counts and
examples of unusable rows.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from distill.core.file_kinds import is_file
from distill.core.plurals import counted
from distill.core.progress import ProgressBar
from distill.core.records import Problem, Trace
from distill.errors import UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.models import GIB
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, number_of, span
from distill.estimates.stage import DISK, SECONDS, TOKENS, StageEstimate
from distill.recipe.lineage import command_of
from distill.recipe.sandbox import CODE, trained_programs
from distill.recipe.steps import MAKING_MODELS
from distill.recipe.traces import TraceSource
from distill.results.import_traces import ImportMetrics
from distill.sampling.status import sampling_progress
from distill.sources.imported_traces import Identities, Skipped, foreign_traces
from distill.sources.problems import bare_question
from distill.sources.tables import Row
from distill.stages import RunContext, always_useful, keeps_nothing, reopen_if_damaged
from distill.storage.case_files import problem_row
from distill.storage.files import disk_errors, write_json
from distill.storage.fingerprints import sha256_of
from distill.storage.layout import LEDGER, PROBLEMS, TESTS
from distill.storage.ledger import Ledger
from distill.storage.run_folder import Summary
from distill.storage.trace_store import check_stored, clear, finalise, shard_files
from distill.training.rl.job import ROLLOUTS
from distill.training.rl.rollout_rows import rollout_rows

VERSION = 2
SECTION = "traces"
runs_programs = trained_programs
FROM_DATASETS = ("measured",)
keeps_results, finish = keeps_nothing, always_useful
reopen_if_lost = reopen_if_damaged("import")
progress = sampling_progress

POLICIES = MAKING_MODELS[-1]
"""The stage that has rollouts."""
SKIPPED = "skipped.json"
NUM_WRITTEN = 256
"""Traces per write to the ledger."""
TRACES_PER_S = Range(500, 5_000)
"""Traces read and written per second."""
START_S = Range(0.5, 30)
IS_MEASURED = "its problem is in an evaluation set (eval.benchmarks)."
BEGINS_ANEW = "was interrupted; its sources are read again from the start"


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find nothing in advance: the sources are read when the stage runs."""


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the traces; files count by their content, not their location."""
    sources = [source.model_dump(mode="json") for source in run.recipe.traces]
    for source in sources:
        for key in ("source", "problems"):
            source[key] = _by_content(source[key])
        if source["task"] != CODE:  # runs of before there were tests stay as they are
            del source["tests"], source["columns"]["tests"]
    found = {"version": VERSION, "traces": sources, "measured": run.measured_fingerprint}
    return found | ({"rollouts": run.rollouts_made("import")} if run.recipe.rollout_rounds else {})


def verify_inputs(run: RunContext) -> None:
    """Verify the rollouts of earlier rounds, and the problems that they answer.

    Raises:
        StoreError: they are not those that `rl` wrote.
    """
    for name in run.recipe.rollout_rounds:
        one = run.earlier[name]
        way = f"Train again with `{command_of(one.recipe, POLICIES)} --force` (what is there is moved aside)."
        one.verify(POLICIES, [ROLLOUTS, PROBLEMS], "import", way)


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate:
    """Return what reading the sources will take."""
    length = known.trace_tokens
    seconds = known.traces.over(TRACES_PER_S).plus(START_S)
    traces = number_of(known.traces, "trace")
    disk = known.traces.by(length).by(Range(5.0, 12.0)).times(1 / GIB)
    return StageEstimate(
        "import",
        {
            TOKENS: known.traces.by(length).because(f"{traces}; {length.basis}"),
            SECONDS: seconds.because(f"{traces} at {span(TRACES_PER_S)} a second; no download"),
            DISK: disk.because("texts in Parquet"),
        },
    )


def check(run: RunContext) -> list[str]:
    """Verify stored traces, and return a message for whatever must be read again."""
    return check_stored(run.folder("import"), "its rows are read again")


def discard_if_empty(run: RunContext) -> bool:
    """Unless the import is complete or has shards, remove what it left and return `True`."""
    folder = run.folder("import")
    if folder.is_complete or shard_files(folder.path):
        return False
    clear(folder.path)
    return True


def run(run: RunContext) -> Summary:
    """Read all rows, then write the traces as Parquet."""
    folder = run.folder("import").path
    skipped = Skipped()
    num_by_source = Counter[str]()
    with disk_errors(folder):
        (folder / LEDGER).unlink(missing_ok=True)  # left by an interrupted run; imports start over
        new = folder / f".{PROBLEMS}"
        names: set[str] = set()
        with (
            Ledger(folder / LEDGER) as ledger,
            new.open("w") as problems,
            ProgressBar("import", None, "traces") as progress,
        ):
            pairs = _pairs(run, skipped)
            while some := list(islice(pairs, NUM_WRITTEN)):
                for problem, _ in some:
                    if problem.id not in names:
                        names.add(problem.id)
                        num_by_source[problem.source] += 1
                        problems.write(json.dumps(problem_row(problem, folder)) + "\n")
                ledger.append(trace for _, trace in some)
                progress.advance(len(some))
        new.replace(folder / PROBLEMS)
        outputs, tally = finalise(folder, lambda key: key[0] in names)
    if not tally.num_samples:
        raise UserError(
            "traces: every problem is in an evaluation set, so nothing is left to train on. Add other "
            "sources to traces:."
        )
    write_json(folder / SKIPPED, {"counts": skipped.counts, "examples": [list(pair) for pair in skipped.examples]})
    metrics = ImportMetrics(
        num_samples=tally.num_samples,
        num_problems=len(names),
        num_problems_by_source=dict(num_by_source),
        num_skipped=skipped.counts.total(),
        skipped=dict(skipped.counts),
        num_completion_tokens=None if tally.num_uncounted else tally.num_completion_tokens,
        finish_reasons=tally.by_reason,
    )
    return Summary(metrics.to_json(), {PROBLEMS: len(names), SKIPPED: None, **outputs})


def _pairs(run: RunContext, skipped: Skipped) -> Iterator[tuple[Problem, Trace]]:
    """Yield all sources' problems and traces, without evaluation problems."""
    measured = run.problem_sets.measured_questions if run.recipe.eval else frozenset()
    identities = Identities()
    for source in run.recipe.traces:
        for problem, trace in _pairs_of(run, source, skipped, identities):
            asked = [message["content"] for message in problem.prompt if message["role"] == "user"]
            if any(bare_question(question, source.template) in measured for question in asked):
                skipped.add(problem.id, IS_MEASURED)
            else:
                yield problem, trace


def _pairs_of(
    run: RunContext, source: TraceSource, skipped: Skipped, identities: Identities
) -> Iterator[tuple[Problem, Trace]]:
    store = run.folder("import").path / TESTS
    if source.round is None:
        return foreign_traces(source, skipped, identities, store=store)
    folder = run.earlier[source.round].folder(POLICIES).path
    # `task: gym`: the problems are the recipe's own, so their scorers may run.
    told = {"problems": f"file:{folder / PROBLEMS}", "task": "gym", "teacher": source.source}
    rows = _trained_on(run.earlier[source.round], rollout_rows(folder), skipped)
    return foreign_traces(source.model_copy(update=told), skipped, identities, rows, store)


def _trained_on(policy: RunContext, rows: Iterable[Row], skipped: Skipped) -> Iterator[Row]:
    """Yield the rows of problems that are not held out."""
    # By id: the prompt of a problem may have a template around the question.
    names = {one.id for one in policy.problem_sets.train}
    for place, row in rows:
        if row["problem_id"] in names:
            yield place, row
        else:
            skipped.add(place, IS_MEASURED)


def _by_content(source: str | None) -> str | None:
    """Return a local file's name and SHA-256 instead of its path; any other source unchanged."""
    kind, _, name = (source or "").partition(":")
    path = Path(name)
    return f"file:{path.name} {sha256_of(path)}" if kind == "file" and is_file(path) else source


def headline(metrics: ImportMetrics) -> str:
    """Return how many traces of how many problems were read, and how many rows could not be used."""
    num_errors = metrics.finish_reasons.get("error", 0)
    errors = f", {num_errors:,} of them ended in errors" if num_errors else ""
    left_out = _left_out(metrics.num_skipped, metrics.skipped)
    traces = counted(metrics.num_samples, "trace")
    return f"{traces} of {counted(metrics.num_problems, 'problem')}{errors}{left_out}"


def _left_out(num: int, reasons: Mapping[str, int]) -> str:
    """Return how many rows could not be used, with the most frequent reason."""
    if not num:
        return ""
    usual = max(reasons, key=lambda reason: reasons[reason], default="")
    why = f" ({'mostly: ' if len(reasons) > 1 else ''}{usual.rstrip('.')})" if usual else ""
    return f", {counted(num, 'row')} left out{why}"

"""Stage 2: keep the traces that are right, readable, clean and selected, and record the reasons of every drop.

    kept/                   prompt and completion for TRL, and the trace's own columns
    dropped/                the text and every reason
    verdicts.jsonl          one verdict for each trace
    decontamination.json    certificate: the evaluation sets that were checked against

Both tables are Parquet that `datasets.load_dataset` loads. Texts are read by worker processes
(`distill.filters.facts`) and again when rows are written; in between only facts are held, one problem at a time.
"""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

from distill.core.plurals import counted
from distill.core.progress import ProgressBar
from distill.core.records import SampleKey, Verdict
from distill.core.redaction import secrets
from distill.core.secrets import SecretFinder
from distill.errors import StoreError, UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.models import GIB
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, number_of
from distill.estimates.stage import DISK, MEMORY, SECONDS, StageEstimate, priced
from distill.filters.decide import ProblemNotes, candidate, decide, is_for_the_judge, with_reason
from distill.filters.facts import Facts, Settings, examine, pieces, read_facts
from distill.filters.funnel import Funnel
from distill.filters.nothing_kept import nothing_kept
from distill.filters.problem_notes import notes_on_problems
from distill.filters.rows import DROPPED_COLUMNS, KEPT_COLUMNS, dropped_row, kept_row, schema_of
from distill.filters.select import Candidate, over_limits
from distill.grading.cached import grade_traces, versions_of
from distill.grading.code.grader import CODE, backend_of, check_tests
from distill.grading.pool import GradingPool
from distill.grading.sandbox import sandbox_fails
from distill.models.tokenizers import TOKENIZER
from distill.recipe.lineage import traces_fingerprint
from distill.recipe.sandbox import trained_programs
from distill.results.filter import FilterMetrics
from distill.results.kinds import metrics_of
from distill.sampling.judging import Question, ask_judge
from distill.stages import RunContext, keeps_nothing, reopen_if_damaged
from distill.storage.fact_cache import FactCache
from distill.storage.files import disk_errors, replace_folder, sync_tree, write_json
from distill.storage.layout import CERTIFICATE, DROPPED, FACTS_FILE, KEPT, PROBLEMS, VERDICTS
from distill.storage.problem_file import ProblemFile
from distill.storage.run_folder import Summary, damaged_outputs
from distill.storage.shards import ShardWriter
from distill.storage.trace_store import DAMAGED, check_stored, num_rows, shard_files, stored_traces

VERSION = 4
SECTION = "filter"
runs_programs = trained_programs
FROM_DATASETS = ("evaluation_sets",)
keeps_results = keeps_nothing
reopen_if_lost = reopen_if_damaged(SECTION)

MODELS = ("base_model",)
CHARS_PER_S = Range(1.0e6, 6.5e6)
"""Characters of traces that a core examines per second: measured at 1,430 8,000-character traces per second on two
cores (`benchmarks/filter_memory.py`); several times slower if answers have to be parsed."""
PROGRAMS_PER_S = Range(1.0, 40.0)
"""Programs that a core tests per second: 40 with one short test each; those that hang cost their whole time limit."""
START_S = Range(1, 20)
MEMORY_GIB = Range(0.2, 2.0)
CHARS_PER_TOKEN = 3.5

FACTS = ".facts"
DECIDED = ".decided.jsonl"


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Load the evaluation sets that traces are checked against."""
    _ = run.evaluation_packs


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the verdicts."""
    source = run.made_before("filter")[run.recipe.traces_stage]
    config = run.recipe.filter
    needs_none = config.unanswered == "keep" and not config.require_think  # a rule that came later
    return ({"needs_final_answer": False} if needs_none else {}) | {
        "version": VERSION,
        "seed": run.recipe.seed,
        "traces": traces_fingerprint(source),
        "problems": source["outputs"][PROBLEMS]["sha256"],
        "student": f"{run.base_model.name}@{run.base_model.revision}" if config.counts_student_tokens else None,
        "evaluation_sets": {pack.name: pack.sha256 for pack in run.evaluation_packs},
        **config.model_dump(mode="json", exclude={"compute": True, "judge": {"compute"}}),
    }


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate:
    """Return what examining all traces will take."""
    config = known.recipe.filter
    chars = known.traces.by(known.trace_tokens).times(CHARS_PER_TOKEN)
    cores = min(config.compute.workers or machine.num_cores, machine.num_cores)
    seconds = chars.over(CHARS_PER_S.times(cores)).plus(START_S)
    basis = f"{number_of(known.traces, 'trace')}, {counted(cores, 'core')} at 1 to 6.5 million characters a second"
    if trained_programs(known.recipe):
        seconds = seconds.plus(known.traces.over(PROGRAMS_PER_S.times(cores)))
        basis += ", and programs at 1 to 40 a second a core"
    found = {
        SECONDS: seconds.because(basis),
        DISK: chars.times(0.6 / GIB, 2.2 / GIB).because("kept and dropped traces, and what is known of them"),
    }
    if not machine.num_gpus:  # on a GPU machine memory is per GPU, and the filter uses none
        memory = MEMORY_GIB.because("does not grow with the traces")
        found = priced({**found, MEMORY: memory}, machine, 0, prices)
    notes = []
    if config.judge is not None:
        notes.append("the judge's time and money are not counted: how many answers no rule can grade is not known")
    return StageEstimate(SECTION, found, tuple(notes), to_fit="Fewer filter.compute.workers would do.")


def check(run: RunContext) -> list[str]:
    """Verify rows and verdicts, and return a message for what is made again; all are reproducible from the traces."""
    folder = run.folder("filter")
    manifest = folder.manifest or {}
    damaged = damaged_outputs(folder.path, manifest.get("outputs", {}))
    found = [f"{folder.path / name}: damaged ({what}); made again from the traces" for name, what in damaged.items()]
    num_not_run = _dropped(manifest).get("ungraded_sandbox", 0)
    if num_not_run and sandbox_fails(backend_of(run.recipe.sandbox)) is None:
        found.append(f"{counted(num_not_run, 'program')} that no sandbox could run: graded again")
    if found:
        folder.reopen()
    return found


def _dropped(manifest: Mapping[str, Any]) -> Mapping[str, int]:
    return FilterMetrics.from_json(manifest["metrics"]).dropped if manifest else {}


def discard_if_empty(run: RunContext) -> bool:
    """Return whether the filter is incomplete or kept nothing, so that its results may be replaced without --force."""
    manifest = run.folder("filter").manifest
    return manifest is None or metrics_of(SECTION, manifest).is_empty


def verify_inputs(run: RunContext) -> None:
    """Verify the traces and their problems; damaged shards are moved aside, and their stage counts as not complete.

    Raises:
        StoreError: some are damaged; the message says how to make them again.
    """
    stage = run.recipe.traces_stage
    if found := check_stored(run.folder(stage), f"in {DAMAGED}/ if it was there"):
        raise StoreError("\n".join([*found, f"Run `distill {stage}` to repair them, then this command again."]))


def finish(run: RunContext) -> None:
    """Refuse to continue after a filter that kept nothing; its verdicts and dropped rows stay.

    Raises:
        UserError: nothing was kept; the message gives the most frequent reasons and the keys that decide them.
    """
    metrics = FilterMetrics.from_json(run.finished("filter", "filter")["metrics"])
    if metrics.is_empty:
        raise UserError(nothing_kept(metrics, run.recipe, "filter"))


def run(run: RunContext) -> Summary:
    """Grade, measure, judge and select; write kept and dropped rows."""
    config = run.recipe.filter
    source = run.folder(run.recipe.traces_stage)
    folder = run.folder("filter").path
    with disk_errors(folder), ProblemFile(source.path / PROBLEMS) as problems:
        notes, certificate = notes_on_problems(problems.sorted(), run.evaluation_packs, config.duplicates)
        write_json(folder / CERTIFICATE, certificate)
        _grade_programs(run, source.path, problems)
        num_pieces = _examine(run, source.path, problems)
        notes = _ask(run, source.path, problems, num_pieces, notes)
        late_reasons = _decide(run, source.path, problems, num_pieces, notes)
        funnel, outputs = _write(folder, source.path, problems, late_reasons)
    shutil.rmtree(folder / FACTS)
    return Summary(funnel.metrics().to_json(), outputs)


def _grade_programs(run: RunContext, source: Path, problems: ProblemFile) -> None:
    """Grade the answers that are programs, and store the grades where the workers find them.

    Not in the workers: what confines them keeps them from starting sandboxes.
    """
    config, recipe = run.recipe.filter, run.recipe
    of_code = {problem.id for problem in problems.sorted() if problem.task == CODE}
    if not of_code:
        return
    check_tests(backend_of(recipe.sandbox), problems.sorted(), "filter")
    files = shard_files(source)
    pairs = (
        (problems[trace.problem_id], trace)
        for trace in stored_traces(source)
        if trace.problem_id in of_code and trace.finish_reason != "error"
    )
    seen = Counter[str]()
    with ProgressBar("filter: test programs", num_rows(files), "programs") as progress:
        for grade in grade_traces(
            pairs,
            run.run_dir / FACTS_FILE,
            config.grade_timeout_s,
            gym_min_score=config.gym_min_score,
            memory_gib=config.grade_memory_gib,
            sandbox=recipe.sandbox,
        ):
            seen[{True: "right", False: "wrong", None: "ungraded"}[grade.correct]] += 1
            progress.advance(1, _shares(seen))


def _examine(run: RunContext, source: Path, problems: ProblemFile) -> int:
    """Examine all traces, with cached facts where possible; return the number of pieces."""
    config = run.recipe.filter
    facts_folder = run.folder("filter").path / FACTS
    shutil.rmtree(facts_folder, ignore_errors=True)  # left by an interrupted run; its facts are in the cache
    facts_folder.mkdir(parents=True)
    settings = _settings(run)
    seen = Counter[str]()
    files = shard_files(source)
    readable = [source, Path(settings.cache).parent, *([Path(settings.tokenizer)] if settings.tokenizer else [])]
    with (
        FactCache(Path(settings.cache), write=True) as cache,
        GradingPool(config.compute.workers, config.grade_timeout_s, config.grade_memory_gib, readable) as pool,
        ProgressBar("filter: examine", num_rows(files), "traces") as progress,
    ):

        def advance(facts: list[Facts]) -> None:
            seen.update(_first_glance(one) for one in facts)
            progress.advance(len(facts), _shares(seen))

        return examine(pieces(files, problems, settings), pool, cache, facts_folder, advance)


def _settings(run: RunContext) -> Settings:
    config, generate = run.recipe.filter, run.recipe.generate
    leaks = [generate.system or "", *(f"{e.reasoning}\n{e.answer}" for e in generate.examples)] if generate else []
    # The base's tokenizer is that of every student made of it, and does not change with an earlier round.
    student = run.base_model if config.counts_student_tokens else None
    return Settings(
        cache=str((run.run_dir / FACTS_FILE).absolute()),
        language=config.readability.language,
        leaks=tuple(filter(None, leaks)),
        tokenizer=str((student.path / TOKENIZER).absolute()) if student else None,
        student=f"{student.name}@{student.revision}" if student else "",
        graders=versions_of(backend_of(run.recipe.sandbox)),
        gym_min_score=config.gym_min_score,
        timeout_s=config.grade_timeout_s,
        memory_gib=config.grade_memory_gib,
    )


def _first_glance(facts: Facts) -> str:
    """Return the category of a trace in the progress bar."""
    if facts.finish_reason != "stop":
        return facts.finish_reason
    if facts.grade is None or facts.grade.correct is None:
        return "ungraded"
    return "right" if facts.grade.correct else "wrong"


def _shares(seen: Counter[str]) -> str:
    total = seen.total()
    return ", ".join(f"{num / total:.0%} {kind}" for kind, num in seen.most_common(4))


def _ask(
    run: RunContext, source: Path, problems: ProblemFile, num_pieces: int, notes: dict[str, ProblemNotes]
) -> dict[str, ProblemNotes]:
    """Return the notes with the judge's verdicts added, if the recipe has a judge."""
    judge = run.recipe.filter.judge
    if judge is None:
        return notes
    facts_folder = run.folder("filter").path / FACTS

    def questions() -> Iterator[Question]:
        for facts, trace in zip(read_facts(facts_folder, num_pieces), stored_traces(source), strict=True):
            if is_for_the_judge(facts, judge.role):
                yield Question(trace.key, problems[trace.problem_id], trace.content)

    num = sum(is_for_the_judge(facts, judge.role) for facts in read_facts(facts_folder, num_pieces))
    judged: dict[str, dict[SampleKey, bool | None]] = defaultdict(dict)
    with (
        FactCache(run.run_dir / FACTS_FILE, write=True) as cache,
        ProgressBar(f"filter: ask {judge.model}", num, "answers") as progress,
    ):
        for key, verdict in ask_judge(questions(), judge, cache, progress=progress):
            judged[key[0]][key] = verdict
            progress.advance()
        if num_silent := sum(word is None for found in judged.values() for word in found.values()):
            progress.say(
                f"The judge gave no verdict on {num_silent} answers; --force asks again about those it missed."
            )
    return notes | {name: replace(notes.get(name, ProblemNotes()), judged=found) for name, found in judged.items()}


def _decide(
    run: RunContext, source: Path, problems: ProblemFile, num_pieces: int, notes: Mapping[str, ProblemNotes]
) -> list[str | None]:
    """Write all verdicts, except for reasons that depend on the whole set.

    Returns:
        For each kept trace in order, the reason for which a limit over the whole set drops it, or `None`.
    """
    config, seed = run.recipe.filter, run.recipe.seed
    folder = run.folder("filter").path
    repeated = {note.repeats for note in notes.values() if note.repeats}
    # First problems of duplicate groups from which something is kept already; later ones are dropped as duplicates.
    taken: set[str] = set()
    finder = SecretFinder(secrets())

    def kept(stream: TextIO) -> Iterator[Candidate]:
        told = zip(read_facts(folder / FACTS, num_pieces), _secret_kinds(source, problems, finder), strict=True)
        for name, group in groupby(told, key=lambda pair: pair[0].problem_id):
            pairs = list(group)
            problem, facts = problems[name], [one for one, _ in pairs]
            held = {one.sample_index: kind for one, kind in pairs if kind is not None}
            note = replace(notes.get(name, ProblemNotes()), secrets=held)
            first = note.repeats or name
            if note.repeats and first not in taken:
                note = replace(note, repeats="")
            verdicts = decide(problem, facts, note, config, seed)
            if first in repeated and any(verdict.kept for verdict in verdicts):
                taken.add(first)
            stream.writelines(json.dumps(verdict.to_json()) + "\n" for verdict in verdicts)
            yield from (candidate(o, problem.source) for o, v in zip(facts, verdicts, strict=True) if v.kept)

    with (folder / DECIDED).open("w") as stream:
        return over_limits(kept(stream), config.select, seed)


def _secret_kinds(source: Path, problems: ProblemFile, finder: SecretFinder) -> Iterator[str | None]:
    """Yield for each trace the kind of secret in its published texts or its problem's, or `None`."""
    # Searched here and not in the workers, which must not know the environment's secrets.
    for name, traces in groupby(stored_traces(source), key=attrgetter("problem_id")):
        problem = problems[name]
        known_by = [problem.id, problem.source, json.dumps(problem.metadata, ensure_ascii=False), problem.answer or ""]
        of_problem = finder.kind_in("\n".join([*known_by, *(text for one in problem.prompt for text in one.values())]))
        for trace in traces:
            yield of_problem or finder.kind_in(f"{trace.teacher}\n{trace.teacher_revision}\n{trace.text}")


def _write(
    folder: Path, source: Path, problems: ProblemFile, late_reasons: Sequence[str | None]
) -> tuple[Funnel, dict[str, int | None]]:
    """Write kept and dropped rows and the final verdicts; traces and verdicts are in the same order."""
    funnel = Funnel()
    new = {name: folder / f".{name}" for name in (KEPT, DROPPED, VERDICTS)}
    for name in (KEPT, DROPPED):
        shutil.rmtree(new[name], ignore_errors=True)
    kept = ShardWriter(new[KEPT], schema_of(KEPT_COLUMNS))
    dropped = ShardWriter(new[DROPPED], schema_of(DROPPED_COLUMNS))
    with (
        (folder / DECIDED).open() as decided,
        new[VERDICTS].open("w") as stream,
        ProgressBar("filter: write", num_rows(shard_files(source)), "traces") as progress,
    ):
        verdicts = _final_verdicts(decided, late_reasons)
        for name, group in groupby(zip(stored_traces(source), verdicts, strict=True), key=lambda p: p[0].problem_id):
            problem, pairs = problems[name], list(group)
            for trace, verdict in pairs:
                if verdict.kept:
                    kept.write(kept_row(problem, trace, verdict), len(trace.text))
                else:
                    dropped.write(dropped_row(problem, trace, verdict), len(trace.text))
                stream.write(json.dumps(verdict.to_json()) + "\n")
            funnel.add(problem.source, [v for _, v in pairs], [trace.told_tokens for trace, _ in pairs])
            progress.advance(len(pairs), f"{funnel.num_kept:,} kept")
        stream.flush()
        os.fsync(stream.fileno())
    outputs: dict[str, int | None] = {}
    for name, writer in ((KEPT, kept), (DROPPED, dropped)):
        outputs[name] = sum(shard["num_rows"] for shard in writer.close().values())
        sync_tree(new[name])
        replace_folder(new[name], folder / name)
    new[VERDICTS].replace(folder / VERDICTS)
    (folder / DECIDED).unlink()
    return funnel, {**outputs, VERDICTS: funnel.num_traces, CERTIFICATE: None}


def _final_verdicts(decided: Iterable[str], late_reasons: Sequence[str | None]) -> Iterator[Verdict]:
    """Yield the verdicts, with late reasons added to kept ones in turn."""
    late = iter(late_reasons)
    for line in decided:
        verdict = Verdict.from_json(json.loads(line))
        reason = next(late) if verdict.kept else None
        yield verdict if reason is None else with_reason(verdict, reason)


def headline(metrics: FilterMetrics) -> str:
    """Return how many traces were kept, and how many dropped for each reason."""
    drops = ", ".join(f"{reason} {num:,}" for reason, num in metrics.dropped.items())
    return f"kept {metrics.num_kept:,} of {metrics.num_traces:,}; dropped: {drops or 'none'}"

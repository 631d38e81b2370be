"""Stage 1: sample several answers of the teacher to each problem.

Writes `problems.jsonl` and `traces/*.parquet` with one `Trace` per row, sorted by identity (see
`distill.storage.trace_store`). While sampling, traces are appended to a ledger.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.core.plurals import counted
from distill.engines.base import Engine
from distill.engines.memory import check_memory
from distill.engines.start import pick_engine
from distill.errors import StoreError, UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.measured import Measured
from distill.estimates.prices import Prices
from distill.estimates.sampling_cost import sampling_quantities, served_quantities
from distill.estimates.stage import NEW, PARTLY, TEACHER, StageEstimate, StageProgress, priced
from distill.execution.jobs import run_job
from distill.models.tokenizers import chat_template_of
from distill.recipe.sandbox import trained_programs
from distill.results.generate import Cost, GenerateMetrics
from distill.sampling.job import SamplingJob
from distill.sampling.loop import cost, run_sampling
from distill.sampling.status import sampling_progress
from distill.sources.problems import problems_fingerprint
from distill.stages import RunContext, always_useful, chat_format_of, need_tests, no_inputs, reopen_if_damaged
from distill.storage.case_files import write_problems
from distill.storage.files import read_jsonl, write_jsonl
from distill.storage.layout import FACTS_FILE, LEDGER, PROBLEMS, SKIPPED
from distill.storage.ledger import index_ledger
from distill.storage.run_folder import Summary
from distill.storage.trace_store import check_stored, clear, finalise, stored_without_repair

VERSION = 3
SECTION = "generate"
runs_programs = trained_programs
FROM_DATASETS = ("problems",)
verify_inputs, finish = no_inputs, always_useful
reopen_if_lost = reopen_if_damaged(SECTION)
progress = sampling_progress
MODELS = ("teacher_base",)

NOT_IDENTITY = {"compute", "teacher", "revision", "price"}
GROWING = {"problems", "samples_per_problem", "stop_after_correct"}
"""Identity keys whose change leaves all existing samples valid."""
NUM_SHOWN = 3


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find the teacher, its engine and the problems."""
    pick_engine(run.generate.compute)
    need_tests(run, "generate", run.problem_sets.train)
    _ = run.teacher_base  # an earlier round may not have made the teacher yet
    if not run.teacher_is_served:
        check_memory(run.teacher_base, run.generate.compute)


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the traces."""
    config = run.generate.model_dump(mode="json", exclude=NOT_IDENTITY)
    template = None if run.teacher_is_served else chat_template_of(run.teacher_model.path, _chat_format(run))
    return {
        "version": VERSION,
        "teacher": run.teacher_model.name,
        "teacher_revision": run.teacher_model.revision,
        "chat_template": template and hashlib.sha256(template.encode()).hexdigest(),
        "seed": run.recipe.seed,
        "prompts": {source.source: source.template for source in run.recipe.problems},
        "problems": problems_fingerprint(run.problem_sets.train),
        **config,
    }


def keeps_results(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return whether a change leaves all existing samples valid, so that only missing ones are sampled.

    True if only problems, their order or the number of samples change, and if a source is added or removed; false for
    another prompt of the same source.
    """
    return all(key in GROWING or (key.startswith("prompts.") and None in pair) for key, pair in changed.items())


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate:
    """Return what sampling will take, on this machine or at a server's price."""
    config, asked, teacher = known.recipe.generate, known.asked, known.teacher
    assert config is not None
    assert asked is not None
    assert teacher is not None
    if known.is_served:
        quantities, notes = served_quantities(asked, config, prices)
        return StageEstimate(SECTION, quantities, tuple(notes), samples=TEACHER)
    quantities, notes, num_gpus = sampling_quantities(asked, teacher, config.compute, machine, num_starts=1)
    return StageEstimate(
        SECTION, priced(quantities, machine, num_gpus, prices), tuple(notes), num_gpus, samples=TEACHER
    )


def standing(run: RunContext, found: StageProgress, seen: Measured, num_wanted: float) -> StageProgress:
    """Return how many of the samples are done."""
    if found.state not in (PARTLY, NEW) or seen.traces is None:
        return found
    left = max(0.0, 1 - seen.traces.num_samples / max(1.0, num_wanted))
    return StageProgress(PARTLY, f"{seen.traces.num_samples:,} of {num_wanted:,.0f} samples are done", left)


def check(run: RunContext) -> list[str]:
    """Verify stored traces, and return a message for whatever must be sampled again.

    Raises:
        UserError: a problem has the id of an earlier one with another prompt, for which samples exist.
    """
    folder = run.folder("generate")
    if not folder.path.exists():
        return []
    _refuse_changed_prompts(run)
    found = check_stored(folder, "its samples are drawn again")
    manifest = folder.manifest
    if (
        run.retry_errors
        and manifest
        and (num_errors := GenerateMetrics.model_validate(manifest["metrics"]).finish_reasons.get("error"))
    ):
        found.append(f"asking again for {num_errors:,} samples that ended in errors")
    if found:
        folder.reopen()
    return found


def discard_if_empty(run: RunContext) -> bool:
    """Unless a successful answer is stored, remove the attempt and return `True`."""
    folder = run.folder("generate").path
    if _has_answers(folder):
        return False
    clear(folder)
    (folder / PROBLEMS).unlink(missing_ok=True)
    return True


def _has_answers(folder: Path) -> bool:
    found = stored_without_repair(folder).with_ledger(index_ledger(folder / LEDGER))
    return bool(found.keys - found.errors)


def run(run: RunContext, engine: Engine | None = None) -> Summary:
    """Sample what is missing, then write the traces as Parquet.

    Args:
        run: the recipe and its folder.
        engine: sample in this process with this engine; left out: in a child process with the recipe's engine.
    """
    config = run.generate
    folder = run.folder("generate").path
    problems = run.problem_sets.train
    write_problems(folder / PROBLEMS, problems)
    job = _job(run)
    if engine is not None:
        sampled, peak = run_sampling(job, engine), 0.0
    else:
        sampled, peak = run_job("sample", job, folder, drain_s=config.compute.drain_s)
    index = index_ledger(folder / LEDGER)
    names = {problem.id for problem in problems}
    skipped = {key: why for key, why in index.skipped.items() if key[0] in names and key[1] < job.samples_per_problem}
    _write_skipped(run, skipped)
    outputs, tally = finalise(folder, lambda key: key[0] in names and key[1] < job.samples_per_problem, index)
    more: dict[str, Any] = {}
    if sampled["seconds"]:
        more["tokens_per_second"] = sampled["num_tokens"] / sampled["seconds"]
    if config.price is not None:
        more["cost"] = Cost(amount=cost(tally, config.price), currency=config.price.currency)
    metrics = GenerateMetrics(
        teacher=run.teacher_model.name,
        teacher_revision=run.teacher_model.revision,
        num_problems=len(problems),
        num_problems_by_source=run.problem_sets.num_by_source,
        num_problems_excluded=run.problem_sets.num_excluded,
        num_samples=tally.num_samples,
        samples_per_problem=config.samples_per_problem,
        num_examples=len(config.examples),
        sampling=config.sampling.model_dump(mode="json"),
        num_prompt_tokens=tally.num_prompt_tokens,
        num_completion_tokens=tally.num_completion_tokens,
        finish_reasons=tally.by_reason,
        num_not_needed=len(skipped),
        engine=sampled["engine"],
        num_damaged_records=len(index.damaged),
        **more,
    )
    return Summary(metrics.to_json(), {PROBLEMS: len(problems), SKIPPED: len(skipped), **outputs}, peak)


def _write_skipped(run: RunContext, skipped: Mapping[tuple[str, int], str]) -> None:
    rows = [{"problem_id": name, "sample_index": i, "why": why} for (name, i), why in sorted(skipped.items())]
    write_jsonl(run.folder("generate").path / SKIPPED, rows)


def _refuse_changed_prompts(run: RunContext) -> None:
    """Refuse problems whose prompt changed under the same id, if samples exist.

    Ids may come from the source, so a changed prompt does not imply a new id; samples of the old prompt would be taken
    for samples of the new one.
    """
    file = run.folder("generate").path / PROBLEMS
    if not file.exists():
        return
    try:
        before = {str(row.get("id")): row.get("prompt") or [] for row in read_jsonl(file)}
    except StoreError:  # damaged; `run` writes it anew from the recipe
        return
    changed = [p for p in run.problem_sets.train if before.get(p.id, p.prompt) != p.prompt]
    if changed and not _has_answers(file.parent):
        clear(file.parent)
        return
    if changed:
        shown = "\n".join(f"  {p.id}: {_short(before[p.id])} -> {_short(p.prompt)}" for p in changed[:NUM_SHOWN])
        more = f"\n  and {len(changed) - NUM_SHOWN} more" if len(changed) > NUM_SHOWN else ""
        raise UserError(
            f"generate: {len(changed)} problems have kept their id but have another prompt than their samples were "
            f"drawn with:\n{shown}{more}\n"
            "Give changed problems new ids, or give the new run a name of its own (--set name=…)."
        )


def _short(prompt: list[dict[str, str]]) -> str:
    text = json.dumps([message["content"] for message in prompt], ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _chat_format(run: RunContext) -> str | None:
    return chat_format_of(run.teacher_model.name)


def _job(run: RunContext) -> SamplingJob:
    config = run.generate
    plain = config.model_dump(mode="json")
    folder = run.folder("generate").path
    return SamplingJob(
        title=f"generate {run.teacher_model.name}",
        model_name=run.teacher_model.name,
        model_path=str(run.teacher_model.path),
        model_revision=run.teacher_model.revision,
        chat_format=_chat_format(run),
        problems=str(folder / PROBLEMS),
        ledger=str(folder / LEDGER),
        samples_per_problem=config.samples_per_problem,
        seed=run.recipe.seed,
        sampling=plain["sampling"],
        compute=plain["compute"],
        system=config.system,
        examples=tuple((e.problem, e.reasoning, e.answer) for e in config.examples),
        loops=plain["loops"],
        extra_body=config.extra_body,
        stop_after_correct=config.stop_after_correct,
        grade_timeout_s=run.recipe.filter.grade_timeout_s,
        grade_memory_gib=run.recipe.filter.grade_memory_gib,
        gym_min_score=run.recipe.filter.gym_min_score,
        facts=str(run.run_dir / FACTS_FILE),
        sandbox=run.recipe.sandbox.model_dump(mode="json"),
        price=plain["price"],
        retry_errors=run.retry_errors,
    )


def headline(metrics: GenerateMetrics) -> str:
    """Return how many samples of how many problems were drawn."""
    num_errors = metrics.finish_reasons.get("error", 0)
    errors = f"; {num_errors:,} more ended in errors" if num_errors else ""
    samples = counted(metrics.num_samples - num_errors, "sample")
    return f"{samples} of {counted(metrics.num_problems, 'problem')} by {metrics.teacher}{errors}"

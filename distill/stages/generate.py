"""Stage 1: the teacher answers each problem several times.

Enters: the recipe's problems. Leaves: `problems.jsonl`, the ledger that grew while sampling, and
`traces/train-00000-of-00001.parquet`, one row a `Trace`, sorted by identity.
"""

from collections import Counter
from typing import Any

from distill.engines import Engine
from distill.launch import run_job
from distill.ledger import read_ledger
from distill.problems import problems_fingerprint
from distill.records import Problem, Trace
from distill.sampling import SamplingJob, run_sampling
from distill.stages import LEDGER, PROBLEMS, TRACES, RunContext, chat_format_of
from distill.store import Summary, write_jsonl, write_parquet

VERSION = 1

GROWS = frozenset({"problems", "samples_per_problem"})
"""Identity keys whose change leaves every sample drawn so far valid: only what is missing is asked for."""


def identity(run: RunContext) -> dict[str, Any]:
    """What decides the traces."""
    config = run.recipe.generate.model_dump(mode="json", exclude={"compute", "teacher", "revision"})
    return {
        "version": VERSION,
        "teacher": run.teacher_model.name,
        "teacher_revision": run.teacher_model.revision,
        "seed": run.recipe.seed,
        "problems": problems_fingerprint(run.problem_sets.train),
        **config,
    }


def run(run: RunContext, engine: Engine | None = None) -> Summary:
    """Sample what is missing, then write the traces as Parquet.

    Args:
        run: the recipe and its folder.
        engine: draw in this process with this engine; left out: in a child process with the recipe's engine.
    """
    folder = run.folder("generate").path
    problems = run.problem_sets.train
    write_jsonl(folder / PROBLEMS, (problem.to_json() for problem in problems))
    job = _job(run)
    sampled, peak = (run_sampling(job, engine), 0.0) if engine else run_job("sample", job, folder)
    wanted = {(p.id, i) for p in problems for i in range(job.samples_per_problem)}
    # By identity, not by arrival: engines finish out of order, which would change the outputs' checksum.
    traces = sorted((t for t in read_ledger(folder / LEDGER) if t.key in wanted), key=lambda t: t.key)
    write_parquet(folder / TRACES, [trace.to_json() for trace in traces])
    metrics = {**_metrics(run, problems, traces), "engine": sampled["engine"]}
    if sampled["seconds"]:
        metrics["tokens_per_second"] = sampled["num_tokens"] / sampled["seconds"]
    return Summary(metrics, {PROBLEMS: len(problems), TRACES: len(traces)}, peak)


def _job(run: RunContext) -> SamplingJob:
    config = run.recipe.generate
    folder = run.folder("generate").path
    return SamplingJob(
        title=f"generate {run.teacher_model.name}",
        model_name=run.teacher_model.name,
        model_path=str(run.teacher_model.path),
        model_revision=run.teacher_model.revision,
        chat_format=chat_format_of(run.teacher_model.name),
        problems=str(folder / PROBLEMS),
        ledger=str(folder / LEDGER),
        samples_per_problem=config.samples_per_problem,
        seed=run.recipe.seed,
        sampling=config.sampling.model_dump(mode="json"),
        compute=config.compute.model_dump(mode="json"),
        system=config.system,
        examples=tuple((e.problem, e.reasoning, e.answer) for e in config.examples),
    )


def _metrics(run: RunContext, problems: list[Problem], traces: list[Trace]) -> dict[str, Any]:
    config = run.recipe.generate
    reasons = Counter(trace.finish_reason for trace in traces)
    return {
        "teacher": run.teacher_model.name,
        "teacher_revision": run.teacher_model.revision,
        "num_problems": len(problems),
        "num_problems_by_source": run.problem_sets.num_by_source,
        "num_problems_excluded": run.problem_sets.num_excluded,
        "num_samples": len(traces),
        "samples_per_problem": config.samples_per_problem,
        "num_examples": len(config.examples),
        "sampling": config.sampling.model_dump(mode="json"),
        "num_prompt_tokens": sum(trace.num_prompt_tokens for trace in traces),
        "num_completion_tokens": sum(trace.num_completion_tokens for trace in traces),
        "finish_reasons": {reason: reasons[reason] for reason in ("stop", "length", "error")},
    }

"""Stage 2: keep the traces that are right and readable; every drop has its reasons.

Enters: `generate/traces`. Leaves: `kept/` (TRL's prompt and completion, and the trace's own columns), `dropped/` (the
text and every reason), both as Parquet that `datasets.load_dataset` takes, and `verdicts.jsonl`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from distill.errors import StoreError
from distill.filters.readability import measure, unreadable
from distill.filters.select import duplicates, surplus
from distill.grading import Grade, grade_all
from distill.grading.pool import GradingPool
from distill.progress import ProgressBar
from distill.prompts import split_reasoning
from distill.recipe import FilterConfig
from distill.records import REASONS, Problem, Trace, Verdict, sft_row
from distill.stages import (
    DROPPED,
    KEPT,
    PROBLEMS,
    VERDICTS,
    RunContext,
    never_grows,
    nothing_to_check,
    traces_fingerprint,
)
from distill.store import Summary, read_jsonl, write_jsonl, write_parquet
from distill.trace_store import DAMAGED, check_shards, stored_traces

VERSION = 1
grows, check = never_grows, nothing_to_check


def identity(run: RunContext) -> dict[str, Any]:
    """What decides the verdicts."""
    generated = run.finished("generate", "filter")
    return {
        "version": VERSION,
        "seed": run.recipe.seed,
        "traces": traces_fingerprint(generated),
        "problems": generated["outputs"][PROBLEMS]["sha256"],
        **run.recipe.filter.model_dump(mode="json", exclude={"compute"}),
    }


def run(run: RunContext) -> Summary:
    """Grade, judge, select; write what is kept and what is not."""
    config = run.recipe.filter
    source = run.folder("generate").path
    if damaged := check_shards(source):
        run.folder("generate").reopen()
        raise StoreError(
            f"{source}: {', '.join(damaged)} failed the checksum and was moved to {source / DAMAGED}. "
            "Run `distill generate` to draw its samples again, then this."
        )
    problems = {row["id"]: Problem.from_json(row) for row in read_jsonl(source / PROBLEMS)}
    traces = list(stored_traces(source))
    verdicts = verdicts_for(problems, traces, config, run.recipe.seed)
    folder = run.folder("filter").path
    pairs = list(zip(traces, verdicts, strict=True))
    kept = [_kept_row(problems[t.problem_id], t, v) for t, v in pairs if v.kept]
    dropped = [_dropped_row(problems[t.problem_id], t, v) for t, v in pairs if not v.kept]
    write_parquet(folder / KEPT, kept, _kept_schema())
    write_parquet(folder / DROPPED, dropped, _dropped_schema())
    write_jsonl(folder / VERDICTS, (verdict.to_json() for verdict in verdicts))
    outputs: dict[str, int | None] = {KEPT: len(kept), DROPPED: len(dropped), VERDICTS: len(verdicts)}
    return Summary(funnel(verdicts), outputs)


def verdicts_for(
    problems: dict[str, Problem], traces: Sequence[Trace], config: FilterConfig, seed: int
) -> list[Verdict]:
    """One verdict a trace, in the traces' order."""
    with (
        GradingPool(config.compute.workers, config.grade_timeout_s) as pool,
        ProgressBar("filter", len(traces), "traces") as progress,
    ):
        verdicts = []
        grades = grade_all(((problems[t.problem_id], t.content) for t in traces), pool)
        for trace, grade in zip(traces, grades, strict=True):
            verdicts.append(judge(trace, grade, config))
            progress.advance()
    verdicts = _drop(
        verdicts, _duplicates_among_good(traces, verdicts) if config.duplicates is not None else set(), "duplicate"
    )
    good = [t for t, v in zip(traces, verdicts, strict=True) if v.kept]
    return _drop(verdicts, surplus(good, config.select, seed), "not_selected")


def judge(trace: Trace, grade: Grade, config: FilterConfig) -> Verdict:
    """Everything that can be said of one trace by itself: all its reasons, not just the first."""
    if trace.finish_reason == "error":
        return Verdict(trace.problem_id, trace.sample_index, None, None, ("error",))
    reasons = [grade.reason] if grade.reason else []
    if trace.finish_reason == "length":
        reasons.append("truncated")
    if trace.finish_reason == "loop":
        reasons.append("loop")
    state = split_reasoning(trace.text, opened=bool(trace.reasoning)).state
    if state == "unclosed":
        reasons.append("unclosed_think")
    elif config.require_think and (state == "none" or not trace.reasoning):
        reasons.append("no_think")
    elif not trace.content:
        reasons.append("empty_answer")
    if config.max_tokens is not None and trace.num_completion_tokens > config.max_tokens:
        reasons.append("too_long")
    readability = config.readability
    language = None if readability.language == "prompt" else readability.language
    reasons += unreadable(measure(trace.reasoning, trace.content, language), readability)
    return Verdict(trace.problem_id, trace.sample_index, grade.correct, grade.extracted_answer, tuple(reasons))


def funnel(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Counts for the report: each dropped trace once, under its first reason, and every reason's full count."""
    first = Counter(verdict.reasons[0] for verdict in verdicts if verdict.reasons)
    every = Counter(reason for verdict in verdicts for reason in verdict.reasons)
    graded = [verdict.correct for verdict in verdicts if verdict.correct is not None]
    return {
        "num_traces": len(verdicts),
        "num_kept": sum(verdict.kept for verdict in verdicts),
        "num_problems": len({verdict.problem_id for verdict in verdicts}),
        "num_problems_kept": len({verdict.problem_id for verdict in verdicts if verdict.kept}),
        "correct_share": sum(graded) / len(graded) if graded else None,
        "num_ungraded": len(verdicts) - len(graded),
        "dropped": {reason: first[reason] for reason in REASONS if first[reason]},
        "reasons": {reason: every[reason] for reason in REASONS if every[reason]},
    }


def _duplicates_among_good(traces: Sequence[Trace], verdicts: Sequence[Verdict]) -> set[tuple[str, int]]:
    return duplicates([t for t, v in zip(traces, verdicts, strict=True) if v.kept])


def _drop(verdicts: Sequence[Verdict], keys: set[tuple[str, int]], reason: str) -> list[Verdict]:
    return [
        Verdict(v.problem_id, v.sample_index, v.correct, v.extracted_answer, (*v.reasons, reason))
        if v.key in keys
        else v
        for v in verdicts
    ]


def _kept_row(problem: Problem, trace: Trace, verdict: Verdict) -> dict[str, Any]:
    return {
        **sft_row(problem, trace),
        "problem_id": problem.id,
        "sample_index": trace.sample_index,
        "task": problem.task,
        "source": problem.source,
        "answer": problem.answer,
        "extracted_answer": verdict.extracted_answer,
        "teacher": trace.teacher,
        "teacher_revision": trace.teacher_revision,
        "num_completion_tokens": trace.num_completion_tokens,
    }


def _dropped_row(problem: Problem, trace: Trace, verdict: Verdict) -> dict[str, Any]:
    return {
        "problem_id": problem.id,
        "sample_index": trace.sample_index,
        "reasons": list(verdict.reasons),
        "correct": verdict.correct,
        "answer": problem.answer,
        "extracted_answer": verdict.extracted_answer,
        "finish_reason": trace.finish_reason,
        "error": trace.error,
        "prompt": problem.prompt,
        "text": trace.text,
        "num_completion_tokens": trace.num_completion_tokens,
        "source": problem.source,
    }


def _messages_type() -> Any:
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _kept_schema() -> Any:
    """Given, not read off the rows, so that an empty table has its columns too."""
    import pyarrow as pa

    text = ("problem_id", "task", "source", "answer", "extracted_answer", "teacher", "teacher_revision")
    return pa.schema(
        [("prompt", _messages_type()), ("completion", _messages_type())]
        + [(name, pa.string()) for name in text]
        + [(name, pa.int64()) for name in ("sample_index", "num_completion_tokens")]
    )


def _dropped_schema() -> Any:
    import pyarrow as pa

    text = ("problem_id", "answer", "extracted_answer", "finish_reason", "error", "text", "source")
    return pa.schema(
        [("prompt", _messages_type()), ("reasons", pa.list_(pa.string())), ("correct", pa.bool_())]
        + [(name, pa.string()) for name in text]
        + [(name, pa.int64()) for name in ("sample_index", "num_completion_tokens")]
    )

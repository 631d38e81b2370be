"""Answers of one model to everything that is measured: sampled in a child process, graded, and judged where needed.

A role's folder (`base/`, `student/`, a model's name) holds

    ledger.jsonl    every answer, as it was sampled
    verdicts.jsonl  {"problem_id": "aime24/60", "sample_index": 0, "correct": true, "extracted_answer": "204", …}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.core.records import Problem, SampleKey, Trace, Verdict
from distill.evaluation.judged import judge_answers
from distill.evaluation.measured_sets import MeasuredSet
from distill.execution.jobs import run_job
from distill.grading import Grade
from distill.grading.cached import grade_traces
from distill.models.hub import Model
from distill.recipe.eval import EvalConfig
from distill.recipe.sandbox import SandboxConfig
from distill.sampling.job import SamplingJob
from distill.storage.files import write_jsonl
from distill.storage.layout import LEDGER, PROBLEMS, VERDICTS
from distill.storage.ledger import index_ledger, read_at


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is asked of every model, and where the answers go."""

    folder: Path
    """The stage's folder; each model has one of its own inside."""
    sets: Sequence[MeasuredSet]
    problems: Mapping[str, Problem]
    """All problems of the sets by id."""
    config: EvalConfig
    seed: int
    facts: Path
    """Path of the fact cache, which keeps grades and a judge's verdicts."""
    retry_errors: bool = False
    """Whether samples that failed are drawn again, and the judge is asked again where it gave no verdict."""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    """Where programs in answers run."""

    @property
    def wanted(self) -> dict[str, int]:
        """Return the number of samples of each problem."""
        return {name: one.samples_per_problem for one in self.sets for name in one.problems}


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's answers with their verdicts, in the same order; one verdict each."""

    model: str
    traces: Sequence[Trace]
    verdicts: Sequence[Verdict]

    def of(self, names: Iterable[str]) -> "Answers":
        """Return the answers to some problems."""
        wanted = set(names)
        pairs = [
            (trace, verdict)
            for trace, verdict in zip(self.traces, self.verdicts, strict=True)
            if trace.problem_id in wanted
        ]
        return Answers(self.model, [trace for trace, _ in pairs], [verdict for _, verdict in pairs])


def sample(evaluation: Evaluation, role: str, model: Model, chat_format: str | None) -> tuple[Any, float]:
    """Sample what is missing of one model's answers, to all sets with one load of the engine.

    Returns:
        The engine's settings, and the peak memory in GiB.

    Raises:
        DistillError: see `distill.sampling.loop.run_sampling`.
    """
    config, folder = evaluation.config, evaluation.folder
    job = SamplingJob(
        title=f"eval {role}",
        model_name=model.name,
        model_path=str(model.path),
        model_revision=model.revision,
        chat_format=chat_format,
        problems=str(folder / PROBLEMS),
        ledger=str(folder / role / LEDGER),
        samples_per_problem=config.samples_per_problem,
        # Differs from the seed of the teacher: with self-distillation the base would repeat the teacher's samples.
        seed=evaluation.seed + 1,
        sampling=config.sampling.model_dump(mode="json"),
        compute=config.compute.model_dump(mode="json"),
        grade_timeout_s=config.grade_timeout_s,
        facts=str(evaluation.facts),
        last_number=True,
        sandbox=evaluation.sandbox.model_dump(mode="json"),
        retry_errors=evaluation.retry_errors,
        sets=tuple(_sample_set(one) for one in evaluation.sets),
    )
    sampled, peak = run_job("sample", job, folder / role, drain_s=config.compute.drain_s)
    return sampled["engine"], peak


def _sample_set(one: MeasuredSet) -> dict[str, Any]:
    fields = {"problems": one.problems, "samples_per_problem": one.samples_per_problem, "sampling": one.sampling}
    return fields if one.adaptive is None else {**fields, "adaptive": one.adaptive}


def stored_traces(ledger: Path, wanted: Mapping[str, int]) -> list[Trace]:
    """Return the stored answers that are wanted, one for each sample, in the order of their identities.

    Args:
        ledger: the model's ledger; it need not exist.
        wanted: problem -> number of samples.
    """
    keys = {(name, index) for name, num in wanted.items() for index in range(num)}
    places = index_ledger(ledger).places  # one record per sample, even if it was sampled twice
    return list(read_at(ledger, (places[key] for key in sorted(keys & places.keys()))))


def grade(evaluation: Evaluation, role: str, model: str) -> Answers:
    """Grade one model's stored answers, by rules and where a set needs it by the judge; store the verdicts."""
    traces = stored_traces(evaluation.folder / role / LEDGER, evaluation.wanted)
    answers = Answers(model, traces, verdicts_of(evaluation, traces))
    write_jsonl(evaluation.folder / role / VERDICTS, (verdict.to_json() for verdict in answers.verdicts))
    return answers


def verdicts_of(evaluation: Evaluation, traces: Sequence[Trace]) -> list[Verdict]:
    """Return a verdict for each answer, in order.

    Raises:
        ModelError, StageError: the judge cannot be reached, or most of its answers were errors.
    """
    set_of = {name: one for one in evaluation.sets for name in one.problems}
    ruled = [trace for trace in traces if not set_of[trace.problem_id].is_judged]
    pairs = ((evaluation.problems[trace.problem_id], trace) for trace in ruled)
    limit_s, sandbox = evaluation.config.grade_timeout_s, evaluation.sandbox
    grades = grade_traces(pairs, evaluation.facts, limit_s, last_number=True, sandbox=sandbox)
    found: dict[SampleKey, Verdict] = {t.key: verdict_of(t, grade) for t, grade in zip(ruled, grades, strict=True)}
    for one in evaluation.sets:
        if one.is_judged:
            theirs = [trace for trace in traces if set_of[trace.problem_id] is one]
            judge = evaluation.config.judge
            assert judge is not None  # the recipe's own check
            found |= judge_answers(one, theirs, evaluation.problems, judge, evaluation.facts, evaluation.retry_errors)
    return [found[trace.key] for trace in traces]


def verdict_of(trace: Trace, grade: Grade) -> Verdict:
    """Return the verdict of a grade; a failed sample has none."""
    if trace.finish_reason == "error":
        return Verdict(trace.problem_id, trace.sample_index, None, None, ("error",))
    reasons = (grade.reason,) if grade.reason else ()
    key, answer = trace.key, grade.extracted_answer
    return Verdict(*key, grade.correct, answer, reasons, details=grade.details)

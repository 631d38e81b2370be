"""Stage 4: evaluate base and student on the same problems, none of which was trained on.

Writes `problems.jsonl`, and a ledger and `verdicts.jsonl` in each of `base/` and `student/`. The scores go into the
manifest and `summary.json`.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping, number
from distill.core.records import Problem, Trace, Verdict
from distill.core.statistics import bootstrap_interval, paired_difference
from distill.engines.memory import check_memory
from distill.engines.start import pick_engine
from distill.errors import UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.prices import Prices
from distill.estimates.sampling_cost import asked_of_student, sampling_quantities
from distill.estimates.stage import STUDENT as STUDENT_MODEL
from distill.estimates.stage import StageEstimate, priced
from distill.execution.jobs import run_job
from distill.grading import Grade, grade_all
from distill.grading.boxes import boxes_alone
from distill.grading.pool import GradingPool
from distill.models.hub import Model, resolve_model
from distill.recipe.lineage import command_of
from distill.results.eval import Benchmark, Difference, EvalMetrics, EvalResult, Protocol
from distill.sampling.job import SamplingJob
from distill.sources.problems import problems_fingerprint
from distill.stages import RunContext, always_useful, chat_format_of, keeps_nothing, nothing_to_check, reopen_if_damaged
from distill.storage.files import copy_file, num_whole_lines, read_json, write_jsonl
from distill.storage.layout import IDENTITY, LEDGER, PROBLEMS, STUDENT, VERDICTS
from distill.storage.ledger import index_ledger, read_at
from distill.storage.run_folder import Summary

VERSION = 3
SECTION = "eval"
FROM_DATASETS = ("problems",)
keeps_results, check, finish = keeps_nothing, nothing_to_check, always_useful
reopen_if_lost = reopen_if_damaged(SECTION)
ROLES = ("base", "student")

EXTRACTION = (
    "last valid \\boxed or <answer>, else announced answer, else last formula or number; cut-off answers: \\boxed only"
)


@dataclass(frozen=True, slots=True)
class Graded:
    """One model's answers to all evaluation problems, with verdicts in the same order."""

    model: Model
    traces: list[Trace]
    verdicts: list[Verdict]


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find the base, an engine and the problems."""
    _ = run.base_model
    if run.recipe.eval is not None:
        pick_engine(run.recipe.eval.compute)
        check_memory(run.base_model, run.recipe.eval.compute)
        _ = run.problem_sets


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the scores."""
    assert run.recipe.eval is not None
    run.finished("sft", "eval")
    _check_split(run)
    trained = run.made_before("eval", same_split=True)["sft"]
    return {
        "version": VERSION,
        "base": run.base_model.name,
        "base_revision": run.base_model.revision,
        "student": trained["outputs"][STUDENT]["sha256"],
        "seed": run.recipe.seed,
        "problems": {name: problems_fingerprint(set_) for name, set_ in run.problem_sets.benchmarks.items()},
        **run.recipe.eval.model_dump(mode="json", exclude={"compute", "held_out", "benchmarks"}),
    }


def assumed_identity(run: RunContext, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity on the assumption that the problems are unchanged; computing it would load them."""
    assert run.recipe.eval is not None
    said = run.recipe.eval.model_dump(mode="json", exclude={"compute", "held_out", "benchmarks"})
    student = run.finished("sft", "eval")["outputs"][STUDENT]["sha256"]
    return {**before, **said, "student": student, "seed": run.recipe.seed}


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate | None:
    """Return what sampling the models will take."""
    config = known.recipe.eval
    if config is None or known.rows is None:
        return None
    asked = asked_of_student(config, known.work, known.rows.completion_tokens, known.num_measured, known.seen.answers)
    quantities, notes, num_gpus = sampling_quantities(asked, known.student, config.compute, machine, known.num_measured)
    return StageEstimate(
        SECTION, priced(quantities, machine, num_gpus, prices), tuple(notes), num_gpus, samples=STUDENT_MODEL
    )


def progress(folder: Path) -> dict[str, Any]:
    """Return the number of answers that both models have given so far."""
    identity = mapping(read_json(folder / IDENTITY))
    k = number(identity.get("samples_per_problem")) or 1
    done = sum(len(index_ledger(folder / role / LEDGER).places) for role in ROLES)
    num_wanted = len(ROLES) * int(k) * num_whole_lines(folder / PROBLEMS) or None
    return {"num_done": done, "num_wanted": num_wanted, "unit": "answers"}


def discard_if_empty(run: RunContext) -> bool:
    """Unless the evaluation is complete or holds a successful answer, remove its ledgers and return `True`."""
    folder = run.folder("eval")
    ledgers = [folder.path / role / LEDGER for role in ROLES]
    if folder.is_complete or any(index.places.keys() - index.errors for index in map(index_ledger, ledgers)):
        return False
    for ledger in ledgers:
        ledger.unlink(missing_ok=True)
    return True


def verify_inputs(run: RunContext) -> None:
    """Verify the student's weights.

    Raises:
        StoreError: they are not those that training wrote.
    """
    way = f"Train again with `{command_of(run.recipe, 'sft')} --force` (what is there is moved aside)."
    run.verify("sft", [STUDENT], "eval", way)


def _check_split(run: RunContext) -> None:
    """Refuse to evaluate on problems that the student may have been trained on."""
    for one in run.row_sources.values():
        source = one.finished(one.recipe.traces_stage, "eval")["identity"]
        if one.recipe.traces_stage == "import":
            same_split = source.get("measured") == run.measured_fingerprint
        else:
            same_split = source.get("problems") == problems_fingerprint(run.problem_sets.train)
        if not same_split:
            raise UserError(
                "eval: the student was trained under another split of the problems, so what is held out now may be "
                "among its training rows. Run `distill run` for all stages, or undo the change to problems: or eval:."
            )
    if run.recipe.student_round is not None:
        _check_split(run.earlier[run.recipe.student_round])


def run(run: RunContext) -> Summary:
    """Sample both models (each in a child process), grade and compare."""
    assert run.recipe.eval is not None
    folder, drain_s = run.folder("eval").path, run.recipe.eval.compute.drain_s
    benchmarks = run.problem_sets.benchmarks
    problems = {p.id: p for set_ in benchmarks.values() for p in set_}
    write_jsonl(folder / PROBLEMS, (problem.to_json() for problem in problems.values()))
    models = {"base": run.base_model, "student": resolve_model(run.folder("sft").path / STUDENT)}
    _take_base_answers(run, folder)
    graded, engines, peaks = {}, {}, []
    for role, model in models.items():
        sampled, peak = run_job("sample", _job(run, role, model, folder), folder / role, drain_s=drain_s)
        peaks.append(peak)
        engines[role] = sampled["engine"]
        graded[role] = _grade(run, role, model, problems, folder)
    protocol = _protocol(run, engines["student"] or engines["base"])
    metrics = compare(graded["base"], graded["student"], benchmarks, run.recipe.seed, protocol, engines)
    outputs: dict[str, int | None] = {PROBLEMS: len(problems)}
    for role in models:
        outputs[f"{role}/{VERDICTS}"] = len(graded[role].verdicts)
    return Summary(metrics.to_json(), outputs, max(peaks))


def _take_base_answers(run: RunContext, folder: Path) -> None:
    """Copy the base's answers from an earlier round that measured the same base in the same way, if there is one."""
    ledger = folder / "base" / LEDGER
    now = {key: value for key, value in (run.folder("eval").identity or {}).items() if key != "student"}
    for one in run.earlier.values():
        found = one.folder("eval")
        same = {key: value for key, value in (found.identity or {}).items() if key != "student"} == now
        if same and found.is_complete and not ledger.exists() and (found.path / "base" / LEDGER).exists():
            copy_file(found.path / "base" / LEDGER, ledger)


def compare(
    base: Graded,
    student: Graded,
    benchmarks: Mapping[str, Sequence[Problem]],
    seed: int,
    protocol: Protocol,
    engines: Mapping[str, Any],
) -> EvalMetrics:
    """Return the scores of both models overall and on each benchmark, with the paired difference."""
    everything = [problem for problems in benchmarks.values() for problem in problems]
    each = [Benchmark(name=name, **_side_by_side(base, student, set_, seed)) for name, set_ in benchmarks.items()]
    overall = _side_by_side(base, student, everything, seed)
    return EvalMetrics(**overall, benchmarks=each, protocol=protocol, engine=dict(engines))


def _side_by_side(base: Graded, student: Graded, problems: Sequence[Problem], seed: int) -> dict[str, Any]:
    ids = {problem.id for problem in problems}
    scores = {role: problem_scores(graded, ids) for role, graded in (("base", base), ("student", student))}
    return {
        "base": score(base, ids, seed),
        "student": score(student, ids, seed),
        "difference": Difference(**paired_difference(scores["base"], scores["student"], seed)),
    }


def problem_scores(graded: Graded, ids: set[str]) -> dict[str, float]:
    """Return each problem's share of right answers; an ungraded answer counts as not right."""
    by_problem: dict[str, list[bool]] = defaultdict(list)
    for verdict in graded.verdicts:
        if verdict.problem_id in ids:
            by_problem[verdict.problem_id].append(verdict.correct is True)
    return {name: sum(rights) / len(rights) for name, rights in by_problem.items()}


def score(graded: Graded, ids: set[str], seed: int) -> EvalResult:
    """Return one model's pass@1 (mean over samples, then over problems) with its bootstrap interval."""
    scores = problem_scores(graded, ids)
    values = [scores[name] for name in sorted(scores)]
    traces = [trace for trace in graded.traces if trace.problem_id in ids]
    verdicts = [verdict for verdict in graded.verdicts if verdict.problem_id in ids]
    return EvalResult(
        model=graded.model.name,
        num_problems=len(values),
        samples_per_problem=len(traces) // len(values),
        pass_at_1=sum(values) / len(values),
        interval_95=bootstrap_interval(values, seed),
        truncated_share=sum(t.finish_reason == "length" for t in traces) / len(traces),
        num_ungraded=sum(verdict.correct is None for verdict in verdicts),
        mean_completion_tokens=sum(t.num_completion_tokens for t in traces) / len(traces),
    )


def _grade(run: RunContext, role: str, model: Model, problems: dict[str, Problem], folder: Path) -> Graded:
    config = run.recipe.eval
    assert config is not None
    wanted = {(name, i) for name in problems for i in range(config.samples_per_problem)}
    places = index_ledger(folder / role / LEDGER).places  # one record per sample, even if it was sampled twice
    traces = list(read_at(folder / role / LEDGER, (places[key] for key in sorted(wanted & places.keys()))))
    with GradingPool(timeout_s=config.grade_timeout_s) as pool:
        answers = ((problems[t.problem_id], _gradable(t)) for t in traces)
        grades = list(grade_all(answers, pool, last_number=True))
    verdicts = [_verdict(trace, grade) for trace, grade in zip(traces, grades, strict=True)]
    write_jsonl(folder / role / VERDICTS, (verdict.to_json() for verdict in verdicts))
    return Graded(model, traces, verdicts)


def _verdict(trace: Trace, grade: Grade) -> Verdict:
    if trace.finish_reason == "error":
        return Verdict(trace.problem_id, trace.sample_index, None, None, ("error",))
    reasons = (grade.reason,) if grade.reason else ()
    return Verdict(trace.problem_id, trace.sample_index, grade.correct, grade.extracted_answer, reasons)


def _gradable(trace: Trace) -> str:
    """Return the text to extract an answer from."""
    # The last number of a truncated text is not an answer, so only its boxed answers count.
    return boxes_alone(trace.content) if trace.finish_reason == "length" else trace.content


def _job(run: RunContext, role: str, model: Model, folder: Path) -> SamplingJob:
    config = run.recipe.eval
    assert config is not None
    return SamplingJob(
        title=f"eval {role}",
        model_name=model.name,
        model_path=str(model.path),
        model_revision=model.revision,
        chat_format=chat_format_of(model.name),
        problems=str(folder / PROBLEMS),
        ledger=str(folder / role / LEDGER),
        samples_per_problem=config.samples_per_problem,
        # Differs from the seed of the teacher: with self-distillation the base would repeat the teacher's samples.
        seed=run.recipe.seed + 1,
        sampling=config.sampling.model_dump(mode="json"),
        compute=config.compute.model_dump(mode="json"),
    )


def _protocol(run: RunContext, engine: dict[str, Any] | None) -> Protocol:
    """Return the conditions under which the scores are comparable."""
    config = run.recipe.eval
    assert config is not None
    return Protocol(
        samples_per_problem=config.samples_per_problem,
        **config.sampling.model_dump(mode="json"),
        engine=f"{engine['name']} {engine['version']}" if engine else None,
        extraction=EXTRACTION,
        interval="95%, percentile bootstrap over problems, 10,000 resamples",
    )


def headline(metrics: EvalMetrics) -> str:
    """Return both scores and their difference with its interval."""
    low, high = metrics.difference.interval_95
    return (
        f"base {metrics.base.pass_at_1:.1%}, student {metrics.student.pass_at_1:.1%}, "
        f"difference {100 * metrics.difference.pass_at_1:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    )

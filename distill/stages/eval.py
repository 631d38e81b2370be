"""Stage 4: evaluate base and student on the same problems, none of which was trained on.

Writes `problems.jsonl`, `benchmarks.jsonl`, and a ledger and `verdicts.jsonl` in each of `base/` and `student/`. The
scores go into the manifest and `summary.json`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.core.records import Problem
from distill.engines.memory import check_memory
from distill.engines.start import pick_engine
from distill.errors import UserError
from distill.estimates.evaluation_load import asked_of_student, judging_notes
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.prices import Prices
from distill.estimates.sampling_cost import sampling_quantities
from distill.estimates.stage import STUDENT as STUDENT_MODEL
from distill.estimates.stage import StageEstimate, priced
from distill.evaluation.answers import Answers, Evaluation, grade, sample
from distill.evaluation.contaminated import contaminated_items
from distill.evaluation.identity import asked_identity, assumed_settings, keeps_samples, settings_of
from distill.evaluation.measured_sets import MeasuredSet, write_sets
from distill.evaluation.progress import forget_if_empty, num_answers
from distill.evaluation.scoring import common_protocol, difference, overall_score, score_set
from distill.models.hub import resolve_model
from distill.recipe.lineage import command_of
from distill.recipe.sandbox import measured_programs
from distill.results.eval import Benchmark, EvalMetrics, of_one_metric
from distill.results.rl import RlInputs
from distill.sources.problems import problems_fingerprint
from distill.stages import RunContext, always_useful, chat_format_of, need_tests, reopen_if_damaged, reopen_to_retry
from distill.storage.case_files import write_problems
from distill.storage.files import copy_file
from distill.storage.layout import BENCHMARKS, FACTS_FILE, LEDGER, PROBLEMS, STUDENT, VERDICTS
from distill.storage.run_folder import Summary

VERSION = 4
SECTION = "eval"
runs_programs = measured_programs
FROM_DATASETS = ("asked", "scored")
keeps_results, finish = keeps_samples, always_useful
check = reopen_to_retry(SECTION)
reopen_if_lost = reopen_if_damaged(SECTION)
ROLES = ("base", "student")
OTHER_SPLIT = (
    "eval: the student was trained under another split of the problems, so what is held out now may be among what it "
    "was trained on. Run `distill run` for all stages, or undo the change to problems: or eval:."
)


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find the base, an engine and the problems."""
    _ = run.base_model
    if run.recipe.eval is not None:
        pick_engine(run.recipe.eval.compute)
        check_memory(run.base_model, run.recipe.eval.compute)
        need_tests(run, "eval", run.asked.problems.values())


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the scores."""
    assert run.recipe.eval is not None
    maker, _ = run.made_by_stage("eval")
    _check_split(run)
    made = run.made_before("eval", same_split=True)[maker]
    return {
        "version": VERSION,
        "base": run.base_model.name,
        "base_revision": run.base_model.revision,
        "student": made["outputs"][STUDENT]["sha256"],
        "seed": run.recipe.seed,
        **asked_identity(run.asked.sets, run.asked.problems),
        **settings_of(run.recipe.eval),
    }


def assumed_identity(run: RunContext, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity on the assumption that the problems are unchanged; computing it would load them."""
    _, made = run.made_by_stage("eval")
    student = made["outputs"][STUDENT]["sha256"]
    return {**assumed_settings(before, run.recipe), "student": student, "seed": run.recipe.seed}


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate | None:
    """Return what sampling the models will take."""
    config = known.recipe.eval
    length = known.answer_tokens
    if config is None or length is None:
        return None
    asked = asked_of_student(known.recipe, known.work, length, known.num_measured, known.seen.answers)
    quantities, notes, num_gpus = sampling_quantities(asked, known.student, config.compute, machine, known.num_measured)
    notes += judging_notes(config)
    return StageEstimate(
        SECTION, priced(quantities, machine, num_gpus, prices), tuple(notes), num_gpus, samples=STUDENT_MODEL
    )


def progress(folder: Path) -> dict[str, Any]:
    """Return the number of answers that both models have given so far."""
    return num_answers(folder, len(ROLES))


def discard_if_empty(run: RunContext) -> bool:
    """Unless the evaluation is complete or holds a successful answer, remove its ledgers and return `True`."""
    folder = run.folder("eval")
    return not folder.is_complete and forget_if_empty(folder.path)


def verify_inputs(run: RunContext) -> None:
    """Verify the student's weights.

    Raises:
        StoreError: they are not those that training wrote.
    """
    maker, _ = run.made_by_stage("eval")
    way = f"Train again with `{command_of(run.recipe, maker)} --force` (what is there is moved aside)."
    run.verify(maker, [STUDENT], "eval", way)


def _check_split(run: RunContext) -> None:
    """Refuse to evaluate on problems that the student may have been trained on."""
    for one in run.row_sources.values():
        if not one.recipe.has_traces:
            continue
        source = one.finished(one.recipe.traces_stage, "eval")["identity"]
        if one.recipe.traces_stage == "import":
            same_split = source.get("measured") == run.measured_fingerprint
        else:
            same_split = source.get("problems") == problems_fingerprint(one.problem_sets.train)
        if not same_split:
            raise UserError(OTHER_SPLIT)
    if run.recipe.rl is not None:
        _, reinforced = run.made_by_stage("eval")
        if RlInputs.model_validate(reinforced["identity"]).problems != problems_fingerprint(run.problem_sets.train):
            raise UserError(OTHER_SPLIT)
    if run.recipe.student_round is not None:
        _check_split(run.earlier[run.recipe.student_round])


def run(run: RunContext) -> Summary:
    """Sample both models (each in a child process), grade and compare."""
    assert run.recipe.eval is not None
    folder = run.folder("eval").path
    sets, problems = run.asked
    write_problems(folder / PROBLEMS, problems.values())
    write_sets(folder / BENCHMARKS, sets)
    facts = run.run_dir / FACTS_FILE
    config, seed, sandbox = run.recipe.eval, run.recipe.seed, run.recipe.sandbox
    evaluation = Evaluation(folder, sets, problems, config, seed, facts, run.retry_errors, sandbox)
    models = {"base": run.base_model, "student": resolve_model(run.files.student)}
    _take_base_answers(run, folder)
    answers, engines, peaks = {}, {}, []
    for role, model in models.items():
        engines[role], peak = sample(evaluation, role, model, chat_format_of(model.name))
        peaks.append(peak)
        answers[role] = grade(evaluation, role, model.name)
    hit = contaminated_items([one.files.kept for one in run.row_sources.values()], sets, problems)
    metrics = compare(answers["base"], answers["student"], sets, problems, run.recipe.seed, engines, hit)
    outputs: dict[str, int | None] = {PROBLEMS: len(problems), BENCHMARKS: len(sets)}
    outputs |= {f"{role}/{VERDICTS}": len(answers[role].verdicts) for role in models}
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
    base: Answers,
    student: Answers,
    sets: list[MeasuredSet],
    problems: Mapping[str, Problem],
    seed: int,
    engines: Mapping[str, Any],
    hit: Mapping[str, str],
) -> EvalMetrics:
    """Return the scores of both models overall and on each benchmark, with the paired difference.

    Args:
        base: answers of the model before training.
        student: answers of the trained model.
        sets: the benchmarks.
        problems: by id.
        seed: seed of what is resampled.
        engines: the settings of both engines.
        hit: the problems that are among the training rows, see `contaminated_items`.
    """
    each = []
    for one in sets:
        roles = {"base": base.of(one.problems), "student": student.of(one.problems)}
        scores = {role: score_set(one, answers, problems, seed, hit) for role, answers in roles.items()}
        gain = difference(*((roles[role], scores[role]) for role in roles))
        each.append(Benchmark(name=one.name, **scores, difference=gain, protocol=one.protocol))
    alike = of_one_metric({one.name: one.metric for one in sets})
    pooled = [one for one in sets if one.name in alike]
    overall = {role: overall_score(pooled, answers) for role, answers in (("base", base), ("student", student))}
    names = {name for one in pooled for name in one.problems}
    return EvalMetrics(
        **overall,
        difference=difference((base.of(names), overall["base"]), (student.of(names), overall["student"])),
        benchmarks=each,
        protocol=common_protocol(sets, engines["student"] or engines["base"]),
        engine=dict(engines),
    )


def headline(metrics: EvalMetrics) -> str:
    """Return both scores and their difference with its interval."""
    return f"base {metrics.base.text}, student {metrics.student.text}, difference {metrics.difference.text}"

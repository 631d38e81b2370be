"""Stage `measure`: evaluate any models, without training one.

Writes `problems.jsonl`, `benchmarks.jsonl`, and a ledger and `verdicts.jsonl` in a folder for each model.
"""

from collections.abc import Callable, Mapping
from typing import Any

from distill.engines.memory import check_memory
from distill.engines.start import pick_engine
from distill.estimates.evaluation_load import asked_of_model, judging_notes
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range
from distill.estimates.sampling_cost import sampling_quantities
from distill.estimates.stage import MODEL, StageEstimate, one_after_another, priced
from distill.evaluation.answers import Evaluation, grade, sample
from distill.evaluation.context import check_context
from distill.evaluation.identity import asked_identity, assumed_settings, keeps_samples, settings_of
from distill.evaluation.measured_sets import write_sets
from distill.evaluation.model_names import roles_of
from distill.evaluation.progress import forget_if_empty, num_answers
from distill.evaluation.scoring import score_set
from distill.models.hub import Model, resolve_model
from distill.models.students import hub_id_of
from distill.recipe.model import Recipe
from distill.recipe.sandbox import measured_programs
from distill.results.measure import MeasureMetrics, ModelsOnBenchmark
from distill.stages import (
    RunContext,
    always_useful,
    chat_format_of,
    need_tests,
    no_inputs,
    reopen_if_damaged,
    reopen_to_retry,
)
from distill.storage.case_files import write_problems
from distill.storage.layout import BENCHMARKS, FACTS_FILE, PROBLEMS, VERDICTS
from distill.storage.run_folder import Summary

VERSION = 1
SECTION = "eval"
runs_programs = measured_programs
FROM_DATASETS = ("asked", "scored")
finish, verify_inputs = always_useful, no_inputs
check = reopen_to_retry("measure")
keeps_results = keeps_samples
reopen_if_lost = reopen_if_damaged("measure")


def _roles(recipe: Recipe) -> dict[str, str]:
    """Return the models by the name of their folder."""
    assert recipe.eval is not None
    return roles_of(map(hub_id_of, recipe.eval.models))


def _models(run: RunContext) -> dict[str, Model]:
    """Return the models by the name of their folder.

    Raises:
        ModelError: one is neither here nor on the Hub, or is not a causal language model.
    """
    return {role: resolve_model(name, None) for role, name in _roles(run.recipe).items()}


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find the models, an engine and the problems."""
    assert run.recipe.eval is not None
    for model in _models(run).values():
        check_memory(model, run.recipe.eval.compute)
        check_context(model, run.recipe)
    pick_engine(run.recipe.eval.compute)
    need_tests(run, "measure", run.asked.problems.values())


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the scores."""
    assert run.recipe.eval is not None
    return {
        "version": VERSION,
        "models": {role: f"{model.name}@{model.revision}" for role, model in _models(run).items()},
        "seed": run.recipe.seed,
        **asked_identity(run.asked.sets, run.asked.problems),
        **settings_of(run.recipe.eval),
    }


def assumed_identity(run: RunContext, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity on the assumption that the problems and models are unchanged."""
    seen = before.get("models") or {}
    models = {role: seen.get(role) or f"{name}@" for role, name in _roles(run.recipe).items()}
    return {**assumed_settings(before, run.recipe), "models": models, "seed": run.recipe.seed}


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate | None:
    """Return what sampling the models will take, one after another."""
    config = known.recipe.eval
    assert config is not None
    each: list[dict[str, Range]] = []
    notes: list[str] = []
    num_gpus = 0
    for model in known.models:
        asked = asked_of_model(known.recipe, known.work, model.name, known.seen.models.get(model.name))
        quantities, more, used = sampling_quantities(asked, model, config.compute, machine, 1)
        each.append(priced(quantities, machine, used, prices))
        notes += more
        num_gpus = max(num_gpus, used)
    notes = list(dict.fromkeys([*notes, *judging_notes(config)]))
    return StageEstimate("measure", one_after_another(each), tuple(notes), num_gpus, samples=MODEL, set_in=SECTION)


def progress(folder: Any) -> dict[str, Any]:
    """Return the number of answers that the models have given so far."""
    return num_answers(folder)


def discard_if_empty(run: RunContext) -> bool:
    """Unless the stage is complete or holds a successful answer, remove its ledgers and return `True`."""
    folder = run.folder("measure")
    return not folder.is_complete and forget_if_empty(folder.path)


def run(run: RunContext) -> Summary:
    """Sample each model in a child process, grade and score its answers."""
    assert run.recipe.eval is not None
    folder = run.folder("measure").path
    sets, problems = run.asked
    write_problems(folder / PROBLEMS, problems.values())
    write_sets(folder / BENCHMARKS, sets)
    facts = run.run_dir / FACTS_FILE
    config, seed, sandbox = run.recipe.eval, run.recipe.seed, run.recipe.sandbox
    evaluation = Evaluation(folder, sets, problems, config, seed, facts, run.retry_errors, sandbox)
    outputs: dict[str, int | None] = {PROBLEMS: len(problems), BENCHMARKS: len(sets)}
    engines: dict[str, Any] = {}
    scores: dict[str, dict[str, Any]] = {one.name: {} for one in sets}
    peaks = [0.0]
    for role, model in _models(run).items():
        engines[role], peak = sample(evaluation, role, model, chat_format_of(model.name))
        peaks.append(peak)
        answers = grade(evaluation, role, model.name)
        outputs[f"{role}/{VERDICTS}"] = len(answers.verdicts)
        for one in sets:
            scores[one.name][role] = score_set(one, answers.of(one.problems), problems, run.recipe.seed)
    metrics = MeasureMetrics(
        benchmarks=[ModelsOnBenchmark(name=one.name, protocol=one.protocol, models=scores[one.name]) for one in sets],
        engine=engines,
    )
    return Summary(metrics.to_json(), outputs, max(peaks))


def headline(metrics: MeasureMetrics) -> str:
    """Return each model's score on each benchmark."""
    return "; ".join(
        f"{one.name}: " + ", ".join(f"{role} {score.text}" for role, score in one.models.items())
        for one in metrics.benchmarks
    )

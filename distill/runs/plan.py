"""Estimates what a whole run will take, from the stages' estimates.

Example: plan_recipe(recipe, Path("runs"), this_machine(), load_prices()).to_json()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.estimates.counts import workload
from distill.estimates.known import Known
from distill.estimates.limits import TightLimit, tight_limits
from distill.estimates.local_data import is_small_and_local
from distill.estimates.machine import Machine
from distill.estimates.measured import measure
from distill.estimates.models import GIB, ModelFacts, model_facts
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, total
from distill.estimates.remedies import PlanContext
from distill.estimates.stage import (
    ADDS_UP,
    CPU_HOURS,
    DISK,
    DONE,
    GPU_HOURS,
    MEMORY,
    NEW,
    QUANTITIES,
    StageEstimate,
    StageProgress,
)
from distill.estimates.text_tokens import TokenRate
from distill.estimates.training_cost import NO_ROWS, Rows, together
from distill.recipe.lengths import reach_of
from distill.recipe.model import Recipe
from distill.recipe.rl import RlConfig
from distill.runs.standing import standings
from distill.sources.problems import ProblemSets
from distill.stages import RunContext
from distill.stages.table import STAGES
from distill.storage.files import free_bytes

SCHEMA_VERSION = 1
Looked = dict[Path, Known]
"""What was found out about rounds, by folder."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The estimates of a run."""

    name: str
    machine: Machine
    prices: Prices
    stages: tuple[StageEstimate, ...]
    limits: tuple[TightLimit, ...]
    downloads: Mapping[str, float]
    """Models to download, with their size in GiB."""
    free_gib: float | None

    @property
    def download_gib(self) -> Range:
        """Return the GiB of models to download."""
        return Range.exact(sum(self.downloads.values()), ", ".join(self.downloads) or "all models are here")

    @property
    def totals(self) -> dict[str, Range]:
        """Return what is left to spend: sums, the largest memory of a stage, and the disk with downloaded models."""
        return left_in_all(self.stages, self.download_gib)

    @property
    def notes(self) -> list[str]:
        """Return what could not be estimated."""
        stages = [stage for stage in self.stages if stage.standing.state != DONE]
        return list(dict.fromkeys(f"{stage.stage}: {note}" for stage in stages for note in stage.notes))

    @property
    def is_done(self) -> bool:
        return all(stage.standing.state == DONE for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as described in docs/json.md."""
        other_hours = CPU_HOURS if self.machine.num_gpus else GPU_HOURS
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "machine": {
                "name": self.machine.name,
                "device": self.machine.device,
                "num_gpus": self.machine.num_gpus,
                "gpu_gib": round(self.machine.gpu_gib, 1),
                "num_cores": self.machine.num_cores,
                "is_this_machine": self.machine.is_this,
            },
            "currency": self.prices.currency,
            "prices_dated": self.prices.dated,
            "stages": {
                stage.stage: {
                    **stage.standing.to_json(),
                    "whole": {name: r.to_json() for name, r in stage.quantities.items()},
                    "left": {name: r.to_json() for name, r in stage.left.items()},
                    "unknown": [name for name in QUANTITIES if name != other_hours and stage.is_unknown(name)],
                    "notes": list(stage.notes),
                }
                for stage in self.stages
            },
            "left_in_all": {name: r.to_json() for name, r in self.totals.items()},
            "download_gib": self.download_gib.to_json(),
            "free_disk_gib": None if self.free_gib is None else round(self.free_gib, 2),
            "limits": [tight.to_json() for tight in self.limits],
            "notes": self.notes,
        }


def left_in_all(stages: Sequence[StageEstimate], download_gib: Range) -> dict[str, Range]:
    """Return what stages have left to spend together: sums, the largest memory, and the disk with downloads."""
    left = [stage.left for stage in stages]
    found = {name: total(q[name] for q in left if name in q) for name in ADDS_UP if any(name in q for q in left)}
    memory = [q[MEMORY] for q in left if MEMORY in q]
    if memory:
        found[MEMORY] = Range(max(m.low for m in memory), max(m.high for m in memory))
    found[DISK] = total(q[DISK] for q in left if DISK in q).plus(download_gib)
    return found


def plan_recipe(
    recipe: Recipe,
    runs_dir: Path,
    machine: Machine,
    prices: Prices,
    run: RunContext | None = None,
    quick: bool = False,
    looked: Looked | None = None,
) -> Plan:
    """Estimate what a run will take.

    Args:
        recipe: of the run.
        runs_dir: folder of the run folder `<recipe name>/`, which need not exist.
        machine: that it would run on.
        prices: price table.
        run: the run itself, if it is about to start; what it has loaded is reused.
        quick: do only fast lookups, and do not determine how far each stage is.
        looked: what was found out about other rounds of the run, to be used and added to.
    """
    run = run or RunContext(recipe, runs_dir / recipe.name, needs_weights=False)
    student = model_facts(recipe.student, recipe.student_revision)
    rate = TokenRate(student.local.path if student.local else None)
    sets, fault = run.if_loaded("problem_sets"), None
    if sets is None and not quick and is_small_and_local(recipe):
        try:
            sets = run.problem_sets  # cached in the run for later uses
        except DistillError as error:
            fault = str(error)
    looked = {} if looked is None else looked
    known = _known(run, sets, rate, quick, looked)
    work, seen = known.work, known.seen
    if fault is not None and fault not in work.faults:
        known.work = work = replace(work, faults=(fault, *work.faults))
    known.rows = _rows_of(run, sets, rate, quick, looked)
    known.num_measured = 2 - _has_base_answers(run)
    known.models = _measured_models(recipe)
    stages = _estimates(known, machine, prices)
    if not quick:
        found = standings(run, seen, known.num_wanted)
        stages = {name: stage.at(found.get(name, StageProgress(NEW))) for name, stage in stages.items()}
    downloads = _download(known)
    free = _free_gib(runs_dir) if machine.is_this else None
    layout = known.layout
    disk = total(stage.left[DISK] for stage in stages.values() if DISK in stage.left).plus(
        Range.exact(sum(downloads.values()))
    )
    limits = tight_limits(
        PlanContext(
            recipe,
            machine,
            work,
            stages,
            known.teacher,
            known.student,
            known.asked,
            known.rows or NO_ROWS,
            layout,
            disk,
            known.models,
            free,
        )
    )
    return Plan(recipe.name, machine, prices, tuple(stages.values()), tuple(limits), downloads, free)


def _has_base_answers(run: RunContext) -> bool:
    """Return whether an earlier round measures the same base, so that its answers need not be sampled again."""
    base = run.recipe.student, run.recipe.student_revision
    earlier = (one.recipe for one in run.earlier.values())
    return any((one.student, one.student_revision) == base and one.measures for one in earlier)


def _known(run: RunContext, sets: ProblemSets | None, rate: TokenRate, quick: bool, looked: Looked) -> Known:
    """Return what the estimates of a run or a round start from, the rows of other rounds left out."""
    if run.run_dir in looked:
        return looked[run.run_dir]
    recipe = run.recipe
    student = model_facts(recipe.student, recipe.student_revision)
    work = workload(recipe, sets and run.problem_sets, rate, quick, _reinforced(run))
    seen, teacher = measure(run.run_dir, recipe, rate, quick), run.earlier.get(recipe.teacher_round or "")
    rows = None if teacher is None else _rows_of(teacher, sets, rate, quick, looked, to_think=True)
    known = Known.of(recipe, student, work, seen, None if rows is None else rows.completion_tokens)
    if teacher is not None and known.teacher is not None:
        known.teacher = replace(known.teacher, context=_context_of(teacher, known.teacher.context))
    looked[run.run_dir] = known
    return known


def _rows_of(
    run: RunContext, sets: ProblemSets | None, rate: TokenRate, quick: bool, looked: Looked, to_think: bool = False
) -> Rows | None:
    """Return the rows that a model learnt from last: this round's, those of other rounds, or those of its student.

    Args:
        run: the round that makes the model.
        sets: the problems, if they are loaded.
        rate: counts the tokens of texts.
        quick: do only fast lookups.
        looked: what was found out about other rounds.
        to_think: only rows with a thought, if there are some: answers to problems will be like these.
    """
    if run.recipe.trains or run.recipe.round_name is None:
        used = list(run.row_sources.values()) or [run]
        if to_think:
            used = [one for one in used if one.recipe.filter.require_think] or used
        return together([_known(one, sets, rate, quick, looked).rows for one in used])
    if run.recipe.student_round is not None:
        return _rows_of(run.earlier[run.recipe.student_round], sets, rate, quick, looked, to_think=True)
    return _known(run, sets, rate, quick, looked).rows


def _context_of(run: RunContext, context: int | None) -> int | None:
    """Return the longest sequence of the model that a round makes: training may have made its base's longer."""
    while not run.recipe.trains:
        if run.recipe.student_round is None:
            return context
        run = run.earlier[run.recipe.student_round]
    sft = run.recipe.sft
    return reach_of(run.student, sft.max_length, sft.rope_theta is not None) or context


def _reinforced(run: RunContext) -> dict[str, RlConfig | None]:
    """Return `rl:` of the rounds before, by name."""
    return {name: one.recipe.rl for name, one in run.earlier.items()}


def _measured_models(recipe: Recipe) -> tuple[ModelFacts, ...]:
    """Return what is known of the models of `eval.models`."""
    config = recipe.eval
    return tuple(model_facts(name, None, config.compute.dtype) for name in config.models) if config else ()


def _estimates(known: Known, machine: Machine, prices: Prices) -> dict[str, StageEstimate]:
    names = known.recipe.stage_names
    found = {name: STAGES[name].estimate(known, machine, prices) for name in names}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _download(known: Known) -> dict[str, float]:
    """Return the models to download, with their size in GiB."""
    models: list[ModelFacts] = [*known.models] if known.recipe.only_measures else [known.student, *known.models]
    if known.teacher is not None and not known.is_served:
        models.append(known.teacher)
    return {model.name: model.weights_gib or 0.0 for model in models if model.local is None}


def _free_gib(folder: Path) -> float | None:
    try:
        return free_bytes(folder) / GIB
    except OSError:
        return None

"""Estimates what a whole run will take, from the stages' estimates.

Example: plan_recipe(recipe, Path("runs"), this_machine(), load_prices()).to_json()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.core.plurals import counted
from distill.errors import DistillError
from distill.estimates.counts import Workload, workload
from distill.estimates.limits import TightLimit, tight_limits
from distill.estimates.local_data import is_small_and_local
from distill.estimates.machine import Machine
from distill.estimates.measured import Measured, measure
from distill.estimates.models import GIB, ModelFacts, model_facts
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, number_of, span, total
from distill.estimates.remedies import PlanContext
from distill.estimates.sampling_cost import (
    REASONING,
    SamplingLoad,
    asked_of_student,
    asked_of_teacher,
    sampling_quantities,
    served_quantities,
)
from distill.estimates.stage import (
    ADDS_UP,
    CPU_HOURS,
    DISK,
    DONE,
    GPU_HOURS,
    MEMORY,
    NEW,
    QUANTITIES,
    SECONDS,
    TOKENS,
    StageEstimate,
    StageProgress,
    priced,
)
from distill.estimates.text_tokens import TokenRate
from distill.estimates.training_cost import NO_ROWS, Rows, expected_rows, together, training_quantities
from distill.recipe.model import Recipe
from distill.recipe.rounds import OWN_SECTIONS
from distill.recipe.sampling import SamplingCompute
from distill.runs.standing import standings
from distill.runs.steps import STAGES
from distill.sources.problems import ProblemSets
from distill.stages import RunContext
from distill.storage.files import free_bytes
from distill.training.layout import Layout

SCHEMA_VERSION = 1

FILTER_CHARS_PER_S = Range(1.0e6, 6.5e6)
"""Characters of traces that a core examines per second: measured at 1,430 8,000-character traces per second on two
cores (`benchmarks/filter_memory.py`); several times slower if answers have to be parsed."""
FILTER_START_S = Range(1, 20)
FILTER_GIB = Range(0.2, 2.0)
CHARS_PER_TOKEN = 3.5
IMPORT_PER_S = Range(500, 5_000)
"""Traces read and written per second."""
IMPORT_START_S = Range(0.5, 30)
UPLOAD_GIB_PER_S = Range(0.005, 0.1)


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
) -> Plan:
    """Estimate what a run will take.

    Args:
        recipe: of the run.
        runs_dir: folder of the run folder `<recipe name>/`, which need not exist.
        machine: that it would run on.
        prices: price table.
        run: the run itself, if it is about to start; what it has loaded is reused.
        quick: do only fast lookups, and do not determine how far each stage is.
    """
    run = run or RunContext(recipe, runs_dir / recipe.name, needs_weights=False)
    student = model_facts(recipe.student, recipe.student_revision)
    rate = TokenRate(student.local.path if student.local else None)
    sets, fault = run.__dict__.get("problem_sets"), None
    if sets is None and not quick and is_small_and_local(recipe):
        try:
            sets = run.problem_sets  # cached in the run for later uses
        except DistillError as error:
            fault = str(error)
    work = workload(recipe, sets, rate, quick)
    if fault is not None and fault not in work.faults:
        work = replace(work, faults=(fault, *work.faults))
    seen = measure(run.run_dir, recipe, rate, quick)
    known = _Known.of(recipe, student, work, seen)
    known.rows = together([known.rows, *_rows_of_others(run, sets, rate, quick)])
    known.num_measured = 2 - _has_base_answers(run)
    stages = _estimates(recipe, known, machine, prices, seen)
    if not quick:
        wanted = known.asked.num_samples.high if known.asked else 0.0
        found = standings(run, seen, wanted)
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
            free,
        )
    )
    return Plan(recipe.name, machine, prices, tuple(stages.values()), tuple(limits), downloads, free)


@dataclass(slots=True)
class _Known:
    """Inputs of the stages' estimates."""

    work: Workload
    teacher: ModelFacts | None
    student: ModelFacts
    asked: SamplingLoad | None
    traces: Range
    trace_tokens: Range
    """Mean per trace."""
    rows: Rows | None
    """To train on; `None`: there are none."""
    layout: Layout | None = None
    is_served: bool = False
    num_measured: int = 2
    """Models that the evaluation samples."""

    @classmethod
    def of(cls, recipe: Recipe, student: ModelFacts, work: Workload, seen: Measured) -> "_Known":
        if recipe.generate is None and not recipe.traces:  # a round that trains on the rows of others
            return cls(work, None, student, None, Range.exact(0), REASONING, None)
        if recipe.generate is None:
            length, traces = work.trace_tokens or REASONING, work.train
            if seen.imported is not None:
                length = seen.imported.completion_tokens
                traces = Range.exact(seen.imported.num_traces, length.basis)
            rows = expected_rows(recipe, work, traces, length, seen)
            return cls(work, None, student, None, traces.because(traces.basis or "rows of the sources"), length, rows)
        config = recipe.generate
        teacher = model_facts(config.teacher, config.revision, config.compute.dtype)
        asked = asked_of_teacher(config, work, seen.traces)
        rows = expected_rows(recipe, work, asked.num_samples, asked.completion_tokens, seen)
        is_served = bool(config.compute.base_urls)
        length = asked.completion_tokens
        return cls(work, teacher, student, asked, asked.num_samples, length, rows, is_served=is_served)


def _has_base_answers(run: RunContext) -> bool:
    """Return whether an earlier round measures the same base, so that its answers need not be sampled again."""
    base = run.recipe.student, run.recipe.student_revision
    earlier = (one.recipe for one in run.earlier.values())
    return any((one.student, one.student_revision) == base and "eval" in one.stage_names for one in earlier)


def _rows_of_others(run: RunContext, sets: ProblemSets | None, rate: TokenRate, quick: bool) -> list[Rows | None]:
    """Return the expected rows of the other rounds whose rows are trained on."""
    found = []
    for one in run.row_sources.values() if run.recipe.round_name is not None else ():
        if one is not run:
            student = model_facts(one.recipe.student, one.recipe.student_revision)
            work, seen = workload(one.recipe, sets, rate, quick), measure(one.run_dir, one.recipe, rate, quick)
            found.append(_Known.of(one.recipe, student, work, seen).rows)
    return found


def _estimates(
    recipe: Recipe, known: _Known, machine: Machine, prices: Prices, seen: Measured
) -> dict[str, StageEstimate]:
    stages = {}
    wanted = recipe.stage_names
    if "generate" in wanted:
        stages["generate"] = _generate(recipe, known, machine, prices)
    if "import" in wanted:
        stages["import"] = _import(known)
    if "filter" in wanted:
        stages["filter"] = _filter(recipe, known, machine, prices)
    if "sft" in wanted and known.rows is not None:
        quantities, notes, known.layout = training_quantities(recipe, known.rows, known.student, machine, seen)
        num_gpus = known.layout.num_processes if known.layout and machine.num_gpus else 0
        stages["sft"] = StageEstimate("sft", priced(quantities, machine, num_gpus, prices), tuple(notes), num_gpus)
    if "eval" in wanted and recipe.eval is not None and known.rows is not None:
        asked = asked_of_student(
            recipe.eval, known.work, known.rows.completion_tokens, known.num_measured, seen.answers
        )
        compute: SamplingCompute = recipe.eval.compute
        quantities, notes, num_gpus = sampling_quantities(asked, known.student, compute, machine, known.num_measured)
        stages["eval"] = StageEstimate("eval", priced(quantities, machine, num_gpus, prices), tuple(notes), num_gpus)
    for name in wanted:
        if name in OWN_SECTIONS:
            stages[name] = StageEstimate(name, priced(dict(STAGES[name].estimate(recipe)), machine, 0, prices))
    if "push" in wanted:
        size = Range.exact(known.student.weights_gib or 1.0)
        seconds = size.over(UPLOAD_GIB_PER_S).plus(Range(5, 30))
        basis = f"{span(size)} GiB at {span(UPLOAD_GIB_PER_S.times(1024))} MiB/s"
        stages["push"] = StageEstimate("push", {SECONDS: seconds.because(basis)})
    return {name: stages[name] for name in wanted if name in stages}


def _generate(recipe: Recipe, known: _Known, machine: Machine, prices: Prices) -> StageEstimate:
    config = recipe.generate
    assert config is not None
    assert known.asked is not None
    assert known.teacher is not None
    if known.is_served:
        quantities, notes = served_quantities(known.asked, config, prices)
        return StageEstimate("generate", quantities, tuple(notes))
    quantities, notes, num_gpus = sampling_quantities(known.asked, known.teacher, config.compute, machine, num_starts=1)
    return StageEstimate("generate", priced(quantities, machine, num_gpus, prices), tuple(notes), num_gpus)


def _import(known: _Known) -> StageEstimate:
    length = known.trace_tokens
    seconds = known.traces.over(IMPORT_PER_S).plus(IMPORT_START_S)
    traces = number_of(known.traces, "trace")
    disk = known.traces.by(length).by(Range(5.0, 12.0)).times(1 / GIB)
    return StageEstimate(
        "import",
        {
            TOKENS: known.traces.by(length).because(f"{traces}; {length.basis}"),
            SECONDS: seconds.because(f"{traces} at {span(IMPORT_PER_S)} a second; no download"),
            DISK: disk.because("texts in Parquet"),
        },
    )


def _filter(recipe: Recipe, known: _Known, machine: Machine, prices: Prices) -> StageEstimate:
    chars = known.traces.by(known.trace_tokens).times(CHARS_PER_TOKEN)
    cores = min(recipe.filter.compute.workers or machine.num_cores, machine.num_cores)
    seconds = chars.over(FILTER_CHARS_PER_S.times(cores)).plus(FILTER_START_S)
    basis = f"{number_of(known.traces, 'trace')}, {counted(cores, 'core')} at 1 to 6.5 million characters a second"
    found = {
        SECONDS: seconds.because(basis),
        DISK: chars.times(0.6 / GIB, 2.2 / GIB).because("kept and dropped traces, and what is known of them"),
    }
    if not machine.num_gpus:  # on a GPU machine memory is per GPU, and the filter uses none
        memory = FILTER_GIB.because("does not grow with the traces")
        found = priced({**found, MEMORY: memory}, machine, 0, prices)
    notes = []
    if recipe.filter.judge is not None:
        notes.append("the judge's time and money are not counted: how many answers no rule can grade is not known")
    return StageEstimate("filter", found, tuple(notes))


def _download(known: _Known) -> dict[str, float]:
    """Return the models to download, with their size in GiB."""
    models: list[ModelFacts] = [known.student]
    if known.teacher is not None and not known.is_served:
        models.append(known.teacher)
    return {model.name: model.weights_gib or 0.0 for model in models if model.local is None}


def _free_gib(folder: Path) -> float | None:
    try:
        return free_bytes(folder) / GIB
    except OSError:
        return None

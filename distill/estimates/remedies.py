"""Find changes of the recipe or the machine that make a stage fit into memory; each is tried with the same estimate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.estimates.counts import Workload
from distill.estimates.machine import GPUS_A_MACHINE, Machine, usable_memory_gib
from distill.estimates.measured import Measured
from distill.estimates.models import ModelFacts
from distill.estimates.quantities import Range
from distill.estimates.sampling_cost import SamplingLoad, gpu_gib_needed, gpus_of_a_copy, placed
from distill.estimates.stage import MEMORY, MODEL, STUDENT, TEACHER, StageEstimate
from distill.estimates.training_cost import Rows, training_quantities
from distill.recipe.model import Recipe
from distill.training.layout import Layout

MAX_GPUS = 1_024
MIN_ROW_TOKENS = 512
"""Shorter rows are not suggested."""


@dataclass(frozen=True, slots=True)
class PlanContext:
    """A plan's parts, for finding limits and ways around them."""

    recipe: Recipe
    machine: Machine
    work: Workload
    stages: Mapping[str, StageEstimate]
    teacher: ModelFacts | None
    """`None`: traces are imported."""
    student: ModelFacts
    asked: SamplingLoad | None
    """What generate asks of the teacher."""
    rows: Rows
    layout: Layout | None
    disk_gib: Range
    """Disk space for the run and its downloads."""
    measured: Sequence[ModelFacts]
    """The models of `eval.models`."""
    free_gib: float | None
    """Free disk space for the run; `None`: another machine."""


def ways_to_fit(seen: PlanContext, stage: StageEstimate) -> str:
    """Return a sentence with changes that would make a stage fit."""
    if stage.to_fit:
        return stage.to_fit
    if stage.trains:
        ways = list(_ways_to_train(seen))
        shows = (
            f"`distill sft --plan --gpus {seen.machine.num_gpus}` shows what fits. " if seen.machine.num_gpus else ""
        )
        if not ways:
            return shows + _larger(seen, "student")
        return shows + (f"Any of these would do: {', '.join(ways)}." if len(ways) > 1 else f"{ways[0]} would do.")
    if not stage.samples:
        return "A machine with more memory would do."
    if not seen.machine.num_gpus:
        return _ways_to_sample_on_cpu(seen, stage)
    return _ways_to_sample(seen, stage)


def _ways_to_train(seen: PlanContext) -> Iterator[str]:
    """Yield changes that make training fit, each by itself."""
    sft, row = seen.recipe.sft, seen.recipe.sft.max_length
    if seen.layout is None or seen.layout.per_device_batch_size > 1:
        smaller: dict[str, Any] = {"compute": sft.compute.model_copy(update={"per_device_batch_size": 1})}
        if _trains(seen, smaller):
            yield "sft.compute.per_device_batch_size: 1"
    shorter = row // 2
    while shorter >= MIN_ROW_TOKENS and not _trains(seen, {"max_length": shorter}, shorter):
        shorter //= 2
    if shorter >= MIN_ROW_TOKENS and seen.rows.longest > shorter:
        yield f"sft.max_length: {shorter} with a filter.max_tokens below it"
    if not seen.machine.num_gpus and not sft.compute.gradient_checkpointing:
        leaner = {"compute": sft.compute.model_copy(update={"gradient_checkpointing": True})}
        if _trains(seen, leaner):
            yield "sft.compute.gradient_checkpointing: true"
    for method in ("lora", "qlora"):
        is_lighter = {"full": True, "lora": method == "qlora"}.get(sft.method, False)
        if is_lighter and (method == "lora" or seen.machine.num_gpus) and _trains(seen, {"method": method}):
            yield f"sft.method: {method}"
            break
    number = 2 * seen.machine.num_gpus
    while 0 < number <= MAX_GPUS:
        if _trains(seen, {}, machine=replace(seen.machine, num_gpus=number)):
            yield f"{number} such GPUs"
            break
        number *= 2


def _trains(
    seen: PlanContext, update: Mapping[str, Any], longest: float = math.inf, machine: Machine | None = None
) -> bool:
    """Return whether training fits with other settings."""
    machine = machine or seen.machine
    recipe = seen.recipe.model_copy(update={"sft": seen.recipe.sft.model_copy(update=dict(update))})
    rows = replace(seen.rows, longest=min(seen.rows.longest, longest), row_tokens=seen.rows.row_tokens.at_most(longest))
    found = training_quantities(recipe, rows, seen.student, machine, Measured())[0].get(MEMORY)
    now = next(stage for stage in seen.stages.values() if stage.trains).quantities[MEMORY]
    there = machine.gpu_gib if machine.num_gpus else usable_memory_gib(machine)
    # If rows of usual length fit already, the change has to make the longest rows fit too.
    return found is not None and (found.low if now.low > there else found.high) <= there


def _larger(seen: PlanContext, model: str) -> str:
    """Return advice for when no setting helps."""
    if seen.machine.num_gpus:
        return f"GPUs with more memory or a smaller {model} would do."
    elsewhere = "`distill plan --gpus 8 --gpu h100` plans for some"
    return f"No setting makes it fit here: it takes GPUs ({elsewhere}), or a smaller {model}."


def _model_of(seen: PlanContext, stage: StageEstimate) -> tuple[ModelFacts | None, str]:
    if stage.samples == MODEL:  # the largest decides
        return max(seen.measured, key=lambda one: one.weights_gib or 0.0, default=None), MODEL
    return (seen.teacher if stage.samples == TEACHER else seen.student), stage.samples or STUDENT


def _ways_to_sample(seen: PlanContext, stage: StageEstimate) -> str:
    model, name = _model_of(seen, stage)
    compute = getattr(seen.recipe, stage.section).compute
    if model is None or model.weights_gib is None:
        return _larger(seen, name)
    there = min(seen.machine.num_gpus, GPUS_A_MACHINE) // (compute.replicas * compute.pipeline_parallel)
    now = placed(compute, model, seen.machine).tensor_parallel or 1
    for number in (2**power for power in range(1, 11)):
        shared = compute.model_copy(update={"tensor_parallel": number})
        if number <= now or gpu_gib_needed(model.weights_gib, shared) > seen.machine.gpu_gib:
            continue
        if number <= there:
            return f"{stage.section}.compute.tensor_parallel: {number} would do."
        needed = gpus_of_a_copy(shared) * compute.replicas
        fewer = f"fewer {stage.section}.compute.replicas, " if compute.replicas > 1 else ""
        served = ", a server (generate.compute.base_urls)" if stage.samples == TEACHER else ""
        return f"It takes {fewer}{needed} such GPUs in one machine{served}, or a smaller {name}."
    return _larger(seen, name)


def _ways_to_sample_on_cpu(seen: PlanContext, stage: StageEstimate) -> str:
    model, name = _model_of(seen, stage)
    compute = getattr(seen.recipe, stage.section).compute
    free_gib = usable_memory_gib(seen.machine)
    if model is None or model.weights_gib is None or model.weights_gib > free_gib:
        return _larger(seen, name)
    ways = [f"fewer {stage.section}.compute.replicas"] if compute.replicas > 1 else []
    ways += [f"fewer {stage.section}.compute.max_num_seqs", f"a smaller {name}"]
    return f"These would help: {', '.join(ways)}."

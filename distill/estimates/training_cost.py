"""Estimate what training takes: rows, tokens, layout, memory, time, disk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.core.plurals import counted
from distill.errors import ModelError
from distill.estimates.counts import TEMPLATE_TOKENS, Workload
from distill.estimates.cpu_speed import core_tflops, product_speed
from distill.estimates.machine import GPUS_A_MACHINE, Machine
from distill.estimates.measured import Measured
from distill.estimates.models import GIB, ModelFacts, is_reasoner, nearest_shape
from distill.estimates.quantities import Range, number_of, span, total
from distill.estimates.stage import DISK, MEMORY, SECONDS, TOKENS
from distill.estimates.text_tokens import tokens_of
from distill.estimates.training_layouts import auto_sharding, flash_is_here, on_cpu, rows_that_fit, setting_of
from distill.estimates.training_memory import ADAMW, BF16, FP32, plan
from distill.recipe.model import Recipe
from distill.recipe.sft import SftConfig
from distill.training.job import KEPT_CHECKPOINTS
from distill.training.layout import Layout, plan_layout

KEPT_OF_REASONER = Range(0.4, 0.9, "40 to 90% of a reasoning model's traces are right and readable")
KEPT_OF_OTHERS = Range(0.05, 0.6, "5 to 60% of the traces are right and readable")
KEPT_OF_TAUGHT = Range(0.2, 0.9, "20 to 90% of the traces of a model that learnt from such rows are right and readable")
KEPT_OF_IMPORTED = Range(0.3, 0.95, "30 to 95% of the traces are right and readable")
RIGHT_ARE_SHORTER = Range(0.6, 1.0)
"""Length of kept traces relative to all traces."""

MFU = Range(0.3, 0.5)
"""Assumed: share of the GPUs' peak that training reaches on one machine (recomputation not counted)."""
MFU_FAR = Range(0.2, 0.45)
"""Assumed: the same over several machines."""
PASS_S = Range(0.03, 0.15)
"""Assumed: overhead of a pass on a GPU, in seconds: launching kernels, communication."""
LIKE_ANOTHER = (0.7, 1.4)
"""Memory of a model of unknown shape relative to the student nearest in size."""
CPU_MFU = Range(0.5, 0.95)
"""Share of the cores' assumed float32 peak that training reaches; SmolLM2-135M at 170 to 220 tokens/s on 2 cores of an
AMD EPYC (Zen 5) is 0.7 to 0.9."""
MEASURED_MFU = Range(0.35, 0.95)
"""The same for measured products; 0.6 at 140 tokens/s on 2 cores of an Intel Xeon (Sapphire Rapids)."""
START_S = {"gpu": Range(60, 300), "cpu": Range(20, 90)}
"""Starting, loading the model, saving the student and checking it, in seconds."""
PROCESS_GIB = Range(0.8, 1.6)
"""Memory of the processes on CPU besides the training itself."""
TOKEN_BYTES = 8
"""Bytes per token in the cache of rows that training reads: an id and a label, 32 bits each."""

TEMPLATE_OF_ROW = Range(5, 40)
"""Assumed: tokens that a chat template puts around a row, with a system message of its own."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that the student is trained on."""

    num: Range
    completion_tokens: Range
    """Per row."""
    row_tokens: Range
    """Per row on average, prompt and completion."""
    longest: float
    """Tokens of the longest possible row."""


NO_ROWS = Rows(Range.exact(0.0), Range.exact(0.0), Range.exact(0.0), 0.0)


def expected_rows(recipe: Recipe, work: Workload, traces: Range, completion: Range, seen: Measured) -> Rows:
    """Return the rows that the filter will keep, or has kept.

    Args:
        recipe: the recipe.
        work: the problems or imported traces.
        traces: number of traces.
        completion: completion tokens per trace.
        seen: measurements of the run.
    """
    prompt = work.prompt_tokens
    longest = _longest_row(recipe, work)
    if (kept := seen.kept) is not None and kept.num_rows:
        length = kept.completion_tokens
        row = length.plus(kept.prompt_tokens).plus(TEMPLATE_OF_ROW)
        if kept.longest_tokens is not None:
            longest = max(row.high, min(longest, kept.longest_tokens + TEMPLATE_OF_ROW.high))
        return Rows(Range.exact(kept.num_rows, length.basis), length, row, longest)
    length = completion.by(RIGHT_ARE_SHORTER)
    if recipe.filter.max_tokens is not None:
        length = length.at_most(recipe.filter.max_tokens)
    teacher = recipe.generate.teacher if recipe.generate else None
    share = KEPT_OF_IMPORTED if teacher is None else KEPT_OF_REASONER if is_reasoner(teacher) else KEPT_OF_OTHERS
    if recipe.teacher_round is not None:
        share = KEPT_OF_TAUGHT
    num = traces.by(share).because(share.basis)
    select = recipe.filter.select
    if select.per_problem is not None:
        most = work.num_problems.times(select.per_problem)
        # Right answers cluster on easy problems, so not every problem has as many as may be kept.
        low = min(num.low, most.low * math.sqrt(share.low))
        num = Range(low, min(num.high, most.high), f"{share.basis}, at most {select.per_problem} a problem")
    if select.per_source is not None:
        num = num.at_most(select.per_source * max(1, len(recipe.problems) + len(recipe.traces)))
    if select.token_budget is not None:
        num = num.at_most(select.token_budget / length.low)
    num = Range(max(1.0, num.low), max(1.0, num.high), num.basis)
    row = length.plus(prompt).at_most(recipe.sft.max_length).because(length.basis)
    return Rows(num, length, row, longest)


def together(several: Sequence[Rows | None]) -> Rows | None:
    """Return the rows of several rounds as one set; `None` if there are none."""
    there = [rows for rows in several if rows is not None]
    if len(there) < 2:
        return there[0] if there else None
    nums = [rows.num for rows in there]
    said = f"{counted(len(there), 'round')}: {'; '.join(_told(rows) for rows in there)}"
    return Rows(
        total(nums).because(said),
        _mean_of(nums, [rows.completion_tokens for rows in there]),
        _mean_of(nums, [rows.row_tokens for rows in there]),
        max(rows.longest for rows in there),
    )


def _told(rows: Rows) -> str:
    return f"{number_of(rows.num, 'row')} of {span(rows.row_tokens)} tokens ({rows.num.basis})"


def _mean_of(nums: Sequence[Range], lengths: Sequence[Range]) -> Range:
    """Return the mean length over several sets of rows."""
    shares = [num.middle / max(1.0, sum(one.middle for one in nums)) for num in nums]
    return Range(
        sum(share * one.low for share, one in zip(shares, lengths, strict=True)),
        sum(share * one.high for share, one in zip(shares, lengths, strict=True)),
        lengths[0].basis,
    )


def _longest_row(recipe: Recipe, work: Workload) -> float:
    """Return the tokens of the longest row that the recipe allows."""
    drawn = recipe.generate.sampling.max_tokens if recipe.generate else work.longest_trace_tokens
    limits = [recipe.filter.max_tokens, drawn]
    known = [limit for limit in limits if limit is not None]
    if not known:
        return recipe.sft.max_length
    prompt = tokens_of(Range.exact(work.longest_chars or 2 * work.prompt_chars.high)).high + TEMPLATE_TOKENS
    return min(recipe.sft.max_length, min(known) + prompt)


def training_layout(config: SftConfig, model: ModelFacts, machine: Machine) -> Layout:
    """Return the layout that `distill sft` would choose on the machine.

    Raises:
        ModelError: the recipe's numbers are not compatible on this machine.
    """
    if not machine.num_gpus:
        return plan_layout(config, 0)
    gib, has_flash = machine.gpu_gib, _has_flash(machine)
    layout = plan_layout(
        config,
        machine.num_gpus,
        lambda num: auto_sharding(model.shape, setting_of(config, num_processes=num, has_flash=has_flash), gib),
    )
    return rows_that_fit(layout, config, model.shape, gib, has_flash)


def _has_flash(machine: Machine) -> bool:
    """Return whether the machine has FlashAttention, which is assumed for other machines."""
    return flash_is_here() if machine.is_this else True


def training_quantities(
    recipe: Recipe, rows: Rows, model: ModelFacts, machine: Machine, seen: Measured
) -> tuple[dict[str, Range], list[str], Layout | None]:
    """Estimate tokens, time, memory and disk of training a model on a machine.

    Returns:
        The quantities, notes on what could not be estimated, the layout (`None`: none is possible).
    """
    config = recipe.sft
    tokens = rows.num.by(rows.row_tokens).times(config.epochs)
    epochs = f"{config.epochs:g} epoch{'' if config.epochs == 1 else 's'}"
    said = f"{number_of(rows.num, 'row')} of {span(rows.row_tokens)} tokens, {epochs}: {rows.num.basis}"
    found = {TOKENS: tokens.because(said)}
    stand_in = _stand_in(model)
    try:
        layout = training_layout(config, stand_in, machine)
    except ModelError as error:
        return found, [str(error)], None
    notes: list[str] = []
    found[DISK] = _disk(recipe, rows, model)
    memory = _memory(config, rows, stand_in, machine, layout)
    if memory is not None and stand_in is not model:
        memory = memory.times(*LIKE_ANOTHER).because(f"{memory.basis}; as for a student of similar size")
    if memory is not None:
        found[MEMORY] = memory
    elif model.num_parameters is not None:
        notes.append(f"{model.name}: its training memory cannot be estimated for this architecture")
    speed = training_speed(config, rows, model, machine, layout, seen)
    if speed is None:
        what = (
            "its size is not known here"
            if model.active_parameters is None
            else f"{machine.name} is not in the table of GPUs"
        )
        notes.append(f"{model.name}: {what}, so the time cannot be estimated")
        return found, notes, layout
    start = START_S[machine.device].plus(Range.exact(model.weights_gib or 1.0).over(Range(0.2, 2.0)))
    if machine.num_gpus and not (seen.training_speed and machine.is_this):
        passes = tokens.over(rows.row_tokens).times(1 / (layout.per_device_batch_size * layout.data_parallel))
        start = start.plus(passes.by(PASS_S))
    found[SECONDS] = tokens.over(speed).plus(start).because(f"{span(speed)} tokens/s: {speed.basis}")
    return found, notes, layout


def _stand_in(model: ModelFacts) -> ModelFacts:
    """Return a dense model of unknown shape with the shape of the student nearest in size; others unchanged."""
    is_dense = model.num_parameters is not None and model.num_parameters == model.active_parameters
    if model.shape is not None or model.is_seen or not is_dense:
        return model
    return replace(model, shape=nearest_shape(model.num_parameters or 1e9))


def training_speed(
    config: SftConfig, rows: Rows, model: ModelFacts, machine: Machine, layout: Layout, seen: Measured
) -> Range | None:
    """Return the tokens per second in training; `None` if unknown."""
    if seen.training_speed and machine.is_this:
        return Range(0.85 * seen.training_speed, 1.15 * seen.training_speed, "measured by this run")
    tflops = machine.tflops
    if tflops is None or model.active_parameters is None:
        return None
    if machine.num_gpus:
        units = layout.num_processes
        reached = MFU if units <= GPUS_A_MACHINE else MFU_FAR
        where = f"of {span(tflops)} TFLOPS on each of {counted(units, 'GPU')}"
    else:
        units = machine.num_cores
        reached = CPU_MFU if product_speed(model, machine) is None else MEASURED_MFU
        dtype = "bfloat16" if config.compute.dtype == "bfloat16" else "float32"
        tflops, each = core_tflops(model, machine, dtype)
        where = f"of {each}, on each of {counted(units, 'core')}"
    passes = 3 if config.method == "full" else 2
    flops = passes * model.flops_per_token(rows.row_tokens.middle / 2)
    basis = f"{model.basis}, {reached.low:.0%} to {reached.high:.0%} {where}"
    return tflops.times(units * 1e12 / flops).by(reached).because(basis)


def _memory(config: SftConfig, rows: Rows, model: ModelFacts, machine: Machine, layout: Layout) -> Range | None:
    """Return the GiB of each GPU, or of all processes on CPU, from rows of usual length to the longest possible."""
    if model.shape is None:
        return None
    setting = replace(
        setting_of(config, num_processes=layout.num_processes, has_flash=_has_flash(machine)),
        rows=layout.per_device_batch_size,
        accumulation=layout.accumulation,
        sharding=layout.sharding,
        sequence_parallel=layout.sequence_parallel,
    )
    if not machine.num_gpus:
        setting = on_cpu(setting, config)
    low, high = (
        plan(model.shape, replace(setting, row_tokens=max(1, math.ceil(length)))).total_gib
        for length in (min(rows.row_tokens.low, rows.longest), rows.longest)
    )
    share = f", {layout.sharding}" if layout.sharding != "none" else ""
    basis = (
        f"{layout.per_device_batch_size} row{'s' if layout.per_device_batch_size > 1 else ''} a pass{share}: of "
        f"{rows.row_tokens.low:,.0f} tokens, or of the longest possible ({rows.longest:,.0f})"
    )
    if machine.num_gpus:
        return Range(low, high, basis)
    processes = layout.num_processes
    return Range(low * processes, high * processes).plus(PROCESS_GIB.times(processes)).because(basis)


def _disk(recipe: Recipe, rows: Rows, model: ModelFacts) -> Range:
    """Return the GiB of the student, the checkpoints during training, and the rows' tokens."""
    config = recipe.sft
    num = model.num_parameters or 1e9
    trained = num
    if config.method != "full":
        trained = num * 0.02
        if model.shape is not None and (config.lora is None or config.lora.target_modules == "all-linear"):
            trained = model.shape.lora_parameters(config.lora.r if config.lora else 32)
    checkpoint = trained * (FP32 + ADAMW)
    kept = 10 if recipe.push is not None and recipe.push.checkpoints else KEPT_CHECKPOINTS
    student = num * BF16
    cache = rows.num.by(rows.row_tokens).times(TOKEN_BYTES)
    # While a checkpoint is being written, there is one more.
    return (
        Range(student + checkpoint, student + (kept + 1) * checkpoint)
        .plus(cache)
        .times(1 / GIB)
        .because(f"the student, and up to {kept + 1} checkpoints during training")
    )

"""`distill sft --check`: rows as they will be trained, problems with them, and what training will take.

Loads the tokenizer but no weights. The tokenised rows stay in the run folder for training.
"""

import math
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.provenance import hardware
from distill.engines.memory import visible_gpus
from distill.errors import ModelError
from distill.estimates.training_layouts import (
    ASSUMED_MFU,
    CPU_CORE_TFLOPS,
    fits,
    flash_is_here,
    on_cpu,
    peak_tflops,
    setting_of,
    training_hours,
)
from distill.estimates.training_memory import Estimate, Setting, plan
from distill.execution.cpu_products import block_shapes, measured_in_child
from distill.models.shapes import ModelShape, shape_from_config
from distill.models.tokenizers import load_tokenizer
from distill.recipe.model import Recipe
from distill.recipe.sft import SftConfig
from distill.runs.steps import chosen_run
from distill.stages.sft import train_job, verify_inputs
from distill.storage.files import read_json
from distill.storage.run_folder import only_writer
from distill.training.job import TOKENS, TrainJob
from distill.training.layout import Layout
from distill.training.preflight import Example, Preflight, preflight
from distill.training.row_checks import plain
from distill.training.rows import row_lengths, token_rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

TRAINED, OTHER = "green", "dim"
OPEN_MARK, CLOSE_MARK = "«", "»"
"""Around trained text if there is no colour."""
NAME_WIDTH = 9
SHOWN_CHARS = 600
"""Longest segment shown in full; of a longer one, the beginning and the end."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The estimate of what training will take."""

    device: str
    """`gpu` or `cpu`."""
    memory: Estimate | None
    """Per GPU, or per process on CPU; `None`: there is no estimate for this architecture."""
    fullest_pass: tuple[int, int]
    """Rows, and tokens of the longest of them, for which memory is estimated."""
    there_gib: float | None
    """Memory of the smallest GPU, or on CPU each process's share; `None`: unknown."""
    fits: bool | None
    hours: float | None
    """`None`: the GPU's speed is unknown."""
    mfu: float = ASSUMED_MFU
    """Assumed share of the peak speed."""


@dataclass(frozen=True, slots=True)
class SftCheck:
    """The result of `distill sft --check`."""

    student: str
    method: str
    epochs: float
    batch_size: int
    stop_token: str
    pad_token: str
    preflight: Preflight
    layout: Layout
    needs: Needs

    def to_json(self) -> dict[str, Any]:
        """Return the check as a JSON-ready dict."""
        known = asdict(self)
        if self.needs.memory is not None:
            known["needs"]["memory"]["total"] = self.needs.memory.total_gib
        return known | {"refused": bool(self.preflight.refusals)}


def check_sft(recipe: Recipe, runs_dir: Path, of_round: str | None = None) -> SftCheck:
    """Check the kept rows as they will be trained.

    Args:
        recipe: of the run.
        runs_dir: folder of the run folder `<recipe name>/`.
        of_round: name of the round; left out: the only one that trains.

    Raises:
        UserError: the filter is not done or kept nothing, or its rows or the student cannot be used at all.
    """
    run_dir = runs_dir / recipe.name
    run = chosen_run(recipe, run_dir, "sft", of_round, needs_weights=False)
    recipe = run.recipe
    for one in run.row_sources.values():
        one.finished("filter", "sft --check")
    with only_writer(run_dir):
        job = train_job(run)
        verify_inputs(run)
        tokenizer = load_tokenizer(Path(job.model_path), job.chat_format, job.stop_token, job.chat_template)
        model_config = read_json(Path(job.model_path) / "config.json")
        cache = Path(job.out_dir) / TOKENS
        rows = token_rows(Path(job.rows), tokenizer, cache)
        found = preflight(Path(job.rows), rows, tokenizer, recipe.sft, model_config, job.context)
        needs = training_needs(job, recipe.sft, model_config, row_lengths(rows))
        if run.folder("sft").is_complete:  # no training will read the tokens
            shutil.rmtree(cache, ignore_errors=True)
    return SftCheck(
        student=job.model_name,
        method=recipe.sft.method,
        epochs=recipe.sft.epochs,
        batch_size=recipe.sft.batch_size,
        stop_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        preflight=found,
        layout=Layout(**job.layout),
        needs=needs,
    )


def training_needs(job: TrainJob, config: SftConfig, model_config: dict[str, Any], lengths: Any) -> Needs:
    """Estimate what training will take on this machine.

    Args:
        job: the training job.
        config: the recipe's `sft:`.
        model_config: config.json of the student.
        lengths: tokens of each row, shape (N,).
    """
    gpus = visible_gpus()
    device = "gpu" if gpus else "cpu"
    layout, machine = Layout(**job.layout), hardware()
    there_gib = min((gib for gib in gpus.values() if math.isfinite(gib)), default=None)
    if not gpus:
        there_gib = machine["memory_gib"] / layout.num_processes
    fullest = _fullest_pass(job, config, layout, lengths)
    try:
        shape = shape_from_config(model_config, job.model_name)
    except ModelError:
        return Needs(device, None, fullest, there_gib, None, None)
    setting = _setting(config, layout, fullest, on_gpu=bool(gpus))
    memory = plan(shape, setting)
    fitting = fits(memory, there_gib) if there_gib is not None else None
    return Needs(device, memory, fullest, there_gib, fitting, _hours(shape, setting, config, lengths, machine["gpus"]))


def _fullest_pass(job: TrainJob, config: SftConfig, layout: Layout, lengths: Any) -> tuple[int, int]:
    """Return (rows, tokens of the longest) of the forward pass with the highest memory."""
    from distill.training.batches import StepBatches

    return StepBatches(
        lengths.tolist(),
        batch_size=layout.batch_size,
        num_ranks=layout.data_parallel,
        accumulation=layout.accumulation,
        rank=0,
        seed=job.seed,
        group_by_length=config.compute.group_by_length,
    ).fullest_pass()


def _setting(config: SftConfig, layout: Layout, fullest: tuple[int, int], on_gpu: bool) -> Setting:
    """Return the setting of the memory estimate for the fullest pass; on CPU with the choices training makes there."""
    rows, row_tokens = fullest
    setting = replace(
        setting_of(config, row_tokens, layout.num_processes, flash_is_here()),
        rows=rows,
        accumulation=layout.accumulation,
        sharding=layout.sharding,
    )
    return setting if on_gpu else on_cpu(setting, config)


def _hours(shape: ModelShape, setting: Setting, config: SftConfig, lengths: Any, gpus: list[str]) -> float | None:
    if setting.device == "cpu":
        speed = measured_in_child(block_shapes(shape.hidden, shape.intermediate))
        dtype = "bfloat16" if setting.bf16 else "float32"
        tflops = CPU_CORE_TFLOPS if speed is None else speed.of(dtype) / 1_000
        num = len(os.sched_getaffinity(0))
    else:
        peaks = [peak_tflops(name) for name in gpus]
        if not peaks or None in peaks:
            return None
        num = setting.num_processes
        tflops = min(peak for peak in peaks if peak is not None)
    num_tokens = int(lengths.sum())
    mean_row = float((lengths.astype(float) ** 2).sum() / num_tokens)  # weighted by tokens
    return training_hours(shape, round(num_tokens * config.epochs), num, tflops, mean_row, config.method)


# --- on the terminal ---


def print_check(check: SftCheck, console: "Console") -> None:
    """Print rows, lengths, tokens, layout, memory and hours; then notes."""
    colour = console.is_terminal and not console.no_color
    shown = f"trained tokens are {TRAINED}" if colour else f"trained tokens are between {OPEN_MARK} and {CLOSE_MARK}"
    _say(console, f"Rows as they will be trained ({shown}):")
    examples = check.preflight.examples
    names = ("shortest", "median", "longest") if len(examples) == 3 else ("shortest", "longest")
    for which, example in zip(names, examples, strict=False):
        counts = f"{example.num_tokens:,} tokens, {example.num_trained_tokens:,} trained"
        _say(console, f"\n--- {plain(example.name)} ({which}: {counts})")
        console.print(example_text(example, colour), soft_wrap=True)
    _say(console, "")
    for name, value in _facts(check, console.width - NAME_WIDTH):
        _say(console, f"{name:<{NAME_WIDTH}}{value}")
    for finding in check.preflight.warnings:
        _say(console, f"\nNote: {finding.message}")


def _say(console: "Console", text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def example_text(example: Example, colour: bool) -> "Text":
    """Return a row with trained text marked and control characters made harmless."""
    from rich.text import Text

    text = Text()
    for segment in example.segments:
        shown = _abridged(plain(segment.text))
        if colour:
            text.append(shown, style=TRAINED if segment.trained else OTHER)
        else:
            text.append(f"{OPEN_MARK}{shown}{CLOSE_MARK}" if segment.trained else shown)
    return text


def _abridged(text: str) -> str:
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters …] {text[-half:]}"


def _facts(check: SftCheck, width: int) -> list[tuple[str, str]]:
    found = check.preflight
    share = found.num_too_long / found.num_rows
    trained = f"{found.num_trained_tokens:,} of them trained ({found.num_trained_tokens / found.num_tokens:.1%})"
    return [
        ("student", f"{check.student}, {check.method}; stops at {check.stop_token}, padded with {check.pad_token}"),
        ("rows", f"{found.num_rows:,}"),
        *_lengths(found.quantiles, width),
        ("too long", f"{found.num_too_long:,} ({share:.2%}) over sft.max_length ({found.max_length:,}); none is cut"),
        ("tokens", f"{found.num_tokens:,} an epoch, {trained}"),
        ("steps", f"{found.num_steps:,}: {check.epochs:g} epochs, {check.batch_size} rows a step"),
        ("layout", _layout_text(check.layout, check.needs.device)),
        ("memory", _memory_text(check.needs)),
        ("time", _time_text(check.needs)),
    ]


def _lengths(quantiles: dict[str, int], width: int) -> list[tuple[str, str]]:
    """Return names above token counts in columns; in one line of pairs if the columns do not fit."""
    known = {"p0": "shortest", "p50": "median", "p100": "longest"}
    columns = [(known.get(name, name), f"{num:,}") for name, num in quantiles.items()]
    widths = [max(len(name), len(num)) for name, num in columns]
    names, numbers = (
        "  ".join(f"{column[i]:>{width}}" for column, width in zip(columns, widths, strict=True)) for i in (0, 1)
    )
    if len(numbers) + len(" tokens") > width:
        return [("lengths", ", ".join(f"{name} {num}" for name, num in columns) + " tokens")]
    return [("lengths", names), ("", f"{numbers} tokens")]


def _layout_text(layout: Layout, device: str) -> str:
    unit = "GPU" if device == "gpu" else "process"
    plural = "es" if unit == "process" else "s"
    num = f"{layout.num_processes} {unit}{plural if layout.num_processes > 1 else ''}"
    rows = f"{layout.per_device_batch_size} row{'s' if layout.per_device_batch_size > 1 else ''}"
    passes = f"{layout.accumulation} pass{'es' if layout.accumulation > 1 else ''}"
    shared = f", weights shared out ({layout.sharding})" if layout.sharding != "none" else ""
    together = f", {layout.sequence_parallel} GPUs a row" if layout.sequence_parallel > 1 else ""
    return f"{num}, each {rows} x {passes} a step{shared}{together}"


def _memory_text(needs: Needs) -> str:
    if needs.memory is None:
        return "not known for this kind of model"
    parts = ", ".join(f"{part} {gib:.1f}" for part, gib in needs.memory.parts.items() if gib >= 0.05)
    unit = "GPU" if needs.device == "gpu" else "process"
    there = f" of the {needs.there_gib:.0f} that each {unit} has" if needs.there_gib else f" of each {unit}"
    fitting = "" if needs.fits is not False else ", TOO MUCH: take fewer rows at once (sft.compute) or another layout"
    rows, row_tokens = needs.fullest_pass
    when = f"{rows} row{'s' if rows > 1 else ''} of up to {row_tokens:,} tokens at once"
    return f"about {needs.memory.total_gib:.1f} GiB{there}{fitting}; {when} ({parts})"


def _time_text(needs: Needs) -> str:
    if needs.hours is None:
        return "not known for this hardware"
    hours, minutes = divmod(round(needs.hours * 60), 60)
    length = f"{hours:,} h {minutes:02d} min" if hours else f"{max(1, minutes)} min"
    return f"about {length}, if {needs.mfu:.0%} of the hardware's peak speed is reached"

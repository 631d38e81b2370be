"""Find layouts in which a training fits into memory, and estimate its hours. Imports no torch."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from distill.core.plurals import counted
from distill.engines.memory import visible_gpus
from distill.errors import ModelError
from distill.estimates.training_memory import Estimate, Setting, Sharding, plan
from distill.models.shapes import ModelShape, shape_from_config
from distill.recipe.rl import RlConfig
from distill.recipe.sft import Lora, SftConfig
from distill.training.layout import MAX_PER_DEVICE, Layout, plan_layout

USABLE = 0.95
"""Share of a GPU's memory that a layout may use."""
MAX_GPUS = 1_024
MAX_SEQUENCE_PARALLEL = 8
"""Most GPUs that share a row: those of one machine, whose links are fast enough."""

ASSUMED_MFU = 0.35
"""Assumed: share of the peak that a training reaches on GPUs (model FLOPs utilisation; recomputation not counted)."""
CPU_CORE_TFLOPS = 0.1
"""Assumed: float32 peak of one CPU core, two AVX-512 units at 3 GHz."""

PEAK_TFLOPS = {
    "B200": 2_250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 5090": 209.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "A6000": 155.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L4": 121.0,
}
"""Part of a GPU's name -> dense bfloat16 peak with float32 accumulation, in TFLOPS (data sheets)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A layout and its memory."""

    setting: Setting
    estimate: Estimate
    fits: bool

    @property
    def num_gpus(self) -> int:
        return self.setting.num_processes

    def describe(self) -> str:
        """Describe the layout: `fsdp, 1 row x 8 passes, 2 GPUs a row, offloaded`."""
        setting = self.setting
        words: list[str] = [setting.sharding] if setting.sharding != "none" else []
        words.append(f"{counted(setting.rows, 'row')} x {counted(setting.accumulation, 'pass', 'passes')}")
        words += [f"{setting.sequence_parallel} GPUs a row"] if setting.sequence_parallel > 1 else []
        return ", ".join(words + (["offloaded"] if setting.cpu_offload else []))

    def recipe_keys(self) -> dict[str, object]:
        """Return the layout as keys of `sft.compute`."""
        setting = self.setting
        return {
            "num_processes": setting.num_processes,
            "sharding": setting.sharding,
            "per_device_batch_size": setting.rows,
            "sequence_parallel": setting.sequence_parallel,
            "cpu_offload": setting.cpu_offload,
        }


def flash_is_here() -> bool:
    """Return whether FlashAttention is installed for `attention: auto`."""
    return find_spec("flash_attn") is not None


def setting_of(
    config: SftConfig, row_tokens: int | None = None, num_processes: int = 1, has_flash: bool = True
) -> Setting:
    """Return the setting on GPUs for a recipe's `sft:`; sharding `auto` becomes `none`.

    Args:
        config: `sft:`.
        row_tokens: longest row, in tokens; left out: `sft.max_length`.
        num_processes: GPUs.
        has_flash: whether FlashAttention is available for `attention: auto`; else rows are padded and masked.
    """
    compute, lora = config.compute, config.lora or Lora()
    checkpointing, attention = compute.gradient_checkpointing, compute.attention
    if attention == "auto" and (not has_flash or compute.dtype == "float32"):
        attention = "sdpa"
    rows = compute.per_device_batch_size or 1
    return Setting(
        method=config.method,
        rows=rows,
        row_tokens=row_tokens or config.max_length,
        accumulation=max(1, config.batch_size * compute.sequence_parallel // (num_processes * rows)),
        lora_r=lora.r,
        lora_targets=lora.target_modules,
        num_processes=num_processes,
        sharding="none" if compute.sharding == "auto" else compute.sharding,
        sequence_parallel=compute.sequence_parallel,
        cpu_offload=compute.cpu_offload,
        gradient_checkpointing=True if checkpointing is None else checkpointing,
        bf16=compute.dtype != "float32",
        attention=attention if attention in ("sdpa", "eager") else "flash",
        padded=attention in ("sdpa", "eager"),
    )


def on_cpu(setting: Setting, config: SftConfig) -> Setting:
    """Return the setting as it would be in training without a GPU."""
    compute = config.compute
    return replace(
        setting,
        device="cpu",
        attention="eager" if compute.attention == "eager" else "sdpa",
        padded=True,
        gradient_checkpointing=bool(compute.gradient_checkpointing),
        bf16=compute.dtype == "bfloat16",
    )


def fits(estimate: Estimate, gpu_gib: float) -> bool:
    """Return whether an estimate stays within the usable memory of a GPU of `gpu_gib`."""
    return estimate.total_gib <= USABLE * gpu_gib


def auto_sharding(shape: ModelShape | None, setting: Setting, gpu_gib: float) -> Sharding:
    """Return what `sharding: auto` picks: `none` if everything fits on each GPU, else FSDP2.

    Args:
        shape: the model's; `None`: unknown, so FSDP2 is picked, which always needs less memory.
        setting: with one row per pass, on all GPUs.
        gpu_gib: memory of the smallest GPU.
    """
    if setting.num_processes == 1:
        return "none"
    if shape is None:
        return "fsdp"
    whole = plan(shape, replace(setting, sharding="none", sequence_parallel=1, cpu_offload=False))
    return "none" if fits(whole, gpu_gib) else "fsdp"


def rows_that_fit(
    layout: Layout, config: SftConfig, shape: ModelShape | None, gpu_gib: float, has_flash: bool = True
) -> Layout:
    """Return the layout with as many rows per pass as fit in memory (at least one), unless the recipe sets them.

    Args:
        layout: from `plan_layout`; its rows per pass are the upper limit.
        config: `sft:`; rows are assumed to have `max_length` tokens.
        shape: the model's; `None`: unknown, so one row.
        gpu_gib: memory of the smallest GPU.
        has_flash: as for `setting_of`.
    """
    if config.compute.per_device_batch_size is not None:
        return layout
    per_process = layout.per_device_batch_size * layout.accumulation
    setting = setting_of(config, num_processes=layout.num_processes, has_flash=has_flash)
    setting = replace(setting, sharding=layout.sharding)
    for rows in range(layout.per_device_batch_size, 1, -1):
        accumulation = per_process // rows
        tried = replace(setting, rows=rows, accumulation=accumulation)
        if per_process % rows == 0 and shape is not None and fits(plan(shape, tried), gpu_gib):
            return replace(layout, per_device_batch_size=rows, accumulation=accumulation)
    return replace(layout, per_device_batch_size=1, accumulation=per_process)


def layout_here(
    config: SftConfig | RlConfig,
    trained_as: SftConfig,
    model_config: dict[str, Any],
    name: str,
    world_size: int | None = None,
) -> Layout:
    """Return how the processes of this machine, or of a launcher, share a step.

    Args:
        config: `sft:` or `rl:` of the recipe.
        trained_as: `sft:` whose training takes as much memory.
        model_config: config.json of the model.
        name: of the model, for messages.
        world_size: processes that an external launcher started, on all machines; `None`: distill starts them.

    Raises:
        ModelError: the recipe's numbers are not compatible on this machine.
    """
    gpus = visible_gpus()
    if not gpus:
        return plan_layout(config, 0, world_size=world_size)
    try:
        shape = shape_from_config(model_config, name)
    except ModelError:
        shape = None  # an architecture without a memory estimate
    gpu_gib, has_flash = min(gpus.values()), flash_is_here()

    def shared(num_processes: int) -> Sharding:
        setting = setting_of(trained_as, num_processes=num_processes, has_flash=has_flash)
        return auto_sharding(shape, setting, gpu_gib)

    layout = plan_layout(config, len(gpus), shared, world_size)
    return rows_that_fit(layout, trained_as, shape, gpu_gib, has_flash)


def best_layout(
    shape: ModelShape,
    setting: Setting,
    batch_size: int,
    num_gpus: int,
    gpu_gib: float,
    sharding: Sharding | None = None,
) -> Choice:
    """Return the fastest layout on `num_gpus` GPUs that fits or, if none does, the one that needs the least memory.

    Args:
        shape: the model's.
        setting: method, longest row, adapter, precision; its layout is replaced.
        batch_size: rows per step.
        num_gpus: GPUs, all of them used.
        gpu_gib: memory of one.
        sharding: the only sharding to try; left out: the fastest that fits.
    """
    tried = [
        Choice(candidate, estimate, fits(estimate, gpu_gib))
        for candidate in _candidates(shape, setting, batch_size, num_gpus, sharding)
        for estimate in [plan(shape, candidate)]
    ]
    return next((choice for choice in tried if choice.fits), None) or min(tried, key=lambda c: c.estimate.total_gib)


def smallest_layout(
    shape: ModelShape,
    setting: Setting,
    batch_size: int,
    gpu_gib: float,
    sharding: Sharding | None = None,
    max_gpus: int = MAX_GPUS,
) -> Choice | None:
    """Return the layout on the fewest GPUs (1, 2, 4, …) that fits without offloading; `None` above `max_gpus`."""
    num_gpus = 1
    while num_gpus <= max_gpus:
        choice = best_layout(shape, setting, batch_size, num_gpus, gpu_gib, sharding)
        if choice.fits and not choice.setting.cpu_offload:
            return choice
        num_gpus *= 2
    return None


def _candidates(
    shape: ModelShape, setting: Setting, batch_size: int, num_gpus: int, sharding: Sharding | None
) -> Iterator[Setting]:
    """Yield layouts from the fastest to the leanest: replicated, sharded, rows shared too, offloaded."""
    ways: list[Sharding] = [sharding] if sharding else (["none", "fsdp"] if num_gpus > 1 else ["none"])
    for offload in (False, True):
        for way in ways if not offload else _offloadable(ways, sharding):
            for share in (1, 2, 4, 8):
                if not _can_share_rows(shape, way, share, num_gpus):
                    continue
                for rows, accumulation in _passes(batch_size, num_gpus // share):
                    yield replace(
                        setting,
                        rows=rows,
                        accumulation=accumulation,
                        num_processes=num_gpus,
                        sharding=way,
                        sequence_parallel=share,
                        cpu_offload=offload,
                    )


def _offloadable(ways: list[Sharding], asked: Sharding | None) -> list[Sharding]:
    """Return the shardings that support offloading: all but `none`, even on one GPU."""
    return [way for way in ways if way != "none"] or ([] if asked else ["fsdp"])


def _can_share_rows(shape: ModelShape, sharding: Sharding, share: int, num_gpus: int) -> bool:
    if share == 1:
        return True
    # Ulysses (ZeRO-3) gives each GPU some of the heads.
    splits_heads = sharding != "zero3" or shape.heads % share == 0
    return sharding != "none" and share <= MAX_SEQUENCE_PARALLEL and num_gpus % share == 0 and splits_heads


def _passes(batch_size: int, data_parallel: int) -> Iterator[tuple[int, int]]:
    """Yield rows per pass and passes per step, most rows first; a step too small for all GPUs gets a row on each."""
    per_process = max(1, batch_size // data_parallel)
    for rows in range(min(MAX_PER_DEVICE, per_process), 0, -1):
        if per_process % rows == 0:
            yield rows, per_process // rows


def training_hours(
    shape: ModelShape,
    tokens: int,
    num_gpus: int,
    tflops: float,
    row_tokens: float = 8_192.0,
    method: str = "full",
    mfu: float = ASSUMED_MFU,
) -> float:
    """Return the hours that a training takes.

    Args:
        shape: the model's.
        tokens: tokens of all rows and epochs.
        num_gpus: GPUs, or CPU cores.
        tflops: peak of one (`peak_tflops`, `CPU_CORE_TFLOPS`).
        row_tokens: mean length of a row, weighted by its tokens; a token attends to half of it.
        method: the backward pass costs two forward passes, or one if the base's weights get no gradients.
        mfu: share of the peak that is reached.
    """
    passes = 3 if method == "full" else 2
    flops = passes * shape.flops_per_token(row_tokens / 2) * tokens
    return flops / (num_gpus * tflops * 1e12 * mfu) / 3_600


def peak_tflops(gpu_name: str) -> float | None:
    """Return the bfloat16 peak in TFLOPS of a GPU, by its name in nvidia-smi; `None` if it is not in the table."""
    words = re.split(r"[\s_-]+", gpu_name.lower())
    for name, peak in PEAK_TFLOPS.items():
        if all(part in words for part in name.lower().split()):
            return peak
    return None

"""Which layout a training fits in, and how long it takes: searches over `training_memory`. Pure, no torch.

Enters: a model's shape, the method, the longest row, rows a step, GPUs and their memory. Leaves: the `Choice` of a
layout with its estimate, the smallest number of GPUs, hours.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

from distill.core.plurals import counted
from distill.estimates.training_memory import Estimate, Setting, Sharding, plan
from distill.models.shapes import ModelShape
from distill.recipe.sft import Lora, SftConfig
from distill.training.layout import Layout

USABLE = 0.95
"""Share of a GPU's memory that a plan may fill."""
MAX_ROWS = 8
"""Rows of a pass, at most, where the recipe does not say."""
MAX_GPUS = 1_024
MAX_SEQUENCE_PARALLEL = 8
"""GPUs that share a row, at most: those of one machine, whose links are fast enough."""

ASSUMED_MFU = 0.35
"""Assumed: share of the peak that a training reaches on GPUs (model FLOPs utilisation; recomputing does not count)."""
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
"""Part of a GPU's name -> peak of dense bfloat16 products that are added up in float32, in TFLOPS (data sheets)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A layout, and what it takes."""

    setting: Setting
    estimate: Estimate
    fits: bool

    @property
    def num_gpus(self) -> int:
        return self.setting.num_processes

    def describe(self) -> str:
        """The layout in words: `fsdp, 1 row x 8 passes, 2 GPUs a row, offloaded`."""
        setting = self.setting
        words: list[str] = [setting.sharding] if setting.sharding != "none" else []
        words.append(f"{counted(setting.rows, 'row')} x {counted(setting.accumulation, 'pass', 'passes')}")
        words += [f"{setting.sequence_parallel} GPUs a row"] if setting.sequence_parallel > 1 else []
        return ", ".join(words + (["offloaded"] if setting.cpu_offload else []))

    def recipe_keys(self) -> dict[str, object]:
        """The layout as `sft.compute` takes it."""
        setting = self.setting
        return {
            "num_processes": setting.num_processes,
            "sharding": setting.sharding,
            "per_device_batch_size": setting.rows,
            "sequence_parallel": setting.sequence_parallel,
            "cpu_offload": setting.cpu_offload,
        }


def flash_is_here() -> bool:
    """Whether training on this machine's GPUs finds FlashAttention for `attention: auto`."""
    return find_spec("flash_attn") is not None


def setting_of(
    config: SftConfig, row_tokens: int | None = None, num_processes: int = 1, has_flash: bool = True
) -> Setting:
    """The setting on GPUs that a recipe's `sft:` stands for, its sharding `none` where that is left open.

    Args:
        config: `sft:`.
        row_tokens: longest row, in tokens; left out: `sft.max_length`.
        num_processes: GPUs.
        has_flash: whether FlashAttention is there for `attention: auto`; else rows are padded, under a mask.
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
    """The same setting as training has it without a GPU."""
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
    """Whether an estimate leaves a GPU of `gpu_gib` the share that others need."""
    return estimate.total_gib <= USABLE * gpu_gib


def auto_sharding(shape: ModelShape | None, setting: Setting, gpu_gib: float) -> Sharding:
    """What `sharding: auto` picks: each GPU holds everything where it can, else FSDP2 shares it out.

    Args:
        shape: the model's; `None` where it cannot be worked out: shared out, which always needs less.
        setting: of one row a pass, on all GPUs.
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
    """The layout with as many rows a pass as fit in memory, where the recipe leaves them open; at least one.

    Args:
        layout: as `plan_layout` makes it; its rows a pass are the most that may be.
        config: `sft:`; rows of `max_length` tokens are reckoned with.
        shape: the model's; `None` where it cannot be worked out: one row.
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


def best_layout(
    shape: ModelShape,
    setting: Setting,
    batch_size: int,
    num_gpus: int,
    gpu_gib: float,
    sharding: Sharding | None = None,
) -> Choice:
    """The layout on `num_gpus` GPUs that costs least speed among those that fit; where none does, the leanest.

    Args:
        shape: the model's.
        setting: method, longest row, adapter, precision; its layout is replaced.
        batch_size: rows of a step.
        num_gpus: GPUs, all of them used.
        gpu_gib: memory of one.
        sharding: the only way of sharing out to look at; left out: the fastest that fits.
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
    """The layout on the fewest GPUs (1, 2, 4, …) that fits without putting anything into the machine's memory.

    Returns:
        `None` where not even `max_gpus` are enough.
    """
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
    """Layouts from the fastest to the leanest: whole on each GPU, shared out, rows shared too, offloaded."""
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
    """Only what is shared out can be put away, if only on one GPU."""
    return [way for way in ways if way != "none"] or ([] if asked else ["fsdp"])


def _can_share_rows(shape: ModelShape, sharding: Sharding, share: int, num_gpus: int) -> bool:
    if share == 1:
        return True
    # Ulysses gives each GPU some of the heads.
    splits_heads = sharding != "zero3" or shape.heads % share == 0
    return sharding != "none" and share <= MAX_SEQUENCE_PARALLEL and num_gpus % share == 0 and splits_heads


def _passes(batch_size: int, data_parallel: int) -> Iterator[tuple[int, int]]:
    """Rows of a pass and passes of a step, most rows first; a step too small for all GPUs has a row on each."""
    per_process = max(1, batch_size // data_parallel)
    for rows in range(min(MAX_ROWS, per_process), 0, -1):
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
    """Hours that a training takes.

    Args:
        shape: the model's.
        tokens: tokens of all rows and epochs.
        num_gpus: GPUs, or CPU cores.
        tflops: peak of one (`peak_tflops`, `CPU_CORE_TFLOPS`).
        row_tokens: mean length of a row, weighted by its tokens; a token attends to half of it.
        method: the backward pass costs two forward passes, and one where the base's weights get no gradients.
        mfu: share of the peak that is reached.
    """
    passes = 3 if method == "full" else 2
    flops = passes * shape.flops_per_token(row_tokens / 2) * tokens
    return flops / (num_gpus * tflops * 1e12 * mfu) / 3_600


def peak_tflops(gpu_name: str) -> float | None:
    """The bfloat16 peak of a GPU by its name, as nvidia-smi gives it, in TFLOPS; `None` for one not in the table."""
    words = re.split(r"[\s_-]+", gpu_name.lower())
    for name, peak in PEAK_TFLOPS.items():
        if all(part in words for part in name.lower().split()):
            return peak
    return None

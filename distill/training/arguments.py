"""Arguments of TRL's SFTTrainer, from a recipe's `sft:` and this machine's hardware."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from distill.errors import ModelError
from distill.recipe.sft import Lora, SftConfig, TrainCompute
from distill.results.sft import Device
from distill.storage.layout import CHECKPOINTS
from distill.training.cpu import ROW_BY_ROW, can_attend_row_by_row
from distill.training.job import TrainJob
from distill.training.layout import Layout
from distill.training.sharding import layer_names, sharding_arguments

FLASH = ("flash_attention_2", "flash_attention_3")
KEEP_ROWS_APART = (*FLASH, ROW_BY_ROW)
"""Attention implementations that keep rows packed into one sequence from attending to each other."""


def pick_device(config: SftConfig, model_path: Path) -> Device:
    """Return the fastest correct setting for everything that the recipe leaves open.

    Args:
        config: `sft:` of the recipe.
        model_path: the student's folder; its architecture decides whether rows can be packed on CPU.

    Raises:
        ModelError: the recipe asks for something that this machine does not have.
    """
    compute = config.compute
    on_gpu = torch.cuda.is_available()
    if config.method == "qlora" and not (on_gpu and find_spec("bitsandbytes")):
        raise ModelError(
            "sft.method: qlora needs an NVIDIA GPU and bitsandbytes (`pip install bitsandbytes`). Use method: lora."
        )
    if compute.kernels and on_gpu and not find_spec("liger_kernel"):
        raise ModelError("sft.compute.kernels needs Liger on a GPU (`pip install liger-kernel`). Leave kernels out.")
    attention = _attention(compute, on_gpu, model_path)
    if compute.packing and attention not in KEEP_ROWS_APART:
        raise ModelError(
            "sft.compute.packing needs FlashAttention (a GPU, and `pip install flash-attn`): with "
            f"{attention}, packed rows would attend to each other. Leave packing out."
        )
    packs = attention in KEEP_ROWS_APART and compute.sequence_parallel == 1
    kernels = not on_gpu or find_spec("liger_kernel") is not None
    # Not on CPU: published weights are bfloat16 values, and a forward pass in bfloat16 rounds small updates away. After
    # one step at 1e-4, 87% of SmolLM2's weights round to their old values, and the loss of the next rows is 1.13
    # instead of 0.81 (docs/sft.md).
    has_bfloat16 = on_gpu and torch.cuda.is_bf16_supported()
    checkpointing = compute.gradient_checkpointing
    return Device(
        on_gpu=on_gpu,
        dtype=compute.dtype if compute.dtype != "auto" else "bfloat16" if has_bfloat16 else "float32",
        attention=attention,
        packs=packs if compute.packing is None else compute.packing,
        kernels=kernels if compute.kernels is None else compute.kernels,
        gradient_checkpointing=on_gpu if checkpointing is None else checkpointing,
    )


def _attention(compute: TrainCompute, on_gpu: bool, model_path: Path) -> str:
    from transformers.utils import is_flash_attn_2_available

    if compute.attention != "auto":
        return compute.attention
    if not on_gpu:
        wanted = compute.packing is not False and compute.kernels is not False
        return ROW_BY_ROW if wanted and can_attend_row_by_row(_without_weights(model_path)) else "sdpa"
    ampere = 8
    can_flash = is_flash_attn_2_available() and torch.cuda.get_device_capability()[0] >= ampere
    return FLASH[0] if can_flash and compute.dtype != "float32" else "sdpa"


def _without_weights(model_path: Path) -> Any:
    """Return the model on the meta device, where weights take no memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def training_arguments(
    job: TrainJob,
    config: SftConfig,
    layout: Layout,
    device: Device,
    num_rows: int,
    stop_token: str,
) -> Any:
    """Return TRL's SFTConfig.

    Args:
        job: the training job.
        config: `sft:` of the recipe.
        layout: processes, rows per pass, sharding.
        device: settings that depend on the hardware.
        num_rows: rows to train on.
        stop_token: the token that ends an answer.

    Raises:
        ModelError: `sft.trl` has an argument that TRL lacks.
    """
    from trl.trainer.sft_config import SFTConfig

    num_steps = math.ceil(math.ceil(num_rows / config.batch_size) * config.epochs)
    layers = layer_names(Path(job.model_path)) if layout.sharding == "fsdp" else []
    try:
        return SFTConfig(
            **config.trl,
            **common_arguments(job, config.compute, layout, device),
            # Rows are never truncated: the preflight refuses those longer than sft.max_length instead.
            max_length=None,
            packing=False,
            padding_free=device.packs,
            train_sampling_strategy="batch_rebalance",
            completion_only_loss=True,
            dataset_kwargs={"skip_prepare_dataset": True},  # rows are tokenised and checked already
            eos_token=stop_token,
            num_train_epochs=config.epochs,
            learning_rate=job.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": config.min_learning_rate_share},
            warmup_steps=math.ceil(num_steps * config.warmup_share),
            weight_decay=config.weight_decay,
            use_liger_kernel=device.kernels and device.on_gpu,
            save_steps=config.compute.save_every_steps or max(10, num_steps // 10),
            **sharding_arguments(layout, config, layers, device.gradient_checkpointing),
        )
    except TypeError as error:
        raise ModelError(f"sft.trl: {str(error).rpartition('.')[2].strip()} (TRL's SFTConfig).") from None


class Tracked(Protocol):
    """What a training is called, and where it writes: a `TrainJob`, an `RlJob`."""

    @property
    def out_dir(self) -> str: ...

    @property
    def project(self) -> str: ...

    @property
    def run_name(self) -> str: ...

    @property
    def seed(self) -> int: ...


def common_arguments(
    job: Tracked, compute: TrainCompute, layout: Layout, device: Device, section: str = "sft"
) -> dict[str, Any]:
    """Return the arguments that transformers' Trainer gets whatever it trains.

    Args:
        job: the training job.
        compute: layout of training, of the recipe.
        layout: processes and rows per pass.
        device: settings that depend on the hardware.
        section: of the recipe, for messages.

    Raises:
        ModelError: a tracker is not installed.
    """
    return {
        "output_dir": str(Path(job.out_dir) / CHECKPOINTS),
        "project": job.project,
        "run_name": job.run_name,
        "per_device_train_batch_size": layout.per_device_batch_size,
        "gradient_accumulation_steps": layout.accumulation,
        "bf16": device.dtype == "bfloat16",
        "use_cpu": not device.on_gpu,
        "ddp_backend": ("nccl" if device.on_gpu else "gloo") if layout.needs_group else None,
        "dataloader_pin_memory": device.on_gpu,
        "seed": job.seed,
        "data_seed": job.seed,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log a diverged step as loss 0
        "save_strategy": "steps",
        "save_total_limit": None,  # `CheckpointSealer` removes older ones once a newer one is sealed
        "report_to": _trackers(compute, section),
        "disable_tqdm": True,
        "trackio_static_space_id": False,  # never publish a Hub Space unasked
    }


def _trackers(compute: TrainCompute, section: str) -> list[str]:
    """Return where training curves are sent.

    Raises:
        ModelError: one of them is not installed; the message names the key within the section.
    """
    missing = [name for name in compute.tracking if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"{section}.compute.tracking: {', '.join(missing)} is not installed (`pip install {' '.join(missing)}`). "
            "Install it or take it out of the list; metrics.jsonl is always written."
        )
    return list(compute.tracking) or ["none"]


def lora_config(config: SftConfig) -> Any:
    """Return peft's LoraConfig, or `None` for full fine-tuning."""
    if config.method == "full":
        return None
    from peft import LoraConfig

    lora = config.lora or Lora()
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )

"""Train the student with TRL's SFTTrainer on kept rows, and save it.

Writes `student/` (safetensors, tokenizer, chat template, generation config), with LoRA also `adapter/`, and
`metrics.jsonl`. During training there are also `checkpoints/` and `tokens/`.
"""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from distill.core.progress import note
from distill.errors import ModelError
from distill.execution.cpu_products import measure, shapes_of
from distill.models.rope import RopePatch, apply_rope
from distill.models.tokenizers import Tokenizer, load_tokenizer
from distill.recipe.sft import SftConfig
from distill.results.sft import Device
from distill.storage.files import read_json
from distill.storage.layout import CHECKPOINTS, METRICS
from distill.training.arguments import lora_config, pick_device, training_arguments
from distill.training.batches import StepBatches
from distill.training.checkpoints import newest_checkpoint, remove_unsealed
from distill.training.cpu import (
    ROW_BY_ROW,
    LoadFollowerCallback,
    keep_freed_memory,
    score_completions_once,
    set_attention_row_by_row,
)
from distill.training.job import KEPT_CHECKPOINTS, TOKENS, TrainJob
from distill.training.layout import Layout
from distill.training.preflight import preflight
from distill.training.reporter import Reporter, train_to_the_end
from distill.training.rows import count_rows, token_rows
from distill.training.sharding import environment, gathered_weights
from distill.training.student import Base, save_student


class Start(Protocol):
    """What training starts from: a `TrainJob`, an `RlJob`."""

    @property
    def model_name(self) -> str: ...

    @property
    def model_path(self) -> str: ...


def train(job: TrainJob) -> dict[str, Any]:
    """Train, resuming from the newest sealed checkpoint if there is one, and save the student.

    Every process of a distributed run calls this; only the first saves the student and returns metrics.

    Returns:
        Metrics: rows, tokens, steps, loss history, speed, layout.

    Raises:
        ModelError: the student cannot be loaded, or a row does not fit it.
        StageError: the loss is not a number.
        StoreError: the folder holds checkpoints of another training.
    """
    layout = Layout(**job.layout)
    if not layout.needs_group:
        # One process uses one GPU: with more, the Trainer would use torch's DataParallel, which TRL refuses.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    config = SftConfig.model_validate(job.config)
    tokenizer = load_tokenizer(Path(job.model_path), job.chat_format, job.stop_token, job.chat_template)
    device = pick_device(config, Path(job.model_path))
    if device.kernels and not device.on_gpu:
        keep_freed_memory()
    if device.dtype == "bfloat16" and not device.on_gpu:
        _warn_if_slow(Path(job.model_path))
    os.environ.update(environment(layout, config, device.on_gpu))
    arguments = training_arguments(job, config, layout, device, count_rows(Path(job.rows)), tokenizer.eos_token)
    with arguments.main_process_first(local=False):  # one process makes the rows, the others read them
        rows = token_rows(Path(job.rows), tokenizer, Path(job.out_dir) / TOKENS)
    counts = _preflight(job, config, tokenizer, rows) if arguments.process_index == 0 else {}
    trainer = _trainer(job, config, layout, device, arguments, rows, tokenizer)
    reporter = _train(job, trainer)
    weights = gathered_weights(trainer, layout)
    if not trainer.is_world_process_zero():
        return {}
    base = Base(job.model_name, Path(job.model_path), job.model_revision)
    save_student(trainer.model, tokenizer, Path(job.out_dir), base, weights)
    return {
        **counts,
        "num_steps": trainer.state.global_step,
        "final_loss": reporter.history[-1]["loss"],
        "tokens_per_second": reporter.tokens_per_second,
        "resumed_from_step": reporter.first_step or None,
        "device": device.to_json(),
        "layout": job.layout,
        "history": reporter.history,
        **_gpu_memory(),
    }


def _warn_if_slow(model_path: Path) -> None:
    """Warn if this CPU multiplies bfloat16, which the recipe asks for, more slowly than float32."""
    speed = measure(shapes_of(read_json(model_path / "config.json") or {}))
    if speed.faster == "float32":
        note(f"sft.compute.dtype: bfloat16 is slow on this CPU ({speed.describe()}). Leave it out for float32.")


def _preflight(job: TrainJob, config: SftConfig, tokenizer: Tokenizer, rows: Any) -> dict[str, Any]:
    """Raise an error if training on the rows would be wrong, show warnings, and return metrics of the rows."""
    model_config = read_json(Path(job.model_path) / "config.json")
    found = preflight(Path(job.rows), rows, tokenizer, config, model_config, job.context)
    found.raise_if_refused()
    for warning in found.warnings:
        note(f"sft: {warning.message}")
    return {
        "num_tokens": found.num_tokens,
        "num_trained_tokens": found.num_trained_tokens,
        "lengths": found.quantiles,
        "warnings": [warning.message for warning in found.warnings],
    }


def _trainer(
    job: TrainJob, config: SftConfig, layout: Layout, device: Device, arguments: Any, rows: Any, tokenizer: Tokenizer
) -> Any:
    # Imported late: TRL takes seconds to import, and problems of the rows should be reported before.
    from distill.training.trainer import StudentTrainer

    trainer = StudentTrainer(
        layout=layout,
        lengths=rows["length"],
        owner=job.owner,
        num_kept=None if job.keep_checkpoints else KEPT_CHECKPOINTS,
        group_by_length=config.compute.group_by_length,
        model=load_model(job, config, device, job.rope),
        args=arguments,
        train_dataset=_with_empty_row(rows, tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=lora_config(config),
    )
    if not device.on_gpu:
        trainer.add_callback(LoadFollowerCallback())
        if device.kernels:
            score_completions_once(trainer)
    return trainer


def _with_empty_row(rows: Any, pad_token_id: int) -> Any:
    """Append a row of two tokens without labels, which fills empty micro-batches (`StepBatches`)."""
    from datasets import Dataset, concatenate_datasets

    empty = {"input_ids": [[pad_token_id] * 2], "labels": [[-100] * 2], "length": [2]}
    columns = list(empty)
    rows = rows.select_columns(columns)
    return concatenate_datasets([rows, Dataset.from_dict(empty, features=rows.features)])


def load_model(job: Start, config: SftConfig, device: Device, rope: Mapping[str, Any] | None = None) -> Any:
    """Load the student: in float32 for full fine-tuning, else in the device's dtype, or in 4 bits for QLoRA.

    Args:
        job: names it.
        config: how it is trained.
        device: settings that depend on the hardware.
        rope: `theta` and `context` that replace its own, for rows longer than its context.

    Raises:
        ModelError: it cannot be loaded.
    """
    # Full fine-tuning keeps float32 weights even if it computes in bfloat16: an update at a learning rate of 1e-5 is
    # below bfloat16's precision and would be rounded away.
    full = config.method == "full"
    arguments: dict[str, Any] = {
        "dtype": torch.float32 if full else getattr(torch, device.dtype),
        "attn_implementation": "sdpa" if device.attention == ROW_BY_ROW else device.attention,
    }
    if config.method == "qlora":
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            # FSDP2 shards the stored tensors, which must be floating-point.
            bnb_4bit_quant_storage=torch.bfloat16,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            job.model_path, config=_model_config(job, rope), trust_remote_code=False, **arguments
        )
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"{job.model_name}: cannot be loaded ({str(error).splitlines()[0][:300]}). Fetch it "
            "again, or use another student."
        ) from error
    if device.attention == ROW_BY_ROW:
        set_attention_row_by_row(model)
    model.config.use_cache = False
    return model


def _model_config(job: Start, rope: Mapping[str, Any] | None) -> Any:
    config = AutoConfig.from_pretrained(job.model_path, trust_remote_code=False)
    if rope is not None:
        apply_rope(config, RopePatch(**rope))
    return config


def _train(job: TrainJob, trainer: Any) -> Reporter:
    """Train to the end, or until SIGTERM has led to a last checkpoint."""
    out_dir = Path(job.out_dir)
    checkpoints = out_dir / CHECKPOINTS
    checkpoint = newest_checkpoint(checkpoints, job.owner)
    if trainer.is_world_process_zero():
        remove_unsealed(checkpoints)
    reporter = Reporter(
        f"sft {job.model_name}", out_dir / METRICS, _tokens_of_step(trainer.batches()), trainer.is_world_process_zero()
    )
    trainer.add_callback(reporter)
    diverged = "sft: the loss is not a number. Lower sft.learning_rate or check the kept rows."
    train_to_the_end(trainer, reporter, out_dir, checkpoint, diverged)
    return reporter


def _tokens_of_step(batches: StepBatches) -> Callable[[int], int]:
    """Return a function from the number of a step to the tokens of its rows; it counts an epoch at a time."""

    @functools.cache
    def epoch_tokens(epoch: int) -> list[int]:
        batches.set_epoch(epoch)
        return batches.tokens_per_step()

    steps_per_epoch = len(epoch_tokens(0))
    return lambda step: epoch_tokens(step // steps_per_epoch)[step % steps_per_epoch]


def _gpu_memory() -> dict[str, float]:
    return {"gpu_peak_gib": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {}

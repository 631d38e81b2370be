"""Training the student with TRL's SFTTrainer: kept rows in, a saved student out.

Enters: a `TrainJob` (as JSON, in a process of its own) that names a folder of prompt/completion rows as Parquet.
Leaves: `student/` (safetensors, tokenizer, chat template, generation config), with LoRA `adapter/` as well, and
`metrics.jsonl` with one line a step: `{"step": 1, "loss": 2.1, "learning_rate": 1e-05, "epoch": 0.02}`.
"""

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from distill.errors import ModelError, StageError
from distill.progress import ProgressBar
from distill.prompts import THINK_CLOSE
from distill.recipe import SftConfig
from distill.store import atomic_write, disk_errors, replace_folder
from distill.tokenizers import Tokenizer, load_tokenizer
from distill.training.job import CHECKPOINTS, TrainJob

CHECKPOINT_DONE = "distill_complete"
"""A file that is written into a checkpoint last: one without it was cut short and is not resumed from."""

MAX_DEVICE_BATCH = 8
KEPT_CHECKPOINTS = 2
HISTORY_KEYS = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", "epoch")


def train(job: TrainJob) -> dict[str, Any]:
    """Train, going on from the newest whole checkpoint if there is one, and save the student.

    Returns:
        Metrics: rows, tokens, steps, loss history, speed, layout.

    Raises:
        ModelError: the student cannot be loaded, or a row does not fit it.
        StageError: training gave a loss that is not a number.
    """
    # One process uses one GPU: TRL refuses torch's DataParallel, which more of them would mean.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    from trl.trainer.sft_trainer import SFTTrainer

    out_dir = Path(job.out_dir)
    config = SftConfig.model_validate(job.config)
    tokenizer = load_tokenizer(Path(job.model_path), job.chat_format, job.stop_token)
    _check_context(job, config)
    rows = _load_rows(Path(job.rows))
    on_gpu, bf16 = _device(config)
    arguments = _training_arguments(job, config, len(rows), tokenizer.eos_token, on_gpu, bf16)
    model = _load_model(job)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=_lora(config),
    )
    counts = _check_rows(rows, trainer.train_dataset, tokenizer, config.max_length)
    num_steps = math.ceil(math.ceil(len(rows) / config.batch_size) * config.epochs)
    checkpoint = newest_checkpoint(out_dir / CHECKPOINTS)
    reporter = _Reporter(
        f"sft {job.model_name}", num_steps, out_dir / "metrics.jsonl", counts["num_tokens"] / len(rows)
    )
    trainer.add_callback(reporter)
    started = time.monotonic()
    with disk_errors(out_dir), reporter.progress:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - started
    history = _history(trainer.state.log_history)
    if not history or not all(math.isfinite(line["loss"]) for line in history):
        raise StageError("sft: the loss is not a number. Lower sft.learning_rate or check the kept rows.")
    atomic_write(out_dir / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))
    dtype = AutoConfig.from_pretrained(job.model_path).dtype
    save_student(trainer.model, tokenizer, out_dir, dtype)
    num_here = trainer.state.global_step - reporter.first_step
    return {
        **counts,
        "num_steps": trainer.state.global_step,
        "final_loss": history[-1]["loss"],
        "tokens_per_second": reporter.tokens_per_step(config.batch_size) * num_here / max(seconds, 1e-9),
        "resumed_from_step": reporter.first_step or None,
        "per_device_batch_size": arguments.per_device_train_batch_size,
        "dtype": "bfloat16" if bf16 else "float32",
        "history": history,
        **_gpu_memory(),
    }


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or `None`."""
    whole = [marker.parent for marker in folder.glob(f"checkpoint-*/{CHECKPOINT_DONE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def save_student(model: Any, tokenizer: Tokenizer, out_dir: Path, dtype: Any) -> None:
    """Save what vLLM and transformers load: merged weights, tokenizer, template, and the right stop token.

    `student/` appears whole or not at all. With LoRA the adapter alone goes to `adapter/`.
    """
    staging = out_dir / "student.partial"
    shutil.rmtree(staging, ignore_errors=True)
    with disk_errors(staging):
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(out_dir / "adapter")
            model = model.merge_and_unload()
        if dtype is not None:
            model = model.to(dtype)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.config.eos_token_id = tokenizer.eos_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
        model.config.use_cache = True
        tokenizer.padding_side = "left"
        tokenizer.save_pretrained(staging)
        model.save_pretrained(staging)
    replace_folder(staging, out_dir / "student")


def _load_rows(path: Path) -> Any:
    import pyarrow.parquet as pq
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    files = sorted(path.glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file, columns=["prompt", "completion"]).to_pylist()]
    return Dataset.from_list(rows)


def _load_model(job: TrainJob) -> Any:
    import torch

    try:
        model = AutoModelForCausalLM.from_pretrained(job.model_path, dtype=torch.float32)
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"{job.model_name}: cannot be loaded ({str(error).splitlines()[0][:300]}).") from error
    model.config.use_cache = False
    return model


def _check_context(job: TrainJob, config: SftConfig) -> None:
    text_config = AutoConfig.from_pretrained(job.model_path).get_text_config()
    context = getattr(text_config, "max_position_embeddings", None)
    if context is not None and config.max_length > context:
        raise ModelError(
            f"sft.max_length ({config.max_length}) exceeds the context of {job.model_name} ({context} tokens). "
            f"Lower sft.max_length to {context} or less."
        )


def _check_rows(rows: Any, tokenized: Any, tokenizer: Tokenizer, max_length: int) -> dict[str, int]:
    """Refuse rows that would be cut, or that do not teach the student to close its thought and to stop.

    Args:
        rows: prompt and completion of each row.
        tokenized: the same rows as they will be trained, with `input_ids` and `labels`, each of shape (T,).
        tokenizer: the student's.
        max_length: longest row allowed, in tokens.
    """
    num_tokens = num_trained = longest = num_long = 0
    for source, row in zip(rows, tokenized, strict=True):
        trained = [label for label in row["labels"] if label != -100]
        thinks = THINK_CLOSE in source["completion"][-1]["content"]
        num_tokens += len(row["input_ids"])
        num_trained += len(trained)
        longest = max(longest, len(row["input_ids"]))
        num_long += len(row["input_ids"]) > max_length
        if tokenizer.eos_token_id not in trained or (thinks and THINK_CLOSE not in tokenizer.decode(trained)):
            raise ModelError(
                f"the chat template leaves {THINK_CLOSE} or the stop token {tokenizer.eos_token!r} out of the loss: "
                "the student would not learn to stop. Give the model another chat template."
            )
    if num_long:
        raise ModelError(
            f"{num_long} of {len(rows)} rows are longer than sft.max_length ({max_length}): the longest has {longest} "
            f"tokens, and a cut row teaches never to finish. Raise sft.max_length to {longest} or lower "
            "filter.max_tokens."
        )
    return {"num_tokens": num_tokens, "num_trained_tokens": num_trained, "longest_row": longest}


def _device(config: SftConfig) -> tuple[bool, bool]:
    """(on a GPU, bfloat16 autocast)."""
    import torch

    on_gpu = torch.cuda.is_available()
    dtype = config.compute.dtype
    return on_gpu, dtype == "bfloat16" or (dtype == "auto" and on_gpu and torch.cuda.is_bf16_supported())


def _training_arguments(
    job: TrainJob, config: SftConfig, num_rows: int, stop_token: str, on_gpu: bool, bf16: bool
) -> Any:
    from trl.trainer.sft_config import SFTConfig

    per_device = config.compute.per_device_batch_size or _largest_divisor(config.batch_size, MAX_DEVICE_BATCH)
    if config.batch_size % per_device:
        raise ModelError(
            f"sft.batch_size ({config.batch_size}) is not a multiple of sft.compute.per_device_batch_size "
            f"({per_device}). Change one of them."
        )
    num_steps = math.ceil(math.ceil(num_rows / config.batch_size) * config.epochs)
    checkpointing = config.compute.gradient_checkpointing
    try:
        return SFTConfig(
            **config.trl,
            output_dir=str(Path(job.out_dir) / CHECKPOINTS),
            # Rows are never cut: `_check_rows` refuses those longer than sft.max_length instead.
            max_length=None,
            packing=False,
            completion_only_loss=True,
            eos_token=stop_token,
            num_train_epochs=config.epochs,
            learning_rate=job.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": config.min_learning_rate_share},
            warmup_steps=math.ceil(num_steps * config.warmup_share),
            weight_decay=config.weight_decay,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=config.batch_size // per_device,
            gradient_checkpointing=on_gpu if checkpointing is None else checkpointing,
            bf16=bf16,
            use_cpu=not on_gpu,
            seed=job.seed,
            data_seed=job.seed,
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would show a diverged step as loss 0
            save_strategy="steps",
            save_steps=config.compute.save_every_steps or max(10, num_steps // 10),
            save_total_limit=KEPT_CHECKPOINTS,
            report_to="none",
            disable_tqdm=True,
        )
    except TypeError as error:
        raise ModelError(f"sft.trl: {str(error).rpartition('.')[2].strip()} (TRL's SFTConfig).") from None


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)


def _lora(config: SftConfig) -> Any:
    if config.method == "full":
        return None
    from peft import LoraConfig

    from distill.recipe import Lora

    lora = config.lora or Lora()
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _history(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a step, with the field's standard keys."""
    return [
        {"step": entry["step"], **{k: entry[k] for k in HISTORY_KEYS if k in entry and _is_number(k, entry[k])}}
        for entry in log_history
        if "loss" in entry
    ]


def _is_number(key: str, value: float) -> bool:
    """JSON has no NaN; only a loss that is one must be seen, and stops the stage."""
    return key == "loss" or math.isfinite(value)


def _gpu_memory() -> dict[str, float]:
    import torch

    return {"gpu_peak_gib": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {}


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Shows each step, writes it to metrics.jsonl at once, and marks whole checkpoints."""

    def __init__(self, title: str, num_steps: int, metrics: Path, mean_row_tokens: float) -> None:
        self.progress = ProgressBar(title, num_steps, "steps")
        self.first_step = 0
        self._metrics = metrics
        self._mean_row_tokens = mean_row_tokens

    def tokens_per_step(self, batch_size: int) -> float:
        """Tokens of an average batch, padding left out."""
        return self._mean_row_tokens * batch_size

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first_step = state.global_step
        self.progress.total = state.max_steps
        self.progress.advance(state.global_step)
        earlier = "".join(json.dumps(line) + "\n" for line in _history(state.log_history))
        atomic_write(self._metrics, earlier)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for line in _history([{**(logs or {}), "step": state.global_step}]):
            with self._metrics.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            self.progress.advance(1, f"loss {line['loss']:.3f}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        (folder / CHECKPOINT_DONE).touch()

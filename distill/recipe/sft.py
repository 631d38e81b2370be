"""The `sft:` section: how the student is trained."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from distill.recipe.base import Share, Strict
from distill.recipe.lengths import ROW_TOKENS

OWNED_TRL_KEYS = frozenset(
    {
        "accelerator_config",
        "assistant_only_loss",
        "auto_find_batch_size",
        "average_tokens_across_devices",
        "bf16",
        "chat_template_path",
        "completion_only_loss",
        "data_seed",
        "dataloader_drop_last",
        "dataloader_pin_memory",
        "dataset_kwargs",
        "dataset_num_proc",
        "dataset_text_field",
        "ddp_backend",
        "deepspeed",
        "disable_tqdm",
        "do_eval",
        "do_predict",
        "do_train",
        "enable_jit_checkpoint",
        "eos_token",
        "eval_on_start",
        "eval_packing",
        "eval_steps",
        "eval_strategy",
        "fp16",
        "fsdp",
        "fsdp_config",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "ignore_data_skip",
        "label_names",
        "learning_rate",
        "length_column_name",
        "load_best_model_at_end",
        "local_rank",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_length",
        "max_steps",
        "model_init_kwargs",
        "num_train_epochs",
        "output_dir",
        "packing",
        "packing_strategy",
        "pad_token",
        "padding_free",
        "parallelism_config",
        "per_device_train_batch_size",
        "project",
        "push_to_hub",
        "remove_unused_columns",
        "report_to",
        "resume_from_checkpoint",
        "run_name",
        "save_on_each_node",
        "save_only_model",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "seed",
        "shuffle_dataset",
        "trackio_static_space_id",
        "train_sampling_strategy",
        "truncation_mode",
        "trust_remote_code",
        "use_cache",
        "use_cpu",
        "use_liger_kernel",
        "warmup_steps",
        "weight_decay",
    }
)
"""SFTConfig arguments that distill sets itself; `sft.trl` may not set them."""


THIS = "this"
"""In `sft.rows`: the rows of the round itself."""
RowsOf = Annotated[str, Field(pattern=r"^(this|round:[A-Za-z0-9][A-Za-z0-9._-]*)$")]


class Lora(Strict):
    """LoRA adapter (peft)."""

    r: PositiveInt = 32
    """Rank."""
    alpha: PositiveInt = 64
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Layers that get an adapter."""


class TrainCompute(Strict):
    """Layout of training; not part of a fingerprint."""

    num_processes: PositiveInt | None = None
    """Processes that share each step, one per GPU. Default: all GPUs of this machine, or one process if it has none."""
    sharding: Literal["auto", "none", "fsdp", "zero3"] = "auto"
    """How several GPUs hold the model: replicated (none), or sharded by FSDP2 (fsdp) or DeepSpeed ZeRO-3 (zero3);
    auto: fsdp if there are several GPUs and the model does not fit on one, else none."""
    cpu_offload: bool = False
    """Keep the shards of weights and optimiser in CPU memory (fsdp, zero3): slower, needs fewer GPUs."""
    sequence_parallel: PositiveInt = 1
    """GPUs that split each row, for rows too long for one GPU (context parallelism with fsdp, Ulysses with zero3)."""
    per_device_batch_size: PositiveInt | None = None
    """Rows per pass on a device, on average. Default: up to 8, such that batch_size is a multiple. The rest of a step
    is accumulated."""
    group_by_length: bool = True
    """Put rows of similar length into the same pass of a step, to reduce padding."""
    packing: bool | None = None
    """Pack the rows of a pass instead of padding them. Default: true if the attention kernel keeps them apart
    (FlashAttention on a GPU; on CPU, each row by itself)."""
    attention: Literal["auto", "flash_attention_2", "flash_attention_3", "sdpa", "eager"] = "auto"
    """Attention kernel; auto: FlashAttention if installed and supported by the GPU, row by row on CPU, else sdpa."""
    kernels: bool | None = None
    """Faster kernels with the same result: Liger's on a GPU, distill's own on CPU. Default: true if installed."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the forward and backward pass; auto: bfloat16 on a GPU that supports it, else float32."""
    gradient_checkpointing: bool | None = None
    """Recompute activations to save memory. Default: true on GPU, false on CPU."""
    save_every_steps: PositiveInt | None = None
    """Steps between checkpoints. Default: a tenth of the run, at least 10."""
    tracking: list[Literal["trackio", "wandb", "tensorboard"]] = ["trackio"]
    """Where training curves are sent, in addition to metrics.jsonl; an empty list: nowhere."""

    @model_validator(mode="after")
    def _layout_is_possible(self) -> Self:
        if self.sharding == "none" and (self.cpu_offload or self.sequence_parallel > 1):
            raise ValueError("cpu_offload and sequence_parallel need sharding: fsdp or zero3")
        if self.packing and self.sequence_parallel > 1:
            raise ValueError("packing and sequence_parallel exclude each other: packed rows cannot be split over GPUs")
        return self


class SftConfig(Strict):
    """Stage 3: fine-tune the student on the kept traces, with the loss on the completion only."""

    method: Literal["full", "lora", "qlora"] = "full"
    """full: all weights; lora: a LoRA adapter, merged at the end; qlora: the same over 4-bit quantised weights
    (GPU)."""
    max_length: PositiveInt = ROW_TOKENS
    """Longest row (prompt and completion), in student tokens. Longer rows are an error, never truncated. If omitted, it
    is lowered to fit the student's context."""
    epochs: PositiveFloat = 3.0
    """Passes over the kept traces."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. Default: the student's published one (full) or 2e-4 (lora, qlora)."""
    min_learning_rate_share: Share = 0.1
    """Share of the peak at which the cosine schedule ends."""
    warmup_share: Share = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW's weight decay."""
    batch_size: PositiveInt = 64
    """Rows per step, over all devices and accumulation."""
    rope_theta: PositiveFloat | None = None
    """Base of the rotary position embedding, to train on rows longer than the model's context. Default: the student
    table's if max_length requires it, else the model's own."""
    chat_template: Annotated[str, Field(pattern=r"^(chatml|llama3|r1-zero|file:.+)$")] | None = None
    """Chat template instead of the model's own: `chatml`, `llama3`, `r1-zero` or `file:path` (Jinja; relative to the
    recipe)."""
    lora: Lora | None = None
    """Settings of the adapter; only with `method: lora` or `qlora`."""
    trl: dict[str, Any] = {}
    """Extra arguments for TRL's SFTConfig; those that distill sets itself are rejected."""
    rows: Annotated[list[RowsOf], Field(min_length=1)] = [THIS]
    """Whose kept rows are trained on, in a recipe with `rounds:`: `this` round's, or those of `round:NAME`."""
    compute: TrainCompute = TrainCompute()
    """Layout of training."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora is not None and self.method == "full":
            raise ValueError("lora: is set but method is full. Set method: lora or remove lora:")
        if len(set(self.rows)) != len(self.rows):
            raise ValueError("rows: names the same rows twice. Name each once")
        if taken := sorted(OWNED_TRL_KEYS & self.trl.keys()):
            raise ValueError(f"trl: {', '.join(taken)} is set by distill itself; use the fields of sft: instead")
        return self

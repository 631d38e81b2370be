"""`sft:`: how the student is trained."""

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
"""SFTConfig arguments that `sft:` sets itself; `sft.trl` may not set them a second time."""


class Lora(Strict):
    """LoRA adapter (peft)."""

    r: PositiveInt = 32
    """Rank."""
    alpha: PositiveInt = 64
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which layers get an adapter."""


class TrainCompute(Strict):
    """Layout of training; not part of a fingerprint."""

    num_processes: PositiveInt | None = None
    """Processes that share each step, one a GPU; left out: all GPUs of this machine, or one process without any."""
    sharding: Literal["auto", "none", "fsdp", "zero3"] = "auto"
    """How several GPUs hold the model: replicated (none), or sharded by FSDP2 (fsdp) or DeepSpeed ZeRO-3 (zero3);
    auto: fsdp if there are several GPUs and one cannot hold it, else none."""
    cpu_offload: bool = False
    """Keep the shards of weights and optimiser in the machine's memory (fsdp, zero3): slower, needs fewer GPUs."""
    sequence_parallel: PositiveInt = 1
    """GPUs that split each row, for rows too long for one (context parallel with fsdp, Ulysses with zero3)."""
    per_device_batch_size: PositiveInt | None = None
    """Rows per pass on a device, on average; left out: up to 8, so that batch_size is a multiple. The rest of a step is
    accumulated."""
    group_by_length: bool = True
    """Put rows of similar length into the same pass of a step, which reduces padding."""
    packing: bool | None = None
    """Pack the rows of a pass instead of padding them; left out: if the attention kernel keeps them apart
    (FlashAttention on a GPU; on CPU each row by itself)."""
    attention: Literal["auto", "flash_attention_2", "flash_attention_3", "sdpa", "eager"] = "auto"
    """Attention kernel; auto: FlashAttention where it is installed and the GPU has it, row by row on CPU, else sdpa."""
    kernels: bool | None = None
    """Faster kernels with the same result: Liger's on a GPU, distill's own on CPU; left out: if they are installed."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the forward and backward pass; auto: bfloat16 on a GPU that has it, else float32."""
    gradient_checkpointing: bool | None = None
    """Recompute activations to save memory; left out: true on GPU, false on CPU."""
    save_every_steps: PositiveInt | None = None
    """Steps between checkpoints; left out: a tenth of the run, at least 10."""
    tracking: list[Literal["trackio", "wandb", "tensorboard"]] = ["trackio"]
    """Where the curves are sent beside metrics.jsonl; an empty list: nowhere."""

    @model_validator(mode="after")
    def _layout_is_possible(self) -> Self:
        if self.sharding == "none" and (self.cpu_offload or self.sequence_parallel > 1):
            raise ValueError("cpu_offload and sequence_parallel need sharding: fsdp or zero3")
        if self.packing and self.sequence_parallel > 1:
            raise ValueError("packing and sequence_parallel exclude each other: rows laid end to end cannot be shared")
        return self


class SftConfig(Strict):
    """Stage 3: the student learns from the kept traces; the loss falls on the completion alone."""

    method: Literal["full", "lora", "qlora"] = "full"
    """All weights, or a LoRA adapter that is merged at the end; qlora: over weights quantised to 4 bits (GPU)."""
    max_length: PositiveInt = ROW_TOKENS
    """Longest row, prompt and completion, in student tokens. Longer rows are refused, never cut. Left out, it follows
    the student's context where that is shorter."""
    epochs: PositiveFloat = 3.0
    """Passes over the kept traces."""
    learning_rate: PositiveFloat | None = None
    """Peak rate; left out: the student's published one (full) or 2e-4 (lora, qlora)."""
    min_learning_rate_share: Share = 0.1
    """The cosine schedule ends at this share of the peak."""
    warmup_share: Share = 0.1
    """Share of the steps over which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW's weight decay."""
    batch_size: PositiveInt = 64
    """Rows per step, over all devices and accumulation."""
    rope_theta: PositiveFloat | None = None
    """Base of the rotary position embedding, to train on rows longer than the model's context; left out: the student
    table's where max_length asks for it, else the model's own."""
    chat_template: Annotated[str, Field(pattern=r"^(chatml|llama3|file:.+)$")] | None = None
    """`chatml`, `llama3` or `file:path` (Jinja; relative to the recipe) instead of the model's own chat template."""
    lora: Lora | None = None
    """The adapter; only with `method: lora` or `qlora`."""
    trl: dict[str, Any] = {}
    """Extra arguments for TRL's SFTConfig; those that this section sets itself are refused."""
    compute: TrainCompute = TrainCompute()
    """Layout of training."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora is not None and self.method == "full":
            raise ValueError("lora: is set but method is full. Set method: lora or remove lora:")
        if taken := sorted(OWNED_TRL_KEYS & self.trl.keys()):
            raise ValueError(f"trl: {', '.join(taken)} is set by distill itself; use the fields of sft: instead")
        return self

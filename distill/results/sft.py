"""What `sft` records."""

from typing import Annotated, Any

from pydantic import Field

from distill.results.base import Count, Counts, Recorded, absent_before, sometimes

TITLE = "Fine-tune"
DOES = "train"


class ClosingCheck(Recorded):
    """What the saved student did when it was asked some of its training prompts."""

    num_prompts: Count
    thinks: Count
    """Of the answers; and so `closes`, `answers`, `stops`."""
    closes: Count
    answers: Count
    stops: Count
    num_limited: Count = 0
    """Answers that had no room to end."""
    max_new_tokens: Count | None = absent_before()
    example: dict[str, Any] | None = None
    warning: str | None


class Device(Recorded):
    """Settings that depend on the machine's hardware."""

    on_gpu: bool
    dtype: str
    """Of the forward and backward pass: bfloat16 (by autocast) or float32."""
    attention: str
    packs: bool
    """Whether the rows of a micro-batch are packed into one sequence instead of padded."""
    kernels: bool
    """Whether to use Liger's fused kernels on a GPU, or `distill.training.cpu` without one."""
    gradient_checkpointing: bool


class SftMetrics(Recorded):
    """Metrics of `sft`."""

    LOCKED = ("num_rows", "num_steps", "final_loss")

    student: str
    student_revision: str
    method: str
    """`full`, `lora`, `qlora`."""
    num_rows: Count
    epochs: float
    batch_size: Count
    """Rows a step."""
    learning_rate: float
    """Peak."""
    num_tokens: Count
    """Of an epoch."""
    num_trained_tokens: Count
    """Of an epoch: those that the loss falls on."""
    lengths: Counts = {}
    """Quantiles of the rows' tokens: `p0` … `p100`."""
    warnings: list[Any] = []
    """What the checks before training remarked on."""
    num_steps: Count
    final_loss: float
    tokens_per_second: float | None = None
    resumed_from_step: Count | None = None
    device: Device | None = absent_before()
    layout: Annotated[dict[str, Any], Field(json_schema_extra={"table": "Layout"})] = {}
    history: list[dict[str, Any]] = []
    """A line a step: step, loss, learning rate, tokens a second, and what TRL logs."""
    gpu_peak_gib: float | None = sometimes()
    """Most memory that torch held on a GPU."""
    closing_check: ClosingCheck | None = absent_before()

    @property
    def tokens_spent(self) -> float | None:
        return self.num_tokens * self.epochs


class SftInputs(Recorded):
    """The parts of the identity that others look at."""

    student: str | None = None
    student_revision: str | None = None
    rows: str | dict[str, str] | None = None
    seed: Count | None = None

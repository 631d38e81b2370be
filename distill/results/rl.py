"""What `rl` records."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from distill.results.base import Count, Recorded, sometimes
from distill.results.sft import Device

TITLE = "Reinforce"
DOES = "improve by reinforcement"


def way_of(algorithm: str, teachers: Sequence[str]) -> str:
    """Return in words how a student was improved, e.g. `on-policy distillation from org/big`."""
    if algorithm != "distill":
        return "reinforcement learning"
    return f"on-policy distillation from {' and '.join(teachers)}" if teachers else "on-policy distillation"


class ProbePoint(Recorded):
    """The held-out problems at one moment of training."""

    step: Count
    """Updates of the weights before it."""
    num_problems: Count
    num_answers: Count
    num_right: Count
    num_ungraded: Count = 0
    pass_at_1: float | None
    """Mean over the problems, of graded answers."""
    low: float | None
    """Bounds of its 95% interval."""
    high: float | None
    mean_tokens: float
    """Of an answer."""
    truncated: float
    """Share of answers cut off at `max_tokens`."""


class RlMetrics(Recorded):
    """Metrics of `rl`."""

    LOCKED = ("num_steps", "num_rollouts", "mean_reward")

    student: str
    student_revision: str
    algorithm: str
    """`grpo`, `distill`."""
    teachers: list[str] = []
    """Models that were distilled, as the recipe names them; of a served one, without its address."""
    loss: str
    method: str
    """`full`, `lora`."""
    num_problems: Count
    """To train on."""
    num_steps: Count
    """Updates of the weights."""
    num_wanted_steps: Count
    """`rl.steps`: more than `num_steps` if a detector stopped training."""
    prompts_per_step: Count
    group_size: Count
    learning_rate: float
    num_rollouts: Count
    """Answers, with those that were replaced."""
    num_ungraded: Count = 0
    """Answers that could not be graded, and were left out of their groups."""
    num_rollout_tokens: Count
    mean_reward: float | None
    """Over the last tenth of the steps."""
    probe: list[ProbePoint] = []
    best_step: Count | None = sometimes()
    """Step after which the probe was best; the weights of then are in `best/`."""
    warnings: list[Any] = []
    """What the detectors remarked on, with the step."""
    stopped_by: str | None = sometimes()
    """The detector that ended training (`on_warning: stop`)."""
    tokens_per_second: float | None = None
    """Of rollouts, over sampling alone."""
    seconds_per_step: float | None = None
    resumed_from_step: Count | None = None
    device: Device | None = None
    layout: Annotated[dict[str, Any], Field(json_schema_extra={"table": "Layout"})] = {}
    history: list[dict[str, Any]] = []
    """A line a step: reward and its parts, entropy, KL, lengths, shares, speeds."""
    gpu_peak_gib: float | None = sometimes()
    """Most memory that torch held on a GPU."""

    @property
    def way(self) -> str:
        """Return in words how the student was improved."""
        return way_of(self.algorithm, self.teachers)

    @property
    def tokens_spent(self) -> float | None:
        return float(self.num_rollout_tokens)


class RlInputs(Recorded):
    """The parts of the identity that others look at."""

    student: str | None = None
    student_revision: str | None = None
    problems: str | None = None
    seed: Count | None = None

"""The settings of a reinforcement learning job, and the names of what it writes. Importing it does not import torch.

`runs/<name>/rl/` has, besides `student/`, `adapter/` (LoRA) and `metrics.jsonl` (a line a step):

    rollouts/step-000012.parquet    every answer of step 12, with its reward and whether it was trained on
    rollouts/probe-000020.parquet   answers to the held-out problems before step 20
    rollouts/aside/…                answers of steps that were interrupted and drawn again
    best/                           the weights with the best held-out share, as `student/`
"""

from dataclasses import dataclass
from typing import Any

from distill.grading.gym import FULL_SCORE

ROLLOUTS = "rollouts"
ASIDE = "aside"
"""Folder within the rollouts."""
POLICY = "policy"
"""Folder of the student as the engine loads it: links, and the tokenizer; not kept after training."""
BEST = "best"
"""Folder of the model with the best held-out share."""
KEPT_CHECKPOINTS = 2
"""Number of newest checkpoints to keep."""
GPU_MEMORY_SHARE = 0.5
"""Of each GPU's memory, for the engine while it samples. Asleep it leaves it to training, but for what training keeps:
weights, their gradients and the optimiser."""
SAVE_WITHIN_S = 1_800.0
"""How long training may take after Ctrl-C or SIGTERM to finish its step and save a checkpoint."""


@dataclass(frozen=True, slots=True)
class RlJob:
    """Model, problems, settings and output folder."""

    model_name: str
    """As in the recipe: a Hub id or a folder."""
    model_path: str
    model_revision: str
    chat_template: str | None
    """Text of the template that replaces the model's own."""
    chat_format: str | None
    """Template in `distill/models/templates/` for a model without one."""
    stop_token: str | None
    problems: str
    """JSONL file of the problems to train on."""
    probe: str | None
    """JSONL file of the held-out problems that are answered while training; `None`: no probe."""
    solved: dict[str, tuple[int, int]]
    """Problem id -> (right answers, graded answers) of earlier verdicts."""
    facts: str | None
    """Path of the fact cache that grades are read from and written to; `None`: they are forgotten."""
    sandbox: dict[str, Any]
    """Where programs run, as in a recipe."""
    out_dir: str
    seed: int
    owner: str
    """Fingerprint of the training, stored with its checkpoints."""
    project: str
    """The recipe's name, under which trackers show the run."""
    run_name: str
    layout: dict[str, Any]
    """The `Layout`, as JSON."""
    config: dict[str, Any]
    """`rl:` of the recipe."""
    gym_min_score: float = FULL_SCORE
    """Minimum score at which a gym answer is right, as for the filter."""
    teachers: tuple[dict[str, Any], ...] = ()
    """With `algorithm: distill`: `{name, path, url}` of each teacher, path or url."""
    only_check: bool = False
    """Sample and score a handful of answers, and train nothing (`distill rl --check`)."""

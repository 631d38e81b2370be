"""The settings of a training process. In a module of its own so that importing it does not import torch."""

from dataclasses import dataclass
from typing import Any

KEPT_CHECKPOINTS = 2
"""Number of newest checkpoints to keep; older ones are removed during training."""


TOKENS = "tokens"
"""Folder of the tokenised rows in the stage's folder; not kept after training."""

SAVE_WITHIN_S = 600.0
"""How long training may take after Ctrl-C or SIGTERM to finish its step and save a checkpoint."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Model, rows, settings and output folder of a training."""

    model_name: str
    """As in the recipe: a Hub id or a folder."""
    model_path: str
    model_revision: str
    chat_template: str | None
    """Text of the template that replaces the model's own."""
    chat_format: str | None
    """Template in `distill/models/templates/` for a model without one."""
    stop_token: str | None
    learning_rate: float
    rope: dict[str, Any] | None
    """`theta` and `context` that replace the model's own, for longer rows."""
    context: int | None
    """Longest row that the student's positions cover, in tokens; `None`: its config does not say."""
    rows: str
    """Folder of Parquet files with the columns prompt and completion."""
    out_dir: str
    seed: int
    owner: str
    """Fingerprint of the training, stored with its checkpoints."""
    project: str
    """The recipe's name, under which trackers show the run."""
    run_name: str
    keep_checkpoints: bool
    layout: dict[str, Any]
    """The `Layout`, as JSON."""
    config: dict[str, Any]
    """`sft:` of the recipe."""

"""What the training process is told; apart from the rest of `distill.training` so that naming it imports no torch."""

from dataclasses import dataclass
from typing import Any

KEPT_CHECKPOINTS = 2
"""The newest ones; older ones are removed as training goes on."""


TOKENS = "tokens"
"""Folder of the rows as tokens in the stage's folder; scratch as well."""

SAVE_WITHIN_S = 600.0
"""After Ctrl-C or SIGTERM, how long training may take to end its step and save a checkpoint."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What is trained, on what, and where it is left."""

    model_name: str
    """As the recipe gives it: a Hub id, or a folder."""
    model_path: str
    model_revision: str
    chat_template: str | None
    """Text of the template that replaces the model's own."""
    chat_format: str | None
    """The template in `distill/models/templates/` for a model that has none."""
    stop_token: str | None
    learning_rate: float
    rope: dict[str, Any] | None
    """`theta` and `context` that replace the model's own, to reach longer rows."""
    context: int | None
    """Longest row that the student's positions reach, in tokens; `None`: the model does not tell."""
    rows: str
    """Folder of Parquet files with the columns prompt and completion."""
    out_dir: str
    seed: int
    owner: str
    """Fingerprint of all this; checkpoints bear it."""
    project: str
    """Under which trackers show the run: the recipe's name."""
    run_name: str
    keep_checkpoints: bool
    layout: dict[str, Any]
    """`Layout` of the processes that do it."""
    config: dict[str, Any]
    """`sft:` of the recipe."""

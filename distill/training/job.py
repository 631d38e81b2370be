"""What the training process is told; apart from `distill.training` so that naming it imports no torch."""

from dataclasses import dataclass
from typing import Any

CHECKPOINTS = "checkpoints"
"""Folder of training's checkpoints in the stage's folder; of no use once the student is saved."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What is trained, on what, and where it is left."""

    model_name: str
    model_path: str
    chat_format: str | None
    stop_token: str | None
    learning_rate: float
    rows: str
    """Folder of Parquet files with the columns prompt and completion."""
    out_dir: str
    seed: int
    config: dict[str, Any]
    """`sft:` of the recipe."""

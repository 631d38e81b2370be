"""What a part of `gpu_check.py` is told and what it says, and how much of everything it does."""

import json
import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: enough to see something, little enough for minutes."""

    sampled_tokens: int
    batches: tuple[tuple[int | None, int], ...]
    """(requests at once, requests); `None`: as the engine picks."""
    row_tokens: int
    """Longest row that is trained on."""
    num_rows: int
    batch_size: int
    per_device: int
    benchmark_rows: int


SIZES = {
    "gpu": Size(128, ((None, 128), (256, 256)), 2_048, 32, 8, 4, 48),
    "cpu": Size(8, ((4, 8),), 192, 8, 4, 2, 32),
}


class SkippedError(Exception):
    """The part cannot be done here, for a reason that is no fault."""


class Report:
    """What a part is told, and what it says."""

    def __init__(self, settings: dict[str, Any], result: Path) -> None:
        self.settings = settings
        self.figures: dict[str, Any] = {}
        self._result = result

    @property
    def on_gpu(self) -> bool:
        return bool(self.settings["device"] == "gpu")

    @property
    def size(self) -> Size:
        return SIZES[self.settings["device"]]

    @property
    def folder(self) -> Path:
        """The part's own."""
        return Path(self.settings["folder"])

    def note(self, **figures: Any) -> None:
        """Keep figures, whatever happens next."""
        self.figures |= figures
        self.write("failed", "it ended before it was done")

    def write(self, status: str, reason: str = "", summary: str = "") -> None:
        """Say how it went so far."""
        result = {"status": status, "reason": reason, "summary": summary, "figures": _plain(self.figures)}
        staged = self._result.with_suffix(".partial")
        staged.write_text(json.dumps(result, allow_nan=False, default=str))
        staged.replace(self._result)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def nvidia_smi(query: str) -> str:
    """What it says of the GPU that is used."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    try:
        command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""

"""Trainer callbacks: metrics.jsonl with a line per step, the progress bar, and a clean stop on SIGTERM.

    {"step": 1, "loss": 2.1, "learning_rate": 1e-05, "grad_norm": 4.2, "mean_token_accuracy": 0.55, "epoch": 0.02,
     "num_tokens": 4096, "tokens_per_second": 812.4}

`num_tokens` counts the tokens of the step's rows, with prompts and without padding.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from distill.core.progress import ProgressBar
from distill.errors import StageError
from distill.storage.files import atomic_write, disk_errors

HISTORY_KEYS = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", "epoch")

TokensOfStep = Callable[[int], int]
"""Maps the number of a step, counted from 0, to the tokens of its rows."""

IsKept = Callable[[str], bool]


def _loss_of(entry: dict[str, Any]) -> str:
    return f"loss {entry['loss']:.3f}"


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Callback that writes and shows each step; silent on all processes but the first."""

    def __init__(
        self,
        title: str,
        metrics: Path,
        tokens_of_step: TokensOfStep,
        is_first: bool,
        is_kept: IsKept = HISTORY_KEYS.__contains__,
        shown: Callable[[dict[str, Any]], str] = _loss_of,
    ) -> None:
        """Create the callback.

        Args:
            title: shown beside the progress bar.
            metrics: the file to write.
            tokens_of_step: tokens of a step's rows.
            is_first: whether this process writes and shows.
            is_kept: whether a key of the Trainer's log belongs into the history.
            shown: what the progress bar says of a step.
        """
        self.history: list[dict[str, Any]] = []
        """One entry per step, with those before a resume; without times, so that equal runs have equal histories."""
        self.first_step = 0
        self.num_tokens = 0
        self.seconds = 0.0
        """Time spent in steps, without checkpoints."""
        self._title, self._metrics, self._tokens_of_step, self._is_first = title, metrics, tokens_of_step, is_first
        self._is_kept, self._shown = is_kept, shown
        self._progress: ProgressBar | None = None
        self._step_began = 0.0
        self._step_took = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / max(self.seconds, 1e-9)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.first_step = state.global_step
        self.history = _history(state.log_history, self._is_kept)
        if self._is_first:
            atomic_write(self._metrics, "".join(_lines_up_to(self._metrics, self.history)))
            self._progress = ProgressBar(self._title, state.max_steps, "steps", done=state.global_step)
            self._progress.__enter__()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # kernels are launched asynchronously
        self._step_took = time.monotonic() - self._step_began

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for entry in _history([{**(logs or {}), "step": state.global_step}], self._is_kept):
            num_tokens = self._tokens_of_step(entry["step"] - 1)
            self.num_tokens += num_tokens
            self.seconds += self._step_took
            self.history.append(entry)
            if self._is_first:
                self._show(entry, num_tokens, num_tokens / max(self._step_took, 1e-9))

    def _show(self, entry: dict[str, Any], num_tokens: int, speed: float) -> None:
        line = {**entry, "num_tokens": num_tokens, "tokens_per_second": round(speed, 1)}
        with self._metrics.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        assert self._progress is not None
        self._progress.advance(1, f"{self._shown(entry)}, {speed:,.0f} tokens/s")

    def close(self) -> None:
        """Close the progress bar."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)


class GracefulStop(TrainerCallback):  # type: ignore[misc]
    """Callback that finishes the step, saves a checkpoint and stops on SIGTERM. A second SIGTERM stops at once.

    Use as a context manager around training. Processes agree after each step, so that all save the same one.
    """

    def __init__(self) -> None:
        self.has_stopped = False
        self._is_asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self._is_asked:
            raise KeyboardInterrupt
        self._is_asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if _any_process(self._is_asked, args.device):
            self.has_stopped = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True


def train_to_the_end(trainer: Any, reporter: Reporter, out_dir: Path, checkpoint: Path | None, diverged: str) -> None:
    """Train to the end, or until SIGTERM has led to a last checkpoint.

    Args:
        trainer: transformers' Trainer; it gets a callback for SIGTERM.
        reporter: one of its callbacks; closed.
        out_dir: where all of it is written, for messages about the disk.
        checkpoint: to resume from.
        diverged: the message if the loss is not a number.

    Raises:
        KeyboardInterrupt: SIGTERM came before the end.
        StageError: the loss is not a number.
        StoreError: the disk is full or not writable.
    """
    with disk_errors(out_dir), GracefulStop() as stop:
        trainer.add_callback(stop)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            reporter.close()
    if stop.has_stopped:
        raise KeyboardInterrupt
    if not reporter.history or not all(math.isfinite(entry["loss"]) for entry in reporter.history):
        raise StageError(diverged)


def _any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process."""
    if not torch.distributed.is_initialized():
        return flag
    asked = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
    return bool(asked.item())


def _history(log_history: Sequence[dict[str, Any]], is_kept: IsKept) -> list[dict[str, Any]]:
    """Return one entry per step, with the keys to keep."""
    return [
        {
            "step": entry["step"],
            **{key: value for key, value in entry.items() if is_kept(key) and _is_number(key, value)},
        }
        for entry in log_history
        if "loss" in entry
    ]


def _is_number(key: str, value: Any) -> bool:
    # JSON has no NaN. A loss that is NaN is kept nevertheless: it stops the stage.
    return isinstance(value, int | float) and (key == "loss" or math.isfinite(value))


def _lines_up_to(metrics: Path, history: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of metrics.jsonl for `history`; torn or missing ones are rebuilt without times."""
    stored = {}
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        stored[entry["step"]] = line
    return [stored.get(entry["step"], json.dumps(entry)) + "\n" for entry in history]

"""Rows to train on, jobs that train on them, and a clock for steps; shared by the benchmarks of training.

The rows are prompt/completion rows as `distill filter` keeps them, of sums or of a folder of real problems:

    {"prompt": [{"role": "user", "content": "What is 4 + 3 - 8?"}],
     "completion": [{"role": "assistant", "content": "<think>\\nFirst, 4 + 3 = 7.\\n…</think>\\n\\nThe answer is -1."}]}
"""

import json
import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.models.hub import Model, resolve_model
from distill.recipe.sft import SftConfig
from distill.training.job import TrainJob
from distill.training.layout import plan_layout

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHARED = Path(__file__).parents[2] / "shared" / "data"
TOKENS_PER_TERM = 24
"""Of a sum that is worked out step by step, at most; tokenizers that keep digits apart come near it."""

Row = dict[str, list[dict[str, str]]]


def worked_problems(num: int, shared: Path, skip: int = 0) -> list[Row]:
    """Word problems with their solutions where the shared problems are at hand, else sums of 2 to 20 terms."""
    source = shared / "gsm8k_train.jsonl"
    if not source.exists():
        dice = random.Random(skip)
        return worked_sums(num, [min(20, 2 + int(dice.expovariate(0.25))) for _ in range(num)], seed=skip)
    rows = []
    for line in source.read_text(encoding="utf-8").splitlines()[skip : skip + num]:
        entry = json.loads(line)
        steps, _, answer = entry["answer"].partition("####")
        rows.append(_row(entry["question"], re.sub(r"<<.*?>>", "", steps).strip(), answer.strip()))
    return rows


def worked_sums(num: int, terms: list[int], seed: int = 0) -> list[Row]:
    """Sums worked out step by step.

    Args:
        num: how many.
        terms: how many numbers each adds up.
        seed: of the numbers.
    """
    dice = random.Random(seed)
    rows = []
    for i in range(num):
        total = first = dice.randint(100, 999)
        question, steps = str(first), []
        for _ in range(terms[i] - 1):
            number = dice.randint(-999, 999)
            sign = "+" if number >= 0 else "-"
            question += f" {sign} {abs(number)}"
            steps.append(f"{total} {sign} {abs(number)} = {total + number}.")
            total += number
        rows.append(_row(f"What is {question}?", "\n".join(steps), str(total)))
    return rows


def long_rows(num: int, longest: int, seed: int = 0) -> list[Row]:
    """Rows with the lengths of reasoning traces: most a fifth of the longest or so, a few as long as it."""
    dice = random.Random(seed)
    tokens = [min(longest, dice.lognormvariate(math.log(longest / 5), 0.8)) for _ in range(num)]
    return worked_sums(num, [max(2, int(length / TOKENS_PER_TERM)) for length in tokens], seed)


def _row(question: str, steps: str, answer: str) -> Row:
    thought = f"<think>\n{steps}\n</think>\n\nThe answer is \\boxed{{{answer}}}."
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": thought}],
    }


def write_rows(rows: list[Row], folder: Path) -> Path:
    """The rows as Parquet, where a TrainJob looks for them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return folder


def train_job(model: Model, rows: Path, out_dir: Path, seed: int, num_gpus: int, **sft: Any) -> TrainJob:
    """What `distill sft` would hand to its training process for `sft:` as given."""
    config = SftConfig.model_validate(sft)
    return TrainJob(
        model_name=model.name,
        model_path=str(model.path),
        model_revision=model.revision,
        chat_template=None,
        chat_format=None,
        stop_token=None,
        learning_rate=config.learning_rate or 1e-4,
        rope=None,
        context=None,
        rows=str(rows),
        out_dir=str(out_dir),
        seed=seed,
        owner="benchmark",
        project="benchmark",
        run_name="sft",
        keep_checkpoints=False,
        layout=plan_layout(config, num_gpus).to_json(),
        config=config.model_dump(mode="json"),
    )


def small_model(name: str | None) -> Model:
    """The named model, else SmolLM2-135M, from the cache or fetched."""
    return resolve_model(name or SMOLLM2)


class StepClock:
    """Seconds from the end of one step to the end of the next, with all that lies between: loading, logging, saving.

    It hooks into transformers' Trainer, so that a bare script and distill are measured by the same means. It counts
    the tokens that go through the model as well, and those of them that are padding.
    """

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        """Measure nothing yet.

        Args:
            between: called before the first step and after each, outside the clock.
        """
        self._between = between
        self.seconds: list[float] = []
        self.num_computed = 0
        """Tokens that went through the model."""
        self.tokens: list[int] = []
        """Those of them that are no padding, by step."""
        self.peak_bytes = 0
        """Highest memory that tensors took on the GPU; 0 without one."""
        self._began: float | None = None
        self._is_in_step = False

    @property
    def num_real(self) -> int:
        """Tokens of all steps that are no padding."""
        return sum(self.tokens)

    def install(self) -> "StepClock":
        """Start measuring every Trainer of this process."""
        from transformers import Trainer

        training_step, end_of_step = Trainer.training_step, Trainer._maybe_log_save_evaluate

        def timed_step(trainer: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            if self._began is None:
                self._between()
                self._began = time.perf_counter()
            if not self._is_in_step:
                self.tokens.append(0)
            self._is_in_step = True
            mask = inputs.get("attention_mask")
            self.num_computed += inputs["input_ids"].numel()
            self.tokens[-1] += inputs["input_ids"].numel() if mask is None else int(mask.sum())
            return training_step(trainer, model, inputs, *rest, **named)

        def timed_end(*args: Any, **named: Any) -> Any:
            if self._is_in_step:  # the Trainer comes here once more at an epoch's end
                self._end()
            return end_of_step(*args, **named)

        Trainer.training_step, Trainer._maybe_log_save_evaluate = timed_step, timed_end
        return self

    def _end(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.peak_bytes = torch.cuda.max_memory_allocated()
        now = time.perf_counter()
        assert self._began is not None
        self.seconds.append(now - self._began)
        self._between()
        self._began, self._is_in_step = time.perf_counter(), False

"""Time that distill's training adds to a bare TRL script with the same arguments, on CPU, checkpoints included.

Two ways to train the same model on the same rows, each in a process of its own:

- ours: `distill.training.run.train`, what `distill sft` starts: rows checked, steps shown and logged, checkpoints
  sealed and older ones removed;
- bare: TRL's SFTTrainer, its arguments written out below, on the same rows as chat messages.

Both run TRL's own loss on float32 rows (`sft.compute: {dtype: float32, kernels: false, packing: false}`), so that only
what distill adds differs; what its CPU path saves is `sft_cpu.py`'s claim. The losses of all steps must be equal to the
last bit.

The two take turns step by step, in an order drawn by chance; who is not at turn is frozen with all its threads. So a
machine that is slower now than a minute ago is so for both, and what distill does beside its steps takes time from
its own steps alone. Processes differ too, by 2% and more with the same code, since their memory lies elsewhere: hence
many rounds, each of two new processes. Steps are short, two rows of a sum, a second or two on two cores: what is added
to each weighs more than in practice, and many of them can be compared. A step's time reaches from the end of the step
before to its own, with what lies between: logging, saving, sealing. After a step with a checkpoint the disk is flushed,
outside the clock.

Checkpoints come every 20 steps; the last, behind the last step, is not measured (nor are its seal, which training waits
for, and the student). So there are two to 60 measured steps, one a minute or less, near the quickstart's ten steps of
three seconds: the shortest distance that a recipe's default gives. Both save the same 1.6 GB of SmolLM2-135M's weights
and moments, and keep two checkpoints. Both trainings lie in memory at once, 7 GiB.

    python benchmarks/sft_overhead.py [--rounds 10] [--steps 60]

The last line is JSON: ours over bare of the sums of all steps, its 95% interval from resampling rounds, the median of
the pairs of steps, the losses and every step.
"""

import argparse
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training_rows import StepClock, small_model, train_job, worked_sums, write_rows

WAYS = ("ours", "bare")
SEED = 42
"""The one that transformers' BatchRebalanceSampler has built in; ours takes the recipe's."""
NUM_TERMS = 2
BATCH_SIZE, PER_DEVICE, EPOCHS, LEARNING_RATE = 2, 1, 1.0, 1e-4
SAVE_EVERY_STEPS = 20
NUM_RESAMPLES = 10_000
ENVIRONMENT = {
    "DISTILL_QUIET": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # glibc keeps freed memory for the next tensors. Else it depends on what was freed before training whether large
    # ones are fetched from the system again at each step, which takes longer than all that distill adds.
    "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
TURN = "TURN"
"""A line from a child: it waits for its next step."""

Pair = tuple[float, float]
"""Seconds of ours, and of the bare script."""


def main() -> None:
    """Take turns, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="trainings of each")
    parser.add_argument("--steps", type=int, default=60, help="steps of each training")
    parser.add_argument("--model", default=None, help="Hub id or folder; left out: SmolLM2-135M")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.steps, options.scratch, options.model)))
        return
    runs: list[dict[str, dict[str, Any]]] = []
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".sft-overhead-") as scratch:
            runs.append(_round(number, Path(scratch)))
        seconds = {way: sum(run["seconds"]) for way, run in runs[-1].items()}
        print(f"round {number}: {seconds['ours']:.1f} s to {seconds['bare']:.1f} s", flush=True)
    losses = [run["losses"] for both in runs for run in both.values()]
    assert all(each == losses[0] for each in losses), f"the losses differ: {losses}"
    print(f"losses of all {len(losses)} trainings, equal to the last bit: {losses[0]}")
    steps = {way: [both[way]["seconds"] for both in runs] for way in WAYS}
    totals = [(sum(ours), sum(bare)) for ours, bare in zip(steps["ours"], steps["bare"], strict=True)]
    pairs = zip(*(itertools.chain.from_iterable(steps[way]) for way in WAYS), strict=True)
    found = {
        "ratio": _ratio(totals),
        "interval": _interval(totals),
        "median_ratio": statistics.median(ours / bare for ours, bare in pairs),
        "losses": losses[0],
        "steps": steps,
    }
    print(json.dumps(found))


def _ratio(totals: list[Pair]) -> float:
    return sum(ours for ours, _ in totals) / sum(bare for _, bare in totals)


def _interval(totals: list[Pair]) -> Pair:
    """The 95% interval of the ratio, by bootstrap."""
    dice = random.Random(0)
    cuts = statistics.quantiles((_ratio(dice.choices(totals, k=len(totals))) for _ in range(NUM_RESAMPLES)), n=40)
    return cuts[0], cuts[-1]


def _round(number: int, scratch: Path) -> dict[str, dict[str, Any]]:
    """Losses and seconds of each step, of both ways."""
    dice = random.Random(number)
    with Child("ours", scratch / "ours") as ours, Child("bare", scratch / "bare") as bare:
        children = [ours, bare]
        for step in itertools.count():
            for child in dice.sample(children, k=2):
                child.take_turn()
                if step % SAVE_EVERY_STEPS == 0:  # it has saved on its way
                    os.sync()
            if ours.found and bare.found:
                return {"ours": ours.found, "bare": bare.found}
    raise AssertionError


class Child:
    """A training in a process of its own, frozen until it is its turn to take a step."""

    def __init__(self, way: str, scratch: Path) -> None:
        self._way, self._scratch = way, scratch
        self.found: dict[str, Any] | None = None
        """Losses and seconds, at the end."""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--child", self._way, "--scratch", self._scratch],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        self._await()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def take_turn(self) -> None:
        """Take one step, or after the last one: save, and end."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._await()

    def _await(self) -> None:
        """Until it waits for its next turn, or has found what there is to find."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == TURN:
                self._process.send_signal(signal.SIGSTOP)
                return
            if line.startswith('{"'):  # unlike what the Trainer prints of each step
                self.found = json.loads(line)
                return
        self._errors.seek(0)
        sys.exit(f"{self._way} failed:\n{self._errors.read()[-3000:]}")


def measure(way: str, num_steps: int, scratch: Path, model: str | None) -> dict[str, Any]:
    """Seconds and loss of each step of one way."""
    clock = StepClock(_wait_for_turn).install()
    rows = worked_sums(num_steps * BATCH_SIZE, [NUM_TERMS] * num_steps * BATCH_SIZE)
    losses = (_ours if way == "ours" else _bare)(rows, scratch, model)
    return {"losses": losses, "seconds": clock.seconds}


def _wait_for_turn() -> None:
    print(TURN, flush=True)
    if not sys.stdin.readline():
        sys.exit("whoever measures has gone")


def _ours(rows: list[Any], folder: Path, model: str | None) -> list[float]:
    from distill.training.run import train

    job = train_job(
        small_model(model),
        write_rows(rows, folder / "rows"),
        folder / "sft",
        SEED,
        num_gpus=0,
        max_length=512,
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        compute={
            "per_device_batch_size": PER_DEVICE,
            "dtype": "float32",
            "kernels": False,
            "packing": False,
            "attention": "sdpa",
            "save_every_steps": SAVE_EVERY_STEPS,
            "tracking": [],
        },
    )
    return [entry["loss"] for entry in train(job)["history"]]


def _bare(rows: list[Any], folder: Path, model: str | None) -> list[float]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    path = small_model(model).path
    num_steps = math.ceil(len(rows) / BATCH_SIZE * EPOCHS)
    arguments = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_length=None,
        train_sampling_strategy="batch_rebalance",
        num_train_epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=math.ceil(num_steps * 0.1),
        per_device_train_batch_size=PER_DEVICE,
        gradient_accumulation_steps=BATCH_SIZE // PER_DEVICE,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=SEED,
        data_seed=SEED,
        logging_steps=1,
        save_steps=SAVE_EVERY_STEPS,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    main()

"""Seconds a step of distill's training over a bare TRL script's with the same arguments, on CPU.

Two ways to train the same model on the same rows, each in a process of its own, taking turns:

- ours: `distill.training.run.train`, what `distill sft` starts: rows checked, steps shown and logged, checkpoints
  sealed;
- bare: TRL's SFTTrainer, its arguments written out below, on the same rows as chat messages.

Both run TRL's own loss on padded float32 rows (`sft.compute: {dtype: float32, kernels: false, packing: false}`), so
that only what distill adds differs; what its CPU path saves is `sft_cpu.py`'s claim. Every step of ours is set against
the bare script's same step, checkpoints included, and the losses of all steps must be equal to the last bit.

    python benchmarks/sft_overhead.py [--rounds 2] [--rows 48]

The last line is JSON: the median of ours over bare, the losses, the medians and every step.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from training_rows import SHARED, StepClock, small_model, train_job, worked_problems, write_rows

WAYS = ("ours", "bare")
SEED = 42
"""The one that transformers' BatchRebalanceSampler has built in; ours takes the recipe's."""
BATCH_SIZE, PER_DEVICE, EPOCHS, LEARNING_RATE = 8, 4, 1.0, 1e-4


def main() -> None:
    """Take turns, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each")
    parser.add_argument("--rows", type=int, default=48, help=f"rows to train on, a multiple of {BATCH_SIZE}")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of real problems; without it: sums")
    parser.add_argument("--model", default=None, help="Hub id or folder; left out: SmolLM2-135M")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.rows, options.shared, options.model)))
        return
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            runs[way].append(_in_a_child(way))
            print(f"{way:>4}: {statistics.median(runs[way][-1]['seconds']):.2f} s a step", flush=True)
    losses = [run["losses"] for way in WAYS for run in runs[way]]
    assert all(each == losses[0] for each in losses), f"the losses differ: {losses}"
    print(f"losses of all {2 * options.rounds} runs, equal to the last bit: {losses[0]}")
    seconds = {way: [run["seconds"] for run in runs[way]] for way in WAYS}
    ratios = [
        ours / bare
        for ours_run, bare_run in zip(seconds["ours"], seconds["bare"], strict=True)
        for ours, bare in zip(ours_run, bare_run, strict=True)
    ]
    medians = {way: statistics.median(second for run in seconds[way] for second in run) for way in WAYS}
    ratio = statistics.median(ratios)
    print(json.dumps({"ratio": ratio, "losses": losses[0], "step_seconds": medians, "steps": seconds}))


def measure(way: str, num_rows: int, shared: Path, model: str | None) -> dict[str, Any]:
    """Seconds and loss of each step of one way."""
    clock = StepClock().install()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".sft-overhead-") as scratch:
        train = _ours if way == "ours" else _bare
        losses = train(worked_problems(num_rows, shared), Path(scratch), model)
    return {"losses": losses, "seconds": clock.seconds}


def _ours(rows: list[Any], folder: Path, model: str | None) -> list[float]:
    from distill.training.run import train

    job = train_job(
        small_model(model),
        write_rows(rows, folder / "rows"),
        folder / "sft",
        SEED,
        num_gpus=0,
        max_length=2048,
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        compute={
            "per_device_batch_size": PER_DEVICE,
            "dtype": "float32",
            "kernels": False,
            "packing": False,
            "attention": "sdpa",
            "save_every_steps": 4,
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
        save_steps=4,
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


def _in_a_child(way: str) -> dict[str, Any]:
    quiet = {**os.environ, "DISTILL_QUIET": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--child", way]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

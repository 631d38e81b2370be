"""Real tokens per second of training with distill's CPU defaults over TRL's defaults, at equal data and final loss.

Two ways to train the same model on the same rows for one epoch, each in a process of its own, taking turns:

- ours: `distill.training.run.train` with `sft.compute` left as it is (float32, rows end to end, completions scored
  once);
- trl: TRL's SFTTrainer with the defaults of its SFTConfig (bfloat16 autocast, gradient checkpointing, 8 rows padded at
  random), given the same rows, rate, schedule and batch size; `max_length` is lifted so that no row is cut.

Padding does not count as tokens. Each seed is another order of rows. Afterwards both models are measured by the same
code, in float32, on the same rows that neither was trained on; that is the final loss.

    python benchmarks/sft_cpu.py [--seeds 2] [--rows 64]

The last line is JSON: the ratio of the median speeds, speeds and held-out losses of each run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from training_rows import SHARED, StepClock, small_model, train_job, worked_problems, write_rows

WAYS = ("ours", "trl")
BATCH_SIZE, LEARNING_RATE = 8, 1e-4
NUM_HELD_OUT = 24


def main() -> None:
    """Take turns, print each run, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--rows", type=int, default=64, help="rows to train on")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of real problems; without it: sums")
    parser.add_argument("--model", default=None, help="Hub id or folder; left out: SmolLM2-135M")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.seed, options)))
        return
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        for way in WAYS if seed % 2 == 0 else reversed(WAYS):
            runs[way].append(_in_a_child(way, seed))
            found = runs[way][-1]
            print(
                f"{way:>4}, seed {seed}: {found['tokens_per_second']:6.1f} tokens/s, {found['padding']:.1%} of what "
                f"was computed is padding, held-out loss {found['loss']:.4f}",
                flush=True,
            )
    speeds = {way: [run["tokens_per_second"] for run in runs[way]] for way in WAYS}
    ratio = statistics.median(speeds["ours"]) / statistics.median(speeds["trl"])
    losses = {way: [run["loss"] for run in runs[way]] for way in WAYS}
    print(json.dumps({"ratio": ratio, "tokens_per_second": speeds, "held_out_loss": losses}))


def measure(way: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Speed and held-out loss of one run."""
    clock = StepClock().install()
    rows = worked_problems(options.rows, options.shared)
    held_out = worked_problems(NUM_HELD_OUT, options.shared, skip=options.rows)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".sft-cpu-") as scratch:
        trained = (_ours if way == "ours" else _trl)(rows, Path(scratch), options.model, seed)
        loss = held_out_loss(trained, held_out, options.model)
    return {
        "tokens_per_second": clock.num_real / sum(clock.seconds),
        "padding": 1 - clock.num_real / clock.num_computed,
        "loss": loss,
    }


def _ours(rows: list[Any], folder: Path, model: str | None, seed: int) -> Path:
    from distill.training.run import train

    sft = {"max_length": 2048, "epochs": 1, "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE}
    train(train_job(small_model(model), write_rows(rows, folder / "rows"), folder / "sft", seed, num_gpus=0, **sft))
    return folder / "sft" / "student"


def _trl(rows: list[Any], folder: Path, model: str | None, seed: int) -> Path:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    path = small_model(model).path
    arguments = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_length=None,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=-(-len(rows) // BATCH_SIZE) // 10 + 1,
        per_device_train_batch_size=BATCH_SIZE,
        use_cpu=True,
        seed=seed,
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
    trainer.model.save_pretrained(folder / "trained")
    return folder / "trained"


def held_out_loss(trained: Path, rows: list[Any], model: str | None) -> float:
    """Mean loss of a saved model on the completions' tokens, in float32, row by row."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_model(model).path)
    loaded = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()
    total, num = 0.0, 0
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        whole = torch.tensor([tokenizer.apply_chat_template(row["prompt"] + row["completion"])["input_ids"]])
        with torch.inference_mode():
            log_probs = loaded(whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        targets = whole[0, len(prompt) :]
        total -= log_probs.gather(-1, targets[:, None]).sum().item()
        num += len(targets)
    return total / num


def _in_a_child(way: str, seed: int) -> dict[str, float]:
    quiet = {**os.environ, "DISTILL_QUIET": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    quiet["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="distill-trackio-")
    command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--child", way, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

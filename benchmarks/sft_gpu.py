"""Tokens per second, MFU and peak memory of distill's training on a GPU over bare TRL with padding, at 8k and 16k.

Two ways to train the same model on the same rows, whose lengths spread as those of reasoning traces do, each in a
process of its own, taking turns:

- ours: `distill.training.run.train` with nothing set under `sft.compute` but the rows of a pass;
- trl: SFTTrainer with its defaults, which are bfloat16 autocast, gradient checkpointing and rows padded to the longest
  of their pass, and the same rows a pass.

Tokens are those of the rows, padding left out. MFU counts the multiplications that the rows need once forward and
twice backward (recomputed ones do not count) over the GPU's bfloat16 peak, where that is known. Packing efficiency is
the share of the tokens that went through the model that are no padding. The first step, which picks kernels, is left
out of speed and MFU. Rows longer than a model's context cost what they cost and are trained on all the same.

    python benchmarks/sft_gpu.py [--rounds 3] [--rows 64] [--lengths 8192 16384] [--models …]

The last line is JSON: the smallest of ours over trl, ours' lowest packing efficiency, and every setting. Without a GPU
nothing is measured, and it says so; `--device cpu` tries the script there, with short rows and a tiny model.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_rows import SMOLLM2, StepClock, long_rows, small_model, train_job, write_rows

from distill.engines.memory import visible_gpus
from distill.errors import ModelError
from distill.estimates.training_layouts import peak_tflops
from distill.models.shapes import ModelShape, shape_from_config
from distill.storage.files import read_json
from distill.training.job import TOKENS

WAYS = ("ours", "trl")
MODELS = (SMOLLM2, "Qwen/Qwen2.5-0.5B")
BATCH_SIZE, PER_DEVICE, LEARNING_RATE = 16, 8, 1e-5
NUM_WARM = 1
"""Steps at the start that do not count."""


def main() -> None:
    """Take turns for each model and length, print each round, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (the median counts)")
    parser.add_argument("--rows", type=int, default=64, help="rows to train on")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8_192, 16_384], help="longest rows, in tokens")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="Hub ids or folders")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: try the script")
    parser.add_argument("--child", nargs=3, metavar=("WAY", "MODEL", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "gpu" and not visible_gpus():
        print(json.dumps({"skipped": "no NVIDIA GPU here: nothing was measured"}))
        return
    if options.child:
        way, model, length = options.child
        print(json.dumps(measure(way, model, int(length), options.rows)))
        return
    models = _at_hand(options.models)
    if not models:
        sys.exit("None of the models is here, and none can be fetched.")
    settings = [compare(model, length, options) for model in models for length in options.lengths]
    summary = {
        "ratio": min(setting["ratio"] for setting in settings),
        "packing_efficiency": min(setting["ours"]["packing_efficiency"] for setting in settings),
        "settings": settings,
    }
    print(json.dumps(summary))


def compare(model: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways' medians for one model and length."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            run = _in_a_child(way, model, length)
            runs[way].append(run)
            print(
                f"{model} at {length:,}, {way:>4}: {run['tokens_per_second']:,.0f} tokens/s, "
                f"MFU {run.get('mfu', math.nan):.1%}, "
                f"{run['peak_gib']:.1f} GiB, packing {run['packing_efficiency']:.1%}",
                flush=True,
            )
    medians = {way: {key: statistics.median(run[key] for run in runs[way]) for key in runs[way][0]} for way in WAYS}
    ratio = medians["ours"]["tokens_per_second"] / medians["trl"]["tokens_per_second"]
    return {"model": model, "length": length, "ratio": ratio, **medians, "rounds": runs}


def measure(way: str, model: str, length: int, num_rows: int) -> dict[str, float]:
    """Speed, MFU, memory and padding of one way."""
    import torch

    clock = StepClock().install()
    rows = long_rows(num_rows, length)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".sft-gpu-") as scratch:
        lengths = (_ours if way == "ours" else _trl)(rows, Path(scratch), model, length)
    seconds, num_tokens = sum(clock.seconds[NUM_WARM:]), sum(clock.tokens[NUM_WARM:])
    config = read_json(small_model(model).path / "config.json") or {}
    flops = training_flops(shape_from_config(config, model), lengths) * num_tokens / sum(lengths)
    peak = peak_tflops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return {
        "tokens_per_second": num_tokens / seconds,
        **({} if peak is None else {"mfu": flops / seconds / (peak * 1e12)}),
        "peak_gib": clock.peak_bytes / 2**30,
        "packing_efficiency": clock.num_real / clock.num_computed,
    }


def training_flops(shape: ModelShape, lengths: Sequence[int]) -> float:
    """Operations that rows need: a pass forward and twice as much backward, each token seeing half its row."""
    return sum(3 * shape.flops_per_token(length / 2) * length for length in lengths)


def _ours(rows: list[Any], folder: Path, model: str, length: int) -> list[int]:
    from distill.models.tokenizers import load_tokenizer
    from distill.training.rows import token_rows
    from distill.training.run import train

    found = small_model(model)
    job = train_job(
        found,
        write_rows(rows, folder / "rows"),
        folder / "sft",
        42,
        num_gpus=1,
        max_length=length,
        epochs=1.0,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        compute={"per_device_batch_size": PER_DEVICE, "save_every_steps": 1_000_000, "tracking": []},
    )
    train(job)
    return list(token_rows(folder / "rows", load_tokenizer(found.path, None), folder / "sft" / TOKENS)["length"])


def _trl(rows: list[Any], folder: Path, model: str, length: int) -> list[int]:
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    path = small_model(model).path
    trainer = SFTTrainer(
        model=str(path),
        args=SFTConfig(
            output_dir=str(folder / "checkpoints"),
            max_length=None,
            num_train_epochs=1.0,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=PER_DEVICE,
            gradient_accumulation_steps=BATCH_SIZE // PER_DEVICE,
            seed=42,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(path),
    )
    trainer.train()
    return [len(ids) for ids in trainer.train_dataset["input_ids"]]


def _at_hand(models: Sequence[str]) -> list[str]:
    """Those of the models that are here or can be fetched; of the others it says why not."""
    found = []
    for name in models:
        try:
            small_model(name)
        except ModelError as error:
            print(f"left out: {error}", flush=True)
        else:
            found.append(name)
    return found


def _in_a_child(way: str, model: str, length: int) -> dict[str, float]:
    quiet = {**os.environ, "DISTILL_QUIET": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    # One GPU for either side; the Trainer would take all that it sees.
    quiet["CUDA_VISIBLE_DEVICES"] = next(iter(visible_gpus()), "")
    command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--child", way, model, str(length)]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{way}, {model} at {length}: failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

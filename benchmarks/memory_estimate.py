"""Peak memory of training on CPU against what `distill sft --plan` works out for the same setting.

Each setting is measured in a process of its own: TRL's SFTTrainer as distill uses it (float32, AdamW, the loss on all
of a row), two passes a step, three steps, rows of one length. What is measured is the process's highest resident memory
(VmHWM, set back after loading) above what it held when all imports were done and a tiny model had been trained, which
brings in the libraries' code and thread pools. glibc's allocator is told to give each freed block of 64 KiB or more
back at once (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_) and to keep one arena, so that resident memory is what
tensors take and not what the allocator hoards. Nothing in the estimate is fitted to these figures.

Settings: all weights and LoRA, with and without gradient checkpointing, TRL's loss and distill's own on CPU
(`distill.training.cpu`); and all weights shared out by FSDP2 between two processes with gloo, in the units that
training on GPUs has (`distill.training.sharding.wrap_policy`), on random models with tied embeddings and without.

    python benchmarks/memory_estimate.py [--rows 2] [--row-tokens 512] [--models smollm2-135m Qwen/…] [--skip-fsdp]

The last line is JSON: estimate over measurement for each setting, and the one furthest from 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from random_models import random_model

from distill.errors import ModelError
from distill.estimates.training_memory import GIB, Setting, plan
from distill.models.hub import resolve_model
from distill.models.shapes import ModelShape, shape_from_config
from distill.models.students import find_student
from distill.storage.files import read_json

MODELS = ("smollm2-135m", "Qwen/Qwen2.5-Coder-0.5B-Instruct")
RANDOM = "random"
"""Stands for a Llama of 50M random parameters, where a model cannot be had."""
SHAPES = {
    RANDOM: ModelShape(512, 8, 8, 4, 64, 1_408, 49_152, tied=True),
    "random, untied": ModelShape(768, 10, 12, 4, 64, 2_048, 32_000),
}
TINY = ModelShape(64, 2, 2, 1, 32, 128, 512, tied=True)
NUM_STEPS, NUM_PASSES = 3, 2
LORA_R = 32
GIVE_BACK = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 10),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 10),
    "MALLOC_ARENA_MAX": "1",
}
SETTINGS = [
    (method, checkpointing, loss)
    for method in ("full", "lora")
    for checkpointing in ("off", "on")
    for loss in ("trl", "once")
]
SHARDED = [("full", "off", "fsdp"), ("full", "on", "fsdp")]
NUM_SHARDS = 2


def main() -> None:
    """Measure each setting, print a line for each, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2, help="rows of a pass")
    parser.add_argument("--row-tokens", type=int, default=512, help="tokens of each row")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="aliases, Hub ids, folders, or: random")
    parser.add_argument("--skip-fsdp", action="store_true", help="leave out what is shared out between processes")
    parser.add_argument("--child", nargs=4, metavar=("MODEL", "METHOD", "ON", "LOSS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *way = options.child
        print(json.dumps(measure(name, _setting((way[0], way[1], way[2]), options.rows, options.row_tokens))))
        return
    print(f"{options.rows} rows of {options.row_tokens} tokens a pass, {NUM_PASSES} passes a step, float32, GiB")
    print(f"{'model':33}{'method':7}{'recompute':10}{'loss':6}{'measured':>9}{'estimate':>9}{'ratio':>7}  highest at")
    names = [name if name in SHAPES or _is_here(name) else RANDOM for name in options.models]
    todo = [(name, way) for name in names for way in SETTINGS]
    todo += [] if options.skip_fsdp else [(name, way) for name in SHAPES for way in SHARDED]
    ratios = {}
    for name, way in todo:
        estimate = plan(shape_of(name), _setting(way, options.rows, options.row_tokens))
        peak = _in_a_child(name, way, options.rows, options.row_tokens)
        ratios[" ".join((name, *way))] = ratio = estimate.total_gib / peak
        method, recompute, loss = way
        cells = f"{name.rpartition('/')[2]:33}{method:7}{recompute:10}{loss:6}{peak:9.2f}{estimate.total_gib:9.2f}"
        print(f"{cells}{ratio:7.3f}  {estimate.moment}", flush=True)
    furthest = max(ratios.values(), key=lambda ratio: abs(ratio - 1))
    print(json.dumps({"ratio": furthest, "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()}}))


def _setting(way: tuple[str, str, str], rows: int, row_tokens: int) -> Setting:
    method, recompute, loss = way
    return Setting(
        method="lora" if method == "lora" else "full",
        rows=rows,
        row_tokens=row_tokens,
        accumulation=NUM_PASSES,
        lora_r=LORA_R,
        device="cpu",
        num_processes=NUM_SHARDS if loss == "fsdp" else 1,
        sharding="fsdp" if loss == "fsdp" else "none",
        gradient_checkpointing=recompute == "on",
        bf16=False,
        attention="sdpa",
        loss="once" if loss == "once" else "trl",
    )


def _is_here(name: str) -> bool:
    try:
        resolve_model(find_student(name).hub_id)
    except ModelError as error:
        print(f"{error} A random model of 50M parameters takes its place.", file=sys.stderr)
        return False
    return True


def shape_of(name: str) -> ModelShape:
    """The shape of a model in the cache, from its config.json, or of a random one."""
    if name in SHAPES:
        return SHAPES[name]
    folder = resolve_model(find_student(name).hub_id).path
    return shape_from_config(read_json(folder / "config.json") or {}, name)


def measure(name: str, setting: Setting) -> float:
    """Peak memory of a training of three steps in this process, in GiB above what the process takes by itself."""
    import torch
    from transformers import AutoModelForCausalLM

    if setting.sharding == "fsdp":
        return _measure_shared_out(SHAPES[name], setting)
    torch.manual_seed(0)
    _train(random_model(TINY), TINY.vocab, _small(setting))
    before = _memory("VmRSS")
    if name in SHAPES:
        model = random_model(SHAPES[name])
    else:
        path = resolve_model(find_student(name).hub_id).path
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    _forget_the_highest()
    _train(model, model.config.vocab_size, setting)
    return (_memory("VmHWM") - before) / GIB


def _small(setting: Setting) -> Setting:
    return replace(setting, rows=2, row_tokens=64)


def _measure_shared_out(shape: ModelShape, setting: Setting) -> float:
    """The higher peak of two processes that share the model out, in GiB."""
    import torch

    context = torch.multiprocessing.get_context("spawn")
    peaks = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        ranks = [
            context.Process(target=_one_share, args=(rank, meeting, shape, setting, peaks))
            for rank in range(NUM_SHARDS)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    if any(process.exitcode for process in ranks):
        sys.exit("a process of the two died")
    return max(float(peaks.get()) for _ in ranks)


def _one_share(rank: int, meeting: str, shape: ModelShape, setting: Setting, peaks: Any) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=NUM_SHARDS)
    _train_share(_shared_out(TINY, setting), _small(setting))
    before = _memory("VmRSS")
    model = _shared_out(shape, setting)
    _forget_the_highest()
    _train_share(model, setting)
    peaks.put((_memory("VmHWM") - before) / GIB)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _shared_out(shape: ModelShape, setting: Setting) -> Any:
    from torch.distributed.fsdp import fully_shard
    from trl.trainer.utils import add_fused_lm_head

    from distill.training.sharding import wrap_policy

    model = random_model(shape).train()
    if setting.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    for name, modules in wrap_policy(model):
        fully_shard(modules, reshard_after_forward=name not in ("tail", "root"))
    return model


def _train_share(model: Any, setting: Setting) -> None:
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(NUM_STEPS):
        for _ in range(setting.accumulation):
            ids = torch.randint(0, 400, (setting.rows, setting.row_tokens))
            outputs = model(input_ids=ids, labels=ids, fused_lm_head=True, use_cache=False)
            outputs.loss.backward()
            del outputs
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()


def _train(model: Any, vocab: int, setting: Setting) -> None:
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from distill.training.cpu import score_completions_once

    disable_progress_bars()
    model.config.use_cache = False
    num_rows = setting.rows * setting.accumulation * NUM_STEPS
    ids = torch.randint(0, min(vocab, 400), (num_rows, setting.row_tokens)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            max_length=None,
            per_device_train_batch_size=setting.rows,
            gradient_accumulation_steps=setting.accumulation,
            max_steps=NUM_STEPS,
            gradient_checkpointing=setting.gradient_checkpointing,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        lora = LoraConfig(r=setting.lora_r, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
            processing_class=_tokenizer(vocab),
            peft_config=lora if setting.method == "lora" else None,
        )
        if setting.loss == "once":
            score_completions_once(trainer)
        trainer.train()


def _tokenizer(vocab: int) -> Any:
    """A tokenizer of which only the pad token is used: rows are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = ("<pad>", "<eos>", "<unk>")
    words = {name: number for number, name in enumerate(names)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, names[2])), pad_token=names[0], eos_token=names[1]
    )


def _forget_the_highest() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(kind: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) * 1024


def _in_a_child(name: str, way: tuple[str, str, str], rows: int, row_tokens: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, *way]
    command += ["--rows", str(rows), "--row-tokens", str(row_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **GIVE_BACK})
    if done.returncode:
        sys.exit(f"{name} {way} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()

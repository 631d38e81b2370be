"""Peak memory of training on CPU against what `distill sft --plan` works out for the same setting.

Each setting is measured in a process of its own: TRL's SFTTrainer as distill uses it (float32, AdamW, the loss on all
of a row), two passes a step, three steps, rows of one length. What is measured is the process's highest resident memory
(VmHWM, set back after loading) above what it held when all imports were done and a tiny model had been trained, which
brings in the libraries' code and thread pools. glibc's allocator is told to give each freed block of 64 KiB or more
back at once (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_) and to keep one arena, so that resident memory is what
tensors take and not what the allocator hoards. Nothing in the estimate is fitted to these figures.

    python benchmarks/memory_estimate.py [--rows 2] [--row-tokens 512] [--models smollm2-135m Qwen/…]

The last line is JSON: estimate over measurement for each setting, and the one furthest from 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.errors import ModelError
from distill.hub import resolve_model
from distill.shapes import ModelShape, shape_from_config
from distill.store import read_json
from distill.students import find_student
from distill.training.memory import GIB, Setting, plan

MODELS = ("smollm2-135m", "Qwen/Qwen2.5-Coder-0.5B-Instruct")
RANDOM = "random"
"""Stands for a Llama of 50M random parameters, where a model cannot be had."""
RANDOM_SHAPE = ModelShape(512, 8, 8, 4, 64, 1_408, 49_152, tied=True)
NUM_STEPS, NUM_PASSES = 3, 2
LORA_R = 32
GIVE_BACK = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 10),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 10),
    "MALLOC_ARENA_MAX": "1",
}
METHODS = ("full", "lora")


def main() -> None:
    """Measure each setting, print a line for each, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2, help="rows of a pass")
    parser.add_argument("--row-tokens", type=int, default=512, help="tokens of each row")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="aliases, Hub ids, folders, or: random")
    parser.add_argument("--child", nargs=3, metavar=("MODEL", "METHOD", "CHECKPOINTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, method, checkpointing = options.child
        setting = _setting(method, checkpointing == "on", options.rows, options.row_tokens)
        print(json.dumps(measure(name, setting)))
        return
    print(f"{options.rows} rows of {options.row_tokens} tokens a pass, {NUM_PASSES} passes a step, float32, GiB")
    print(f"{'model':36}{'method':8}{'checkpointing':15}{'measured':>9}{'estimate':>9}{'ratio':>7}  highest at")
    ratios = {}
    for name in options.models:
        name = name if name == RANDOM or _is_here(name) else RANDOM
        shape = RANDOM_SHAPE if name == RANDOM else shape_of(name)
        for method in METHODS:
            for checkpointing in ("off", "on"):
                setting = _setting(method, checkpointing == "on", options.rows, options.row_tokens)
                estimate = plan(shape, setting)
                peak = _in_a_child(name, method, checkpointing, options.rows, options.row_tokens)
                ratios[f"{name} {method} checkpointing {checkpointing}"] = estimate.total_gib / peak
                print(
                    f"{name:36}{method:8}{checkpointing:15}{peak:9.2f}{estimate.total_gib:9.2f}"
                    f"{estimate.total_gib / peak:7.3f}  {estimate.moment}",
                    flush=True,
                )
    furthest = max(ratios.values(), key=lambda ratio: abs(ratio - 1))
    print(json.dumps({"ratio": furthest, "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()}}))


def _setting(method: str, checkpointing: bool, rows: int, row_tokens: int) -> Setting:
    return Setting(
        method="lora" if method == "lora" else "full",
        rows=rows,
        row_tokens=row_tokens,
        accumulation=NUM_PASSES,
        lora_r=LORA_R,
        device="cpu",
        gradient_checkpointing=checkpointing,
        bf16=False,
        attention="sdpa",
    )


def _is_here(name: str) -> bool:
    try:
        resolve_model(find_student(name).hub_id)
    except ModelError as error:
        print(f"{error} A random model of 50M parameters takes its place.", file=sys.stderr)
        return False
    return True


def shape_of(name: str) -> ModelShape:
    """The shape of a model in the cache, from its config.json."""
    folder = resolve_model(find_student(name).hub_id).path
    return shape_from_config(read_json(folder / "config.json") or {}, name)


def measure(name: str, setting: Setting) -> float:
    """Peak memory of a training of three steps in this process, in GiB above what the process takes by itself."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    _train(_random_model(ModelShape(64, 2, 2, 1, 32, 128, 512, tied=True)), 512, Setting(**_small(setting)))
    before = _memory("VmRSS")
    if name == RANDOM:
        model = _random_model(RANDOM_SHAPE)
    else:
        path = resolve_model(find_student(name).hub_id).path
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    _train(model, model.config.vocab_size, setting)
    return (_memory("VmHWM") - before) / GIB


def _small(setting: Setting) -> dict[str, Any]:
    return {**asdict(setting), "rows": 2, "row_tokens": 64}


def _random_model(shape: ModelShape) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            tie_word_embeddings=shape.tied,
            max_position_embeddings=8_192,
        )
    )


def _train(model: Any, vocab: int, setting: Setting) -> None:
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

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


def _memory(kind: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) * 1024


def _in_a_child(name: str, method: str, checkpointing: str, rows: int, row_tokens: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, method, checkpointing]
    command += ["--rows", str(rows), "--row-tokens", str(row_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **GIVE_BACK})
    if done.returncode:
        sys.exit(f"{name} {method} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()

"""Seconds a step of reinforcement learning on a CPU, sampling and update together, over TRL's GRPOTrainer.

Two ways to take the same number of GRPO steps with the same model, prompts, group size, lengths and precision, each in
a process of its own, taking turns:

- ours: `distill.training.rl.run` as a recipe starts it: vLLM with new weights before each step, prompts computed once
  for their answers;
- trl: TRL's GRPOTrainer with transformers' generation, as it samples without vLLM, in float32.

The reward is the share of even tokens in both, so that no grader is measured. The first step of each is left out.

    python benchmarks/rl_step.py [--rounds 2] [--steps 3] [--model FOLDER]

The last line is JSON: the ratio of the median seconds (ours over the peer's), all seconds, and tokens of an answer.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from training_rows import small_model

WAYS = ("ours", "trl")
PROMPTS, GROUP, MAX_TOKENS = 8, 8, 64
QUESTION = "State the final answer to the following arithmetic problem: {0} + {1} - {2} ="


def main() -> None:
    """Take turns, print each run, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each")
    parser.add_argument("--steps", type=int, default=3, help="steps of a run, without the first")
    parser.add_argument("--model", default=None, help="Hub id or folder; left out: SmolLM2-135M")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".rl-step-") as scratch:
            found = (_ours if options.child == "ours" else _trl)(Path(scratch), options)
        print(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)  # vLLM's exit handlers may hang
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            runs[way].append(_in_a_child(way, options))
            found = runs[way][-1]
            seconds = ", ".join(f"{one:.1f}" for one in found["seconds"])
            print(f"{way:>4}: {seconds} s a step, {found['tokens']:.0f} tokens an answer", flush=True)
    medians = {way: statistics.median(s for run in runs[way] for s in run["seconds"]) for way in WAYS}
    told = {way: [run["seconds"] for run in runs[way]] for way in WAYS}
    print(json.dumps({"ratio": medians["ours"] / medians["trl"], "seconds": told,
                      "tokens": {way: [run["tokens"] for run in runs[way]] for way in WAYS}}))  # fmt: skip


def _questions(num: int) -> list[str]:
    return [QUESTION.format(number % 9 + 1, number % 7 + 2, number % 5 + 1) for number in range(num)]


def _ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from distill.core.records import Problem
    from distill.storage.case_files import write_problems
    from distill.training.layout import Layout

    job_module = _policy_job()
    model = small_model(options.model)
    changes = {
        "steps": options.steps + 1, "prompts_per_step": PROMPTS, "group_size": GROUP, "max_tokens": MAX_TOKENS,
        "kl": 0.0, "learning_rate": 1e-6, "save_every_steps": 1000, "probe": {"problems": 0},
        "compute": {"sampling": {"engine": "auto", "cpu_threads": None},
                    "training": {"kernels": True, "per_device_batch_size": GROUP}},
    }  # fmt: skip
    layout = Layout(num_processes=1, per_device_batch_size=GROUP, accumulation=PROMPTS)
    job = job_module.make_job(Path(model.path), folder, changes, layout)
    questions = _questions(PROMPTS * 4)
    problems = [Problem(f"p{n}", [{"role": "user", "content": q}], "1", "math", "b") for n, q in enumerate(questions)]
    write_problems(folder / "problems.jsonl", problems)
    run = job_module.run_of(replace(job, probe=None))
    clock = _clock(run.trainer)
    run.train()
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"seconds": clock[1:], "tokens": statistics.fmean(entry["tokens_mean"] for entry in history)}


def _trl(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    path = small_model(options.model).path
    lengths: list[int] = []

    def reward(completion_ids: list[list[int]], **ignored: Any) -> list[float]:
        lengths.extend(map(len, completion_ids))
        return [sum(token % 2 == 0 for token in ids) / max(1, len(ids)) for ids in completion_ids]

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(folder), max_steps=options.steps + 1, per_device_train_batch_size=GROUP,
            gradient_accumulation_steps=PROMPTS, num_generations=GROUP, max_completion_length=MAX_TOKENS, beta=0.0,
            learning_rate=1e-6, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
            save_strategy="no", disable_tqdm=True, logging_steps=1,
        ),
        train_dataset=Dataset.from_dict(
            {"prompt": [[{"role": "user", "content": q}] for q in _questions(PROMPTS * 4)]}
        ),
        processing_class=AutoTokenizer.from_pretrained(path),
    )  # fmt: skip
    clock = _clock(trainer)
    trainer.train()
    return {"seconds": clock[1:], "tokens": statistics.fmean(lengths)}


def _clock(trainer: Any) -> list[float]:
    """Return a list that gets the seconds of each step, sampling included."""
    from transformers import TrainerCallback

    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_train_begin(self, *ignored: Any, **more: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *ignored: Any, **more: Any) -> None:
            now = time.monotonic()
            seconds.append(now - self.began)
            self.began = now

    trainer.add_callback(Clock())
    return seconds


def _policy_job() -> Any:
    """Return the module by which the tests start a training without a grader."""
    path = Path(__file__).parents[1] / "tests" / "training" / "rl" / "policy_job.py"
    spec = importlib.util.spec_from_file_location("policy_job", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _in_a_child(way: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", way, "--steps", str(options.steps)]
    command += ["--model", options.model] if options.model else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

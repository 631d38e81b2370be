"""A training of a random model with a reward that needs no grader, as the tests run it, also in processes of its own.

python policy_job.py MODEL_FOLDER OUT_DIR CONFIG_AS_JSON [LAYOUT_AS_JSON]
"""

import json
import os
import sys
from pathlib import Path

from distill.core.records import Problem
from distill.models.tokenizers import load_tokenizer
from distill.recipe.rl import RlConfig
from distill.storage.case_files import write_problems
from distill.training.arguments import pick_device
from distill.training.layout import Layout
from distill.training.rl.job import RlJob
from distill.training.rl.run import PolicyRun
from distill.training.rl.teachers import LocalTeacher, Teaching
from distill.training.sharding import environment

NUM_PROBLEMS = 6
CONFIG = {
    "steps": 4,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 8,
    "learning_rate": 1e-2,
    "kl": 0.01,
    "reference_every": 2,
    "save_every_steps": 1,
    "probe": {"problems": 2, "every": 2},
    "compute": {
        "sampling": {"engine": "transformers", "cpu_threads": 1},
        "training": {"tracking": [], "kernels": False, "per_device_batch_size": 4},
    },
}


class EvenTokens:
    """The reward is the share of even tokens, which a random model's answers differ in."""

    def score(self, groups):
        for one in (one for group in groups for one in group):
            one.reward = sum(token % 2 == 0 for token in one.ids) / len(one.ids)
            one.correct, one.parts = one.reward > 0.5, {"accuracy": one.reward}


def merged(base, changes):
    return {
        **base,
        **{k: merged(base[k], v) if isinstance(v, dict) and k in base else v for k, v in changes.items()},
    }


def make_job(model, out_dir, changes=None, layout=None):
    config = RlConfig(**merged(CONFIG, changes or {}))
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, first in (("problems", 0), ("probe", 100)):
        numbers = range(first, first + NUM_PROBLEMS)
        prompts = [[{"role": "user", "content": f"What is {number} + 1?"}] for number in numbers]
        problems = [Problem(f"p{n}", p, str(n + 1), "math", "test") for n, p in zip(numbers, prompts, strict=True)]
        write_problems(out_dir / f"{name}.jsonl", problems)
    rows = config.prompts_per_step * config.group_size
    layout = layout or Layout(num_processes=1, per_device_batch_size=4, accumulation=rows // 4)
    return RlJob(
        model_name="tiny", model_path=str(model), model_revision="0", chat_template=None, chat_format=None,
        stop_token=None, problems=str(out_dir / "problems.jsonl"), probe=str(out_dir / "probe.jsonl"), solved={},
        facts=None, sandbox={}, out_dir=str(out_dir), seed=5, owner="test", project="test", run_name="rl",
        layout=layout.to_json(), config=config.model_dump(mode="json"),
    )  # fmt: skip


def run_of(job, **more):
    config = RlConfig.model_validate(job.config)
    tokenizer = load_tokenizer(Path(job.model_path), None, None, None)
    device = pick_device(config.as_sft, Path(job.model_path))
    teachers = [LocalTeacher(Path(name), name, tokenizer) for name in config.teachers]
    teaching = Teaching(teachers, config, tokenizer, {}) if teachers else None
    return PolicyRun(job, config, Layout(**job.layout), device, tokenizer, EvenTokens(), teaching, **more)


def train(model, out_dir, changes=None, layout=None):
    run = run_of(make_job(Path(model), Path(out_dir), changes, layout))
    try:
        return run.train()
    finally:
        run.close()


if __name__ == "__main__":
    changes, layout = json.loads(sys.argv[3]), Layout(**json.loads(sys.argv[4])) if sys.argv[4:] else None
    if layout is not None:
        os.environ.update(environment(layout, RlConfig(**merged(CONFIG, changes)).as_sft, on_gpu=False))
    found = train(sys.argv[1], sys.argv[2], changes, layout)
    print(json.dumps({key: found.get(key) for key in ("num_steps", "best_step", "num_rollouts")}))

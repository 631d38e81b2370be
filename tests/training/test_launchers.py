"""`distill sft` started many times over by a launcher: one student, and the losses of one process."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from distill.recipe.loading import load_recipe
from distill.runs.runner import run_recipe

pytestmark = pytest.mark.slow

SFT = [sys.executable, "-m", "distill", "sft", "recipe.yaml", "--run-dir"]
RECIPE = """
name: made
student: {student}
seed: 5
traces: [{{source: "file:made.jsonl", teacher: org/big}}]
filter: {{compute: {{workers: 1}}, duplicates: null, max_tokens: 200}}
sft:
  {{max_length: 256, epochs: 1, batch_size: 4, learning_rate: 0.01, compute: {{tracking: []}}}}
"""


@pytest.fixture
def filtered(tmp_path, monkeypatch, tiny_llama):
    """A folder with a recipe whose traces are filtered; runs are copied from `runs/`."""
    monkeypatch.chdir(tmp_path)
    thoughts = [f"<think>\nTwice {i} is {2 * i}, I think.\n</think>\n\n\\boxed{{{2 * i}}}" for i in range(10)]
    rows = [
        {"problem": f"What is {i} + {i}?", "answer": str(2 * i), "generations": [thought]}
        for i, thought in enumerate(thoughts)
    ]
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(student=tiny_llama))
    run_recipe(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "runs", ["import", "filter"])
    return tmp_path


def trained(folder, run_dir):
    """Its losses, once a run is complete."""
    sft = folder / run_dir / "made" / "sft"
    assert json.loads((sft / "manifest.json").read_text())["outputs"].keys() == {"student", "metrics.jsonl"}
    return [json.loads(line)["loss"] for line in (sft / "metrics.jsonl").read_text().splitlines()]


def start(folder, run_dir, *before, **environment):
    if not (folder / run_dir).exists():
        shutil.copytree(folder / "runs", folder / run_dir)
    return subprocess.Popen(
        [*before, *SFT, run_dir], cwd=folder, env=os.environ | environment, stderr=subprocess.PIPE, text=True
    )


def slurm(rank):
    """What `srun` tells a task."""
    variables = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "node1"}
    return variables | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}


@pytest.mark.long
def test_torchrun_and_slurm_give_one_student_with_the_losses_of_one_process(filtered):
    alone = start(filtered, "alone")
    assert alone.wait() == 0, alone.stderr.read()
    expected = trained(filtered, "alone")
    assert len(expected) == 3

    module = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    launcher = start(filtered, "torchrun", *module)
    assert launcher.wait() == 0, launcher.stderr.read()
    assert trained(filtered, "torchrun") == pytest.approx(expected, rel=0, abs=1e-5)

    tasks = [start(filtered, "slurm", **slurm(rank)) for rank in (1, 0)]
    outputs = [task.communicate()[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert trained(filtered, "slurm") == pytest.approx(expected, rel=0, abs=1e-5)
    assert outputs[0] == "", "only the first process has something to say"

    # Done already: nobody trains, and everybody hears of it.
    tasks = [start(filtered, "slurm", **slurm(rank)) for rank in (1, 0)]
    assert [task.wait() for task in tasks] == [0, 0]
    assert "done already" in tasks[1].stderr.read()


def test_only_training_is_shared_among_processes(filtered):
    command = [sys.executable, "-m", "distill", "filter", "recipe.yaml"]
    refused = subprocess.run(
        command, cwd=filtered, env=os.environ | slurm(0), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "only `distill sft` and `distill rl` share their work" in refused.stderr


def test_what_stops_the_first_process_is_told_to_the_others(filtered):
    shutil.rmtree(filtered / "runs" / "made" / "filter")
    tasks = [start(filtered, "runs", **slurm(rank)) for rank in (1, 0)]
    outputs = [task.communicate()[1] for task in tasks]
    assert [task.returncode for task in tasks] == [1, 2]
    assert "rank 0 stopped: sft: needs the results of filter" in outputs[0]

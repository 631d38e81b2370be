"""Training in two processes on gloo: the same losses as in one, and all stop when one dies."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distill.errors import ModelError, StageError
from distill.execution.jobs import run_job
from distill.training.layout import Layout

pytestmark = pytest.mark.slow

TWO = Layout(2, 2, 1)


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def smollm2_folder(smollm2):
    return smollm2.path


@pytest.mark.parametrize(
    ("model", "method", "learning_rate"),
    [
        ("tiny_llama", "full", 1e-2),
        ("tiny_qwen2", "lora", 1e-2),
        pytest.param("smollm2_folder", "full", 1e-5, marks=pytest.mark.long),
        pytest.param("smollm2_folder", "lora", 2e-4, marks=pytest.mark.long),
    ],
)
def test_two_processes_learn_what_one_does(tmp_path, make_job, write_sums, request, model, method, learning_rate):
    """13 rows, so that each epoch's last step has a row for one of the processes only."""
    write_sums(tmp_path / "rows", 13)
    folder = request.getfixturevalue(model)
    for num in (1, 2):
        job = make_job(folder, f"{num}", Layout(num, 2, 2 // num), {}, method=method)
        run_job("train", replace(job, learning_rate=learning_rate), tmp_path / f"{num}", num_processes=num)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == 8
    assert two == pytest.approx(one, rel=0, abs=1e-5)
    assert one[-1] < one[0]
    assert sorted(p.name for p in (tmp_path / "2").iterdir() if "train" in p.name) == ["train.log", "train.rank1.log"]
    assert len(list((tmp_path / "2" / "student").glob("*.safetensors"))) == 1


def child_of_rank(rank):
    """The process id of our child with that RANK."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            is_ours = f"\nPPid:\t{os.getpid()}\n" in status.read_text()
            if is_ours and f"RANK={rank}".encode() in status.with_name("environ").read_bytes().split(b"\0"):
                return int(status.parent.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return None


@pytest.mark.long
def test_when_one_of_two_is_killed_both_stop_and_the_same_command_goes_on(tmp_path, make_job, write_sums, tiny_llama):
    from safetensors.torch import load_file

    write_sums(tmp_path / "rows", 16)
    compute = {"save_every_steps": 3}
    whole = make_job(tiny_llama, "whole", TWO, compute, epochs=3)
    run_job("train", whole, tmp_path / "whole", num_processes=2)
    broken = make_job(tiny_llama, "broken", TWO, compute, epochs=3)
    folder = tmp_path / "broken"

    def kill_second():
        while not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) < 7:
            time.sleep(0.001)
        os.kill(child_of_rank(1), signal.SIGKILL)

    killer = threading.Thread(target=kill_second)
    killer.start()
    with pytest.raises(StageError, match=r"rank 1 \(of 2 here\) died \(SIGKILL"):
        run_job("train", broken, folder, num_processes=2)
    killer.join()
    assert child_of_rank(0) is None
    result, _ = run_job("train", broken, folder, num_processes=2)
    assert result["resumed_from_step"] >= 6  # of 4 steps an epoch: amid the second, or the third
    assert losses(folder) == losses(tmp_path / "whole")
    whole, resumed = (load_file(path / "student" / "model.safetensors") for path in (tmp_path / "whole", folder))
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_a_users_mistake_that_one_process_finds_ends_both(tmp_path, make_job, write_sums, tiny_llama):
    write_sums(tmp_path / "rows", 4)
    with pytest.raises(ModelError, match=r"longer than sft\.max_length"):
        run_job("train", make_job(tiny_llama, "sft", TWO, {}, max_length=20), tmp_path / "sft", num_processes=2)

"""Training in two processes on gloo: the same losses as in one, and all stop when one dies."""

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from distill.errors import ModelError, StageError
from distill.launch import run_job
from distill.recipe import SftConfig
from distill.training.job import TrainJob
from distill.training.layout import plan_layout

pytestmark = pytest.mark.slow


def job(tmp_path, model, out, num_processes, **config):
    (tmp_path / out).mkdir(exist_ok=True)
    compute = {"num_processes": num_processes, "per_device_batch_size": 2, "save_every_steps": 3, "tracking": []}
    sft = SftConfig.model_validate({"max_length": 256, "epochs": 2, "batch_size": 4, "compute": compute} | config)
    return TrainJob(
        model_name="tiny",
        model_path=str(model),
        model_revision="r",
        chat_template=None,
        chat_format=None,
        stop_token=None,
        learning_rate=1e-2,
        rope=None,
        context=None,
        rows=str(tmp_path / "rows"),
        out_dir=str(tmp_path / out),
        seed=5,
        owner="test",
        project="test",
        run_name="sft",
        keep_checkpoints=False,
        layout=plan_layout(sft, 0).to_json(),
        config=sft.model_dump(mode="json"),
    )


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(tmp_path, model, num_processes, **config):
    """Train and return the losses."""
    folder = tmp_path / f"{num_processes}"
    run_job("train", job(tmp_path, model, folder.name, num_processes, **config), folder, num_processes=num_processes)
    return losses(folder)


@pytest.mark.parametrize(("model", "method"), [("tiny_llama", "full"), ("tiny_qwen2", "lora")])
def test_two_processes_learn_what_one_does(tmp_path, write_sums, request, model, method):
    """13 rows, so that each epoch's last step has a row for one of the processes only."""
    write_sums(tmp_path / "rows", 13)
    folder = request.getfixturevalue(model)
    one, two = (run(tmp_path, folder, num, method=method) for num in (1, 2))
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


def test_when_one_of_two_is_killed_both_stop_and_the_same_command_goes_on(tmp_path, write_sums, tiny_llama):
    from safetensors.torch import load_file

    write_sums(tmp_path / "rows", 16)
    run_job("train", job(tmp_path, tiny_llama, "whole", 2), tmp_path / "whole", num_processes=2)
    broken = job(tmp_path, tiny_llama, "broken", 2)
    folder = tmp_path / "broken"

    def kill_second():
        while not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) < 4:
            time.sleep(0.001)
        os.kill(child_of_rank(1), signal.SIGKILL)

    killer = threading.Thread(target=kill_second)
    killer.start()
    with pytest.raises(StageError, match=r"rank 1 \(of 2 here\) died \(SIGKILL"):
        run_job("train", broken, folder, num_processes=2)
    killer.join()
    assert child_of_rank(0) is None
    result, _ = run_job("train", broken, folder, num_processes=2)
    assert result["resumed_from_step"] >= 3
    assert losses(folder) == losses(tmp_path / "whole")
    whole, resumed = (load_file(path / "student" / "model.safetensors") for path in (tmp_path / "whole", folder))
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_a_users_mistake_is_told_once(tmp_path, write_sums, tiny_llama):
    write_sums(tmp_path / "rows", 4)
    nowhere = dataclasses.replace(job(tmp_path, tiny_llama, "sft", 2), model_path=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        run_job("train", nowhere, tmp_path / "sft", num_processes=2)

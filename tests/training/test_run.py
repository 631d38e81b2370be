"""Training a tiny random model for real: what is learnt from, what is refused, what resumes."""

import dataclasses
import errno
import json
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from distill.errors import DiskError, ModelError, StageError, StoreError
from distill.recipe.sft import SftConfig
from distill.storage.files import write_json
from distill.training.checkpoints import newest_checkpoint, set_damaged_aside, step_of
from distill.training.job import TrainJob
from distill.training.layout import plan_layout
from distill.training.run import train

pytestmark = pytest.mark.slow


def write_rows(path, num=12, completion="<think>\n{i} + 1\n</think>\n\n\\boxed{{{j}}}"):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
            "completion": [{"role": "assistant", "content": completion.format(i=i, j=i + 1)}],
        }
        for i in range(num)
    ]
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path / "train-00000-of-00001.parquet")
    return path


def job(tmp_path, model, out="sft", **config):
    defaults = {"max_length": 256, "epochs": 2, "batch_size": 2}
    compute = {"save_every_steps": 3, "tracking": []}
    sft = SftConfig.model_validate(defaults | config | {"compute": compute | config.get("compute", {})})
    return TrainJob(
        model_name="tiny",
        model_path=str(model),
        model_revision="r",
        chat_template=None,
        chat_format=None,
        stop_token=None,
        learning_rate=1e-2,
        rope=None,
        context=512,
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


def losses(tmp_path, out):
    lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["loss"]) for row in map(json.loads, lines)]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_saved_student_loads_stops_by_itself_and_has_its_template(tmp_path, tiny_llama, method):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_rows(tmp_path / "rows")
    result = train(job(tmp_path, tiny_llama, method=method))
    assert result["num_steps"] == 12
    assert result["history"][-1]["loss"] < result["history"][0]["loss"]
    assert result["num_trained_tokens"] < result["num_tokens"]
    student = tmp_path / "sft" / "student"
    tokenizer = AutoTokenizer.from_pretrained(student)
    model = AutoModelForCausalLM.from_pretrained(student)
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    rendered = tokenizer.apply_chat_template([{"role": "assistant", "content": "<think>x</think>y"}], tokenize=False)
    assert "<think>x</think>y<|im_end|>" in rendered
    assert (tmp_path / "sft" / "adapter" / "adapter_model.safetensors").exists() == (method == "lora")


KILLED = """
import os, signal, sys, time
from distill.execution import jobs
from distill.training import checkpoints, reporter

what, step = sys.argv[1], int(sys.argv[2])
on_log, write_json, remove = reporter.Reporter.on_log, checkpoints.write_json, checkpoints.shutil.rmtree

def log_and_die(self, args, state, control, **kwargs):
    on_log(self, args, state, control, **kwargs)
    if state.global_step == step:
        while not os.path.exists(f"{args.output_dir}/checkpoint-{step - 1}/{checkpoints.SEAL}"):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

def die_before_seal(path, value):
    if path.parent.name == f"checkpoint-{step}":
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, value)

def die_amid_removal(folder, **how):
    if os.path.basename(folder) == f"checkpoint-{step}":
        os.unlink(f"{folder}/model.safetensors")
        os.kill(os.getpid(), signal.SIGKILL)
    remove(folder, **how)

if what == "log":
    reporter.Reporter.on_log = log_and_die
elif what == "seal":
    checkpoints.write_json = die_before_seal
else:
    checkpoints.shutil.rmtree = die_amid_removal
jobs.main("train", sys.argv[3], sys.argv[4])
"""


def start(task, folder, *command):
    """Start training in a process of its own, as `jobs` does."""
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps(dataclasses.asdict(task)))
    return subprocess.Popen(
        [sys.executable, *command, str(folder / "job.json"), "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def unbroken(tmp_path, tiny_llama):
    """A run of two epochs of six steps that nothing disturbs, and its rows."""
    write_rows(tmp_path / "rows")
    return train(job(tmp_path, tiny_llama, out="whole", compute={"save_every_steps": 2}))


def assert_same_as_unbroken(tmp_path, result, unbroken):
    assert result["history"] == unbroken["history"]
    assert losses(tmp_path, "broken") == losses(tmp_path, "whole")
    whole, broken = (load_file(tmp_path / out / "student" / "model.safetensors") for out in ("whole", "broken"))
    assert all((whole[name] == broken[name]).all() for name in whole)


def test_kills_at_any_place_leave_the_run_bit_for_bit_what_an_unbroken_one_is(tmp_path, tiny_llama, unbroken):
    """Mid-epoch 0 before a seal, just after the epoch's end, while an old checkpoint is removed, mid-epoch 1."""
    broken = job(tmp_path, tiny_llama, out="broken", compute={"save_every_steps": 2})
    for what, step, left in (("seal", 4, 2), ("log", 7, 6), ("removal", 4, 8), ("log", 11, 10)):
        assert start(broken, tmp_path / "broken", "-c", KILLED, what, str(step)).wait() == -signal.SIGKILL
        assert newest_checkpoint(tmp_path / "broken/checkpoints", "test").name == f"checkpoint-{left}"
    result = train(broken)
    assert result["resumed_from_step"] == 10
    assert_same_as_unbroken(tmp_path, result, unbroken)
    left = (path.name for path in (tmp_path / "broken/checkpoints").iterdir() if path.is_dir())
    assert sorted(left) == ["checkpoint-10", "checkpoint-12"]


def test_the_last_checkpoint_is_sealed_when_training_returns(tmp_path, tiny_llama, unbroken):
    checkpoints = tmp_path / "whole/checkpoints"
    assert newest_checkpoint(checkpoints, "test").name == "checkpoint-12"
    assert set_damaged_aside(checkpoints) == []


def test_a_disk_that_is_full_when_a_checkpoint_is_sealed_ends_training_clearly(tmp_path, tiny_llama, monkeypatch):
    def full(path, value):
        if path.parent.name == "checkpoint-4":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, value)

    monkeypatch.setattr("distill.training.checkpoints.write_json", full)
    write_rows(tmp_path / "rows")
    broken = job(tmp_path, tiny_llama, out="broken", compute={"save_every_steps": 2})
    with pytest.raises(DiskError, match=r"the disk is full. Free some space.*the same command goes on from here"):
        train(broken)
    assert len(losses(tmp_path, "broken")) in (4, 5, 6), "at the next checkpoint at the latest"
    assert not (tmp_path / "broken/student").exists()
    assert newest_checkpoint(tmp_path / "broken/checkpoints", "test").name == "checkpoint-2"
    monkeypatch.undo()
    assert train(broken)["resumed_from_step"] == 2


def test_sigterm_saves_and_ends_and_a_damaged_checkpoint_is_passed_over(tmp_path, tiny_llama, unbroken):
    broken = job(tmp_path, tiny_llama, out="broken", compute={"save_every_steps": 2})
    child = start(broken, tmp_path / "broken", "-m", "distill.execution.jobs", "train")
    metrics = tmp_path / "broken/metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.005)
    child.terminate()
    assert child.wait() == 130
    checkpoints = tmp_path / "broken/checkpoints"
    newest = newest_checkpoint(checkpoints, "test")
    assert step_of(newest) == len(metrics.read_text().splitlines()), "the step that was running is not lost"
    weights = newest / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (said,) = set_damaged_aside(checkpoints)
    assert "content of model.safetensors has changed" in said
    result = train(broken)
    assert 2 <= result["resumed_from_step"] < step_of(newest)
    assert_same_as_unbroken(tmp_path, result, unbroken)


def test_checkpoints_of_another_training_are_refused(tmp_path, tiny_llama, unbroken):
    other = dataclasses.replace(job(tmp_path, tiny_llama, out="whole"), owner="another")
    with pytest.raises(StoreError, match="checkpoints of another training"):
        train(other)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_length": 40}, "are longer than sft.max_length"),
        ({"trl": {"max_grad_nrom": 1}}, r"max_grad_nrom"),
        ({"method": "qlora"}, "qlora needs an NVIDIA GPU"),
        ({"compute": {"packing": True, "attention": "sdpa"}}, "packing needs FlashAttention"),
        ({"compute": {"tracking": ["wandb"]}}, "wandb is not installed"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_way_out(tmp_path, tiny_llama, config, message):
    write_rows(tmp_path / "rows")
    with pytest.raises(ModelError, match=message):
        train(job(tmp_path, tiny_llama, **config))
    assert not (tmp_path / "sft" / "student").exists()


def test_a_template_that_eats_the_thinking_is_refused(tmp_path, tiny_llama):
    """As DeepSeek's and Qwen3's templates do with earlier turns: what follows </think> alone is left."""
    eater = tmp_path / "eater"
    shutil.copytree(tiny_llama, eater)
    template = (eater / "chat_template.jinja").read_text()
    (eater / "chat_template.jinja").write_text(
        template.replace("message['content']", "message['content'].split('</think>')[-1]")
    )
    write_rows(tmp_path / "rows")
    with pytest.raises(ModelError, match=r"leaves </think> out of the loss"):
        train(job(tmp_path, eater))


def test_rows_without_thinking_can_be_trained_on(tmp_path, tiny_llama):
    write_rows(tmp_path / "rows", completion="\\boxed{{{j}}}")
    assert train(job(tmp_path, tiny_llama))["num_steps"] == 12


def test_a_loss_that_is_not_a_number_stops_the_stage(tmp_path, tiny_llama):
    write_rows(tmp_path / "rows")
    unsteady = job(tmp_path, tiny_llama, warmup_share=0.0, trl={"max_grad_norm": 1e9})
    diverging = dataclasses.replace(unsteady, learning_rate=1e30)
    with pytest.raises(StageError, match="loss is not a number"):
        train(diverging)
    assert not (tmp_path / "sft" / "student").exists()

"""Training a tiny random model for real: what is learnt from, what is refused, what resumes."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import ModelError
from distill.recipe import SftConfig
from distill.training.job import TrainJob

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
    defaults = {"max_length": 256, "epochs": 2, "batch_size": 2, "compute": {"save_every_steps": 3}}
    return TrainJob(
        model_name="tiny",
        model_path=str(model),
        chat_format=None,
        stop_token=None,
        learning_rate=1e-2,
        rows=str(tmp_path / "rows"),
        out_dir=str(tmp_path / out),
        seed=5,
        config=SftConfig.model_validate(defaults | config).model_dump(mode="json"),
    )


def losses(tmp_path, out):
    lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["loss"]) for row in map(json.loads, lines)]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_saved_student_loads_stops_by_itself_and_has_its_template(tmp_path, tiny_llama, method):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distill.training.run import train

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


def test_the_loss_falls_on_the_completion_and_the_stop_token_alone(tmp_path, tiny_llama):
    """The trained tokens, decoded, are the completion and what ends it: nothing of the prompt."""
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import SFTTrainer

    from distill.tokenizers import load_tokenizer
    from distill.training.run import _load_rows, _training_arguments

    rows = _load_rows(write_rows(tmp_path / "rows", num=1))
    task = job(tmp_path, tiny_llama)
    tokenizer = load_tokenizer(tiny_llama, None)
    arguments = _training_arguments(task, SftConfig.model_validate(task.config), 1, tokenizer.eos_token, False, False)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    labels = trainer.train_dataset[0]["labels"]
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == "<think>\n0 + 1\n</think>\n\n\\boxed{1}<|im_end|>\n"


def test_a_run_killed_between_checkpoints_ends_bit_for_bit_where_an_unbroken_one_does(tmp_path, tiny_llama):
    from safetensors.torch import load_file

    from distill.launch import run_job

    write_rows(tmp_path / "rows")
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    run_job("train", job(tmp_path, tiny_llama, out="whole"), tmp_path / "whole")
    crash = job(tmp_path, tiny_llama, out="broken")
    kill_after_step(crash, tmp_path / "broken", step=7)
    assert sorted(p.name for p in (tmp_path / "broken" / "checkpoints").iterdir())[-1] == "checkpoint-6"
    # A checkpoint that was being written when the kill came: it has no completion mark.
    shutil.copytree(tmp_path / "broken/checkpoints/checkpoint-6", tmp_path / "broken/checkpoints/checkpoint-9")
    (tmp_path / "broken/checkpoints/checkpoint-9/distill_complete").unlink()
    result, _ = run_job("train", crash, tmp_path / "broken")
    assert result["resumed_from_step"] == 6
    assert losses(tmp_path, "broken") == losses(tmp_path, "whole")
    whole, broken = (load_file(tmp_path / out / "student" / "model.safetensors") for out in ("whole", "broken"))
    assert all((whole[name] == broken[name]).all() for name in whole)


def kill_after_step(task, folder, step):
    """Start training in a process of its own and kill it (SIGKILL) once it has reported `step`."""
    import dataclasses
    import subprocess
    import sys
    import time

    (folder / "job.json").write_text(json.dumps(dataclasses.asdict(task)))
    child = subprocess.Popen(
        [sys.executable, "-m", "distill.launch", "train", str(folder / "job.json"), "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = folder / "metrics.jsonl"
    while child.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            child.kill()
        time.sleep(0.002)
    assert child.wait() == -9


@pytest.mark.parametrize(
    ("config", "completion", "message"),
    [
        ({"max_length": 40}, None, "rows are longer than sft.max_length"),
        ({"max_length": 100_000}, None, "exceeds the context of tiny"),
        ({"trl": {"no_such_argument": 1}}, None, "sft.trl: .*no_such_argument"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_way_out(tmp_path, tiny_llama, config, completion, message):
    from distill.training.run import train

    write_rows(tmp_path / "rows", **({"completion": completion} if completion else {}))
    with pytest.raises(ModelError, match=message):
        train(job(tmp_path, tiny_llama, **config))
    assert not (tmp_path / "sft" / "student").exists()


def test_a_template_that_eats_the_thinking_is_refused(tmp_path, tiny_llama):
    """As DeepSeek's and Qwen3's templates do with earlier turns: what follows </think> alone is left."""
    from distill.training.run import train

    eater = tmp_path / "eater"
    shutil.copytree(tiny_llama, eater)
    template = (eater / "chat_template.jinja").read_text()
    (eater / "chat_template.jinja").write_text(
        template.replace("message['content']", "message['content'].split('</think>')[-1]")
    )
    write_rows(tmp_path / "rows")
    with pytest.raises(ModelError, match=r"leaves </think> or the stop token .* out of the loss"):
        train(job(tmp_path, eater))


def test_rows_without_thinking_can_be_trained_on(tmp_path, tiny_llama):
    from distill.training.run import train

    write_rows(tmp_path / "rows", completion="\\boxed{{{j}}}")
    assert train(job(tmp_path, tiny_llama))["num_steps"] == 12


def test_a_loss_that_is_not_a_number_stops_the_stage(tmp_path, tiny_llama):
    from dataclasses import replace

    from distill.errors import StageError
    from distill.training.run import train

    write_rows(tmp_path / "rows")
    diverging = replace(job(tmp_path, tiny_llama, warmup_share=0.0, trl={"max_grad_norm": 1e9}), learning_rate=1e30)
    with pytest.raises(StageError, match="loss is not a number"):
        train(diverging)
    assert not (tmp_path / "sft" / "student").exists()

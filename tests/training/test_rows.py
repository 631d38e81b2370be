"""Kept rows as token rows: the same as TRL's own, made once, whole or not at all."""

import json
import multiprocessing
import os
import signal
import time
from importlib import resources

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import ModelError, ProblemError, StoreError
from distill.models.tokenizers import load_tokenizer
from distill.training import rows as rows_module
from distill.training.rows import row_lengths, source_row, source_rows, token_rows

QWEN_LIKE = """{%- if messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' and '</think>' in message['content'] -%}
{%- set thought = message['content'].split('</think>')[0].split('<think>')[-1].strip() -%}
{{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>' + message['content'].split('</think>')[-1] -}}
{%- else -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n<think>\\n' -}}
{%- endif -%}"""
"""Adds a system message, opens the thought in the generation prompt, and normalises it."""

PROMPT_UNLIKE = """{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n<empty_output>' -}}
{%- endif -%}"""
"""Ends the generation prompt with a token that the whole conversation does not have."""


def packaged(name):
    return (resources.files("distill.models") / "templates" / f"{name}.jinja").read_text()


TEMPLATES = {
    "chatml": packaged("chatml"),
    "llama3": packaged("llama3"),
    "qwen-like": QWEN_LIKE,
    "prompt-unlike": PROMPT_UNLIKE,
}


def kept_row(i, **more):
    return {
        "prompt": [{"role": "user", "content": f"What is {i} + 1?  \n"}],
        "completion": [
            {
                "role": "assistant",
                "content": "<think>\n" + f"{i} + 1 = é漢🙂 " * i + f"\n</think>\n\n\\boxed{{{i + 1}}}",
            }
        ],
        "problem_id": f"p{i}",
        "sample_index": i % 3,
        **more,
    }


def write_kept(folder, rows, files=1, row_group_size=None):
    folder.mkdir()
    share = -(-len(rows) // files)
    for number in range(files):
        table = pa.Table.from_pylist(rows[number * share : (number + 1) * share])
        pq.write_table(table, folder / f"train-{number:05d}-of-{files:05d}.parquet", row_group_size=row_group_size)
    return folder


@pytest.fixture
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama, None)


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_token_rows_are_those_of_trl(tmp_path, tiny_llama, tokenizer, template):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    kept = [kept_row(i) for i in range(7)]
    kept[3]["prompt"].insert(0, {"role": "system", "content": "Be brief."})
    kept[4]["completion"] = [
        {"role": "assistant", "content": "What?"},
        {"role": "user", "content": "The sum."},
        {"role": "assistant", "content": "<think>a</think>b"},
    ]
    tokenizer.chat_template = TEMPLATES[template]
    ours = token_rows(write_kept(tmp_path / "kept", kept, files=2, row_group_size=2), tokenizer, tmp_path / "cache")
    arguments = SFTConfig(
        output_dir=str(tmp_path / "out"), max_length=None, completion_only_loss=True, report_to="none", use_cpu=True
    )
    plain = Dataset.from_list([{name: row[name] for name in ("prompt", "completion")} for row in kept])
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=arguments,
        train_dataset=plain,
        processing_class=tokenizer,
    )
    assert ours.column_names == ["input_ids", "labels", "length"]
    assert len(ours) == 7
    for our_row, trl_row in zip(ours, trainer.train_dataset, strict=True):
        assert our_row["input_ids"] == trl_row["input_ids"]
        assert our_row["labels"] == trl_row["labels"]
        assert our_row["length"] == len(trl_row["input_ids"])
    # TRL takes them as they are: nothing is rendered or cut again.
    again = SFTTrainer(model=trainer.model, args=arguments, train_dataset=ours, processing_class=tokenizer)
    assert again.train_dataset[5]["labels"] == ours[5]["labels"]


def test_the_line_break_after_the_stop_token_is_trained_as_trl_does(tmp_path, tokenizer):
    tokenizer.chat_template = TEMPLATES["chatml"]
    (row,) = token_rows(write_kept(tmp_path / "kept", [kept_row(1)]), tokenizer, tmp_path / "cache")
    trained = tokenizer.decode([label for label in row["labels"] if label != -100])
    assert trained == "<think>\n1 + 1 = é漢🙂 \n</think>\n\n\\boxed{2}<|im_end|>\n"


def test_rows_keep_the_order_of_the_files_and_are_read_by_memory_map(tmp_path, tokenizer):
    kept = write_kept(tmp_path / "kept", [kept_row(i) for i in range(200)], files=3, row_group_size=40)
    rows = token_rows(kept, tokenizer, tmp_path / "cache")
    assert [row["length"] for row in rows] == row_lengths(rows).tolist()
    names = [row.name for row in source_rows(kept)]
    assert names == [f"p{i}/{i % 3}" for i in range(200)]
    assert source_row(kept, 150).name == names[150]
    assert "150 + 1" in tokenizer.decode(rows[150]["input_ids"])
    assert len(rows.cache_files) >= 3


@pytest.mark.slow
def test_several_processes_make_the_same_rows(tmp_path, tokenizer):
    kept = write_kept(tmp_path / "kept", [kept_row(i) for i in range(60)], row_group_size=20)
    alone = token_rows(kept, tokenizer, tmp_path / "alone", workers=1)
    together = token_rows(kept, tokenizer, tmp_path / "together", workers=2)
    assert alone[:] == together[:]


def test_rows_are_made_once_and_again_when_rows_or_template_change(tmp_path, tokenizer, monkeypatch):
    kept = write_kept(tmp_path / "kept", [kept_row(i) for i in range(5)])
    made = []
    make = rows_module._make
    monkeypatch.setattr(rows_module, "_make", lambda *args: (made.append(args[2].name), make(*args)))
    first = token_rows(kept, tokenizer, tmp_path / "cache")[:]
    assert token_rows(kept, tokenizer, tmp_path / "cache")[:] == first
    assert len(made) == 1
    tokenizer.chat_template = TEMPLATES["qwen-like"]
    assert token_rows(kept, tokenizer, tmp_path / "cache")[:] != first
    pq.write_table(pa.Table.from_pylist([kept_row(9)]), kept / "train-00001-of-00002.parquet")
    assert len(token_rows(kept, tokenizer, tmp_path / "cache")) == 6
    assert len(set(made)) == 3
    # Rows of the earlier content would only take space.
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == made[-1:]


def _tokenise_slowly(kept, model, cache, started):
    def slow_part(*args):
        write(*args)
        started.set()
        time.sleep(60)

    write = rows_module._write_part
    rows_module._write_part = slow_part
    token_rows(kept, load_tokenizer(model, None), cache)


@pytest.mark.slow
def test_a_killed_tokenisation_leaves_nothing_that_counts(tmp_path, tiny_llama, tokenizer):
    kept = write_kept(tmp_path / "kept", [kept_row(i) for i in range(9)], row_group_size=3)
    context = multiprocessing.get_context("fork")
    started = context.Event()
    child = context.Process(target=_tokenise_slowly, args=(kept, tiny_llama, tmp_path / "cache", started))
    child.start()
    assert started.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [".partial"]
    assert len(token_rows(kept, tokenizer, tmp_path / "cache")) == 9
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_full_disk_is_said(tmp_path, tokenizer, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows_module, "_write_part", full)
    with pytest.raises(StoreError, match="the disk is full"):
        token_rows(write_kept(tmp_path / "kept", [kept_row(1)]), tokenizer, tmp_path / "cache")


TEXT_COLUMNS = {"question": "2 + 2?", "answer": "4"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([TEXT_COLUMNS], "has no column prompt and no completion; its columns are question, answer"),
        ([{"prompt": "2 + 2?", "completion": "4"}], "column prompt is of type string"),
        ([{**kept_row(1), "completion": [{"from": "gpt", "value": "4"}]}], "column completion is of type list"),
        ([kept_row(1), kept_row(2, prompt=[])], "row p2/2: prompt is empty"),
        ([kept_row(1), kept_row(2, completion=[{"role": "assistant", "content": None}])], "row p2/2: completion is"),
        ([kept_row(2, completion=[{"role": "user", "content": "x"}])], "row p2/2: the completion ends with .* 'user'"),
    ],
)
def test_rows_of_another_shape_are_refused_with_what_is_expected(tmp_path, tokenizer, rows, message):
    with pytest.raises(ProblemError, match=message):
        token_rows(write_kept(tmp_path / "kept", rows), tokenizer, tmp_path / "cache")


def test_no_rows_are_refused(tmp_path, tokenizer):
    kept = write_kept(tmp_path / "kept", [kept_row(1)])
    (file,) = kept.iterdir()
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(ProblemError, match="holds no rows to train on"):
        token_rows(kept, tokenizer, tmp_path / "cache")
    with pytest.raises(ProblemError, match="holds no rows to train on"):
        token_rows(tmp_path / "nothing", tokenizer, tmp_path / "cache")


def test_a_broken_file_is_named(tmp_path, tokenizer):
    kept = write_kept(tmp_path / "kept", [kept_row(1)])
    (kept / "train-00001-of-00002.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ProblemError, match=r"train-00001-of-00002\.parquet: not a Parquet file"):
        token_rows(kept, tokenizer, tmp_path / "cache")


def test_a_template_that_refuses_a_row_is_told_with_the_row(tmp_path, tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no such role here') }}"
    with pytest.raises(ModelError, match=r"row p1/1: .*no such role here.*sft.chat_template"):
        token_rows(write_kept(tmp_path / "kept", [kept_row(1)]), tokenizer, tmp_path / "cache")


def test_rows_without_identity_are_named_by_file_and_number(tmp_path):
    rows = [{name: kept_row(i)[name] for name in ("prompt", "completion")} for i in range(3)]
    names = [row.name for row in source_rows(write_kept(tmp_path / "kept", rows, files=2))]
    assert names[2] == "train-00001-of-00002.parquet row 0"
    assert json.dumps(names)

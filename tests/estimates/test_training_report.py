"""`distill students` and `distill sft --plan`: what they list, at 80 columns, and as JSON."""

import io
import json

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.errors import ModelError
from distill.estimates.training_report import known_shape, plan_entry, plan_tables, student_entries, student_tables
from distill.models.students import STUDENTS, Student
from distill.recipe.sft import SftConfig

RECIPE = """
name: small
student: qwen-1.5b
problems: [{source: "file:problems.jsonl"}]
generate: {teacher: t, sampling: {max_tokens: 1024}}
sft: {max_length: 2048, batch_size: 16}
"""


def rendered(tables, width=80):
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    for table in tables:
        console.print(table)
    return stream.getvalue()


def invoke(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


# --- distill students


def test_the_table_fits_into_80_columns_with_every_word_whole():
    text = rendered(student_tables(student_entries()))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for alias, student in STUDENTS.items():
        assert alias in text
        assert student.hub_id in text
        assert student.license in text
    assert "4,096 -> 32,768" in text
    assert "fsdp 1x16 2/row ram" in text


def test_the_table_has_r1s_scores():
    text = rendered(student_tables(student_entries()))
    line = next(line for line in text.splitlines() if "72.6" in line)
    assert line.split() == ["qwen-32b", "72.6", "83.3", "94.3", "62.1", "57.2", "1691"]


def test_the_command_lists_them(here):
    entries = json.loads(invoke("students", "--json"))["students"]
    assert [entry["alias"] for entry in entries] == list(STUDENTS)
    seven = entries[1]
    assert seven["learning_rate"] == {"full": 8e-5, "lora": 2e-4}
    assert seven["trained_context"] == 32_768
    assert seven["layouts"]["full"]["8"]["compute"] == {
        "num_processes": 8,
        "sharding": "fsdp",
        "per_device_batch_size": 2,
        "sequence_parallel": 1,
        "cpu_offload": False,
    }
    assert "qwen-7b" in invoke("students")


# --- distill sft --plan


def test_without_a_recipe_every_alias_is_planned(here):
    entries = json.loads(invoke("sft", "--plan", "--gpus", "8", "--gpu-memory", "80", "--json"))["students"]
    assert [entry["student"] for entry in entries] == list(STUDENTS)
    for entry in entries:
        assert len(entry["memory"]) == 8
        for line in entry["memory"]:
            parts = ("weights", "gradients", "optimiser", "activations", "logits", "other")
            assert line["total"] == pytest.approx(sum(line[part] for part in parts), abs=0.05)
            assert line["fits"] == (line["total"] <= 76.0)
        assert [line["method"] for line in entry["layouts"]] == ["full", "lora", "qlora"]
        assert all(line["smallest"]["fits"] for line in entry["layouts"])


def test_the_recipe_says_what_is_planned(here):
    (here / "recipe.yaml").write_text(RECIPE)
    (entry,) = json.loads(invoke("sft", "--plan", "--json"))["students"]
    assert (entry["student"], entry["row_tokens"], entry["batch_size"]) == ("qwen-1.5b", 2_048, 16)
    assert (entry["num_gpus"], entry["gpu_gib"]) == (8, 80.0)
    (other,) = json.loads(invoke("sft", "--plan", "--student", "llama-8b", "--set", "sft.max_length=4096", "--json"))[
        "students"
    ]
    assert (other["student"], other["row_tokens"]) == ("llama-8b", 4_096)
    assert len(json.loads(invoke("sft", "--plan", "--student", "all", "--json"))["students"]) == len(STUDENTS)


def test_a_missing_recipe_that_is_named_is_an_error(here):
    result = CliRunner().invoke(app, ["sft", "no.yaml", "--plan"])
    assert "no.yaml: no such recipe" in str(result.exception)


def test_rows_are_no_longer_than_the_student_reaches(here):
    (entry,) = json.loads(invoke("sft", "--plan", "--student", "smollm2-135m", "--json"))["students"]
    assert entry["row_tokens"] == 8_192


def test_the_plan_in_80_columns():
    entry = plan_entry("llama-70b", SftConfig(max_length=32_768), 64, 80.0)
    text = rendered(plan_tables(entry))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "llama-70b (70.6B) on 64 GPUs of 80 GiB" in text
    assert "ZeRO-3" in text
    assert "fsdp, 1 row x 2 passes, 2 GPUs a row" in text


def test_a_plan_that_does_not_fit_says_so():
    text = rendered(plan_tables(plan_entry("llama-70b", SftConfig(max_length=131_072), 1, 16.0)))
    assert "too small" in text
    assert "fewest" in text


def test_a_local_folder_is_planned_from_its_config(tiny_llama):
    shape, context = known_shape(Student(str(tiny_llama), str(tiny_llama), 1e-4))
    assert (shape.hidden, shape.layers, context) == (32, 2, 512)
    entry = plan_entry(str(tiny_llama), SftConfig(), 1, 8.0)
    assert entry["row_tokens"] == 512


def test_a_model_of_the_cache_is_planned_from_its_config(smollm2):
    shape, context = known_shape(Student(smollm2.name, smollm2.name, 1e-4))
    assert (shape, context) == (STUDENTS["smollm2-135m"].shape, 8_192)


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        plan_entry(str(tmp_path), SftConfig(), 1, 8.0)


def test_a_model_that_is_nowhere_is_an_error_with_the_way_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"cannot be fetched .* `hf download org/none config\.json"):
        plan_entry("org/none", SftConfig(), 1, 8.0)

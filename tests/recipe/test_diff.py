"""Two recipes compared by what they mean."""

import json

import pytest

from distill.recipe.diff import flow, recipe_differences
from distill.recipe.loading import load_recipe
from distill.recipe.model import Recipe

BASE = {
    "name": "a",
    "student": "qwen-7b",
    "problems": [{"source": "hf:org/a"}, {"source": "gym:chain_sum"}],
    "generate": {"teacher": "org/t", "sampling": {"max_tokens": 1000}},
    "sft": {"max_length": 2048},
    "eval": {"benchmarks": [{"source": "hf:org/x"}, {"source": "hf:org/y"}], "sampling": {"max_tokens": 1000}},
}


def found(**changes):
    """(key, effect) of each difference from BASE."""
    pairs = recipe_differences(Recipe.model_validate(BASE), Recipe.model_validate({**BASE, **changes}))
    return [(one.key, one.effect) for one in pairs]


@pytest.mark.parametrize(
    "changes",
    [
        {"student": "Qwen/Qwen2.5-Math-7B"},
        {"problems": BASE["problems"][::-1]},
        {"problems": [{"source": "hf:org/a", "split": "train", "task": "math", "seed": 0}, BASE["problems"][1]]},
        {"sft": {"max_length": 2048, "epochs": 3.0, "learning_rate": 8e-5, "method": "full"}},
        {"eval": {**BASE["eval"], "benchmarks": BASE["eval"]["benchmarks"][::-1]}},
        {"filter": {"duplicates": {"problems": 0.9}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_means_the_same_is_no_difference(changes):
    assert found(**changes) == []


def test_order_of_sets_and_files_of_the_same_content_mean_nothing(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "exam.jsonl").write_text('{"problem": "1+1?"}\n')
    one, other = (
        Recipe.model_validate({**BASE, "filter": {"decontaminate": names}})
        for names in ([f"file:{tmp_path}/a/exam.jsonl", "aime24"], ["aime24", f"file:{tmp_path}/b/exam.jsonl"])
    )
    assert recipe_differences(one, other) == []
    (tmp_path / "b" / "exam.jsonl").write_text('{"problem": "2+2?"}\n')
    assert [d.key for d in recipe_differences(one, other)] == ["filter.decontaminate"]


def test_each_difference_says_what_it_changes():
    changes = {
        "name": "b",
        "description": "other",
        "sft": {"max_length": 2048, "epochs": 2, "compute": {"sharding": "fsdp"}},
        "generate": {
            **BASE["generate"],
            "compute": {"replicas": 2},
            "price": {"input_per_million": 1, "output_per_million": 2},
        },
        "push": {"repo": "org/b"},
    }
    assert found(**changes) == [
        ("sft.epochs", "result"),
        ("generate.compute.replicas", "compute"),
        ("sft.compute.sharding", "compute"),
        ("description", "neither"),
        ("generate.price", "neither"),
        ("name", "neither"),
        ("push", "neither"),
    ]


def test_a_source_that_changes_is_named():
    assert found(problems=[{"source": "hf:org/a", "limit": 5}, BASE["problems"][1]]) == [
        ("problems.[hf:org/a:train].limit", "result")
    ]


def test_lora_written_out_is_lora_left_out():
    one = Recipe.model_validate({**BASE, "sft": {"max_length": 2048, "method": "lora"}})
    other = Recipe.model_validate(
        {**BASE, "sft": {"max_length": 2048, "method": "lora", "learning_rate": 2e-4, "lora": {"r": 32}}}
    )
    assert recipe_differences(one, other) == []


def test_the_command_compares_recipes_and_runs(distill, tmp_path):
    recipe = load_recipe("gsm8k", ["sft.epochs=2"])
    run = tmp_path / "work" / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"recipe": recipe.model_dump(mode="json")}))
    code, out, _ = distill("recipes", "diff", "gsm8k", "mine")
    assert (code, "sft.epochs: 3.0 -> 2.0" in out) == (0, True)
    assert distill("recipes", "diff", "gsm8k", run, "--exit-code")[0] == 1
    assert distill("recipes", "diff", "gsm8k", "gsm8k", "--exit-code")[0] == 0
    code, out, _ = distill("recipes", "diff", "gsm8k", "runs/mine", "--json")
    assert json.loads(out)["differences"] == [{"key": "sft.epochs", "before": 3.0, "after": 2.0, "effect": "result"}]
    (run / "summary.json").write_text(json.dumps({"recipe": {"name": "x", "strange": 1}}))
    code, _, err = distill("recipes", "diff", "gsm8k", "mine")
    assert (code, "of another version of distill" in err) == (2, True)
    code, _, err = distill("recipes", "diff", "gsm8k", "no-such-run")
    assert (code, "no such recipe" in err) == (2, True)


def test_values_are_shown_as_yaml_has_them(distill):
    code, out, _ = distill("recipes", "diff", "r1", "r1-lora")
    assert code == 0
    assert "  sft.lora: not there -> {r: 64, alpha: 128, dropout: 0.0, target_modules: all-linear}\n" in out
    assert "None" not in out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not there"),
        ("full", "full"),
        ("3", "'3'"),
        (True, "true"),
        (3.0, "3.0"),
        (["a", {"b": None}], "[a, {b: null}]"),
    ],
)
def test_a_value_in_a_line(value, shown):
    assert flow(value) == shown
    assert len(flow([value] * 100)) == 80

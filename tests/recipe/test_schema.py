"""The JSON Schema says what the models say, and is the one that is committed."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from distill.recipe.schema import SCHEMA_FILE, recipe_schema, schema_line, schema_text

RECIPES = Path(__file__).parents[2] / "recipes"
SCHEMA = jsonschema.Draft202012Validator(recipe_schema())
MINIMAL = {
    "name": "a",
    "student": "qwen-7b",
    "generate": {"teacher": "org/t"},
    "problems": [{"source": "gym:chain_sum"}],
}


def test_the_committed_schema_is_the_models():
    assert (RECIPES / SCHEMA_FILE).read_text() == schema_text(), "distill recipes schema > recipes/recipe.schema.json"
    jsonschema.Draft202012Validator.check_schema(recipe_schema())


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_installed_recipes_name_their_schema_and_pass_it(path):
    assert path.read_text().splitlines()[0] == schema_line()
    SCHEMA.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sft": {"epoch": 1}}, "'epoch' was unexpected"),
        ({"sft": {"method": "lorra"}}, "not one of"),
        ({"student": 3}, "not of type 'string'"),
        ({"generate": {"samples_per_problem": 2}}, "'teacher' is a required property"),
        ({"problems": [{"limit": 2}]}, "'source' is a required property"),
        ({"schema_version": 2}, "1 was expected"),
        ({"seed": -1}, "minimum"),
    ],
)
def test_an_editor_would_mark_a_mistake(change, says):
    SCHEMA.validate(MINIMAL)
    messages = [error.message for error in SCHEMA.iter_errors(MINIMAL | change)]
    assert any(says in message for message in messages), messages


def test_a_benchmark_is_a_suite_by_name_or_by_key_or_a_source():
    for entry in ("gsm8k", {"suite": "gsm8k"}, {"suite": "gsm8k", "limit": 3}, {"source": "gym:chain_sum"}):
        SCHEMA.validate(MINIMAL | {"eval": {"benchmarks": [entry]}})
    for entry in ("", 3, {}, {"limit": 3}, {"suite": "gsm8k", "limt": 3}):
        assert not SCHEMA.is_valid(MINIMAL | {"eval": {"benchmarks": [entry]}}), entry


def test_a_recipe_that_only_measures_has_no_student():
    measures = {"name": "a", "eval": {"models": ["org/m"], "benchmarks": ["gsm8k"]}}
    SCHEMA.validate(measures)
    for change in ({"eval": {"benchmarks": ["gsm8k"]}}, {"eval": None}, {"generate": {"teacher": "org/t"}}):
        messages = [error.message for error in SCHEMA.iter_errors(measures | change)]
        assert "'student' is a required property" in messages


def test_what_a_parent_has_need_not_be_said_again_except_in_lists():
    SCHEMA.validate({"extends": "r1", "generate": {"samples_per_problem": 2}, "push": {"private": False}})
    assert not SCHEMA.is_valid({"extends": "r1", "problems": [{"limit": 2}]})


def test_every_key_is_explained():
    schema = recipe_schema()
    for name, definition in [("recipe", schema), *schema["$defs"].items()]:
        for key, value in definition["properties"].items():
            assert value.get("description"), f"{name}.{key}"
    assert "title" not in json.dumps(schema["$defs"])

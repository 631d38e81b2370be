"""docs/recipes.md: its fields are the models', its commands and files exist."""

import importlib
import re
from collections import Counter
from pathlib import Path

from typer.main import get_command

from distill.cli import app
from distill.recipe.model import Recipe
from distill.recipe.reference_page import START, field_reference

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_fields_on_the_page_are_those_of_the_models():
    guide, start, _ = PAGE.read_text().partition(START)
    assert PAGE.read_text() == guide + field_reference(), "its second half: distill recipes schema --markdown"
    assert start


def test_every_field_has_a_row():
    rows = Counter(re.findall(r"^\| `(\w+)` \|", field_reference(), re.MULTILINE))
    fields = Counter(name for model in _models(Recipe) for name in model.model_fields)
    assert rows == fields


def _models(model, seen=None):
    """The models of a recipe, each once."""
    seen = {model} if seen is None else seen | {model}
    found = {model}
    for field in model.model_fields.values():
        for home, name in re.findall(r"(distill\.recipe\.\w+)\.(\w+)", str(field.annotation)):
            inner = getattr(importlib.import_module(home), name)
            if isinstance(inner, type) and inner not in seen:
                found |= _models(inner, seen)
    return found


def test_the_page_shows_every_command_and_no_other():
    commands = get_command(app).commands["recipes"].commands
    table = PAGE.read_text().split("## Commands")[1].split("##")[0]
    assert re.findall(r"^\| `(\w+)", table, re.MULTILINE)[1:] == list(commands)


def test_the_command_prints_what_the_page_and_the_file_hold(distill):
    assert distill("recipes", "schema", "--markdown")[1] == field_reference()
    assert distill("recipes", "schema")[1] == (PAGE.parents[1] / "recipes" / "recipe.schema.json").read_text()

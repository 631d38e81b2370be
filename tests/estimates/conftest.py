"""What the planning tests share: recipes with files of their own, and plans of them."""

import json

import pytest

from distill.estimates.machine import Machine
from distill.estimates.prices import load_prices
from distill.recipe.model import Recipe
from distill.runs.plan import plan_recipe

TWO_CORES = Machine((), "2 CPU cores", 0, 0.0, 2, 24.0, False)


@pytest.fixture
def rows_file(tmp_path):
    """Write rows as JSONL; the file's `file:` source."""

    def write(rows, name="rows.jsonl"):
        text = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(text)
        return f"file:{tmp_path / name}"

    return write


@pytest.fixture
def plan_of(tmp_path):
    """Plan a recipe of `smollm2-135m` with these sections."""

    def planned(machine=TWO_CORES, quick=False, **sections):
        recipe = Recipe.model_validate({"name": "small", "student": "smollm2-135m", **sections})
        return plan_recipe(recipe, tmp_path / "runs", machine, load_prices(), quick=quick)

    return planned

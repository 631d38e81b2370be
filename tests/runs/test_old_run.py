"""A run's folder that an earlier version made: its stages are skipped, gone on with, reported and listed.

`tests/runs/old_run/` was written before a recipe could have rounds, from `traces.jsonl` and `recipe.yaml` in it.
"""

import shutil
from pathlib import Path

import pytest

from distill.errors import StoreError
from distill.recipe.loading import load_recipe
from distill.report import gather_any, render_any
from distill.runs.listing import describe_run
from distill.runs.runner import run_recipe
from distill.storage.files import read_json, write_json

OLD = Path(__file__).parent / "old_run"


@pytest.fixture
def old(tmp_path, smollm2, monkeypatch):
    """A copy of the folder, with its recipe and its traces beside it."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs/old"


def test_finished_stages_are_skipped_and_nothing_in_them_changes(old):
    before = {path: path.read_bytes() for path in old.rglob("*.parquet")}
    said = []
    run_recipe(load_recipe("recipe.yaml"), Path("runs"), ["import", "filter"], say=said.append)
    assert [line.partition(",")[0] for line in said] == ["import: done already", "filter: done already"]
    assert {path: path.read_bytes() for path in old.rglob("*.parquet")} == before


def test_a_stage_that_was_killed_is_gone_on_with(old):
    kept = read_json(old / "filter/manifest.json")["outputs"]["kept"]
    (old / "filter/manifest.json").unlink()
    said = []
    run_recipe(load_recipe("recipe.yaml"), Path("runs"), ["filter"], say=said.append)
    assert said[0] == "filter: resuming from existing results"
    assert read_json(old / "filter/manifest.json")["outputs"]["kept"]["num_rows"] == kept["num_rows"]


def test_a_changed_recipe_is_refused_and_force_makes_rows_from_the_old_traces(old):
    stricter = load_recipe("recipe.yaml", ["filter.max_tokens=8"])
    with pytest.raises(StoreError, match="max_tokens: 192 -> 8"):
        run_recipe(stricter, Path("runs"), ["filter"])
    changed = load_recipe("recipe.yaml", ["filter.readability.min_language_share=0.5"])
    summary = run_recipe(changed, Path("runs"), ["filter"], force=True)
    assert summary["filter"]["num_traces"] == 6
    assert (old / "filter.replaced-1/manifest.json").exists()


def test_a_filter_that_recorded_less_is_complete_and_reported(old):
    """Before it was recorded whose tokens were counted, and how the yield differs between sources."""
    manifest = read_json(old / "filter/manifest.json")
    for key in ("tokens_counted_by", "num_kept_tokens", "by_source", "by_pass_rate"):
        manifest["metrics"].pop(key, None)
    write_json(old / "filter/manifest.json", manifest)
    assert ("filter", "complete") in [(one["stage"], one["state"]) for one in describe_run(old)["stages"]]
    page = render_any(gather_any(old))
    assert "wrong_answer" in page
    assert "cannot be read" not in page


def test_it_is_reported_and_listed(old):
    page = render_any(gather_any(old))
    assert "wrong_answer" in page
    run = describe_run(old)
    assert [(one["stage"], one["state"]) for one in run["stages"]] == [
        ("import", "complete"),
        ("filter", "complete"),
        ("sft", "waiting"),
    ]
    assert {step["step"]: step["num_traces"] for step in run["funnel"]}["kept"] == 5

"""A stage of a team's own: one module in a test, and nothing else changes."""

import json
import types

import pytest

from distill.errors import RecipeError, StoreError
from distill.estimates.machine import this_machine
from distill.estimates.prices import load_prices
from distill.estimates.quantities import Range
from distill.estimates.stage import StageEstimate
from distill.recipe.base import Strict
from distill.recipe.loading import recipe_of_dict
from distill.report import gather_any, render_any
from distill.runs.listing import describe_run
from distill.runs.rounds_plan import plan_any
from distill.runs.runner import run_recipe
from distill.stages import always_useful, keeps_nothing, nothing_to_check, reopen_if_damaged
from distill.stages.table import own_stage
from distill.storage.files import read_json, read_jsonl, write_jsonl
from distill.storage.run_folder import Summary


class CountConfig(Strict):
    """Count to a number, one line a number."""

    up_to: int = 3
    """The last number."""


def count_stage(fail_at=None):
    """The stage: what `distill.stages` lists, in one module."""

    def run(run):
        folder = run.folder("count").path
        done = read_jsonl(folder / "numbers.jsonl") if (folder / "numbers.jsonl").exists() else []
        for number in range(len(done) + 1, run.recipe.count.up_to + 1):
            if number == fail_at:
                raise KeyboardInterrupt
            done.append({"number": number})
            write_jsonl(folder / "numbers.jsonl", done)
        return Summary({"num_numbers": len(done)}, {"numbers.jsonl": len(done)})

    def identity(run):
        return {"version": 1, "up_to": run.recipe.count.up_to, "seed": run.recipe.seed}

    return types.SimpleNamespace(
        VERSION=1,
        SECTION="count",
        CONFIG=CountConfig,
        FROM_DATASETS=(),
        prepare=lambda run, is_due: None,
        identity=identity,
        check=nothing_to_check,
        keeps_results=keeps_nothing,
        discard_if_empty=lambda run: False,
        reopen_if_lost=reopen_if_damaged("count"),
        verify_inputs=always_useful,
        run=run,
        finish=always_useful,
        headline=lambda metrics: f"counted to {metrics.num_numbers}",
        estimate=lambda known, machine, prices: StageEstimate(
            "count", {"seconds": Range(1.0, 2.0, "a number a second")}
        ),
    )


def recipe(**second):
    rounds = [{"name": "one", "count": {}}, {"name": "two", "count": {"up_to": 5, **second}}]
    return recipe_of_dict({"name": "counts", "student": "smollm2-135m", "count": {"up_to": 2}, "rounds": rounds})


def planned(runs):
    return plan_any(recipe(), runs, this_machine(), load_prices()).to_json()["stages"]


def test_it_is_run_skipped_resumed_refused_planned_reported_and_listed(tmp_path, monkeypatch):
    runs, said = tmp_path / "runs", []
    folder = runs / "counts"
    with own_stage(count_stage(fail_at=4), before="filter"), pytest.raises(KeyboardInterrupt):
        run_recipe(recipe(), runs)
    stopped = read_json(folder / "summary.json")
    assert stopped["stopped"]["stage"] == "two/count"
    with own_stage(count_stage(), before="filter"):
        assert planned(runs)["two/count"]["why"] == "resumes"
        summary = run_recipe(recipe(), runs, say=said.append)
        assert summary == read_json(folder / "summary.json")
        assert [summary["rounds"][name]["count"]["num_numbers"] for name in ("one", "two")] == [2, 5]
        assert "two/count: resuming from existing results" in said
        assert any(line.startswith("one/count: done already, skipped") for line in said)
        states = {name: stage["state"] for name, stage in planned(runs).items()}
        assert states == {"one/count": "done", "two/count": "done"}
        with pytest.raises(StoreError, match=r"(?s)round two: count: .*up_to: 5 -> 6"):
            run_recipe(recipe(up_to=6), runs)
        listed = describe_run(folder)
        assert [(one["stage"], one["state"]) for one in listed["stages"]] == [
            ("one/count", "complete"),
            ("two/count", "complete"),
        ]
        assert listed["stages"][1]["result"] == "counted to 5"
        page = render_any(gather_any(folder))
        assert "one/report.html" in page
        assert "count" in render_any(gather_any(folder / "two"))
        assert json.loads((folder / "two/count/manifest.json").read_text())["config"] == {"up_to": 5}
    with pytest.raises(RecipeError, match="unknown key"):
        recipe()

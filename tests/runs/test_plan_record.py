"""A run keeps its first estimate beside it, the summary has what it came to, and none of that can stop a run."""

import dataclasses
import io
import json
import sys

import pytest
from rich.console import Console

from distill.cli import main
from distill.errors import UserError
from distill.estimates.machine import Machine, this_machine
from distill.estimates.prices import load_prices
from distill.runs.plan import plan_recipe
from distill.runs.plan_table import print_plan
from distill.runs.runner import run_recipe
from distill.stages import RunContext, generate
from distill.storage.files import read_json
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import ESTIMATE
from distill.storage.run_folder import Manifest, describe_outputs

RIGHT = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is \\boxed{7}."


def sample(recipe, runs, engine, is_whole=True):
    """What the runner does with generate, with an engine of our own."""
    run = RunContext(recipe, runs / recipe.name)
    folder = run.folder("generate")
    identity = generate.identity(run)
    folder.claim(identity)
    try:
        summary = generate.run(run, engine)
    except KeyboardInterrupt:
        assert not is_whole
        return
    folder.complete(
        Manifest(
            stage="generate",
            fingerprint=fingerprint(identity),
            identity=identity,
            config={},
            outputs=describe_outputs(folder.path, summary.outputs),
            metrics=summary.metrics,
            versions={},
            hardware={},
            git_commit=None,
            seconds=12.5,
            peak_memory_gib=0.1,
            finished_at="2026-01-01T00:00:00+00:00",
        )
    )


def stages_of(plan):
    return {stage.stage: stage for stage in plan.stages}


def planned(recipe, tmp_path):
    return plan_recipe(recipe, tmp_path / "runs", this_machine(), load_prices())


@pytest.fixture
def sampled_by(monkeypatch):
    """A function after which `run_recipe` samples with an engine of our own, in this process."""
    real = generate.run

    def use(engine):
        monkeypatch.setattr(generate, "run", lambda run: real(run, engine))

    return use


def test_the_summary_holds_the_estimate_and_what_it_came_to(make_recipe, tmp_path, fake_engine, sampled_by):
    recipe = make_recipe()
    sampled_by(fake_engine([RIGHT]))
    said = []
    summary = run_recipe(recipe, tmp_path / "runs", ["generate", "filter"], say=said.append)
    estimate = summary["estimate"]
    assert (estimate["currency"], estimate["prices_dated"]) == ("USD", load_prices().dated)
    tokens, seconds = (estimate["stages"]["generate"][name] for name in ("tokens", "seconds"))
    assert tokens["actual"] == summary["generate"]["num_completion_tokens"] > 0
    assert tokens["low"] <= tokens["high"]
    assert seconds["actual"] == summary["generate"]["seconds"] > 0
    assert estimate["stages"]["filter"]["seconds"]["actual"] == summary["filter"]["seconds"]
    assert "gpu_hours" not in estimate["stages"]["generate"]
    assert set(estimate["stages"]) == {"generate", "filter"}
    assert not any("not recorded" in line for line in said)
    assert read_json(tmp_path / "runs/small/summary.json") == summary


def test_the_first_estimate_is_kept_and_what_is_done_gets_none(make_recipe, tmp_path, fake_engine):
    recipe = make_recipe()
    sample(recipe, tmp_path / "runs", fake_engine([RIGHT]))
    run_recipe(recipe, tmp_path / "runs", ["filter"])
    first = read_json(tmp_path / "runs/small" / ESTIMATE)
    summary = run_recipe(recipe, tmp_path / "runs", ["generate", "filter"])
    assert read_json(tmp_path / "runs/small" / ESTIMATE) == first
    assert set(summary["estimate"]["stages"]) == {"filter"}


def test_a_stage_that_is_not_done_has_no_actual(make_recipe, tmp_path, fake_engine, sampled_by):
    sampled_by(fake_engine(["<think>no"]))
    with pytest.raises(UserError, match="kept none"):
        run_recipe(make_recipe(), tmp_path / "runs", ["generate", "filter", "sft"])
    stages = read_json(tmp_path / "runs/small/summary.json")["estimate"]["stages"]
    assert stages["filter"]["seconds"]["actual"] is not None
    assert stages["sft"]["seconds"]["low"] > 0
    assert {quantity["actual"] for quantity in stages["sft"].values()} == {None}


def test_a_stage_that_went_on_has_tokens_but_no_seconds(make_recipe, tmp_path, fake_engine, sampled_by):
    recipe = make_recipe()
    sample(recipe, tmp_path / "runs", fake_engine([RIGHT], die_after=4), is_whole=False)
    sampled_by(fake_engine([RIGHT]))
    summary = run_recipe(recipe, tmp_path / "runs", ["generate"])
    found = summary["estimate"]["stages"]["generate"]
    assert found["tokens"]["actual"] == summary["generate"]["num_completion_tokens"]
    assert found["seconds"]["actual"] is None


def test_another_filter_under_force_gets_another_estimate(make_recipe, tmp_path, fake_engine):
    sample(make_recipe(), tmp_path / "runs", fake_engine([RIGHT]))
    run_recipe(make_recipe(), tmp_path / "runs", ["filter"])
    before = read_json(tmp_path / "runs/small" / ESTIMATE)["stages"]["filter"]["made_for"]
    stricter = make_recipe(filter={"max_tokens": 200, "compute": {"workers": 1}})
    run_recipe(stricter, tmp_path / "runs", ["filter"], force=True)
    assert read_json(tmp_path / "runs/small" / ESTIMATE)["stages"]["filter"]["made_for"] != before


@pytest.mark.parametrize(
    "content", ["not JSON", "[]", '{"schema_version": 1, "stages": {"filter": {}}}', '{"stages": 3}']
)
def test_a_broken_plan_stops_no_run(make_recipe, tmp_path, fake_engine, content):
    recipe = make_recipe()
    sample(recipe, tmp_path / "runs", fake_engine([RIGHT]))
    (tmp_path / "runs/small" / ESTIMATE).write_text(content)
    assert run_recipe(recipe, tmp_path / "runs", ["filter"])["filter"]["num_kept"] > 0


def test_an_estimate_that_fails_is_said_and_stops_no_run(make_recipe, tmp_path, fake_engine, monkeypatch):
    from distill.runs import plan_record

    def broken(*args, **kwargs):
        raise ZeroDivisionError("never mind")

    monkeypatch.setattr(plan_record, "plan_recipe", broken)
    recipe = make_recipe()
    sample(recipe, tmp_path / "runs", fake_engine([RIGHT]))
    said = []
    summary = run_recipe(recipe, tmp_path / "runs", ["filter"], say=said.append)
    assert "estimate" not in summary
    assert any("ZeroDivisionError: never mind" in line for line in said)


def test_a_plan_tells_what_is_done_what_goes_on_and_what_has_changed(make_recipe, tmp_path, fake_engine):
    recipe = make_recipe(12)
    assert {s.standing.state for s in planned(recipe, tmp_path).stages} == {"new"}
    sample(recipe, tmp_path / "runs", fake_engine([RIGHT], die_after=16), is_whole=False)
    started = stages_of(planned(recipe, tmp_path))["generate"]
    assert started.standing.state == "partly"
    assert 0 < started.standing.remaining < 1
    assert "measured by this run" in started.quantities["tokens"].basis
    assert started.left["tokens"].high < started.quantities["tokens"].high

    sample(recipe, tmp_path / "runs", fake_engine([RIGHT]))
    run_recipe(recipe, tmp_path / "runs", ["filter"])
    stages = stages_of(planned(recipe, tmp_path))
    assert [stages[name].standing.state for name in ("generate", "filter", "sft")] == ["done", "done", "new"]
    assert stages["generate"].left == {}
    assert "kept by this run" in stages["sft"].quantities["tokens"].basis

    stricter = make_recipe(12, filter={"max_tokens": 3, "compute": {"workers": 1}})
    stages = stages_of(planned(stricter, tmp_path))
    assert "kept by this run" not in stages["sft"].quantities["tokens"].basis
    changed = stages["filter"].standing
    assert (changed.state, "max_tokens" in changed.why) == ("changed", True)
    more = make_recipe(12, generate={**recipe.generate.model_dump(), "samples_per_problem": 4})
    stages = stages_of(planned(more, tmp_path))
    assert (stages["generate"].standing.state, stages["generate"].standing.remaining) == ("partly", 0.5)
    assert stages["filter"].standing.state == "depends"


def test_what_is_planned_for_another_machine_ignores_this_ones_speed(make_recipe, tmp_path, fake_engine):
    recipe = make_recipe()
    sample(recipe, tmp_path / "runs", fake_engine([RIGHT]))
    other = Machine(("h100",), "1 x h100", 1, 79.6, 8, 100.0, False)
    stage = stages_of(plan_recipe(recipe, tmp_path / "runs", other, load_prices()))["generate"]
    assert "measured" in stage.quantities["tokens"].basis
    assert "measured" not in stage.quantities["seconds"].basis


def test_a_plan_of_what_is_done_is_short(make_recipe, tmp_path, fake_engine, sampled_by):
    recipe = make_recipe()
    sampled_by(fake_engine([RIGHT]))
    run_recipe(recipe, tmp_path / "runs", ["generate", "filter"])
    plan = planned(recipe, tmp_path)
    finished = dataclasses.replace(plan, stages=tuple(s for s in plan.stages if s.stage != "sft"))
    console = Console(file=io.StringIO(), width=60)
    print_plan(finished, console, "recipe.yaml")
    said = console.file.getvalue()
    assert "Nothing to do" in said
    assert "is skipped" in said
    assert "left in all" not in said


@pytest.mark.parametrize("columns", ["60", "100"])
def test_the_table_fits_the_terminal(make_recipe, tmp_path, monkeypatch, capsys, columns):
    recipe = make_recipe(eval={"held_out": 2, "sampling": {"max_tokens": 32}})
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json", exclude_none=True)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "argv", ["distill", "plan", "--gpu", "h100"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[: lines.index("Next:")])) <= int(columns)
    assert any(line.strip().startswith("left in all") for line in lines)
    assert "  distill doctor  # on that machine, before the run" in lines


def test_the_json_has_a_version_and_every_quantity_its_basis(make_recipe, tmp_path):
    found = planned(make_recipe(), tmp_path).to_json()
    assert found["schema_version"] == 1
    for stage in found["stages"].values():
        for quantity in stage["whole"].values():
            assert quantity["low"] <= quantity["high"]
            assert quantity["basis"]
    json.dumps(found, allow_nan=False)

"""The runner's decisions, on stages that sample a fake engine or a tiny random model."""

import json

import pytest

from distill.core.records import Problem
from distill.errors import StageError, StoreError, UserError
from distill.recipe.lineage import traces_fingerprint
from distill.recipe.yaml_tree import read_tree
from distill.runs.results import write_summary
from distill.runs.runner import run_recipe
from distill.runs.steps import decide
from distill.stages import RunContext, generate, keeps_nothing
from distill.stages.table import STAGES
from distill.storage.files import read_json, read_jsonl
from distill.storage.run_folder import StageFolder

RIGHT = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is \\boxed{%s}."


def test_a_new_stage_runs_a_finished_one_is_skipped_a_changed_one_refused(tmp_path):
    folder = StageFolder(tmp_path / "generate")
    assert decide(folder, {"seed": 1}, keeps_nothing).action == "run"
    folder.claim({"seed": 1, "samples_per_problem": 4})
    assert decide(folder, {"seed": 1, "samples_per_problem": 4}, keeps_nothing).action == "run"
    (folder.path / "manifest.json").write_text("{}")
    assert decide(folder, {"seed": 1, "samples_per_problem": 4}, keeps_nothing).action == "skip"
    changed = decide(folder, {"seed": 2, "samples_per_problem": 4}, generate.keeps_results)
    assert (changed.action, changed.changed) == ("refuse", {"seed": (1, 2)})
    more = {"seed": 1, "samples_per_problem": 16}
    assert decide(folder, more, generate.keeps_results).action == "run"
    assert decide(folder, more, keeps_nothing).action == "refuse"


def test_generate_then_filter_leaves_summary_and_report(make_recipe, tmp_path, fake_engine, finish_generate):
    recipe = make_recipe(num_problems=6)
    finish_generate(recipe, tmp_path / "runs", fake_engine([RIGHT % 7, "<think>\nhm"]))
    said = []
    summary = run_recipe(recipe, tmp_path / "runs", ["filter"], say=said.append)
    run_dir = tmp_path / "runs" / "small"
    assert summary == read_json(run_dir / "summary.json")
    assert summary["filter"]["num_traces"] == 12
    assert summary["filter"]["num_kept"] == 1  # 7 is right for `What is 3 + 4?` alone
    assert summary["filter"]["dropped"] == {"unclosed_think": 6, "wrong_answer": 5}
    assert summary["problems"] == [{"source": "file:problems-6.jsonl", "num_problems": 6}]
    report = (run_dir / "report.html").read_text()
    assert "\\boxed{7}" in report
    assert "wrong_answer" in report
    assert len(read_jsonl(run_dir / "filter" / "verdicts.jsonl")) == 12
    assert any(line.startswith("filter: kept 1 of 12") for line in said)


def test_a_second_run_skips_and_changes_nothing(make_recipe, tmp_path, fake_engine, finish_generate):
    recipe = make_recipe()
    finish_generate(recipe, tmp_path / "runs", fake_engine([RIGHT % 7]))
    run_recipe(recipe, tmp_path / "runs", ["filter"])
    manifest = (tmp_path / "runs/small/filter/manifest.json").read_bytes()
    said = []
    run_recipe(recipe, tmp_path / "runs", ["generate", "filter"], say=said.append)
    assert [line.split(",")[0] for line in said] == ["generate: done already", "filter: done already"]
    assert (tmp_path / "runs/small/filter/manifest.json").read_bytes() == manifest


def test_a_changed_recipe_is_refused_with_what_changed_and_force_moves_the_old_aside(
    make_recipe, tmp_path, fake_engine, finish_generate
):
    finish_generate(make_recipe(), tmp_path / "runs", fake_engine([RIGHT % 7]))
    run_recipe(make_recipe(), tmp_path / "runs", ["filter"])
    stricter = make_recipe(filter={"max_tokens": 3, "compute": {"workers": 1}})
    with pytest.raises(StoreError) as caught:
        run_recipe(stricter, tmp_path / "runs", ["filter"])
    assert "max_tokens: not set -> 3" in str(caught.value)
    assert "--force" in str(caught.value)
    assert "--set name=" in str(caught.value)
    with pytest.raises(UserError, match="kept none of 12"):
        run_recipe(stricter, tmp_path / "runs", ["filter"], force=True)
    assert read_json(tmp_path / "runs/small/summary.json")["filter"]["num_kept"] == 0
    assert (tmp_path / "runs/small/filter.replaced-1/manifest.json").exists()


def test_while_the_first_stage_is_made_anew_the_later_ones_are_still_told_of(
    make_recipe, tmp_path, fake_engine, finish_generate
):
    run = finish_generate(make_recipe(), tmp_path / "runs", fake_engine([RIGHT % 7]))
    run_recipe(make_recipe(), tmp_path / "runs", ["filter"])
    run.folder("generate").set_aside()
    assert write_summary(run).keys() & {"generate", "filter"} == {"filter"}
    assert read_tree(run.run_dir / "recipe.lock.yaml", {})["models"]["teachers"] == []


def test_compute_settings_are_no_reason_to_run_again(make_recipe, tmp_path, fake_engine, finish_generate):
    finish_generate(make_recipe(), tmp_path / "runs", fake_engine([RIGHT % 7]))
    run_recipe(make_recipe(), tmp_path / "runs", ["filter"])
    said = []
    run_recipe(make_recipe(filter={"compute": {"workers": 2}}), tmp_path / "runs", ["filter"], say=said.append)
    assert "done already" in said[0]


def test_more_problems_and_samples_extend_what_is_there(make_recipe, tmp_path, fake_engine, finish_generate):
    finish_generate(make_recipe(num_problems=4), tmp_path / "runs", fake_engine([RIGHT % 7]))
    bigger = make_recipe(num_problems=6)
    bigger = bigger.model_copy(update={"generate": bigger.generate.model_copy(update={"samples_per_problem": 3})})
    folder = StageFolder(tmp_path / "runs/small/generate")
    run = RunContext(bigger, tmp_path / "runs/small")
    assert decide(folder, generate.identity(run), generate.keeps_results).action == "run"
    engine = fake_engine([RIGHT % 7])
    finish_generate(bigger, tmp_path / "runs", engine)
    assert engine.num_requests == 6 * 3 - 4 * 2


def test_traces_are_in_the_same_order_however_they_arrive(make_recipe, tmp_path, fake_engine, finish_generate):
    checksums = []
    for runs, in_flight in (("a", 3), ("b", 1)):
        engine = fake_engine([RIGHT % 7, "no"])
        engine.max_in_flight = in_flight
        run = finish_generate(make_recipe(), tmp_path / runs, engine)
        checksums.append(traces_fingerprint(run.folder("generate").manifest))
    assert checksums[0] == checksums[1]


def test_a_stage_before_its_turn_says_which_command_comes_first(make_recipe, tmp_path):
    with pytest.raises(UserError, match="Run `distill generate` first"):
        run_recipe(make_recipe(), tmp_path / "runs", ["filter"])


def test_nothing_kept_stops_before_sft_and_says_what_dropped_it(make_recipe, tmp_path, fake_engine, finish_generate):
    recipe = make_recipe()
    finish_generate(recipe, tmp_path / "runs", fake_engine(["<think>\nhm", "no idea"]))
    with pytest.raises(UserError) as caught:
        run_recipe(recipe, tmp_path / "runs")
    assert "kept none of 12 traces" in str(caught.value)
    assert "no_think 6" in str(caught.value)
    assert "unclosed_think 6" in str(caught.value)
    assert not (tmp_path / "runs/small/sft").exists()
    assert json.loads((tmp_path / "runs/small/summary.json").read_text())["filter"]["num_kept"] == 0


def test_a_problem_set_that_is_empty_stops_before_anything(make_recipe, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    recipe = make_recipe(problems=[{"source": f"file:{tmp_path / 'empty.jsonl'}"}])
    with pytest.raises(UserError, match="the problem set is empty"):
        run_recipe(recipe, tmp_path / "runs")


def test_generate_writes_problems_that_read_back(make_recipe, tmp_path, fake_engine, finish_generate):
    run = finish_generate(make_recipe(), tmp_path / "runs", fake_engine([RIGHT % 7]))
    rows = read_jsonl(run.folder("generate").path / "problems.jsonl")
    assert {Problem.from_json(row).question for row in rows} == {f"What is {i} + {i + 1}?" for i in range(6)}


def test_the_table_of_stages_is_in_order():
    assert list(STAGES) == ["generate", "import", "filter", "sft", "rl", "eval", "measure", "push"]


def test_a_report_is_written_while_the_problems_are_being_extended(make_recipe, tmp_path, fake_engine, finish_generate):
    """The verdicts are still those of the smaller set, and some of its problems may be gone."""
    finish_generate(make_recipe(num_problems=6), tmp_path / "runs", fake_engine([RIGHT % 7]))
    run_recipe(make_recipe(num_problems=6), tmp_path / "runs", ["filter"])
    other = make_recipe(num_problems=3)
    finish_generate(other, tmp_path / "runs", fake_engine([RIGHT % 7]))
    summary = run_recipe(other, tmp_path / "runs", ["generate"])
    assert (summary["generate"]["num_problems"], summary["filter"]["num_traces"]) == (3, 12)
    assert "small" in (tmp_path / "runs/small/report.html").read_text()


# --- a run that stops


def stops(recipe, runs, error, **given):
    """Run all stages, the filter raising `error` at work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.stages.filter.run", Raising(error))
        with pytest.raises(type(error)) as caught:
            run_recipe(recipe, runs, **given)
    assert caught.value is error
    return read_json(runs / recipe.name / "summary.json")


class Raising:
    def __init__(self, error):
        self.error = error

    def __call__(self, run):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StageError("filter: no more memory"), "filter: no more memory"),
        (UserError("filter: put the judge right"), "filter: put the judge right"),
        (ZeroDivisionError("oh"), "ZeroDivisionError: oh"),
        (KeyboardInterrupt(), "stopped by Ctrl-C"),
    ],
)
def test_a_run_that_stops_says_where_and_why_until_that_stage_is_complete(
    make_recipe, tmp_path, fake_engine, finish_generate, error, said
):
    recipe, runs = make_recipe(), tmp_path / "runs"
    finish_generate(recipe, runs, fake_engine([RIGHT % 7]))
    summary = stops(recipe, runs, error, stages=["generate", "filter"])
    assert (summary["stopped"]["stage"], summary["stopped"]["error"]) == ("filter", said)
    assert summary["stopped"]["at"].endswith("+00:00")
    page = (runs / "small" / "report.html").read_text()
    assert said in page
    assert "Stopped in <code>filter</code>" in page
    # A call that does something else leaves the record; the stage itself, once complete, ends it.
    assert run_recipe(recipe, runs, ["generate"])["stopped"] == summary["stopped"]
    assert "stopped" not in run_recipe(recipe, runs, ["filter"])
    assert "Stopped in" not in (runs / "small" / "report.html").read_text()


def test_a_stage_that_begins_again_forgets_its_last_stop(make_recipe, tmp_path, fake_engine, finish_generate):
    """So that a run that is killed in it does not show an older error as the reason."""
    recipe, runs = make_recipe(), tmp_path / "runs"
    finish_generate(recipe, runs, fake_engine([RIGHT % 7]))
    stops(recipe, runs, StageError("filter: first"), stages=["filter"])
    seen = []

    def look(run):
        seen.append(read_json(runs / "small" / "summary.json"))
        raise StageError("filter: second")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.stages.filter.run", look)
        with pytest.raises(StageError):
            run_recipe(recipe, runs, ["filter"])
    assert "stopped" not in seen[0]
    assert seen[0]["recipe"]["name"] == "small"


def test_a_stop_tells_no_secret_and_no_path(make_recipe, tmp_path, fake_engine, finish_generate, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "open-sesame-42")
    recipe, runs = make_recipe(), tmp_path / "runs"
    finish_generate(recipe, runs, fake_engine([RIGHT % 7]))
    summary = stops(recipe, runs, StageError(f"{tmp_path}/x.json: 401 for open-sesame-42"), stages=["filter"])
    assert summary["stopped"]["error"] == "x.json: 401 for [redacted]"
    assert "open-sesame" not in (runs / "small" / "report.html").read_text()


def test_a_call_that_is_refused_leaves_summary_and_report_as_they_were(
    make_recipe, tmp_path, fake_engine, finish_generate
):
    recipe, runs = make_recipe(), tmp_path / "runs"
    finish_generate(recipe, runs, fake_engine([RIGHT % 7]))
    run_recipe(recipe, runs, ["filter"])
    before = [(runs / "small" / name).read_bytes() for name in ("summary.json", "report.html")]
    with pytest.raises(StoreError):
        run_recipe(make_recipe(filter={"max_tokens": 3}), runs, ["filter"])
    assert [(runs / "small" / name).read_bytes() for name in ("summary.json", "report.html")] == before


def test_a_report_that_cannot_be_written_stops_nothing(make_recipe, tmp_path, fake_engine, finish_generate):
    recipe, runs = make_recipe(), tmp_path / "runs"
    finish_generate(recipe, runs, fake_engine([RIGHT % 7]))
    (runs / "small" / "report.html").mkdir()
    said = []
    summary = run_recipe(recipe, runs, ["filter"], say=said.append)
    assert summary["filter"]["num_traces"] == 12
    assert "report.html: could not be written" in said[-1]
    assert f"`distill report {runs / 'small'}` tries again" in said[-1]

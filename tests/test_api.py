"""Running recipes from Python: the same as from the command line, in a notebook's thread and in a plain script too."""

import json
import os
import subprocess
import sys
import threading

import pytest

import distill
from distill.api import as_recipe
from distill.core.progress import QUIET
from distill.errors import UserError
from distill.storage.files import read_json

pytestmark = pytest.mark.usefixtures("here")
STAGES = ["generate", "filter"]


def test_a_run_gives_what_the_command_line_gives(generated, tmp_path):
    told = []
    result = distill.run("recipe.yaml", stages=STAGES, say=told.append)
    assert result.summary == read_json(tmp_path / "runs/small/summary.json")
    assert told[0].startswith("generate: done already")
    assert told[1].startswith("filter: kept 1 of 4")
    assert (result.name, result.student, result.student_score, result.gain) == ("small", None, None, None)
    assert result.report.exists()
    assert len(result.problems()) == 2
    assert [trace.key for trace in result.traces()] == [verdict.key for verdict in result.verdicts()]
    (row,) = result.rows()
    assert row["completion"][0]["content"].endswith("\\boxed{7}.")
    assert repr(result) == repr(distill.open_run("small"))
    assert "kept 1 of 4" in result._repr_html_()


def test_a_run_outside_the_main_thread(generated):
    found = []
    thread = threading.Thread(target=lambda: found.append(distill.run("recipe.yaml", stages=STAGES, quiet=True)))
    thread.start()
    thread.join()
    assert found[0].summary["filter"]["num_kept"] == 1


def test_a_script_without_a_guard_is_not_run_again_by_workers(generated, tmp_path):
    """The gold answer needs a parser, which runs in a worker."""
    (tmp_path / "script.py").write_text(
        "print('once')\n"
        "import distill\n"
        "result = distill.run('recipe.yaml', stages=['generate', 'filter'], quiet=True)\n"
        "from distill.grading import grade_all\n"
        "from distill.grading.pool import GradingPool\n"
        "half = distill.make_problem('Half?', '\\\\frac{1}{2}')\n"
        "with GradingPool(1) as pool:\n"
        "    (grade,) = grade_all([(half, '\\\\boxed{2^{-1} + \\\\sin(0)}')], pool)\n"
        "print(result.summary['filter']['num_kept'], grade.correct)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("once\n1 True\n", "")


def test_quiet_lasts_as_long_as_the_run(generated, monkeypatch, capfd):
    monkeypatch.delenv(QUIET)
    distill.run("recipe.yaml", stages=STAGES, quiet=True)
    assert QUIET not in os.environ
    assert capfd.readouterr() == ("", "")
    distill.run("recipe.yaml", stages=STAGES)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("generate: done already")


def test_recipes_are_files_dicts_or_recipes(recipe):
    loaded = distill.load_recipe("recipe.yaml")
    as_dict = loaded.model_dump(mode="json")
    assert as_recipe(as_dict) == as_recipe(loaded) == loaded
    with pytest.raises(distill.RecipeError, match="model_copy"):
        distill.run(as_dict, student="qwen-1.5b")
    with pytest.raises(distill.RecipeError, match=r"sft\.epochs"):
        distill.run({**as_dict, "sft": {"epochs": -1}})
    with pytest.raises(distill.UserError, match="unknown train"):
        distill.run("recipe.yaml", stages=["train"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"description": "hf_" + "aB3" * 12}, "description: holds a Hugging Face token"),
        ({"generate": {"teacher": "x", "compute": {"api_key": "abc"}}}, "generate.compute.api_key: holds a secret"),
        ({"sft": {"epoch": 2}}, "unknown key 'sft.epoch'. Did you mean 'epochs'?"),
        ({"schema_version": 2}, "schema_version 2 is not one that this distill"),
        ({"seed": float("nan")}, "seed: nan is not a finite number"),
        ({3: "x"}, "a key must be plain text, not 3"),
        ({"description": "a\0b"}, "description: a text may not hold NUL"),
        ({"extends": "no-such.yaml"}, "named by extends in the dict"),
    ],
)
def test_a_dict_is_checked_as_a_file_is(recipe, change, says):
    as_dict = distill.load_recipe("recipe.yaml").model_dump(mode="json")
    with pytest.raises(distill.RecipeError) as caught:
        as_recipe({**as_dict, **change})
    assert str(caught.value).startswith("the dict: ") or says.startswith("named by")
    assert says in str(caught.value)
    assert "aB3aB3" not in str(caught.value)


def test_a_dict_may_extend_a_recipe_and_stays_as_it_is(recipe):
    changes = {"extends": "recipe.yaml", "sft": {"epochs": 2}, "seed": 5}
    made = as_recipe(changes)
    assert made == distill.load_recipe("recipe.yaml", ["sft.epochs=2", "seed=5"])
    assert changes == {"extends": "recipe.yaml", "sft": {"epochs": 2}, "seed": 5}


@pytest.mark.parametrize(("stage", "section"), [("eval", "eval"), ("import", "traces")])
def test_a_stage_that_the_recipe_lacks_is_refused_before_anything(recipe, tmp_path, stage, section):
    with pytest.raises(
        UserError, match=f"stages: {stage}: recipe small has no {section}: section. Its stages are: gen"
    ):
        distill.run(recipe, stages=[stage], run_dir=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="push"):
        distill.run(recipe, stages=["push"], run_dir=tmp_path / "runs", quiet=True)


def test_a_run_that_is_not_there_is_named(generated, tmp_path):
    with pytest.raises(distill.UserError, match="no run is here"):
        distill.open_run("small")
    (tmp_path / "runs" / "small" / ".lock").touch()
    with pytest.raises(distill.UserError, match="no stage of this run is complete"):
        distill.open_run("small")


def test_the_judgement_on_one_problem_is_the_filters(generated):
    result = distill.run("recipe.yaml", stages=STAGES, quiet=True)
    by_problem = {problem.id: problem for problem in result.problems()}
    traces = list(result.traces())
    config = distill.load_recipe("recipe.yaml").filter
    judged = [
        verdict
        for name in sorted(by_problem)
        for verdict in distill.judge_traces(by_problem[name], [t for t in traces if t.problem_id == name], config)
    ]
    assert judged == list(result.verdicts())


def test_a_trace_can_be_made_and_judged_by_hand():
    problem = distill.make_problem("What is 3 + 4?", "7")
    texts = ["<think>\n3 + 4 = 7\n</think>\n\n\\boxed{7}", "\\boxed{7}", "<think>\n9\n</think>\n\n\\boxed{9}"]
    traces = [distill.make_trace(problem, text, i) for i, text in enumerate(texts)]
    verdicts = distill.judge_traces(problem, traces)
    assert [verdict.reasons for verdict in verdicts] == [(), ("no_think",), ("wrong_answer",)]
    score = distill.score(traces, verdicts, "by hand")
    assert (score.num_problems, score.samples_per_problem, score.pass_at_1) == (1, 3, pytest.approx(2 / 3))
    with pytest.raises(distill.UserError, match="one verdict"):
        distill.score(traces, verdicts[:2])


def test_memory_is_planned_without_a_recipe():
    planned = distill.plan_memory("qwen-1.5b", num_gpus=1, gpu_gib=24)
    assert (planned["student"], planned["num_gpus"], planned["gpu_gib"]) == ("qwen-1.5b", 1, 24)
    assert json.dumps(planned)

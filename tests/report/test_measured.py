"""A run that only measures models: its page, its place in lists, and beside another such run."""

import json
import sys

import pytest

from distill.cli import main
from distill.errors import UserError
from distill.recipe.expand import stages_in
from distill.recipe.model import Recipe
from distill.report import gather_run, render_report
from distill.report.compare import compare_runs, render_comparison
from distill.report.evaluated import evaluated_models
from distill.runs.listing import describe_run, list_runs
from distill.storage.files import read_json, write_json

from .test_benchmarks import shown

GOOD, BAD = (lambda i: [True, i < 6]), (lambda i: [i < 2, False])


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """A function that is `distill` in `tmp_path`: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["distill", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


def test_the_page_is_about_models_and_says_nothing_of_traces_and_training(make_measured_run):
    html, text, payload = shown(make_measured_run({"good": GOOD, "bad": BAD}, {"gsm8k": 8, "math-500": 8}))
    assert "Evaluation of models · " in text
    assert "2 models were measured. The highest scores: gsm8k 87.5% by org/good (95% interval" in text
    assert "; math-500 87.5% by org/good" in text
    assert "Models org/good, org/bad" in text
    for word in ("Teacher", "Funnel", "Training", "Traces to read", "Student", "Before and after", "sft/", "None"):
        assert word not in text
    assert 'href="#traces"' not in html
    assert (payload["traces"], len(payload["answers"]["pairs"])) == ([], 16)
    assert "Engine vllm 0.31.0" in text


def test_a_single_model_has_its_own_sentence_and_its_answers(make_measured_run):
    _, text, payload = shown(make_measured_run({"good": GOOD}))
    assert "org/good scores: gsm8k 87.5% (95% interval" in text
    assert "Questions and answers" in text
    assert payload["answers"]["names"] == ["org/good"]
    assert [len(pair["sides"]) for pair in payload["answers"]["pairs"]] == [1] * 8


def test_a_run_that_is_half_done_says_what_is_missing(make_measured_run):
    maker = make_measured_run({"good": GOOD, "bad": BAD})
    (maker.folder / "measure" / "manifest.json").unlink()
    run = gather_run(maker.folder)
    assert (run.facts["stage_names"], run.facts["state"]) == (["measure"], "unfinished")
    html = render_report(run)
    assert "<strong>measure</strong>: begun, not complete." in html
    assert "32 of 32 answers are done and kept." in html
    assert "SECRETANSWER" not in html


def test_models_measured_beside_base_and_student_stand_in_their_benchmark(make_bench_run, kit):
    maker = make_bench_run("both", {"gsm8k": 8})
    problems = kit.secret_problems("gsm8k", 8)
    maker.measure({"gsm8k": problems}, {"other": [kit.answer_to(one, True) for one in problems]}, kit.is_right)
    _, text, payload = shown(maker)
    assert "Distillation run" in text
    assert text.count("· 8 problems") == 1
    assert payload["answers"]["names"] == ["Base", "Student", "org/other"]
    assert [len(pair["sides"]) for pair in payload["answers"]["pairs"]] == [3] * 8
    maker.folder.joinpath("measure", "manifest.json").write_text(
        json.dumps(changed_protocol(read_json(maker.folder / "measure" / "manifest.json")))
    )
    assert shown(maker)[1].count("· 8 problems") == 2  # another protocol: not in one row


def changed_protocol(manifest, **fields):
    protocol = manifest["metrics"]["benchmarks"][0]["protocol"]
    protocol |= {"temperature": 0.0, "hash": "0123456789abcdef", **fields}
    return manifest


def test_models_of_one_name_keep_their_folders_as_names(make_measured_run):
    maker = make_measured_run({"good": GOOD, "bad": BAD})
    path = maker.folder / "measure" / "manifest.json"
    manifest = read_json(path)
    for score in manifest["metrics"]["benchmarks"][0]["models"].values():
        score["model"] = "org/same"
    write_json(path, manifest)
    assert shown(maker)[2]["answers"]["names"] == ["good", "bad"]


def test_lists_show_it_without_a_student(make_measured_run, command, documented):
    maker = make_measured_run({"good": GOOD, "bad": BAD})
    (found,) = list_runs(maker.folder.parent)
    assert (found["student"], found["state"], found["score"]) == (None, "complete", None)
    story = describe_run(maker.folder)
    documented("distill runs show RUN --json", story)
    assert story["stages"][0]["result"] == "gsm8k: good 87.5%, bad 12.5%"
    code, out, _ = command("runs", "ls")
    assert (code, "measured" in out, "1 of 1" in out) == (0, True, True)
    code, out, _ = command("runs", "show", "measured")
    assert (code, "1 of 1 stages done" in out, "student" in out) == (0, True, False)
    code, out, _ = command("report", "measured", "--json")
    assert code == 0
    documented("distill report RUN --json", json.loads(out))


def test_stages_of_recipes_that_measure_are_told_from_the_recipe_alone():
    models = {"models": ["org/one"], "benchmarks": ["gsm8k"]}
    for tree in (
        {"name": "m", "eval": models},
        {"name": "m", "student": "smollm2-135m", "traces": [{"source": "file:x.jsonl"}], "eval": models},
        {"name": "m", "student": "smollm2-135m", "traces": [{"source": "file:x.jsonl"}]},
    ):
        recipe = Recipe.model_validate(tree)
        assert stages_in(recipe.model_dump(mode="json")) == recipe.stage_names


def test_two_of_them_are_compared_by_a_model_that_both_have(make_measured_run):
    one = make_measured_run({"first": BAD, "shared": GOOD}, name="a")
    other = make_measured_run({"shared": BAD, "last": GOOD}, name="b")
    first, second = gather_run(one.folder), gather_run(other.folder)
    comparison = compare_runs(first, second)
    html = render_comparison(first, second, comparison)
    scores = comparison["scores"]
    assert scores["models"] == ["org/shared in a", "org/shared in b"]
    assert [one["pass_at_1"] for one in scores["shared"]] == [0.875, 0.125]
    assert "org/shared in b solves 12.5% and org/shared in a 87.5%" in html
    assert "Two evaluations" in html
    assert 'id="funnel"' not in html


def test_a_measured_folder_that_is_called_student_is_no_trained_student(make_measured_run):
    one = make_measured_run({"student": BAD, "shared": GOOD}, name="a")
    other = make_measured_run({"shared": BAD, "student": GOOD}, name="b")
    models = [evaluated_models(gather_run(run.folder).folder, gather_run(run.folder).facts) for run in (one, other)]
    assert [model.is_student for some in models for model in some] == [False] * 4
    only = make_measured_run({"student": GOOD}, name="c")
    comparison = compare_runs(gather_run(one.folder), gather_run(only.folder))
    assert comparison["scores"]["models"] == ["org/student in a", "org/student in c"]


def test_other_protocols_end_the_command_with_two(make_measured_run, command):
    make_measured_run({"good": GOOD}, name="a")
    other = make_measured_run({"good": GOOD}, name="b")
    path = other.folder / "measure" / "manifest.json"
    write_json(path, changed_protocol(read_json(path)))
    code, out, err = command("report", "a", "b")
    assert (code, out) == (2, "")
    assert "gsm8k: the protocols differ (temperature: 0.6 and 0.0)" in err
    with pytest.raises(UserError):
        compare_runs(gather_run(other.folder.parent / "a"), gather_run(other.folder))

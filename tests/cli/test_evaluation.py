"""`distill eval` without a recipe: models on suites, stored answers again, and what is shown and kept."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from distill.engines.base import Completion
from distill.errors import StageError
from distill.exchange.inspect_import import read_inspect_log
from distill.recipe.loading import load_recipe
from distill.storage.files import read_jsonl, write_jsonl

pytestmark = pytest.mark.usefixtures("here")
JUDGE = ["--judge", "judge", "--judge-url", "http://localhost:1/v1"]
VIA = ["--via", "inspect:x", "--inspect-python", "python"]
CANARY = "CANARY-7f3c"


@pytest.fixture
def suite(tmp_path):
    """A function that writes a suite of sums of a team's own; its name on the command line."""

    def make(name="sums", num=4, first=0, rows=None, references=(), **benchmark):
        rows = rows or [
            {"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1), "id": i} for i in range(first, num)
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
        tree = {
            "title": name.title(),
            "about": "Sums.",
            "licence": "MIT",
            "follows": "nobody",
            "references": list(references),
            "benchmark": {
                "source": f"file:{name}.jsonl",
                "columns": {"problem": "question", "id": "id"},
                "template": "{problem}\nBox the answer.",
                "samples_per_problem": 2,
                "sampling": {"max_tokens": 64},
                **benchmark,
            },
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        return f"file:{name}.yaml"

    return make


@pytest.fixture
def answering(sampled_by, answering_engine, adds):
    """A function that has models answer so; the engines that were used."""

    def use(answer=adds, die_after=None):
        return sampled_by(lambda job: answering_engine(answer, die_after))

    return use


@pytest.fixture
def measured(distill, suite, model, answering):
    """A run that measured a model on `sums`: right on all but the last problem."""

    def mostly(request):
        question = request.messages[-1]["content"]
        return "So \\boxed{-1}." if "3 + 4" in question else f"Answer: {2 * int(question.split()[2]) + 1}"

    answering(mostly)
    code, _, err = distill("eval", "--model", model, "--suite", suite(), "--name", "m", "--quiet")
    assert code == 0, err
    return "m"


def written(tmp_path, name="m"):
    return yaml.safe_load((tmp_path / "runs" / name / "recipe.yaml").read_text())


# --- options


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "org/m"], "--model needs --suite or --via"),
        (["--check-harness"], "--check-harness needs --suite"),
        (["--suite", "gsm8k"], "--suite needs --model or --check-harness or --from"),
        (["--model", "org/m", "--suite", "gsm8k", "--from", "x"], "--from grades stored answers"),
        (["--check-harness", "--suite", "gsm8k", "--from", "x"], "--from grades stored answers"),
        (["--from", "x", "--retry-errors"], "samples none, so --retry-errors does not go with it"),
        (["--from", "x", "--via", "inspect:x"], "so --via does not go with it"),
        (["--as", "lighteval"], "--as needs --from"),
        (["--audit"], "--audit needs --from"),
        (["--export", "inspect:x"], "--export needs --from"),
        (["--model", "org/m", "--suite", "gsm8k", "--audit"], "--audit needs --from"),
        (["--name", "x"], "--name needs --model"),
        (["--limit", "3", "--samples", "2"], "--limit, --samples need --model"),
        (["--protocol", "r1-paper"], "--protocol needs --model"),
        (["--from", "x", "--limit", "3"], "--limit needs --model"),
        (["--from", "x", "--as", "lighteval", "--audit"], "--as shows the answers in a way of its own, so --audit"),
        (["--from", "x", "--as", "lighteval", "--export", "inspect:x"], "so --export does not go with it"),
        (["--from", "x", "--audit", "--export", "inspect:x"], "so --export does not go with it"),
        (["--from", "x", "--suite", "gsm8k", "--export", "inspect:x"], "so --suite does not go with it"),
        (["--from", "x", *JUDGE, "--export", "inspect:x"], "so --judge does not go with it"),
        (["--from", "x.jsonl", "--export", "inspect:x"], "--export goes with --from RUN; x.jsonl is a file"),
        (["--from", "x.jsonl", "--suite", "gsm8k", "--round", "a"], "--round goes with --from RUN"),
        (["--model", "org/m", "--suite", "gsm8k", "--round", "a"], "--round is of a recipe with rounds"),
        (["--check-harness", "--suite", "gsm8k", "--round", "a"], "--round is of a recipe with rounds"),
        (JUDGE, "a recipe names its own judge"),
        (["other.yaml", *JUDGE], "a recipe names its own judge"),
        (["--model", "org/m", "--suite", "simpleqa", "--judge", "j"], "--judge needs --judge-url"),
        (["--model", "org/m", "--suite", "simpleqa", "--judge-url", "u"], "--judge-url needs --judge"),
        (["--inspect-python", "python"], "--inspect-python needs --via"),
        (["--model", "org/m", "--suite", "gsm8k", "--inspect-python", "p"], "--inspect-python needs --via"),
        (["--via", "inspect:gsm8k", "--inspect-python", "python"], "--via needs --model"),
        (["--model", "org/m", "--via", "inspect:gsm8k"], "--via needs --inspect-python"),
        (["--model", "org/m", "--suite", "gsm8k", "--check-harness", *VIA], "so --suite does not go with it"),
        (["--model", "org/m", *JUDGE, *VIA], "so --judge does not go with it"),
        (["--model", "org/m", "--retry-errors", *VIA], "so --retry-errors does not go with it"),
        (["--model", "org/m", "--force", *VIA], "so --force does not go with it"),
        (["--model", "org/m", "--student", "qwen-1.5b", *VIA], "so --student does not go with it"),
        (["--from", "x", "--export", "csv:x"], "expected inspect:DIR or lighteval:DIR"),
        (["other.yaml", "--model", "org/m", "--suite", "gsm8k"], "other.yaml is one"),
        (["other.yaml", "--from", "x"], "other.yaml is one"),
        (["--from", "x", "--force"], "--force"),
    ],
)
def test_options_that_contradict_or_lack_one_another(distill, words, says):
    code, out, err = distill("eval", *words)
    assert (code, out) == (2, "")
    assert says in " ".join(err.split())


def test_an_unknown_suite_is_told_with_the_nearest_and_leaves_nothing(distill, tmp_path):
    code, _, err = distill("eval", "--model", "org/m", "--suite", "gsm8")
    assert code == 2
    assert "unknown suite 'gsm8'. Did you mean 'gsm8k'?" in err
    assert not list(tmp_path.glob("runs/*"))


# --- models on suites


def test_the_scores_are_shown_and_the_recipe_is_kept(distill, suite, model, answering, tmp_path):
    answering()
    code, out, err = distill("eval", "--model", model, "--suite", suite(), "--samples", "3", "--limit", "2")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "│ sums" in line]
    assert [cell.strip() for cell in line.split("│")][2:7] == ["model", "100.0%", "34.2% to 100.0%", "2", "3"]
    recipe = written(tmp_path, "eval-model")
    assert recipe["eval"] == {
        "models": [str(model)],
        "benchmarks": [{"suite": f"file:{tmp_path}/sums.yaml", "samples_per_problem": 3, "limit": 2}],
    }
    assert load_recipe(tmp_path / "runs/eval-model/recipe.yaml").stage_names == ["measure"]
    assert (tmp_path / "runs/eval-model/recipe.lock.yaml").is_file()


def test_models_of_one_name_do_not_share_a_run(distill, suite, model, answering, tmp_path):
    answering()
    for run in "ab":
        shutil.copytree(model, tmp_path / "runs" / run / "sft" / "student")
        assert distill("eval", "--model", f"runs/{run}/sft/student", "--suite", suite(), "--quiet")[0] == 0
        shutil.copytree(model, tmp_path / run / "model")
        assert distill("eval", "--model", f"./{run}/model", "--suite", suite(), "--quiet")[0] == 0
    names = {path.parent.name for path in tmp_path.glob("runs/*/recipe.yaml")}
    assert {"eval-a-student", "eval-b-student", "eval-model"} < names
    (other,) = names - {"eval-a-student", "eval-b-student", "eval-model"}
    assert re.fullmatch("eval-model-[0-9a-f]{8}", other)
    for run in "ba":
        assert "skipped" in distill("eval", "--model", f"./{run}/model", "--suite", suite())[2]


def test_students_of_two_runs_are_told_apart_in_whatever_order(distill, suite, model, answering, tmp_path):
    answering()
    both = [str(shutil.copytree(model, tmp_path / "runs" / run / "sft" / "student")) for run in "ab"]
    for models in (both, both[::-1]):
        words = [word for name in models for word in ("--model", name)]
        code, out, err = distill("eval", *words, "--suite", suite(), "--json")
        assert code == 0, err
        scores = json.loads(out)["measure"]["benchmarks"][0]["models"]
        assert {role: score["model"] for role, score in scores.items()} == {"a-student": both[0], "b-student": both[1]}


def test_a_second_suite_is_added_and_a_second_model_too(distill, suite, model, answering, tmp_path):
    engines = answering()
    base = ["eval", "--name", "m", "--quiet", "--model"]
    assert distill(*base, model, "--suite", suite("a"))[0] == 0
    assert distill(*base, model, "--suite", suite("b", 9, 5))[0] == 0
    assert [one["suite"] for one in written(tmp_path)["eval"]["benchmarks"]] == [
        f"file:{tmp_path}/a.yaml",
        f"file:{tmp_path}/b.yaml",
    ]
    assert [engine.num_requests for engine in engines] == [8, 8]
    other = tmp_path / "other"
    model.rename(other)
    other.rename(model)
    (tmp_path / "second").mkdir()
    for file in model.iterdir():
        (tmp_path / "second" / file.name).write_bytes(file.read_bytes())
    code, out, _ = distill(*base[:3], "--model", tmp_path / "second", "--suite", suite("a"), "--json")
    assert code == 0
    assert list(json.loads(out)["measure"]["benchmarks"][1]["models"]) == ["model", "second"]
    assert [engine.num_requests for engine in engines[2:]] == [0, 16]


def test_a_refused_call_changes_nothing_for_the_next(distill, suite, model, answering, tmp_path):
    answering()
    base = ["eval", "--name", "m", "--model", model, "--suite", suite()]
    assert distill(*base, "--quiet")[0] == 0
    before = (tmp_path / "runs/m/recipe.yaml").read_bytes()
    code, _, err = distill(*base, "--protocol", "r1-paper")
    assert code == 2
    assert "was made from something else" in err
    assert (tmp_path / "runs/m/recipe.yaml").read_bytes() == before
    code, _, err = distill(*base, "--protocol", "no-such")
    assert code == 2
    assert "recipe.yaml" not in err
    assert "eval.protocol" in err
    code, _, err = distill(*base)
    assert code == 0
    assert "done already, skipped" in err


def test_a_call_that_is_refused_first_leaves_no_folder(distill, suite, model, tmp_path):
    code, _, err = distill("eval", "--model", model, "--suite", suite(metric="short-answers", task="judge"))
    assert code == 2
    assert "set judge" in err
    assert not (tmp_path / "runs/eval-model/recipe.yaml").exists()


def test_what_a_recipe_says_stays_unless_it_is_given_again(distill, suite, model, answering, tmp_path):
    engines = answering()
    path = tmp_path / "runs" / "m" / "recipe.yaml"
    path.parent.mkdir(parents=True)
    suite("more", 9, 5, sampling={})
    section = {"models": [str(model)], "benchmarks": ["file:../../more.yaml"], "sampling": {"max_tokens": 33}}
    path.write_text(yaml.safe_dump({"name": "m", "seed": 5, "eval": section}))
    words = ["eval", "--name", "m", "--model", model, "--suite", suite(sampling={}), "--limit", "2"]
    short = ["--set", "eval.benchmarks.0.limit=3", "--set", "eval.sampling.temperature=0.5"]
    assert distill(*words, *short, "--quiet")[0] == 0
    sums = {"suite": f"file:{tmp_path}/sums.yaml", "limit": 2}
    kept = {
        "models": [str(model)],
        "benchmarks": [{"suite": f"file:{tmp_path}/more.yaml", "limit": 3}, sums],
        "sampling": {"max_tokens": 33, "temperature": 0.5},
    }
    assert (written(tmp_path)["seed"], written(tmp_path)["eval"]) == (5, kept)
    code, _, err = distill(*words[:-2])
    assert code == 0
    assert "done already, skipped" in err
    assert written(tmp_path)["eval"] == kept
    assert distill(*words[:-2], "--samples", "3", "--quiet")[0] == 0
    assert written(tmp_path)["eval"]["benchmarks"] == [kept["benchmarks"][0], {**sums, "samples_per_problem": 3}]
    assert {request.sampling.max_tokens for request in engines[0].requests} == {33}


@pytest.mark.parametrize("name", ["../esc/x", "/x", ".hidden", "x" * 97, "a b"])
def test_a_name_that_no_run_can_have_leaves_nothing(distill, suite, model, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    words = ["eval", "--model", model, "--name", name]
    for more in (["--suite", "gsm8k"], ["--via", "inspect:x", "--inspect-python", sys.executable]):
        code, _, err = distill(*words, *more)
        assert (code, "the name of a run has letters" in " ".join(err.split())) == (2, True)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_name_of_another_run_is_refused_and_the_run_stays(distill, suite, model, generated, tmp_path):
    runs = tmp_path / "runs" / "small"
    (runs / "summary.json").write_text("{}")
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    words = ["eval", "--model", model, "--suite", suite(), "--name", "small"]
    code, _, err = distill(*words)
    assert (code, "a run of another kind, whose summary" in " ".join(err.split())) == (2, True)
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    shutil.copy(generated, runs / "recipe.yaml")
    code, _, err = distill(*words)
    assert (code, "a run of another kind" in err) == (2, True)
    assert (runs / "recipe.yaml").read_text() == generated.read_text()


def test_a_run_is_named_by_name_alone(distill, suite, model, tmp_path):
    code, _, err = distill("eval", "--model", model, "--suite", suite(), "--set", "name=other")
    assert (code, "Write --name other" in err) == (2, True)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_killed_call_resumes(distill, suite, model, answering, tmp_path):
    words = ["eval", "--name", "m", "--model", model, "--suite", suite()]
    answering(die_after=4)
    assert distill(*words)[0] == 130
    recipe = written(tmp_path)
    shown = json.loads(distill("runs", "show", "m", "--json")[1])
    assert [one["stage"] for one in shown["stages"]] == ["measure"]
    assert shown["next_command"] == "distill eval runs/m/recipe.yaml"
    engines = answering()
    code, out, _ = distill(*shown["next_command"].split()[1:])
    assert code == 0
    assert "100.0%" in out
    assert 0 < engines[0].num_requests < 8
    assert written(tmp_path) == recipe


def test_the_json_is_the_summary(distill, suite, model, answering, documented):
    answering()
    code, out, _ = distill("eval", "--model", model, "--suite", suite(), "--json")
    assert code == 0
    summary = json.loads(out)
    documented("distill eval --json", summary)
    assert summary["measure"]["benchmarks"][0]["models"]["model"]["pass_at_1"] == 1.0


def test_overrides_reach_the_recipe(distill, suite, model, answering):
    engines = answering()
    words = ["--model", model, "--suite", suite(sampling={}), "--set", "eval.sampling.max_tokens=31", "--quiet"]
    assert distill("eval", *words)[0] == 0
    assert {request.sampling.max_tokens for request in engines[0].requests} == {31}


def test_an_incomplete_score_is_marked_with_its_bounds(distill, suite, model, answering):
    def failing(request):
        if request.key[1]:
            return Completion(request.key, "", "error", 1, 0, error="out of order")
        return "\\boxed{1}"

    answering(failing)
    code, out, _ = distill("eval", "--model", model, "--suite", suite())
    assert code == 0
    assert "25.0% (incomplete)" in out
    assert "4 samples missing or failed; the score is between 12.5% and 62.5%" in " ".join(out.split())


def test_a_judge_is_named_on_the_command_line(distill, suite, model, answering, judged_by, tmp_path):
    answering(lambda request: "It was me.")
    engine = judged_by(lambda request: "VERDICT: CORRECT")
    facts = suite(metric="short-answers", task="judge")
    code, out, err = distill("eval", "--model", model, "--suite", facts, *JUDGE)
    assert code == 0, err
    assert engine.num_requests == 8
    assert "f score 100.0%" in " ".join(out.split())
    assert written(tmp_path, "eval-model")["eval"]["judge"] == {
        "model": "judge",
        "compute": {"base_urls": ["http://localhost:1/v1"]},
    }
    assert distill("eval", "--model", model, "--suite", suite("more"), "--quiet")[0] == 0
    assert written(tmp_path, "eval-model")["eval"]["judge"]["model"] == "judge"


# --- the harness itself


def published(*models, score=100.0):
    return [{"model": str(model), "score": score, "source": "a table"} for model in models]


@pytest.mark.parametrize(
    ("num", "score", "more", "code", "says"),
    [
        (30, 100.0, [], 0, ": inside"),
        (30, 10.0, [], 2, "the published score does not come out for sums"),
        (3, 100.0, [], 2, "the published score cannot be compared for sums"),
        (30, 100.0, ["--limit", "29"], 2, "only some of the suite's problems were measured"),
    ],
)
def test_the_published_score_of_a_reference_comes_out_or_not(
    distill, suite, model, answering, num, score, more, code, says
):
    answering()
    sums = suite(num=num, references=published(model, score=score))
    found, out, err = distill("eval", "--suite", sums, "--check-harness", *more)
    assert found == code
    assert says in " ".join((out + err).split())
    assert "100.0%" in out


def test_each_reference_model_is_measured_on_its_own_suites_alone(
    distill, suite, model, answering, documented, tmp_path
):
    answering()
    other = shutil.copytree(model, tmp_path / "other")
    both = suite("a", 30, references=published(model)), suite("b", 60, 30, None, published(other))
    suites = ["--suite", both[0], "--suite", both[1]]
    code, out, err = distill("eval", *suites, "--check-harness", "--json")
    assert code == 0, err
    found = json.loads(out)
    documented("distill eval --check-harness --json", found)
    checks = [(one["benchmark"], one["model"], one["outcome"]) for one in found["checks"]]
    assert checks == [("a", str(model), "inside"), ("b", str(other), "inside")]
    for name, alone in (("model", "a"), ("other", "b")):
        assert [one["suite"] for one in written(tmp_path, f"eval-{name}")["eval"]["benchmarks"]] == [
            f"file:{tmp_path}/{alone}.yaml"
        ]
    code, _, err = distill("eval", *suites, "--check-harness", "--name", "both", "--quiet")
    assert {path.name for path in tmp_path.glob("runs/both*")} == {"both-model", "both-other"}


def test_a_suite_or_a_model_without_a_published_score_is_refused_first(distill, suite, model, tmp_path):
    code, _, err = distill("eval", "--suite", suite(), "--check-harness")
    assert (code, "names no reference model" in err) == (2, True)
    references = [{"model": "org/r", "score": 50.0, "source": "a table"}]
    code, _, err = distill("eval", "--model", model, "--suite", suite(references=references), "--check-harness")
    assert code == 2
    assert "Known are those of org/r" in " ".join(err.split())
    code, _, err = distill(
        "eval", "--model", model, "--model", "org/r", "--suite", suite(references=references), "--check-harness"
    )
    assert code == 2
    assert f"{model}: no published score on file:sums.yaml is known of it" in " ".join(err.split())
    assert not (tmp_path / "runs").exists()


# --- stored answers


def test_a_finished_run_is_scored_again(distill, measured, documented, tmp_path):
    code, out, _ = distill("eval", "--from", measured)
    assert code == 0
    assert "75.0%" in out
    code, out, _ = distill("eval", "--from", measured, "--json")
    scores = json.loads(out)
    documented("distill eval --from SOURCE --json", scores)
    recorded = json.loads((tmp_path / "runs/m/measure/manifest.json").read_text())["metrics"]["benchmarks"][0]
    assert scores["benchmarks"][0]["protocol"] == recorded["protocol"]
    (score,) = scores["benchmarks"][0]["models"].values()
    assert (score["pass_at_1"], score["num_missing"]) == (0.75, 0)


def test_an_unfinished_run_is_scored_by_what_is_there(distill, suite, model, answering):
    answering(die_after=4)
    assert distill("eval", "--name", "m", "--model", model, "--suite", suite())[0] == 130
    code, out, _ = distill("eval", "--from", "m", "--json")
    assert code == 0
    (score,) = json.loads(out)["benchmarks"][0]["models"].values()
    assert (score["pass_at_1"], score["num_missing"] > 0) == (1.0, True)
    assert score["bounds"][0] < 1.0 == score["bounds"][1]
    assert "(incomplete)" in distill("eval", "--from", "m")[1]


def test_what_does_not_go_with_a_run(distill, measured, suite):
    for more, says in (
        (["--suite", suite()], "--suite goes with --from FILE"),
        (JUDGE, "--judge goes with --from FILE"),
    ):
        code, _, err = distill("eval", "--from", measured, *more)
        assert (code, says in err) == (2, True)
    code, _, err = distill("eval", "--from", "n")
    assert code == 2
    assert "There are: m." in err
    code, _, err = distill("eval", "--from", measured, "--round", "x")
    assert (code, "has no evaluation of such a round. Leave --round out." in " ".join(err.split())) == (2, True)


def test_of_several_rounds_the_last_is_scored_or_the_one_that_is_named(distill, measured, tmp_path):
    run = tmp_path / "runs" / "m"
    (run / "a").mkdir()
    (run / "measure").rename(run / "a" / "measure")
    (run / "a" / "summary.json").write_bytes((run / "summary.json").read_bytes())
    shutil.copytree(run / "a", run / "z")
    shutil.copytree(run / "a", run / "left-over")
    (run / "a" / "measure" / "model" / "ledger.jsonl").unlink()
    (run / "summary.json").write_text(json.dumps({"rounds": {"left-over": {}, "z": {}, "a": {}}}))
    for words in (["m", "--round", "z"], ["runs/m/z/measure"], ["runs/m/z"]):
        code, out, err = distill("eval", "--from", *words)
        assert (code, "75.0%" in out, "round" in err) == (0, True, False)
    code, _, err = distill("eval", "--from", "m")
    assert (code, "runs/m/a/measure: no answer is stored there" in err) == (2, True)
    assert "The evaluation of round a, the last of left-over, z, a" in err
    code, _, err = distill("eval", "--from", "m", "--round", "b")
    assert (code, "There are evaluations of: left-over, z, a." in " ".join(err.split())) == (2, True)


def test_a_run_with_two_evaluations_is_asked_back(distill, measured, tmp_path):
    shutil.copytree(tmp_path / "runs/m/measure", tmp_path / "runs/m/eval")
    code, _, err = distill("eval", "--from", "m")
    assert (code, "Name one: --from runs/m/eval or --from runs/m/measure" in " ".join(err.split())) == (2, True)
    for name in ("runs/m/measure", "m/measure/"):
        code, out, err = distill("eval", "--from", name)
        assert (code, "75.0%" in out) == (0, True), err


def test_a_file_of_answers_is_scored(distill, suite, tmp_path):
    write_jsonl(tmp_path / "theirs.jsonl", [{"id": i, "responses": [str(2 * i + 1), "-1"]} for i in range(4)])
    code, out, err = distill("eval", "--from", "theirs.jsonl", "--suite", suite(), "--json")
    assert code == 0, err
    (one,) = json.loads(out)["benchmarks"]
    assert one["models"]["theirs"]["pass_at_1"] == 0.5
    assert one["protocol"]["samples_per_problem"] == 2
    assert not list(tmp_path.glob("runs/*"))


def test_a_file_of_other_answers_or_without_a_suite_is_refused(distill, suite, tmp_path):
    write_jsonl(tmp_path / "theirs.jsonl", [{"question": f"Unheard of {i}?", "response": "1"} for i in range(4)])
    code, out, err = distill("eval", "--from", "theirs.jsonl", "--suite", suite())
    assert (code, out) == (2, "")
    assert "4 of 4 rows answer no question of sums" in err
    code, _, err = distill("eval", "--from", "theirs.jsonl")
    assert (code, "needs --suite" in err) == (2, True)
    code, _, err = distill("eval", "--from", "gone.jsonl", "--suite", suite())
    assert (code, "gone.jsonl" in err) == (2, True)


def test_a_judge_for_a_file_of_answers(distill, suite, judged_by, tmp_path):
    write_jsonl(tmp_path / "theirs.jsonl", [{"id": i, "response": f"It was {i}."} for i in range(4)])
    facts = suite(metric="short-answers", task="judge")
    code, _, err = distill("eval", "--from", "theirs.jsonl", "--suite", facts)
    assert (code, "set judge" in err, "distill-eval-" in err) == (2, True, False)
    judged_by(lambda request: "VERDICT: INCORRECT")
    code, out, err = distill("eval", "--from", "theirs.jsonl", "--suite", facts, *JUDGE)
    assert code == 0, err
    assert "incorrect 100.0%" in out


@pytest.mark.parametrize("harness", ["lighteval", "simple-evals", "evalchemy", "nemo-skills"])
def test_the_same_answers_by_the_rules_of_others(distill, measured, documented, harness):
    code, out, _ = distill("eval", "--from", measured, "--as", harness)
    assert code == 0
    assert "8 of 8 answers graded by both" in out or "answers graded by both" in out
    assert f"by the rules of {harness}" in out
    code, out, _ = distill("eval", "--from", measured, "--as", harness, "--json")
    found = json.loads(out)
    documented("distill eval --from SOURCE --as HARNESS --json", found)
    gap = found["benchmarks"][0]["gap"]
    assert gap["ours"] == 75.0
    assert gap["extraction"]["points"] + gap["comparison"]["points"] == pytest.approx(gap["theirs"] - gap["ours"])


def test_a_harness_that_nobody_knows(distill, measured):
    code, _, err = distill("eval", "--from", measured, "--as", "heavyeval")
    assert code == 2
    assert "There are lighteval, simple-evals, evalchemy, nemo-skills" in " ".join(err.split())


def test_the_answers_on_which_extractors_disagree_are_listed(distill, measured, documented):
    code, out, _ = distill("eval", "--from", measured, "--audit")
    assert code == 0
    assert "of 8 answers disputed" in out
    assert "score 75.0%; if all disputes went one way or the other" in out
    found = json.loads(distill("eval", "--from", measured, "--audit", "--json")[1])
    documented("distill eval --from SOURCE --audit --json", found)
    (one,) = found["benchmarks"]
    assert (one["num_answers"], one["num_right"]) == (8, 6)
    assert one["low"] <= 0.75 <= one["high"]


def test_a_judge_is_asked_about_what_rules_graded_only_if_it_is_named(distill, measured, judged_by):
    engine = judged_by(lambda request: "VERDICT: CORRECT")
    assert distill("eval", "--from", measured, "--audit")[0] == 0
    assert engine.num_requests == 0
    code, out, err = distill("eval", "--from", measured, "--audit", *JUDGE)
    assert code == 0, err
    assert engine.num_requests == 8
    assert "2 by judge" in out
    assert "right: the judge" in out
    code, _, err = distill("eval", "--from", measured, "--audit", "--judge", "m", "--judge-url", "nowhere")
    assert (code, "--judge-url nowhere: expected an address" in err) == (2, True)
    code, _, err = distill("eval", "--from", measured, *JUDGE)
    assert (code, "--judge goes with --from FILE" in err) == (2, True)


# --- texts that must not spread


@pytest.fixture
def secret(distill, suite, model, answering):
    """A run on a benchmark with a canary, whose question, options and answers all hold it."""
    rows = [
        {"question": f"Which {CANARY} is {i}?", "answer": f"{CANARY} {i}", "id": i, "options": [f"{CANARY} {i}", "no"]}
        for i in range(3)
    ]
    answering(lambda request: f"Thinking of {CANARY}.\nAnswer: B\nAnswer: A\nThe answer is {CANARY} 9.")
    gated = suite("gated", rows=rows, task="choice", canary=True, template="{problem}\n{options}")
    code, out, err = distill("eval", "--model", model, "--suite", gated, "--name", "m")
    assert code == 0, err
    assert CANARY not in out + err
    return "m"


@pytest.mark.parametrize("more", [[], ["--audit"], ["--as", "lighteval"], ["--as", "nemo-skills"]])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_the_text_of_a_benchmark_with_a_canary_is_never_printed(distill, secret, more, as_json):
    code, out, err = distill("eval", "--from", secret, *more, *as_json)
    assert code == 0
    assert out
    assert CANARY not in out + err


def test_nor_is_it_in_the_report_the_summary_and_the_lock(distill, secret, tmp_path):
    for name in ("report.html", "summary.json", "recipe.lock.yaml", "measure/manifest.json"):
        assert CANARY not in (tmp_path / "runs/m" / name).read_text(), name
    for words in (["runs", "show", "m"], ["report", "m", "--json"]):
        assert CANARY not in distill(*words)[1]


def content_of(file):
    return str(pq.read_table(file).to_pylist()) if file.suffix == ".parquet" else file.read_text()


@pytest.mark.parametrize("kind", ["inspect", "lighteval"])
def test_nor_is_it_exported(distill, secret, tmp_path, documented, kind):
    code, out, _ = distill("eval", "--from", secret, "--export", f"{kind}:{tmp_path}/out", "--json")
    assert code == 0
    found = json.loads(out)
    documented("distill eval --from RUN --export FORMAT:DIR --json", found)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {str(path) for path in files} == set(found["files"])
    assert not [path.name for path in files if CANARY in content_of(path)]


def test_other_benchmarks_are_exported_whole(distill, measured, tmp_path):
    code, out, err = distill("eval", "--from", measured, "--export", f"inspect:{tmp_path}/out")
    assert code == 0
    (log,) = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert str(log) in out
    assert "inspect view" in err
    assert "What is 3 + 4?" in content_of(log)
    metrics = json.loads(log.read_text())["results"]["scores"][0]["metrics"]
    assert metrics["distill_pass_at_1"]["value"] == 0.75
    code, _, err = distill("eval", "--from", measured, "--export", "inspect")
    assert (code, "expected a folder, inspect:DIR" in err) == (2, True)


# --- a task of inspect-evals


@pytest.fixture
def via(monkeypatch):
    """A function that has tasks of another harness end with logs, a model each; what was asked for."""

    def use(*logs):
        asked, waiting = [], list(logs)
        monkeypatch.setattr("distill.exchange.model_server.serve_model", lambda model, name, *rest: name)

        def run_inspect_task(run, server, folder):
            asked.append((run, server, folder))
            if not waiting:
                raise StageError("the server died")
            return waiting.pop(0)

        monkeypatch.setattr("distill.exchange.inspect_task.run_inspect_task", run_inspect_task)
        return asked

    return use


@pytest.fixture
def log():
    """The log of a task: of two problems with two samples each, one is right."""
    return read_inspect_log(Path(__file__).parents[1] / "exchange" / "golden" / "sums.json")


def via_words(*models):
    words = [word for model in models for word in ("--model", model)]
    return ["eval", *words, "--via", "inspect:inspect_evals/gsm8k", "--inspect-python", sys.executable]


def test_a_task_of_another_harness_shows_its_own_scores_and_ours(distill, model, via, log, documented, tmp_path):
    asked = via(log, log)
    code, out, err = distill(*via_words(model), "--limit", "3", "--samples", "2", "--name", "m")
    assert code == 0, err
    assert f"{model}, sums by match: match/accuracy 0.500" in out
    assert "right: 50.0% (95% interval 8.3% to 91.7%)" in out
    assert "2 problems; the log is in runs/m/inspect/model/logs" in out
    ((run, server, folder),) = asked
    assert folder == Path("runs/m/inspect/model")
    assert (run.limit, run.samples_per_problem, server) == (3, 2, "model")
    assert (run.temperature, run.top_p, run.max_tokens) == (None, None, None)
    found = json.loads(distill(*via_words(model), "--json")[1])
    documented("distill eval --via inspect:TASK --json", found)
    assert found["models"][0]["pass_at_1"] == 0.5


def test_each_model_is_shown_as_it_ends_and_what_is_incomplete_always(distill, model, via, log, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    via(replace(log, why_incomplete="status cancelled: of 9 samples, 5 are missing and 0 failed."))
    code, out, err = distill(*via_words(model, other))
    assert code != 0
    assert "the server died" in err
    assert f"{model}, sums by match: match/accuracy 0.500" in out
    assert "incomplete: status cancelled: of 9 samples, 5 are missing" in out


def test_the_sampling_of_such_a_task_can_be_set(distill, model, via, log):
    asked = via(log, log)
    paper = ["--protocol", "r1-paper", "--set", "eval.sampling.max_tokens=99"]
    assert distill(*via_words(model), *paper)[0] == 0
    assert (asked[0][0].temperature, asked[0][0].top_p, asked[0][0].max_tokens) == (0.6, 0.95, 99)
    for more, says in (
        (["--set", "eval.sampling.temperature=hot"], "eval.sampling.temperature"),
        (["--set", "eval.sampling.top_k=3"], "with --via only eval.sampling can be set"),
        (["--set", "seed=3"], "--set seed: with --via only"),
        (["--protocol", "no-such"], "there is only r1-paper"),
    ):
        code, _, err = distill(*via_words(model), *more)
        assert (code, says in " ".join(err.split())) == (2, True)
    assert len(asked) == 1


# --- other commands on a run that only measures


def test_plan_doctor_runs_report_and_run_know_such_a_recipe(distill, measured, tmp_path):
    recipe = tmp_path / "runs/m/recipe.yaml"
    plan = json.loads(distill("plan", recipe, "--json")[1])
    assert {name: one["state"] for name, one in plan["stages"].items()} == {"measure": "done"}
    plan = json.loads(distill("plan", recipe, "--set", "name=new", "--json")[1])
    assert plan["stages"]["measure"]["whole"]["tokens"]["low"] > 0
    assert plan["stages"]["measure"]["state"] == "new"
    more = json.loads(distill("plan", recipe, "--set", "eval.benchmarks.0.samples_per_problem=9", "--json")[1])
    assert more["stages"]["measure"]["state"] == "partly"
    code, out, _ = distill("doctor", recipe)
    assert "sums" in out
    assert code == 0
    (run,) = json.loads(distill("runs", "ls", "--json")[1])["runs"]
    assert (run["state"], run["stages"]) == ("complete", [{"stage": "measure", "state": "complete"}])
    shown = json.loads(distill("runs", "show", "m", "--json")[1])
    assert shown["stages"][0]["result"] == "sums: model 75.0%"
    assert shown["next_command"] is None
    report = json.loads(distill("report", "m", "--json")[1])
    assert report["runs"][0]["stage_names"] == ["measure"]
    code, _, err = distill("run", recipe)
    assert code == 0
    assert "done already, skipped" in err
    code, out, err = distill("recipes", "diff", recipe, "m")
    assert code == 0, err
    for stage in ("generate", "filter", "sft"):
        code, _, err = distill(stage, recipe)
        assert code == 2, stage
        assert "Traceback" not in err


def test_a_run_is_repeated_from_its_lock(distill, measured, answering, tmp_path):
    lock = yaml.safe_load((tmp_path / "runs/m/recipe.lock.yaml").read_text())
    (used,) = lock["models"]["measured"]
    identity = json.loads((tmp_path / "runs/m/measure/identity.json").read_text())
    assert identity["models"]["model"].endswith(f"{used['name']}@{used['revision']}")
    assert lock["stages"]["measure"]["results"]["benchmarks"]["sums"]["model"]["pass_at_1"] == 0.75
    answering()
    code, out, err = distill("run", "runs/m/recipe.lock.yaml")
    assert code == 0, err
    assert "Compared with m, the run that the lock records" in out
    assert "0.75" in out or "75.0%" in out
    assert len(read_jsonl(tmp_path / "runs/m-repeat/measure/model/verdicts.jsonl")) == 8


def test_damaged_results_name_the_command_that_exists(distill, measured, tmp_path):
    (tmp_path / "runs/m/measure/manifest.json").write_text('{"stage": "measure"}')
    code, _, err = distill("eval", "runs/m/recipe.yaml")
    assert code == 2
    assert "distill measure" not in err
    assert "distill eval" in err

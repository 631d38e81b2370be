"""Suites: a short file each, read into a recipe, replaced key by key, and whole in a lock."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from distill.errors import RecipeError
from distill.recipe.eval import EvalConfig
from distill.recipe.loading import load_recipe, read_recipe
from distill.recipe.model import Recipe
from distill.recipe.suites import FOLDER, load_suite, suite_names, suite_tree

JUDGE = {"model": "org/judge", "compute": {"base_urls": ["http://localhost:8000/v1"]}}
SHIPPED = ["aime24", "aime25", "alpaca-eval-2", "arena-hard-0.1", "codeforces", "gpqa-diamond", "gsm8k", "humaneval",
           "ifeval", "livecodebench", "math-500", "mbpp", "mmlu", "mmlu-pro", "simpleqa"]  # fmt: skip
JUDGED = {"alpaca-eval-2", "arena-hard-0.1", "simpleqa"}
OWN = """\
title: Ours
about: Two sums.
licence: CC0-1.0
follows: nobody
benchmark:
  source: file:rows.jsonl
  task: numeric
  samples_per_problem: 2
  sampling: {temperature: 0.7}
  columns: {metadata: {group: kind}}
"""


def evaluation(*benchmarks, **keys):
    return EvalConfig.model_validate({"benchmarks": list(benchmarks), **keys})


def refusal(*benchmarks, **keys):
    with pytest.raises(ValidationError) as caught:
        evaluation(*benchmarks, **keys)
    return str(caught.value)


def recipe_tree(*benchmarks, **keys):
    return {
        "name": "small",
        "student": "org/student",
        "problems": [{"source": "gym:chain_sum", "limit": 5}],
        "generate": {"teacher": "org/teacher"},
        "eval": {"benchmarks": list(benchmarks), "judge": JUDGE, **keys},
    }


@pytest.fixture
def own(tmp_path):
    """A team's own suite, with its rows beside it."""
    folder = tmp_path / "team"
    folder.mkdir()
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1), "kind": "sums"} for i in range(2)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "ours.yaml").write_text(OWN)
    return folder / "ours.yaml"


# --- those that come with distill


def test_the_suites_are_those_of_the_paper_and_a_few_more():
    assert suite_names() == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_suite_is_short_whole_and_pinned(name):
    suite = load_suite(name)
    text = (FOLDER / f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 45
    assert all((suite.title, suite.about, suite.licence, suite.follows, suite.comparable_with))
    assert len(suite.benchmark.revision) == 40
    assert suite.benchmark.samples_per_problem >= 1
    assert suite.benchmark.is_judged == (suite.judge is not None) == (name in JUDGED)
    assert all(reference.source.startswith("arXiv:2") for reference in suite.references)
    papers = [one for one in suite.references if one.model.startswith("deepseek-ai/")]
    assert all("arXiv:2501.12948, table" in reference.source for reference in papers)
    assert set(yaml.safe_load(text)["benchmark"]) <= set(type(suite.benchmark).model_fields)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_suite_is_used_as_it_is_written(name):
    (found,) = evaluation(name, judge=JUDGE).benchmarks
    assert found.suite == name
    assert found.model_copy(update={"suite": None}) == load_suite(name).benchmark


def test_only_the_gated_suite_is_one_whose_text_is_not_spread():
    about = {name: load_suite(name) for name in SHIPPED}
    assert [name for name, suite in about.items() if suite.gated] == ["gpqa-diamond"]
    assert [name for name, suite in about.items() if suite.benchmark.canary] == ["gpqa-diamond"]


def test_the_paper_samples_livecodebench_16_times_at_its_temperature():
    config = evaluation("livecodebench", "codeforces", protocol="r1-paper")
    live, contests = config.benchmarks
    assert (config.k_of(live), config.k_of(contests)) == (16, 8)
    assert {config.sampling_of(one).temperature for one in config.benchmarks} == {0.6}
    assert (str(live.window.first), str(live.window.last)) == ("2024-08-01", "2025-01-31")
    assert {one.model.rpartition("/")[2]: one.score for one in load_suite("livecodebench").references}[
        "DeepSeek-R1"
    ] == 65.9
    assert {(one.figure, one.score) for one in load_suite("codeforces").references} >= {("rating", 2029)}


def test_a_rating_needs_to_know_the_contest_and_the_letter_of_each_problem(tmp_path):
    (found,) = evaluation({"suite": "codeforces", "contests": f"file:{tmp_path}/rounds.jsonl"}).benchmarks
    assert found.contests == f"file:{tmp_path}/rounds.jsonl"
    assert "set columns.metadata" in refusal({"source": "file:x.jsonl", "task": "code", "contests": "file:r.jsonl"})
    assert "contests" in refusal({"suite": "codeforces", "contests": "rounds.jsonl"})


def test_samples_differ_by_benchmark():
    config = evaluation("aime24", "math-500", "gpqa-diamond", {"source": "gym:chain_sum"}, samples_per_problem=3)
    assert [config.k_of(one) for one in config.benchmarks] == [64, 4, 8, 3]


# --- how a suite is named and changed


def test_an_unknown_suite_gets_a_suggestion():
    said = refusal("aime-24")
    assert "unknown suite 'aime-24'. Did you mean 'aime24'?" in said
    assert "gym:TASK and file:path" in said
    assert all(name in said for name in SHIPPED)
    with pytest.raises(RecipeError, match="unknown suite"):
        load_suite("../suites/aime24")


def test_keys_beside_a_suite_replace_the_suites():
    entry = {"suite": "gpqa-diamond", "samples_per_problem": 4, "sampling": {"top_p": 1.0}, "columns": {"id": None}}
    (found,) = evaluation(entry).benchmarks
    there = load_suite("gpqa-diamond").benchmark
    assert (found.samples_per_problem, found.sampling.top_p, found.sampling.temperature) == (4, 1.0, 0.6)
    assert (found.columns.id, found.columns.options) == (None, there.columns.options)
    assert load_suite("gpqa-diamond").benchmark.samples_per_problem == 8


def test_another_copy_of_the_problems_has_no_place_on_the_hub():
    (found,) = evaluation({"suite": "gpqa-diamond", "source": "file:/data/gpqa.csv"}).benchmarks
    assert (found.source, found.file, found.revision, found.config) == ("file:/data/gpqa.csv", None, None, None)
    assert (found.shuffle_options, found.canary, found.samples_per_problem) == (True, True, 8)


def test_a_gym_task_is_a_suite():
    (found,) = evaluation({"suite": "gym:chain_sum", "limit": 7}).benchmarks
    assert (found.source, found.limit, found.suite) == ("gym:chain_sum", 7, "gym:chain_sum")


def test_the_papers_protocol_sets_sampling_for_all_and_leaves_each_its_k():
    config = evaluation(
        "aime24", "mmlu", {"source": "gym:chain_sum"}, protocol="r1-paper", sampling={"max_tokens": 512}
    )
    for benchmark in config.benchmarks:
        sampling = config.sampling_of(benchmark)
        assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (0.6, 0.95, 0, 32_768)
    assert [config.k_of(one) for one in config.benchmarks] == [64, 1, 4]


def test_an_entrys_own_sampling_beats_the_protocols():
    entry = {"suite": "mmlu", "sampling": {"temperature": 0.0}}
    config = evaluation(entry, "aime24", protocol="r1-paper")
    sampling = config.sampling_of(config.benchmarks[0])
    assert (sampling.temperature, sampling.max_tokens) == (0.0, 32_768)
    assert [config.named_protocol(one) for one in config.benchmarks] == [None, "r1-paper"]


def test_the_papers_protocol_holds_for_held_out_problems_unless_the_sampling_says_otherwise():
    config = EvalConfig.model_validate({"held_out": 1, "protocol": "r1-paper"})
    sampling = config.sampling_of(None)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (0.6, 0.95, 0, 32_768)
    assert config.named_protocol(None) == "r1-paper"
    assert EvalConfig.model_validate(config.model_dump(mode="json")) == config
    own = EvalConfig.model_validate({"held_out": 1, "protocol": "r1-paper", "sampling": {"max_tokens": 512}})
    assert (own.sampling_of(None).temperature, own.sampling_of(None).max_tokens) == (0.6, 512)
    assert own.named_protocol(None) is None


def test_greedy_sampling_of_several_answers_is_refused_with_the_suites_name():
    said = refusal({"suite": "math-500", "sampling": {"temperature": 0}})
    assert "math-500: sampling.temperature 0 gives the same answer every time, and 4 samples" in said
    assert evaluation({"suite": "math-500", "sampling": {"temperature": 0}, "samples_per_problem": 1})


@pytest.mark.parametrize("name", sorted(JUDGED))
def test_a_judged_suite_needs_a_judge(name):
    assert f"{name}: a judge decides the score: set judge" in refusal(name)
    assert evaluation(name, judge=JUDGE).benchmarks[0].is_judged


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"source": "/etc/passwd"}, "pattern"),
        ({"source": "gym:chain_sum"}, "pattern"),
        ({"file": "../../secret.jsonl"}, "pattern"),
        ({"revision": "../x"}, "pattern"),
    ],
)
def test_a_baseline_is_a_dataset_or_a_file(keys, said):
    entry = {"suite": "arena-hard-0.1", "baseline": keys}
    assert said in refusal(entry, judge=JUDGE)


FACTS = {"source": "file:rows.jsonl", "task": "judge", "metric": "short-answers"}
GAMES = FACTS | {"metric": "win-rate", "baseline": {"source": "file:base.jsonl", "name": "base"}}
GRADES = {"A": "correct", "B": "incorrect", "C": "not_attempted"}
WORDED = FACTS | {"judge_template": "file:x.txt"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"source": "file:a.jsonl", "task": "judge"}, "set metric to short-answers or win-rate or arena"),
        ({"source": "file:a.jsonl", "task": "instructions"}, "set metric to instructions"),
        ({"source": "file:a.jsonl", "metric": "instructions"}, "metric: instructions needs task: instructions"),
        ({"source": "file:a.jsonl", "task": "math", "metric": "instructions"}, "needs task: instructions, not math"),
        ({"suite": "math-500", "metric": "win-rate"}, "metric: win-rate needs task: judge, not math"),
        ({"suite": "math-500", "style_control": True}, "style_control corrects the score of metric: arena"),
        ({"suite": "alpaca-eval-2", "show": ["cons@1"]}, "no pass@k: remove show"),
        ({"suite": "arena-hard-0.1", "show": ["pass@1"]}, "no pass@k: remove show"),
        ({"suite": "ifeval", "show": ["pass@1", "cons@1"]}, "cons@1: answers of metric: instructions are texts"),
        ({"suite": "math-500", "judge_template": "file:x.txt"}, "asks no judge: remove judge_template"),
        ({"suite": "math-500", "adaptive": {"width": 0.1, "min_samples": 5}}, "min_samples 5 is more than the 4"),
        ({"suite": "gsm8k", "adaptive": {"width": 0.1}}, "min_samples 4 is more than the 1 sample of"),
        (FACTS | {"judge_labels": GRADES}, "set judge_template"),
        (WORDED | {"judge_labels": {"A": "correct"}}, "needs words for correct and incorrect"),
        (WORDED | {"judge_labels": GRADES | {"D": "first"}}, "may have some for not_attempted"),
        (WORDED | {"judge_labels": GRADES | {"A.": "correct"}}, "'A.' must be one line"),
        (GAMES | {"judge_template": "file:x", "judge_labels": GRADES}, "needs words for first and second"),
        (GAMES | {"metric": "arena", "judge_template": "file:x", "judge_labels": GRADES}, "remove judge_labels"),
    ],
)  # fmt: skip
def test_task_metric_and_figures_that_do_not_fit_are_refused_with_what_to_do(entry, said):
    assert said in refusal(entry, judge=JUDGE)


def test_figures_that_fit_are_taken():
    (found,) = evaluation({"suite": "ifeval", "samples_per_problem": 2, "show": ["pass@2"]}).benchmarks
    assert found.show == ("pass@2",)
    assert evaluation(WORDED | {"judge_labels": GRADES}, judge=JUDGE).benchmarks[0].judge_labels == GRADES
    assert evaluation({"suite": "gsm8k", "adaptive": {"width": 0.1, "min_samples": 1}})


# --- a team's own


def test_a_teams_own_suite_reads_the_file_beside_it(own):
    (found,) = evaluation(f"file:{own}").benchmarks
    assert found.source == f"file:{own.parent / 'rows.jsonl'}"
    assert (found.task, found.columns.metadata) == ("numeric", {"group": "kind"})


def test_a_recipe_names_a_suite_relative_to_itself(own, monkeypatch, tmp_path):
    recipe = own.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_tree("file:ours.yaml", {"suite": "file:ours.yaml", "limit": 1})))
    monkeypatch.chdir(tmp_path)
    found = load_recipe(recipe).eval.benchmarks
    assert [one.suite for one in found] == [f"file:{own}"] * 2
    assert {one.source for one in found} == {f"file:{own.parent / 'rows.jsonl'}"}


def test_a_recipe_names_a_baseline_and_a_wording_relative_to_itself(own, monkeypatch, tmp_path):
    keys = {"baseline": {"source": "file:base.jsonl", "name": "base"}, "judge_template": "file:judge.txt"}
    keys |= {"contests": "file:rounds.jsonl", "columns": {"metadata": {"contest": "c", "index": "i"}}}
    entry = {"source": "file:rows.jsonl", "task": "judge", "metric": "arena", **keys}
    recipe = own.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_tree(entry)))
    monkeypatch.chdir(tmp_path)
    (found,) = load_recipe(recipe).eval.benchmarks
    assert found.baseline.source == f"file:{own.parent / 'base.jsonl'}"
    assert found.judge_template == f"file:{own.parent / 'judge.txt'}"
    assert found.contests == f"file:{own.parent / 'rounds.jsonl'}"


@pytest.mark.parametrize("value", ["file:../secret.jsonl", "file:/etc/passwd", "file:link.jsonl"])
@pytest.mark.parametrize("at", ["source", "baseline", "judge_template", "contests"])
def test_a_source_outside_the_suites_folder_is_refused(own, value, at, tmp_path):
    (tmp_path / "secret.jsonl").write_text("{}\n")
    (own.parent / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    tree = yaml.safe_load(OWN)
    tree["benchmark"] |= {at: {"source": value, "name": "base"} if at == "baseline" else value}
    own.write_text(yaml.safe_dump(tree))
    said = refusal(f"file:{own}")
    assert "outside the suite's folder" in said
    assert "Move the file there" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN + "suprise: 1\n", "suprise"),
        (OWN.replace("title: Ours\n", ""), "title"),
        (OWN.replace("numeric", "maths"), "benchmark.task"),
        ("- 1\n", "mapping"),
        ("title: [\n", "not valid YAML"),
    ],
)
def test_a_damaged_suite_is_refused_with_its_name(own, text, said):
    own.write_text(text)
    found = refusal(f"file:{own}")
    assert str(own) in found
    assert said in found


# --- in a lock


@pytest.mark.parametrize("protocol", [None, "r1-paper"])
def test_a_recipe_with_suites_reads_back_equal(own, protocol):
    entries = [*SHIPPED, f"file:{own}", {"suite": "gym:chain_sum"}, {"suite": "aime24", "samples_per_problem": 2}]
    recipe = Recipe.model_validate(recipe_tree(*entries, protocol=protocol))
    tree = json.loads(json.dumps(recipe.model_dump(mode="json")))
    assert Recipe.model_validate(tree) == recipe
    shutil.rmtree(own.parent)
    assert Recipe.model_validate(tree) == recipe


def test_a_lock_beats_what_has_become_of_the_suites_file(own):
    recipe = Recipe.model_validate(recipe_tree(f"file:{own}"))
    tree = recipe.model_dump(mode="json")
    own.write_text(OWN.replace("0.7", "0.1").replace("samples_per_problem: 2", "samples_per_problem: 9"))
    assert Recipe.model_validate(tree) == recipe


def test_a_suite_that_is_not_there_is_refused(tmp_path):
    said = refusal(f"file:{tmp_path}/none.yaml")
    assert f"suite file:{tmp_path}/none.yaml: no such file" in said
    assert "recipe" not in said


def test_a_suites_tree_is_what_its_file_says():
    for name in SHIPPED:
        assert suite_tree(name) == yaml.safe_load(Path(FOLDER / f"{name}.yaml").read_text())


def test_a_recipe_from_outside_names_no_suite_of_this_machine(git_repo, own):
    for number, entry in enumerate([f"file:{own}", {"suite": f"file:{own}"}, {"suite": "file:../ours.yaml"}]):
        git_repo.commit({f"r{number}.yaml": yaml.safe_dump(recipe_tree(entry))})
        with pytest.raises(RecipeError, match="outside its own repository"):
            read_recipe(f"{git_repo.url}#r{number}.yaml")

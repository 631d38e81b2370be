"""Scores of rounds: paired where they were measured by one protocol, and apart where they were not."""

import json
from html import unescape

import pytest

from distill.report import gather_any, render_any
from distill.report.round_scores import difference_of, round_scores
from distill.storage.files import read_json, write_json


@pytest.fixture
def make_rounds(kit, tmp_path):
    """A function that makes a run of rounds: name -> numbers of the problems that its student solves, of eight."""

    def make(rounds, benchmarks=("gsm8k", "aime24"), **protocols):
        folder = tmp_path / "runs" / "rounds"
        for name, solved in rounds.items():
            maker = kit.RunMaker(kit.recipe_of(name), folder)
            asked = {one: kit.secret_problems(one, 4) for one in benchmarks}
            problems = [problem for some in asked.values() for problem in some]
            base = [kit.answer_to(problem, False) for problem in problems]
            student = [kit.answer_to(problem, None if i is None else i in solved) for i, problem in enumerate(problems)]
            maker.eval(asked, base, student, kit.is_right)
            for benchmark, fields in protocols.get(name, {}).items():
                change_protocol(folder / name, benchmark, **fields)
        return folder

    return make


def change_protocol(folder, benchmark, **fields):
    path = folder / "eval" / "manifest.json"
    manifest = read_json(path)
    for row in manifest["metrics"]["benchmarks"]:
        if row["name"] == benchmark:
            row["protocol"] |= {"hash": "f" * 16, **fields}
    write_json(path, manifest)


def told(folder, names=("first", "second")):
    found = round_scores(folder, names)
    return {(one["of"], one["over"]): one for one in found["pairs"]}, found


def page_of(folder, found):
    summary = {"name": "rounds", "rounds": {"first": {}, "second": {}}, "scores": found, "recipe": {}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return render_any(gather_any(folder))


def test_models_of_rounds_are_paired_with_intervals_that_are_never_empty(make_rounds):
    pairs, found = told(make_rounds({"first": {0, 1}, "second": {0, 1, 2, 3, 4, 5, 6, 7}}))
    assert list(found["models"]) == ["base", "first", "second"]
    assert "not_paired" not in found
    assert pairs["second", "first"]["pass_at_1"] == 0.75
    assert (pairs["second", "first"]["num_gained"], pairs["second", "first"]["num_lost"]) == (6, 0)
    low, high = pairs["second", "base"]["interval_95"]
    assert low < 1.0
    assert low < pairs["second", "base"]["pass_at_1"] <= high <= 1.0


def test_only_the_benchmarks_of_one_protocol_are_paired_and_the_page_says_what_is_not(make_rounds):
    folder = make_rounds({"first": {0, 4}, "second": {0, 1, 4}}, second={"aime24": {"temperature": 0.0}})
    pairs, found = told(folder)
    assert pairs["second", "first"]["pass_at_1"] == 0.25  # of gsm8k's four problems
    assert {(one["of"], one["over"], one["why"]) for one in found["not_paired"]} == {
        ("second", over, "aime24: temperature: 0.6 and 0.0") for over in ("base", "first")
    }
    html = page_of(folder, found)
    assert "Not side by side" in html
    assert "<strong>second</strong>: aime24: temperature: 0.6 and 0.0." in html
    assert html.count('class="series student"') == 1
    assert difference_of(folder, "second", "first")["pass_at_1"] == 0.25


def test_rounds_of_other_protocols_have_no_difference(make_rounds):
    changed = {name: {"prompt": "Think."} for name in ("gsm8k", "aime24")}
    folder = make_rounds({"first": {0}, "second": {0, 1}}, second=changed)
    pairs, found = told(folder)
    assert set(pairs) == {("first", "base")}
    assert difference_of(folder, "second", "first") is None
    assert difference_of(folder, "second", "base")["pass_at_1"] == 0.25  # by the same protocol, in the same round
    assert "prompt: None and 'Think.'" in unescape(page_of(folder, found))


def test_a_benchmark_that_only_one_round_has_is_named(make_rounds, kit):
    folder = make_rounds({"first": {0, 1}, "second": {0, 1}})
    path = folder / "first" / "eval" / "manifest.json"
    manifest = read_json(path)
    manifest["metrics"]["benchmarks"].pop()
    write_json(path, manifest)
    _, found = told(folder)
    assert {one["why"] for one in found["not_paired"]} == {"aime24: only one of them was measured on it"}


def test_rounds_of_an_older_version_are_paired_by_what_they_recorded(make_rounds, kit):
    folder = make_rounds({"first": {0, 1}, "second": {0, 1, 2, 3}})
    for name in ("first", "second"):
        kit.as_old_run(folder / name)
    pairs, found = told(folder)
    assert pairs["second", "first"]["pass_at_1"] == 0.25
    assert "not_paired" not in found


def test_a_failed_sample_is_left_out_and_not_taken_for_a_wrong_one(kit, tmp_path):
    problems = kit.secret_problems("gsm8k", 4)
    for name, answers in (("first", (True, True, False, False)), ("second", (None, True, True, False))):
        maker = kit.RunMaker(kit.recipe_of(name), tmp_path / "rounds")
        student = [kit.answer_to(problem, right) for problem, right in zip(problems, answers, strict=True)]
        maker.eval({"gsm8k": problems}, [kit.answer_to(problem, False) for problem in problems], student, kit.is_right)
    gain = difference_of(tmp_path / "rounds", "second", "first")
    assert (gain["num_gained"], gain["num_lost"], gain["pass_at_1"]) == (1, 0, pytest.approx(1 / 3))

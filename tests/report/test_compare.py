"""Two runs side by side: funnels, paired scores on shared problems, and what must not be compared."""

import json

import pytest

from distill.report import gather_run
from distill.report.compare import compare_runs, render_comparison
from distill.storage.files import read_json, write_json


def compared(one, other):
    first, second = gather_run(one.folder), gather_run(other.folder)
    comparison = compare_runs(first, second)
    html = render_comparison(first, second, comparison)
    payload = html.split('id="payload">')[1].split("</script>")[0]
    assert len(html.encode()) < 5_000_000
    return comparison, html, json.loads(payload)


def change_protocol(maker, **settings):
    path = maker.folder / "eval" / "manifest.json"
    manifest = read_json(path)
    manifest["metrics"]["protocol"] |= settings
    write_json(path, manifest)


def test_scores_are_paired_on_the_same_problems(make_sums_run):
    comparison, html, _ = compared(make_sums_run("a"), make_sums_run("b", skill=4))
    scores = comparison["scores"]
    assert (scores["num_shared"], scores["why_not"]) == (20, None)
    # a is wrong on each third of 20 problems, b on each fourth: 7 and 5, of which they share 2.
    assert [one["pass_at_1"] for one in scores["shared"]] == pytest.approx([13 / 20, 15 / 20])
    assert scores["difference"]["pass_at_1"] == pytest.approx(2 / 20)
    assert (scores["difference"]["num_better"], scores["difference"]["num_worse"]) == (5, 3)
    low, high = scores["difference"]["interval_95"]
    assert low < 0 < high
    assert "On the 20 problems that both were measured on, the student of b solves 75.0% and that of a 65.0%" in html
    assert "this may be chance" in html


def test_only_problems_that_are_the_same_word_for_word_count(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    path = other.folder / "eval" / "problems.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["prompt"][0]["content"] += " Think."
    rows[1]["answer"] = "0"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparison, html, _ = compared(one, other)
    assert comparison["scores"]["num_shared"] == 18
    assert "the 18 problems that are in both evaluations" in html


def test_scores_of_different_protocols_are_not_compared_and_it_says_why(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    change_protocol(other, temperature=0.0, max_tokens=4_096)
    comparison, html, _ = compared(one, other)
    scores = comparison["scores"]
    assert scores["difference"] is None
    assert [(row["key"], row["first"], row["second"]) for row in scores["protocols"]] == [
        ("temperature", 0.6, 0.0),
        ("max_tokens", 192, 4_096),
    ]
    assert "measured under different protocols (temperature, longest answer, in tokens)" in html


def test_another_engine_is_mentioned_and_does_not_forbid_it(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b")
    change_protocol(other, engine="transformers 5.17.0")
    comparison, html, _ = compared(one, other)
    assert comparison["scores"]["difference"]["pass_at_1"] == 0
    assert "The engines differ: vllm 0.31.0 and transformers 5.17.0." in html


def test_a_run_without_scores_is_compared_in_all_else(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b")
    (other.folder / "eval" / "manifest.json").unlink()
    comparison, html, payload = compared(one, other)
    assert comparison["scores"]["why_not"] == "b has no scores yet."
    assert "The scores are not compared: b has no scores yet." in html
    assert {pair["stage"] for pair in payload["pairs"]} >= {"training"}


def test_funnels_stand_side_by_side_with_every_reason_of_either(make_sums_run):
    loose = {"readability": {"language": None}, "compute": {"workers": 1}, "duplicates": None}
    comparison, _, _ = compared(make_sums_run("a"), make_sums_run("b", filter=loose))
    rows = {row["name"]: [side["num"] for side in row["sides"]] for row in comparison["funnel"]}
    assert rows == {
        "sampled": [96, 96],
        "truncated": [24, 24],
        "wrong_answer": [24, 24],
        "mixed_language": [24, 0],
        "kept": [24, 48],
    }
    assert [row["key"] for row in comparison["recipes"]] == ["filter.readability.language"]


def test_the_same_questions_have_the_traces_of_both_next_to_each_other(make_sums_run):
    _, _, payload = compared(make_sums_run("a"), make_sums_run("b", skill=4))
    assert payload["names"] == ["a", "b"]
    by_stage = {stage: [p for p in payload["pairs"] if p["stage"] == stage] for stage in ("evaluation", "training")}
    assert (len(by_stage["evaluation"]), len(by_stage["training"])) == (20, 24)
    differs = [pair["sides"][0][0]["correct"] != pair["sides"][1][0]["correct"] for pair in by_stage["evaluation"]]
    assert differs == [True] * 8 + [False] * 12  # those on which they differ come first
    for pair in by_stage["training"]:
        assert [[trace["sample"] for trace in side] for side in pair["sides"]] == [[0, 1, 2, 3]] * 2


def test_runs_of_one_name_are_told_apart(make_sums_run, tmp_path):
    maker = make_sums_run("a")
    maker.folder.rename(tmp_path / "elsewhere")
    again = make_sums_run("a")
    comparison = compare_runs(gather_run(tmp_path / "elsewhere"), gather_run(again.folder))
    assert len(set(comparison["names"])) == 2
    assert comparison["names"][1] == "runs/a"

"""Two runs side by side: funnels, paired scores on shared problems, and what must not be compared."""

import json

import pytest

from distill.errors import UserError
from distill.report import gather_run
from distill.report.compare import compare_runs, render_comparison
from distill.report.score_words import PROTOCOL
from distill.results.eval import Protocol, protocol_difference
from distill.storage.files import read_json, write_json


def compared(one, other):
    first, second = gather_run(one.folder), gather_run(other.folder)
    comparison = compare_runs(first, second)
    html = render_comparison(first, second, comparison)
    payload = html.split('id="payload">')[1].split("</script>")[0]
    assert len(html.encode()) < 5_000_000
    return comparison, html, json.loads(payload)


def change_protocol(maker, name="held-out", **settings):
    """Change the protocol of one benchmark, its hash too, and what all benchmarks have in common."""
    path = maker.folder / "eval" / "manifest.json"
    manifest = read_json(path)
    for row in manifest["metrics"]["benchmarks"]:
        if row["name"] == name:
            row["protocol"] = Protocol.from_json({**row["protocol"], **settings}).with_hash().to_json()
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


def test_of_old_runs_only_problems_that_are_the_same_word_for_word_count(make_sums_run, kit):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    kit.as_old_run(one.folder)
    kit.as_old_run(other.folder)
    path = other.folder / "eval" / "problems.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["prompt"][0]["content"] += " Think."
    rows[1]["answer"] = "0"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparison, html, _ = compared(one, other)
    assert comparison["scores"]["num_shared"] == 18
    assert "the 18 problems that are in both evaluations" in html


def test_scores_of_different_protocols_are_refused_and_each_field_is_named(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    change_protocol(other, temperature=0.0, max_tokens=4_096)
    with pytest.raises(UserError) as error:
        compared(one, other)
    assert "a and b: scores by different protocols are not put side by side" in str(error.value)
    assert "held-out: the protocols differ (temperature: 0.6 and 0.0; max_tokens: 192 and 4096)" in str(error.value)


@pytest.mark.parametrize("key", ["problems_sha256", "prompt", "grader", "judge", "metric", "extraction", "options"])
def test_whatever_decides_a_score_keeps_it_from_being_compared(make_sums_run, key):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    change_protocol(other, **{key: "another"})
    with pytest.raises(UserError, match=f"{key}: .* and 'another'"):
        compared(one, other)


def test_more_samples_or_another_engine_do_not_keep_it_from_being_compared(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    change_protocol(other, samples_per_problem=64, engine="another", named="r1-paper")
    assert compared(one, other)[0]["scores"]["difference"]["pass_at_1"] == pytest.approx(2 / 20)


def test_the_fields_in_words_are_those_that_decide_a_score():
    """`PROTOCOL` names what `protocol_difference` looks at."""
    values = dict.fromkeys(Protocol.model_fields, "x") | {"samples_per_problem": 1, "top_k": 1, "max_tokens": 1}
    values |= {"temperature": 0.0, "top_p": 1.0, "hash": ""}
    for key, value in values.items():
        other = value + 1 if isinstance(value, int | float) else f"{value}y"
        differs = protocol_difference(Protocol(**values), Protocol(**{**values, key: other, "hash": ""}))
        assert bool(differs) is (key in PROTOCOL)


def test_old_runs_of_different_protocols_are_not_compared_and_it_says_why(make_sums_run, kit):
    one, other = make_sums_run("a"), make_sums_run("b", skill=4)
    kit.as_old_run(one.folder)
    kit.as_old_run(other.folder, temperature=0.0, max_tokens=4_096)
    comparison, html, _ = compared(one, other)
    scores = comparison["scores"]
    assert scores["difference"] is None
    assert [(row["key"], row["first"], row["second"]) for row in scores["protocols"]] == [
        ("temperature", 0.6, 0.0),
        ("max_tokens", 192, 4_096),
    ]
    assert "measured under different protocols (temperature, longest answer, in tokens)" in html


@pytest.mark.parametrize("old", [("a", "b"), ("a",)])
def test_old_runs_are_compared_by_what_they_recorded_and_it_says_that_this_is_not_all(make_sums_run, kit, old):
    makers = {name: make_sums_run(name, **given) for name, given in (("a", {}), ("b", {"skill": 4}))}
    for name in old:
        kit.as_old_run(makers[name].folder)
    comparison, html, _ = compared(*makers.values())
    assert comparison["scores"]["difference"]["pass_at_1"] == pytest.approx(2 / 20)
    assert comparison["scores"]["are_recorded"] is False
    assert "The protocols are not recorded in full" in html
    whole = compared(make_sums_run("c"), make_sums_run("d", skill=4))
    assert whole[0]["scores"]["are_recorded"] is True
    assert "The protocols are not recorded in full" not in whole[1]


def test_benchmarks_of_one_protocol_are_compared_and_the_others_listed_with_the_reason(make_bench_run):
    one = make_bench_run("a", {"gsm8k": 20, "aime24": 10, "ifeval": 5})
    other = make_bench_run("b", {"gsm8k": 20, "aime24": 10, "mmlu": 5}, right=lambda i: i % 2 == 0)
    change_protocol(other, "aime24", temperature=0.0)
    comparison, html, payload = compared(one, other)
    scores = comparison["scores"]
    assert (scores["num_shared"], scores["difference"]["num_worse"]) == (20, 10)
    rows = {row["name"]: row for row in scores["benchmarks"]}
    assert {name: row["why_not"] for name, row in rows.items()} == {
        "gsm8k": None,
        "aime24": "the protocols differ (temperature: 0.6 and 0.0)",
        "ifeval": "only a was measured on it",
        "mmlu": "only b was measured on it",
    }
    assert rows["gsm8k"]["scores"][0]["pass_at_1"] == 1.0
    assert rows["aime24"]["scores"] is None
    for words in ("Not side by side", "aime24</strong>: the protocols differ", "mmlu</strong>: only b was measured"):
        assert words in html
    # Overall scores are of other benchmarks, so they are not side by side either.
    assert '<th scope="row">pass@1</th>' not in html
    assert {pair["stage"] for pair in payload["pairs"]} == {"gsm8k", "aime24"}


def test_an_answer_without_a_grade_is_not_taken_for_a_wrong_one(make_bench_run):
    """The problem is left out: as a wrong answer it would count as lost."""
    one = make_bench_run("a", {"gsm8k": 20})
    other = make_bench_run("b", {"gsm8k": 20}, right=lambda i: None if i == 3 else True)
    scores = compared(one, other)[0]["scores"]
    assert (scores["num_shared"], scores["difference"]["num_worse"], scores["difference"]["pass_at_1"]) == (19, 0, 0)
    assert "1 sample missing" in scores["benchmarks"][0]["scores"][1]["incomplete"]


def test_texts_of_a_benchmark_with_a_canary_are_in_no_comparison(make_bench_run):
    one = make_bench_run("a", {"gpqa-diamond": 6}, canary=True)
    other = make_bench_run("b", {"gpqa-diamond": 6}, right=lambda i: False)
    _, html, payload = compared(one, other)
    assert len(payload["pairs"]) == 6
    assert "SECRETQUESTION" not in html
    assert "SECRETANSWER" not in html


def test_another_engine_is_mentioned_and_does_not_forbid_it(make_sums_run):
    one, other = make_sums_run("a"), make_sums_run("b")
    path = other.folder / "eval" / "manifest.json"
    manifest = read_json(path)
    manifest["metrics"]["protocol"] |= {"engine": "transformers 5.17.0"}
    write_json(path, manifest)
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
    by_stage = {stage: [p for p in payload["pairs"] if p["stage"] == stage] for stage in ("held-out", "training")}
    assert (len(by_stage["held-out"]), len(by_stage["training"])) == (20, 24)
    differs = [pair["sides"][0][0]["correct"] != pair["sides"][1][0]["correct"] for pair in by_stage["held-out"]]
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

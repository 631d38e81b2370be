"""Scores on the page of a run: the table, what is incomplete, curves, what else is told, answers side by side."""

import json
import re
from html import unescape

import pytest

from distill.core.records import Verdict
from distill.report import gather_run, render_report
from distill.report.pairs import _by_preference, _telling
from distill.storage.files import read_json, write_json


def shown(maker):
    """The page of a run, its text, and its data."""
    html = render_report(gather_run(maker.folder))
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
    payload = json.loads(html.split('id="payload">')[1].split("</script>")[0])
    assert len(html.encode()) < 5_000_000
    return html, text, payload


def hash_of(maker, stage="eval", place=0):
    manifest = read_json(maker.folder / stage / "manifest.json")
    return manifest["metrics"]["benchmarks"][place]["protocol"]["hash"]


def change_score(maker, role="student", stage="eval", place=0, **fields):
    path = maker.folder / stage / "manifest.json"
    manifest = read_json(path)
    row = manifest["metrics"]["benchmarks"][place]
    (row["models"] if stage == "measure" else row)[role] |= fields
    write_json(path, manifest)


def test_the_table_has_each_model_on_each_benchmark(make_bench_run):
    maker = make_bench_run("two", {"gsm8k": 8, "math-500": 4}, right=lambda i: i % 2 == 0, samples_per_problem=2)
    _, text, _ = shown(maker)
    rows = re.findall(r"(Base|Student) ([0-9.]+%) ([0-9.]+ to [0-9.]+%) (\d+) 2 0.0% ([0-9,–]+) (\w{16})", text)
    assert [(label, score, problems) for label, score, _, problems, *_ in rows] == [
        ("Base", "0.0%", "8"), ("Student", "50.0%", "8"), ("Base", "0.0%", "4"), ("Student", "50.0%", "4"),
    ]  # fmt: skip
    assert [per_right for *_, per_right, _ in rows] == ["–", "1,800", "–", "1,800"]
    hashes = [hash_of(maker, place=place) for place in (0, 0, 1, 1)]
    assert [digest for *_, digest in rows] == hashes


def test_an_incomplete_score_is_marked_and_has_its_bounds(make_bench_run):
    maker = make_bench_run("killed", {"gsm8k": 20}, right=lambda i: None if i < 8 else i % 2 == 0)
    html, text, _ = shown(maker)
    assert "Student 50.0% incomplete" in text
    assert "Student is incomplete : between 30.0% and 70.0%: 8 samples missing." in text
    assert "Base is incomplete" not in text
    assert "The student solves 50.0% of 20 problems of gsm8k (incomplete, between 30.0% and 70.0%" in text
    assert 'class="bounds" x1="37.5%" x2="87.5%"' in html  # on an axis to 80%
    assert "incomplete: between 30.0% and 70.0%: 8 samples missing" in html.split('class="dots"')[1].split(">")[0]


def test_a_complete_score_is_not_marked(make_bench_run):
    html, text, _ = shown(make_bench_run("whole", {"gsm8k": 8}))
    assert "incomplete" not in text
    assert 'class="bounds"' not in html


def test_figures_flags_and_what_would_narrow_the_interval_are_told(make_bench_run):
    maker = make_bench_run("told", {"simpleqa": 8}, right=lambda i: i % 2 == 0)
    values = {"f_score": 0.412, "not_attempted": 0.25, "win_rate": 0.503, "win_rate_error": 0.0125, "a_new_one": 0.03}
    figures = {key: {"value": value} for key, value in values.items()}
    change_score(maker, figures=figures, flags=["7 of 8 answers are the same text: <b>look</b>."])
    html, text, _ = shown(maker)
    assert "among those attempted) 41.2%" in text
    assert "Not attempted 25.0%" in text
    assert "Win rate 50.3% (standard error 1.2%)" in text
    assert "A new one 3.0%" in text
    assert "Look at these answers. 7 of 8 answers are the same text: <b>look</b>." in text
    assert "<b>look</b>" not in html
    assert "What would narrow the interval: Twice as many problems" in text


@pytest.mark.parametrize(
    ("hit", "words"),
    [
        ((), "No item is among the training rows."),
        (("gsm8k/000",), "1 item is among the training rows; without it 42.9%"),
        (("gsm8k/000", "gsm8k/002"), "2 items are among the training rows; without them 33.3%"),
        (tuple(f"gsm8k/{i:03d}" for i in range(8)), "8 items are among the training rows, and there are no others"),
    ],
)
def test_contamination_is_told_with_the_score_without_it(kit, tmp_path, hit, words):
    maker = kit.RunMaker(kit.recipe_of("hit"), tmp_path / "runs")
    problems = kit.secret_problems("gsm8k", 8)
    base = [kit.answer_to(problem, False) for problem in problems]
    student = [kit.answer_to(problem, i % 2 == 0) for i, problem in enumerate(problems)]
    maker.eval({"gsm8k": problems}, base, student, kit.is_right, hit=hit)
    _, text, _ = shown(maker)
    assert f"Contamination: {words}" in text
    assert all(name in text for name in hit)


def test_every_field_of_a_protocol_can_be_unfolded(make_bench_run):
    maker = make_bench_run("protocol", {"gsm8k": 8}, protocol={"prompt": "{problem}\nThink.", "judge": "<judge>"})
    html, text, _ = shown(maker)
    assert f"Protocol {hash_of(maker)}" in text
    for words in (
        "Suite gsm8k",
        "Prompt {problem} Think.",
        "Judge <judge>",
        "Temperature 0.6",
        "Longest answer, in tokens 192",
        "Grader math, version 1",
        "Order of options –",
        "Samples a problem (k) 1",
        "Answer extraction last valid",
        "Interval 95%",
        "Named protocol –",
        "Comparable with –",
        "Engine –",
    ):
        assert words in text
    assert "<judge>" not in html


def test_what_a_score_may_be_compared_with_and_what_it_is_stand_beside_it(make_bench_run):
    fields = {"metric": "instructions", "protocol": {"metric": "instructions", "comparable_with": "Strict accuracy."}}
    _, text, _ = shown(make_bench_run("words", {"ifeval": 8}, protocol={"comparable_with": "Strict accuracy."}))
    assert "Strict accuracy." in text
    assert "The score is" not in text
    maker = make_bench_run("judged", {"ifeval": 8})
    path = maker.folder / "eval" / "manifest.json"
    manifest = read_json(path)
    manifest["metrics"]["benchmarks"][0]["protocol"] |= fields["protocol"]
    write_json(path, manifest)
    assert "The score is the share of answers that strictly follow all instructions" in shown(maker)[1]


def test_curves_over_samples_and_over_tokens_have_words_and_tables(make_measured_run):
    signs = {"one": lambda i: [True, False, i < 4, False], "two": lambda i: [True] * 4}
    html, text, _ = shown(make_measured_run(signs, sampling={"max_tokens": 8192}))
    assert html.count('class="curve-box"') == 3
    assert (
        "pass@k over samples of a problem (k), from 1 to 4; org/one from 37.5% to 100.0%; org/two from 100.0%" in html
    )
    # Answers have 900, 1,800, 3,600 and 7,200 tokens: cut at 1,024, only the first of four counts.
    assert re.search(r"Score if answers were cut as a table .* 1,024 25.0% \([^)]+\) 25.0% \(", text)
    assert html.count('<path class="stroke series m1"') == html.count('<path class="stroke series m2"') == 3
    for path in re.findall(r'd="M([^"Z]+)', html):
        if "h0.01" not in path:
            assert all(0 <= float(place) <= 100 for place in path.replace("L", " ").split())


def test_a_benchmark_without_curves_has_none(make_bench_run):
    html, _, _ = shown(make_bench_run("single", {"gsm8k": 8}, sampling={"max_tokens": 1024}))
    assert 'class="curve-box"' not in html


def test_groups_have_a_table(make_bench_run):
    _, text, _ = shown(make_bench_run("groups", {"gpqa": 8}, right=lambda i: i % 2 == 0))
    assert "By group (2) Group Problems Base Student even 4 0.0% 100.0% odd 4 0.0% 0.0%" in text


def test_an_evaluation_of_an_older_version_is_shown_with_what_it_has(make_sums_run, kit):
    maker = make_sums_run()
    kit.as_old_run(maker.folder)
    html, text, payload = shown(maker)
    assert "Protocol: 1 sample(s) a problem (k), temperature 0.6" in text
    assert "Protocol not recorded" not in text
    assert 'class="curve-box"' not in html
    assert len(payload["answers"]["pairs"]) == 20
    assert {pair["stage"] for pair in payload["answers"]["pairs"]} == {"evaluation"}


def test_gained_and_lost_come_first_by_turns_then_what_others_differ_on():
    names = [f"p{i:02d}" for i in range(40)]
    first = {name: [float(i < 4)] for i, name in enumerate(names)}
    second = {name: [float(4 <= i < 12)] for i, name in enumerate(names)}
    third = {name: [float(i == 20)] for i, name in enumerate(names)}
    ordered = _by_preference(names, [first, second, third])
    assert sorted(ordered) == names
    kinds = [second[name][0] - first[name][0] for name in ordered]
    assert [kinds[:length].count(-1) for length in (3, 6, 9, 12)] == [1, 2, 3, 4]
    assert kinds[:12].count(1) == 8
    assert ordered[12] == "p20"


def test_the_first_sample_shows_the_difference():
    verdicts = [Verdict("p", i, correct, "7") for i, correct in enumerate((None, False, True, False))]
    assert [one.sample_index for one in _telling(verdicts, True)] == [2, 0, 1, 3]
    assert [one.sample_index for one in _telling(verdicts, False)] == [1, 0, 2, 3]
    assert [one.sample_index for one in _telling(verdicts[::-1], None)] == [0, 1, 2, 3]


def test_of_many_samples_some_are_there_and_all_are_counted(make_measured_run):
    signs = {"one": lambda i: [False] * 7 + [True], "two": lambda i: [True] * 7 + [None]}
    payload = shown(make_measured_run(signs))[2]["answers"]
    assert payload["names"] == ["org/one", "org/two"]
    for pair in payload["pairs"]:
        assert pair["tallies"] == [[0.125, 1, 8, 0], [1.0, 7, 8, 1]]
        assert [len(side) for side in pair["sides"]] == [4, 4]
        assert [side[0]["correct"] for side in pair["sides"]] == [False, True]


@pytest.mark.parametrize("damage", ["", "gone", "cut", "no canary"])
def test_no_text_of_a_benchmark_with_a_canary_is_on_the_page(make_bench_run, damage):
    """Not even where it cannot be read any more which benchmark has one."""
    maker = make_bench_run("secret", {"gpqa-diamond": 8}, right=lambda i: i % 2 == 0, canary=True)
    file = maker.folder / "eval" / "benchmarks.jsonl"
    if damage == "gone":
        file.unlink()
    elif damage:
        row = json.loads(file.read_text())
        del row["canary"]
        file.write_text(json.dumps(row)[: None if damage == "no canary" else 60])
    html, text, payload = shown(maker)
    assert "SECRET" not in html
    assert "gpqa-diamond/000" in html
    assert [pair["tallies"] for pair in payload["answers"]["pairs"]].count([[0.0, 0, 1, 0], [1.0, 1, 1, 0]]) == 4
    assert all(problem["question"] == "" and problem["answer"] is None for problem in payload["answers"]["problems"])
    for pair in payload["answers"]["pairs"]:
        for side in pair["sides"]:
            assert (side[0]["answer"], side[0]["thinking"], side[0]["text"], side[0]["details"]) == (None, [], [], {})
    assert "The texts of 8 questions are not shown" in text


def test_a_benchmark_beside_one_with_a_canary_is_shown(make_bench_run):
    maker = make_bench_run("mixed", {"gpqa-diamond": 4, "gsm8k": 4})
    file = maker.folder / "eval" / "benchmarks.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["canary"] = True
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = {one["id"]: one for one in shown(maker)[2]["answers"]["problems"]}
    assert [name for name, one in problems.items() if one["question"]] == [n for n in problems if n.startswith("gsm8k")]
    assert len(problems) == 8

"""Traces made elsewhere: who wrote them, how long they are, and what a page says where nobody told."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from distill.core.records import Trace
from distill.core.thinking import split_reasoning
from distill.recipe.filter import FilterConfig
from distill.report import gather_run, render_report
from distill.report.charts import MAX_ROWS, yield_rows
from distill.report.compare import compare_runs, glance, render_comparison
from distill.report.render import estimate_words, teacher_names
from distill.stages import filter
from distill.storage.files import write_jsonl
from distill.storage.ledger import Ledger
from distill.storage.run_folder import Summary
from distill.storage.trace_store import finalise

TEACHERS = ("big/thinker", "small/solver", "small/solver", "")


def foreign_trace(problem, sample_index, text, teacher):
    split = split_reasoning(text)
    return Trace(problem.id, sample_index, teacher, "", text, split.reasoning, split.content, "stop", 0, 0, 0)


@pytest.fixture
def make_imported(kit, tmp_path, monkeypatch):
    """A function that makes a run of 12 questions with four imported answers each, filtered on request."""
    monkeypatch.setattr(FilterConfig, "counts_student_tokens", False)  # there is no student here

    def make(name="taken", is_filtered=True, teachers=TEACHERS):
        recipe = kit.recipe_of(
            name,
            problems=[],
            generate=None,
            traces=[{"source": "file:t.jsonl"}],
            eval=None,
            filter={"compute": {"workers": 1}, "duplicates": None, "max_tokens": 512},
        )
        maker = kit.RunMaker(recipe, tmp_path / "runs")
        problems = [kit.sum_problem(3 + i, 4) for i in range(12)]
        folder = maker.folder / "import"
        folder.mkdir(parents=True)
        write_jsonl(folder / "problems.jsonl", (problem.to_json() for problem in problems))
        with Ledger(folder / "ledger.jsonl") as ledger:
            for i, problem in enumerate(problems):
                says = [
                    f"<think>\nI add 4 to {3 + i}, so far {k}.\n</think>\n\n\\boxed{{{7 + i + k % 2}}}"
                    for k in range(4)
                ]
                ledger.append([foreign_trace(problem, k, says[k], teachers[k]) for k in range(4)])
        outputs, _ = finalise(folder, lambda key: True)
        metrics = {"num_samples": 48, "num_problems": 12, "num_skipped": 0, "num_completion_tokens": None}
        metrics |= {"num_problems_by_source": {"file:t.jsonl": 12}, "finish_reasons": {"stop": 48}}
        maker.complete("import", Summary(metrics, {"problems.jsonl": 12, **outputs}), {"version": 1}, 1.0)
        if is_filtered:
            maker.filter()
        return maker

    return make


def payload_of(html):
    return json.loads(html.split('id="payload">')[1].split("</script>")[0])


def text_of(html):
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_who_wrote_a_trace_is_told_everywhere(make_imported):
    run = gather_run(make_imported().folder)
    assert run.facts["teachers"] == {
        "big/thinker": {"num_problems": 12, "num_traces": 12, "num_correct": 12, "num_kept": 12},
        "small/solver": {"num_problems": 12, "num_traces": 24, "num_correct": 12, "num_kept": 12},
        "not named": {"num_problems": 12, "num_traces": 12, "num_correct": 0, "num_kept": 0},
    }
    html = render_report(run)
    text = text_of(html)
    assert "Written by small/solver, big/thinker, not named" in text
    assert "By who wrote the trace Written by Problems Traces Right Kept" in text
    traces = payload_of(html)["traces"]
    assert {trace["sample"]: trace["teacher"] for trace in traces} == dict(enumerate(TEACHERS))


def test_before_the_filter_the_writers_of_the_traces_are_counted_too(make_imported):
    run = gather_run(make_imported(is_filtered=False).folder)
    assert run.facts["teachers"]["small/solver"] == {"num_problems": 12, "num_traces": 24}
    html = render_report(run)
    assert "Written by small/solver, big/thinker, not named" in text_of(html)
    assert {trace["teacher"] for trace in payload_of(html)["traces"]} == set(TEACHERS)


def test_lengths_that_nobody_counted_are_unknown_and_not_zero(make_imported):
    run = gather_run(make_imported().folder)
    assert run.facts["lengths"] == {}
    html = render_report(run)
    assert {trace["length"] for trace in payload_of(html)["traces"]} == {None}
    assert "How long the traces are is not known" in text_of(html)
    assert "characters</h3>" not in html


def test_lengths_are_in_the_tokens_of_the_student_where_the_filter_counted_them(make_imported, monkeypatch, tmp_path):
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    settings = filter._settings
    monkeypatch.setattr(
        filter, "_settings", lambda run: replace(settings(run), tokenizer=str(tmp_path / "tokenizer.json"), student="s")
    )
    run = gather_run(make_imported().folder)
    assert (run.facts["lengths"]["unit"], run.facts["lengths"]["counted_by"]) == ("tokens", "student")
    html = render_report(run)
    assert all(10 < trace["length"] < 30 for trace in payload_of(html)["traces"])
    assert "as the student counts them" in text_of(html)


def test_two_runs_show_no_zero_where_nobody_counted(make_imported):
    one, other = gather_run(make_imported("a").folder), gather_run(make_imported("b").folder)
    rows = {row["name"]: row["sides"] for row in glance(one.facts, other.facts)}
    assert "Tokens of the rows" not in rows
    assert rows["Teacher"] == ["small/solver, big/thinker, not named"] * 2
    traces = [
        t
        for pair in payload_of(render_comparison(one, other, compare_runs(one, other)))["pairs"]
        for t in pair["sides"][0]
    ]
    assert {trace["length"] for trace in traces} == {None}
    assert {trace["teacher"] for trace in traces} == set(TEACHERS)


def test_tokens_that_nobody_counted_stand_in_no_comparison_with_an_estimate():
    quantities = {"tokens": {"low": 9_000, "high": 10_000, "actual": 0}, "seconds": {"low": 1, "high": 2, "actual": 0}}
    rows = {row["quantity"]: row for row in estimate_words({"stages": {"import": quantities}}, {"import": {}})}
    assert (rows["tokens"]["took"], rows["tokens"]["verdict"]) == ("–", "not measured")
    assert rows["seconds"]["verdict"] == "less than expected"


def test_many_writers_take_a_row_each_only_up_to_a_number():
    counts = {
        f"org/model-{n}": {"num_problems": 1, "num_traces": n, "num_correct": 1, "num_kept": 1} for n in range(200)
    }
    rows = yield_rows(counts)
    assert len(rows) == MAX_ROWS + 1
    assert rows[-1]["name"] == f"{200 - MAX_ROWS} others"
    assert sum(row["num_traces"] for row in rows) == sum(range(200))
    assert teacher_names(counts) == "org/model-199, org/model-198, org/model-197 and 197 more"


def test_names_of_writers_come_from_the_rows_where_the_traces_are_gone(make_imported):
    maker = make_imported()
    shutil.rmtree(maker.folder / "import" / "traces")
    teachers = gather_run(maker.folder).facts["teachers"]
    assert {name: row["num_kept"] for name, row in teachers.items()} == {
        "big/thinker": 12, "small/solver": 12, "not named": 0,
    }  # fmt: skip


HOSTILE = "</script><img src=x onerror=alert(1)>\u202e" + "x" * 5_000


def test_names_of_writers_may_be_anything(make_imported, monkeypatch):
    monkeypatch.setenv("THE_SECRET", "open-sesame-42")
    maker = make_imported(teachers=("/tmp/mine/model-a", HOSTILE, "open-sesame-42", "\x00\n "))
    html = render_report(gather_run(maker.folder))
    teachers = {trace["teacher"] for trace in payload_of(html)["traces"]}
    assert {"model-a", "[redacted]"} <= teachers
    assert max(map(len, teachers)) <= 200
    for bad in ("/tmp/mine", "open-sesame", "<img src=x", "\u202e"):
        assert bad not in html

"""The page of one run, from facts made up for the test: what it says, and that nothing in it can break out."""

import base64
import hashlib
import json
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import pytest

from distill.core.records import REASONS, Problem, Trace, Verdict
from distill.core.thinking import split_reasoning
from distill.report import Run, render_report
from distill.report.cards import answer_card, filtered_card
from distill.report.outcomes import Outcome, TraceLocation
from distill.report.pairs import Pair, SideBySide, Tally
from distill.report.render import MAX_BYTES

BASE = {"pass_at_1": 0.0, "interval_95": [0.0, 0.0], "truncated_share": 0.02, "num_problems": 200, "num_ungraded": 0}
STUDENT = BASE | {"pass_at_1": 0.435, "interval_95": [0.365, 0.505], "truncated_share": 0.005}
DIFFERENCE = {"pass_at_1": 0.435, "interval_95": [0.365, 0.505], "num_gained": 87, "num_lost": 3}
SUMMARY = {
    "schema_version": 1,
    "distill_version": "0.1.0",
    "name": "quickstart",
    "student": "smollm2-135m",
    "seed": 17,
    "problems": [{"source": "gym:chain_sum", "num_problems": 400}],
    "generate": {
        "seconds": 120.3,
        "peak_memory_gib": 2.9,
        "teacher": "org/teacher",
        "teacher_revision": "f48baf8b",
        "engine": {"name": "vllm", "version": "0.31.0"},
        "sampling": {"temperature": 0.8, "top_p": 1.0, "max_tokens": 128},
        "finish_reasons": {"stop": 1190, "length": 10},
    },
    "filter": {"seconds": 3.0, "num_traces": 1200, "num_kept": 210, "num_problems": 300, "num_problems_kept": 140},
    "sft": {
        "seconds": 200.0,
        "student": "org/student",
        "num_rows": 210,
        "num_tokens": 21_000,
        "num_steps": 54,
        "history": [{"step": 1, "loss": 2.125}, {"step": 2, "loss": 1.5}, {"step": 3, "loss": 0.4125}],
    },
    "eval": {
        "seconds": 40,
        "base": BASE,
        "student": STUDENT,
        "difference": DIFFERENCE,
        "benchmarks": [{"name": "held-out", "base": BASE, "student": STUDENT, "difference": DIFFERENCE}],
        "protocol": {"samples_per_problem": 1, "temperature": 0.6, "engine": "vllm 0.31.0", "extraction": "boxed"},
    },
}
FUNNEL = [["sampled", 1200], ["truncated", 10], ["wrong_answer", 880], ["duplicate", 100], ["kept", 210]]
PROBLEM = Problem("9f2c", [{"role": "user", "content": "What is 17 - 21?"}], "-4", "math", "gym:chain_sum")
TEXT = "<think>I count down.</think>It is -4."
HOSTILE = "</div></style></title><script>alert(1)</script><img src=http://evil.example/x onerror=f()>\"'&amp;{{ 7*7 }}"
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


class Page(HTMLParser):
    """What a browser makes of the page: its elements with their attributes, its visible text, its data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.styles, self.words, self.scripts = "", "", []
        self.feed(html)
        self.text = " ".join(self.words.split())
        self.payload = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.words += " "
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "style":
            self.styles += data
        elif self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.words += data

    def charts(self):
        return [attrs["aria-label"] for _, attrs in self.elements if attrs.get("role") == "img"]


def card(text=TEXT, reasons=(), correct=True, problem=PROBLEM, **row):
    """The card of a trace as the filter's table has it."""
    verdict = {
        "problem_id": problem.id,
        "sample_index": 0,
        "correct": correct,
        "extracted_answer": "-4",
        "reasons": list(reasons),
        "graded_by": "rule",
        "details": {},
    } | {key: row.pop(key) for key in ("details", "extracted_answer", "sample_index") if key in row}
    outcome = Outcome(
        verdict, "dropped", TraceLocation("train-00000-of-00001.parquet", 0), problem.source, 43, "org/teacher"
    )
    about = {"text": text, "finish_reason": "stop", "prompt": problem.prompt, "answer": problem.answer, "error": ""}
    return filtered_card(outcome, about | row, lambda question: "en")


def run_of(summary=SUMMARY, funnel=FUNNEL, cards=(), pairs=(), **facts):
    stages = {
        name: stage
        for name in ("generate", "filter", "sft", "eval", "push")
        if (stage := summary.get(name)) is not None
    }
    named = {key: summary.get(key) for key in ("name", "description", "student", "seed", "distill_version", "problems")}
    made = {
        **named,
        "stage_names": ["generate", "filter", "sft", "eval"],
        "stages": stages,
        "funnel": funnel,
        "history": summary.get("sft", {}).get("history", []),
        "recipe": {"name": "quickstart", "generate": {"teacher": "org/teacher"}},
        "state": "complete",
        **facts,
    }
    answers = SideBySide(["Base", "Student"], list(pairs), len(pairs))
    return Run(Path("runs/quickstart"), made, list(cards), len(cards), answers)


def page(summary=SUMMARY, funnel=FUNNEL, cards=(), **more) -> Page:
    return Page(render_report(run_of(summary, funnel, cards or [card()], **more)))


def changed(stage, **fields):
    summary = deepcopy(SUMMARY)
    summary[stage] |= fields
    return summary


def with_scores(student, difference):
    return changed("eval", student=student, difference=difference, benchmarks=[])


def poisoned(value, text):
    """`value` with hostile text in place of every text in it, however deep."""
    if isinstance(value, dict):
        return {key: poisoned(v, text) for key, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, text) for v in value]
    return text if isinstance(value, str) else value


def test_the_result_is_said_in_one_sentence():
    assert (
        "The student solves 43.5% of 200 held-out problems; the base solved 0.0%: "
        "+43.5 points (95% interval +36.5 to +50.5)." in page().text
    )


def test_a_difference_that_may_be_chance_is_called_so():
    difference = {"pass_at_1": -0.01, "interval_95": [-0.03, 0.012]}
    text = page(with_scores(STUDENT, difference)).text
    assert (
        f"{MINUS}1.0 points (95% interval {MINUS}3.0 to +1.2). The interval includes zero, so this may be chance."
        in text
    )
    assert "may be chance" not in page().text


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.0004, "0.0 points"), (0.0, "0.0 points"), (-0.02, f"{MINUS}2.0 points")]
)
def test_a_difference_has_its_sign_and_zero_has_none(value, shown):
    assert f": {shown}" in page(with_scores(STUDENT, DIFFERENCE | {"pass_at_1": value})).text


def test_scores_of_several_benchmarks_follow_the_one_over_all():
    rows = [{"name": name, "base": BASE, "student": STUDENT} for name in ("math500", "aime24")]
    text = page(changed("eval", benchmarks=rows)).text
    assert "of 200 problems from 2 benchmarks" in text
    assert text.index("All benchmarks Base") < text.index("math500 Base") < text.index("aime24 Base")
    assert text.index("All benchmarks ·") < text.index("math500 ·") < text.index("aime24 ·")


def test_numbers_of_every_stage_are_on_the_page():
    text = page().text
    for expected in (
        "gym:chain_sum 400",
        "org/teacher",
        "f48baf8b",
        "Of 1,200 traces, 210 became training rows. They cover 140 of 300 problems.",
        "ran into the token limit in 10, and failed with an error in 0",
        "Tokens 21,000",
        "Training loss, from 2.125 to 0.4125",
        "Student 43.5% 36.5 to 50.5% 200 – 0.5% – –",
        "better than the base on 87 problems (gained) and worse on 3 (lost)",
        "temperature 0.6",
        "2 min 00 s 2.9 GiB",
        "Total 6 min 03 s",
    ):
        assert expected in text


def test_the_funnel_names_each_reason_with_count_share_and_explanation():
    shown = page()
    assert f"wrong_answer {MINUS}880 · 73.3% T{REASONS['wrong_answer'][1:]}." in shown.text
    assert "Kept 210 · 17.5%" in shown.text
    assert "duplicate: 100 of 1,200 traces" in shown.charts()
    widths = [a["width"] for tag, a in shown.elements if tag == "rect" and a["class"] == "fill-left"]
    assert [float(width.rstrip("%")) for width in widths[:4]] == pytest.approx([100, 1190 / 12, 310 / 12, 210 / 12])


def test_charts_are_described_in_words():
    charts = page().charts()
    assert "Training loss from 2.125 at step 1 to 0.4125 at step 3" in charts
    assert any("Student 43.5%, 95% interval 36.5 to 50.5%" in chart for chart in charts)


def test_losses_that_are_not_finite_are_counted_and_not_drawn():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": float("inf")}]
    html = render_report(run_of(changed("sft", history=history)))
    assert "2 logged losses were not finite numbers" in html
    assert "nan" not in re.search(r'class="curve" d="([^"]+)"', html)[1]


def test_a_long_loss_history_stays_a_small_chart():
    history = [{"step": step, "loss": 1 / step} for step in range(1, 20_001)]
    html = render_report(run_of(changed("sft", history=history)))
    assert re.search(r'class="curve" d="([^"]+)"', html)[1].count(" L") < 300
    assert "Each point is the mean of 67 steps." in html


@pytest.mark.parametrize("losses", [[0.0], [0.7, 0.7], [-1.0, 1e30], [1e-300, 0.0]])
def test_a_curve_of_one_point_or_of_any_range_stays_in_its_box(losses):
    history = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    html = render_report(run_of(changed("sft", history=history)))
    path = re.search(r'class="curve" d="M([^"]+) h0.01"', html)[1]
    assert all(0 <= float(place) <= 100 for place in re.split(" L?", path))


def test_a_training_without_logged_losses_says_so():
    assert "No loss was logged." in page(changed("sft", history=[])).text


@pytest.mark.parametrize("stage", ["generate", "filter", "sft", "eval"])
def test_a_missing_stage_is_not_run_yet(stage):
    text = page({key: value for key, value in SUMMARY.items() if key != stage}, [], []).text
    assert f"{stage} waiting" in text
    assert f"{stage}: not begun." in text


def test_an_unfinished_run_says_what_is_done():
    run = run_of({"name": "r1", "generate": SUMMARY["generate"]}, [])
    text = Page(render_report(run)).text
    assert "The run is not complete: generate is complete; still to do: filter, sft, eval." in text
    assert "No traces to show yet." in text


def test_a_stopped_run_says_where_and_why():
    stopped = {"stage": "sft", "error": "CUDA out of <b>memory</b>", "at": "2026-11-24T18:40:11+00:00"}
    begun = {"stage": "sft", "num_done": 31, "num_wanted": None, "unit": "steps"}
    summary = {key: value for key, value in SUMMARY.items() if key not in ("sft", "eval")}
    text = page(summary, stopped=stopped, begun=begun, state="stopped").text
    assert "Stopped in sft on 2026-11-24 18:40 UTC. 31 steps are done and kept." in text
    assert "CUDA out of <b>memory</b>" in text
    assert "sft stopped" in text
    assert "sft: stopped, not complete." in text


def test_missing_fields_are_dashes():
    text = page({"generate": {}, "filter": {}, "sft": {}, "eval": {}}, [["sampled", 0], ["kept", 0]]).text
    assert f"Teacher {DASH}" in text or "Teacher org/teacher" in text
    assert f"Of {DASH} traces, {DASH} became training rows." in text
    assert "None" not in text


def test_an_estimate_stands_beside_what_it_took_and_is_left_out_where_there_is_none():
    quantities = {
        "seconds": {"low": 60, "high": 180, "actual": 240},
        "cost": {"low": 1.0, "high": 2.0, "actual": 1.5},
        "tokens": {"low": 900, "high": 12_600, "actual": 1_060},
        "memory_gib": {"low": 2.0, "high": 3.0, "actual": None},
        "disk_gib": {"low": 0.001, "high": 0.5, "basis": "texts in Parquet", "actual": 0.2},
    }
    estimate = {"currency": "USD", "prices_dated": "2026-11-01", "stages": {"generate": quantities}}
    text = page(estimate=estimate).text
    assert "generate time 1 min 00 s to 3 min 00 s 4 min 00 s more than expected" in text
    assert "generate cost, USD 1 to 2 1.5 as expected" in text
    assert "generate tokens 900 to 12,600 1,060 as expected" in text
    assert f"generate memory, GiB 2 to 3 {DASH} not measured" in text
    assert "disk, GiB texts in Parquet under 0.01 to 0.5 0.2 as expected" in text
    assert "at prices of 2026-11-01" in text
    assert "Estimate against actual" not in page().text


def test_lengths_are_drawn_and_have_their_table():
    lengths = {"unit": "tokens", "edges": [0, 50, 100], "kept": [3, 1, 0], "dropped": [0, 2, 1]}
    shown = page(lengths={**lengths, "median_kept": 20.0, "median_dropped": 90.0})
    assert "0 to 49 3 0 50 to 99 1 2 100 and more 0 1" in shown.text
    assert any("the median of the 4 kept traces is 20" in chart for chart in shown.charts())


def test_where_it_comes_from_is_told():
    stage = {
        "fingerprint": "ab" * 32,
        "finished_at": "2026-11-24T18:40:11+00:00",
        "hardware": {"cpu": "EPYC", "num_cores": 2, "memory_gib": 23.5, "gpus": [], "platform": "Linux-6"},
        "git_commit": "0123abc-dirty",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "inputs": {"teacher_revision": "f48baf8b"},
    }
    text = page(lineage={"generate": stage}, lock="schema_version: 1\n").text
    for expected in ("abababababababab", "EPYC", "2 cores, 23.5 GiB", "0123abc-dirty", "torch 2.13.0", "f48baf8b"):
        assert expected in text
    assert "recipe.lock.yaml" in text


def pair(text="<think>I count.</think>It is 7.", is_right=(False, True), asked="What is 3 + 4?", place=1):
    split = split_reasoning(text)
    problem = Problem(f"q{place}", [{"role": "user", "content": asked}], "7", "math", "held-out")
    trace = Trace(problem.id, 0, "org/m", "r", text, split.reasoning, split.content, "stop", 5, 9, 1)
    cards = [answer_card(trace, Verdict(problem.id, 0, right, "7"), problem) for right in is_right]
    return Pair("held-out", tuple([card] for card in cards), tuple(Tally(float(r), int(r), 1, 0) for r in is_right))


def test_answers_of_both_models_to_a_question_are_there_to_read():
    lost = pair("<think>Hm.</think>Is it 9?", is_right=(True, False), place=2)
    shown = page(pairs=[pair(), lost])
    assert "2 of 2 questions: those on which Base and Student differ first" in shown.text
    found = shown.payload["answers"]
    assert found["names"] == ["Base", "Student"]
    assert [one["tallies"] for one in found["pairs"]] == [
        [[0.0, 0, 1, 0], [1.0, 1, 1, 0]],
        [[1.0, 1, 1, 0], [0.0, 0, 1, 0]],
    ]
    assert [[side[0]["text"] for side in one["sides"]] for one in found["pairs"]] == [
        [["It is 7."]] * 2,
        [["Is it 9?"]] * 2,
    ]
    assert [one["question"] for one in found["problems"]] == ["What is 3 + 4?"] * 2


@pytest.mark.parametrize("letter", ["a", "字", "'"], ids=["ascii", "chinese", "escaped"])
def test_however_many_answers_there_are_the_page_stays_small_and_says_what_it_shows(letter):
    given = {"text": f"<think>{letter * 3_000}</think>{letter * 3_000}", "asked": letter * 1_500}
    pairs = [pair(**given, place=place) for place in range(1_200)]
    shown = page(cards=[card()], pairs=pairs)
    assert len(shown.html.encode()) < MAX_BYTES
    num = len(shown.payload["answers"]["pairs"])
    assert 50 < num < 1_200
    assert f"{num:,} of 1,200 questions" in shown.text
    assert len(shown.payload["traces"]) == 1


@pytest.mark.parametrize(
    ("reasons", "correct", "outcome"),
    [
        ([], True, "kept"),
        (["wrong_answer"], False, "dropped"),
        (["truncated"], None, "dropped"),
        (["ungraded_timeout"], None, "ungraded"),
        (["ungraded_gold", "repetition"], None, "dropped"),
    ],
)
def test_what_could_not_be_graded_is_not_called_wrong(reasons, correct, outcome):
    (trace,) = page(cards=[card(reasons=reasons, correct=correct)]).payload["traces"]
    assert (trace["outcome"], trace["correct"], trace["reasons"]) == (outcome, correct, reasons)


def test_a_trace_has_its_text_word_for_word():
    shown = page(cards=[card("<think>\n\tA <b>thought</b> & more\n</think>\n\nIt is \\boxed{-4}.")])
    (trace,), (problem,) = shown.payload["traces"], shown.payload["problems"]
    assert (trace["thinking"], trace["text"]) == (["A <b>thought</b> & more"], ["It is \\boxed{-4}."])
    assert problem == {"id": "9f2c", "source": "gym:chain_sum", "question": "What is 17 - 21?", "answer": "-4"}


HOSTILE_TEXTS = [
    HOSTILE,
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>\u2028\u2029",
    "a\u202eb\u2066c",
    "\ud800 \udfff\x00\x1b[31m",
    "x" * 1_200_000,
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: ascii(text[:12]))
def test_hostile_text_stays_text_wherever_it_comes_from(text):
    problem = Problem(text[:500], [{"role": "user", "content": text}], text, "math", text[:500])
    cards = [
        card(f"<think>{text}</think>{text}", ["no_answer"], None, problem, details={"no_answer": text}, error=text)
    ]
    facts = {"lock": text[:500], "stopped": {"stage": "sft", "error": text[:5_000], "at": text[:500]}}
    asked = pair(text, asked=text)
    summary = poisoned(SUMMARY, text[:500])
    hostile = page(summary, [["sampled", 2], [text[:500], 1], ["kept", 1]], cards, pairs=[asked], **facts)
    allowed = {tag for tag, _ in page(lock="a", stopped={"stage": "sft"}, pairs=[pair()]).elements}
    assert {tag for tag, _ in hostile.elements} <= allowed
    assert len(hostile.scripts) == 2
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on") or name == "style"]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\ud800-\udfff\x00\x1b]", hostile.html)
    assert not re.search("[<>\u2028\u2029]", hostile.scripts[0])
    assert len(hostile.html.encode()) < MAX_BYTES
    assert len(hostile.payload["traces"]) == 1


def test_hostile_text_is_seen_as_it_was_written():
    assert page(poisoned(SUMMARY, HOSTILE)).text.count(HOSTILE) > 10


def test_a_text_too_long_for_the_page_is_cut_in_its_middle_and_says_so():
    shown = page(cards=[card(f"<think>START{'x' * 3_000_000}END</think>It is -4.")])
    first, left_out, last = shown.payload["traces"][0]["thinking"]
    assert first.startswith("START")
    assert last.endswith("END")
    assert len(first) + len(last) + left_out == 3_000_008
    assert "In 1 of them more than 100,000 characters are cut in the middle" in shown.text


def test_secrets_of_this_machine_are_blotted_out(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "open-sesame-42")
    shown = page(cards=[card("<think>open-sesame-42</think>It is open-sesame-42.")], pairs=[pair()])
    assert "open-sesame-42" not in shown.html
    assert shown.payload["traces"][0]["text"] == ["It is [redacted]."]


def test_the_page_loads_nothing_and_runs_only_its_own_script():
    shown = page()
    policy = next(a["content"] for _, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for text in (shown.scripts[1], shown.styles):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    loading = {"src", "srcset", "data", "poster", "action", "xlink:href", "background"}
    assert not [attrs for _, attrs in shown.elements if loading & attrs.keys()]
    assert all(attrs["href"].startswith("#") for _, attrs in shown.elements if "href" in attrs)
    assert not re.search(r"url\(|@import|http", shown.styles)
    assert shown.styles.count("{") == shown.styles.count("}") > 50
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", shown.scripts[1])


def test_rendering_is_pure():
    run = run_of(cards=[card()])
    before = deepcopy(run)
    assert render_report(run) == render_report(run)
    assert run == before

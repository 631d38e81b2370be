import json
import re
from copy import deepcopy
from html.parser import HTMLParser

import pytest

from distill.records import REASONS
from distill.report import render_report

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
FUNNEL = [("sampled", 1200), ("truncated", 10), ("wrong_answer", 880), ("duplicate", 100), ("kept", 210)]
TRACE = {
    "problem_id": "9f2c",
    "sample_index": 0,
    "prompt": "What is 17 - 21?",
    "answer": "-4",
    "reasoning": "I count down.",
    "content": "It is -4.",
    "text": "<think>I count down.</think>It is -4.",
    "finish_reason": "stop",
    "num_completion_tokens": 43,
    "extracted_answer": "-4",
    "correct": True,
    "reasons": [],
    "kept": True,
}
HOSTILE = "</div></style></title><script>alert(1)</script><img src=http://evil.example/x onerror=f()>\"'&amp;{{ 7*7 }}"
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


class Page(HTMLParser):
    """What a browser makes of the page: its elements with their attributes, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.styles, self.words = "", ""
        self.feed(html)
        self.text = " ".join(self.words.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.words += " "

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "style" and not self.styles:
            self.styles = data
        else:
            self.words += data

    def charts(self):
        return [attrs["aria-label"] for _, attrs in self.elements if attrs.get("role") == "img"]


def page(summary=SUMMARY, funnel=FUNNEL, traces=(TRACE,)) -> Page:
    return Page(render_report(summary, funnel, traces))


def changed(stage, **fields):
    summary = deepcopy(SUMMARY)
    summary[stage] |= fields
    return summary


def with_scores(student, difference):
    return changed("eval", student=student, difference=difference, benchmarks=[])


def poisoned(value):
    """`value` with hostile text in place of every text in it, however deep."""
    if isinstance(value, dict):
        return {key: poisoned(v) for key, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


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
        "Student 43.5% 36.5 to 50.5% 0.5% 0",
        "better than the base on 87 problems (gained) and worse on 3 (lost)",
        "temperature 0.6",
        "2 min 0 s 2.9 GiB",
        "Total 6 min 3 s",
    ):
        assert expected in text


def test_the_funnel_names_each_reason_with_count_share_and_explanation():
    shown = page()
    assert f"wrong_answer {MINUS}880 · 73.3% {REASONS['wrong_answer']}" in shown.text
    assert "Kept 210 · 17.5%" in shown.text
    assert "duplicate: 100 of 1,200 traces" in shown.charts()
    widths = [a["width"] for tag, a in shown.elements if tag == "rect" and a["class"] == "fill-left"]
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx([100, 1190 / 12, 310 / 12, 210 / 12])


def test_charts_are_described_in_words():
    charts = page().charts()
    assert "Training loss from 2.125 at step 1 to 0.4125 at step 3" in charts
    assert any("student 43.5%, 95% interval 36.5 to 50.5%" in chart for chart in charts)


def test_losses_that_are_not_finite_are_counted_and_not_drawn():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": float("inf")}]
    html = render_report(changed("sft", history=history), FUNNEL, [])
    assert "2 logged losses were not finite numbers" in html
    assert "nan" not in re.search(r'class="curve" d="([^"]+)"', html)[1]


def test_a_long_loss_history_stays_a_small_chart():
    history = [{"step": step, "loss": 1 / step} for step in range(1, 20_001)]
    html = render_report(changed("sft", history=history), FUNNEL, [])
    assert html.count(" L") < 300
    assert "Each point is the mean of 67 steps." in html


@pytest.mark.parametrize("losses", [[0.0], [0.7, 0.7], [-1.0, 1e30], [1e-300, 0.0]])
def test_a_curve_of_one_point_or_of_any_range_stays_in_its_box(losses):
    history = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    html = render_report(changed("sft", history=history), FUNNEL, [])
    path = re.search(r'class="curve" d="M([^"]+) h0.01"', html)[1]
    assert all(0 <= float(place) <= 100 for place in re.split(" L?", path))


def test_a_training_without_logged_losses_says_so():
    assert "No loss was logged." in page(changed("sft", history=[])).text


@pytest.mark.parametrize("stage", ["generate", "filter", "sft", "eval"])
def test_a_missing_stage_is_not_run_yet(stage):
    text = page({key: value for key, value in SUMMARY.items() if key != stage}, [], []).text
    assert f"{stage} not run yet" in text
    assert f"{stage}: not run yet" in text


def test_an_unfinished_run_says_what_is_done():
    text = page({"name": "r1", "generate": SUMMARY["generate"]}, [], []).text
    assert "The student has no score yet (generate done; filter, sft, eval still to run)." in text
    assert "No traces to show yet." in text


def test_missing_fields_are_dashes():
    text = page({"generate": {}, "filter": {}, "sft": {}, "eval": {}}, [("sampled", 0), ("kept", 0)], [{}]).text
    assert f"Teacher {DASH}" in text
    assert f"Of {DASH} traces, {DASH} became training rows." in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, "Kept 9f2c · sample 0"),
        ({"kept": False, "correct": False, "reasons": ["wrong_answer"]}, "Dropped 9f2c"),
        ({"kept": False, "correct": None, "reasons": ["truncated"]}, "Dropped 9f2c"),
        ({"kept": False, "correct": None, "reasons": ["ungraded_timeout"]}, "Could not be graded 9f2c"),
    ],
)
def test_a_trace_shows_its_verdict_and_every_reason(fields, verdict):
    text = page(traces=[TRACE | fields]).text
    assert verdict in text
    for reason in fields.get("reasons", []):
        assert f"{reason}: {REASONS[reason]}" in text


def test_a_trace_shows_what_went_in_and_came_out():
    shown = page(traces=[TRACE | {"reasoning": "\n  Indented thought.", "extracted_answer": None}])
    for expected in ("What is 17 - 21?", "Expected answer -4", f"Extracted answer {DASH}", "Tokens 43", "It is -4."):
        assert expected in shown.text
    assert "\n  Indented thought." in shown.words
    assert "details" in [tag for tag, _ in shown.elements]


def test_a_trace_that_could_not_be_split_shows_its_raw_text():
    text = page(traces=[TRACE | {"reasoning": "", "content": "", "text": "<think> and on"}]).text
    assert "Raw text <think> and on" in text


def test_up_to_ten_traces_appear():
    text = page(traces=[TRACE | {"problem_id": f"p{i:02}"} for i in range(12)]).text
    assert [f"p{i:02} · sample 0" in text for i in range(12)] == [True] * 10 + [False] * 2
    assert "10 of the 12 given traces" in text


def test_hostile_text_stays_text_wherever_it_comes_from():
    trace = {**poisoned(TRACE), "finish_reason": HOSTILE, "reasons": [HOSTILE]}
    funnel = [("sampled", 2), (HOSTILE, 1), ("kept", 1)]
    hostile = page(poisoned(SUMMARY), funnel, [trace])
    tags = {tag for tag, _ in hostile.elements}
    assert tags <= {tag for tag, _ in page(traces=[TRACE | {"reasons": ["no_answer"]}]).elements}
    assert not tags & {"script", "img", "iframe", "object", "link", "a"}
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on")]
    # Seen as it was written: neither swallowed nor run as a template.
    assert hostile.text.count(HOSTILE) > 10


def test_text_that_utf8_or_html_cannot_hold_is_replaced():
    content = json.loads('"a\\ud800b\\u0000c\\u001bd\\te"')
    html = render_report(SUMMARY | {"name": content}, FUNNEL, [TRACE | {"content": content}])
    assert html.encode("utf-8").decode("utf-8").count("a\ufffdb\ufffdc\ufffdd\te") == 3  # title, heading, trace


def test_the_page_loads_nothing():
    shown = page()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in shown.elements
    loading = {"src", "href", "srcset", "data", "poster", "action", "xlink:href", "background"}
    assert not [attrs for _, attrs in shown.elements if loading & attrs.keys()]
    assert not re.search(r"url\(|@import|http", shown.styles)
    assert shown.styles.count("{") == shown.styles.count("}") > 50


def test_rendering_is_pure():
    before = deepcopy((SUMMARY, FUNNEL, TRACE))
    assert render_report(SUMMARY, FUNNEL, [TRACE]) == render_report(SUMMARY, FUNNEL, [TRACE])
    assert before == (SUMMARY, FUNNEL, TRACE)

"""Measured once, judged by any recipe: each threshold's recall and false alarms on planted faults."""

import importlib.util
import json
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.readability import Measures, measure, unreadable
from distill.recipe.filter import Readability

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
ANY = Readability()
CLEAN = measure("Two and two make four.", "\\boxed{4}", "en")


def _planted_traces():
    spec = importlib.util.spec_from_file_location("planted_traces", ROOT / "benchmarks" / "planted_traces.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


planted_traces = _planted_traces()
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs real traces next to the repository")
SOURCES = ["synthetic", pytest.param("real", marks=needs_shared)]
LEAST_RECALL = {
    "mixed_language": 0.99,
    "repetition": 0.95,
    "long_paragraph": 0.95,
    "code_block": 0.99,
    "several_answers": 0.95,
    "refusal": 0.99,
    "prompt_leak": 0.99,
}


def clean_traces(source):
    return planted_traces.real_traces(SHARED) if source == "real" else planted_traces.synthetic_traces(25)


def reasons_of(trace):
    return unreadable(measure(*trace, "en", planted_traces.INSTRUCTIONS), ANY)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("reason", planted_traces.FAULTS)
def test_planted_faults_are_found(reason, source):
    planted = planted_traces.plant(reason, clean_traces(source), random.Random(0))
    found = [reason in reasons_of(trace) for trace in planted]
    assert sum(found) / len(found) >= LEAST_RECALL[reason]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("language", planted_traces.OTHER_SCRIPTS)
def test_half_a_percent_of_another_script_is_found(language, source):
    dice = random.Random(0)
    found = [
        "mixed_language" in reasons_of((planted_traces.plant_language(reasoning, language, dice), content))
        for reasoning, content in clean_traces(source)
    ]
    assert sum(found) / len(found) >= 0.99


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("language", planted_traces.SAME_SCRIPT)
def test_two_sentences_in_the_same_script_are_found(language, source):
    dice = random.Random(0)
    found = [
        "mixed_language" in reasons_of((planted_traces.plant_sentences(reasoning, language, dice), content))
        for reasoning, content in clean_traces(source)
    ]
    assert sum(found) / len(found) >= 0.9


def test_synthetic_traces_raise_no_alarm():
    assert [reasons_of(trace) for trace in clean_traces("synthetic")] == [[]] * 25


@needs_shared
@pytest.mark.parametrize("reason", planted_traces.FAULTS)
def test_real_traces_raise_no_false_alarm(reason):
    # Three of the responses are damaged and slip into Chinese, and some hold code: these are no false alarms.
    clean = [
        trace
        for trace in planted_traces.real_traces(SHARED) + planted_traces.real_responses(SHARED)
        if "```" not in trace[1] + trace[0] and not any("\u4e00" <= char <= "\u9fff" for char in trace[1])
    ]
    assert len(clean) > 1_300
    assert sum(reason in reasons_of(trace) for trace in clean) / len(clean) < 0.005


def changed(**changes):
    return Measures.from_json({**CLEAN.to_json(), **changes})


@pytest.mark.parametrize(
    ("measures", "within", "beyond", "reason"),
    [
        ({"language_share": 0.9}, {"min_language_share": 0.9}, {"min_language_share": 0.91}, "mixed_language"),
        (
            {"compression_ratio": 8.0, "repeated_share": 0.9},
            {"max_compression_ratio": 8.0},
            {"max_compression_ratio": 7.9},
            "repetition",
        ),
        ({"loop_repeats": 11}, {"max_loop_repeats": 11}, {"max_loop_repeats": 10}, "repetition"),
        ({"loop_repeats": 11}, {"max_loop_repeats": None}, {}, "repetition"),
        ({"longest_paragraph": 90}, {"max_paragraph_chars": 90}, {"max_paragraph_chars": 89}, "long_paragraph"),
        ({"longest_paragraph": 10**6}, {"max_paragraph_chars": None}, {}, "long_paragraph"),
        ({"num_code_blocks": 1}, {"code_blocks": True}, {}, "code_block"),
        ({"num_disagreeing_answers": 2}, {"several_answers": True}, {}, "several_answers"),
        ({"refuses": True}, {"refusals": True}, {}, "refusal"),
        ({"prompt_leak": 0.6}, {"max_prompt_leak": 0.6}, {"max_prompt_leak": 0.5}, "prompt_leak"),
        ({"prompt_leak": 1.0}, {"max_prompt_leak": None}, {}, "prompt_leak"),
    ],
)
def test_the_threshold_is_the_recipes(measures, within, beyond, reason):
    assert unreadable(changed(**measures), Readability(**within)) == []
    assert unreadable(changed(**measures), Readability(**beyond)) == [reason]


def but(**thresholds):
    return ANY.model_copy(update=thresholds)


def test_foreign_words_repeats_and_code_tasks():
    assert unreadable(changed(num_foreign_words=1), ANY) == ["mixed_language"]
    assert unreadable(changed(num_foreign_words=1), but(max_foreign_words=1)) == []
    assert unreadable(changed(num_foreign_words=99), but(max_foreign_words=None)) == []
    table = changed(compression_ratio=20.0, repeated_share=0.4)
    assert unreadable(table, ANY) == []
    assert unreadable(table, but(max_repeated_share=0.3)) == ["repetition"]
    assert unreadable(changed(num_code_blocks=1), but(code_blocks=True)) == []


def test_a_clean_trace_has_no_reason():
    assert unreadable(CLEAN, ANY) == []
    assert unreadable(measure("", "", "en"), ANY) == []


def test_all_reasons_are_given():
    text = "Нам нужно найти число яблок. " * 400
    content = "```\n1\n```\nSo \\boxed{1}.\n\nNo, \\boxed{2}."
    found = unreadable(measure(f"{text}\n\n" * 3, content, "en", [text]), ANY)
    assert set(found) == {
        *("mixed_language", "repetition", "long_paragraph", "code_block", "several_answers", "prompt_leak"),
    }


def test_any_language_is_fine_where_none_is_asked_for():
    assert unreadable(measure("二加二等于四", "答案是四", None), ANY) == []


def test_measures_survive_json():
    measures = measure("Two.", "\\boxed{4} and \\boxed{5}", "en")
    assert Measures.from_json(json.loads(json.dumps(measures.to_json()))) == measures


wild_text = st.lists(
    st.sampled_from(["word ", "слово ", "词", "$", "```", "\\[", "\\boxed{4}", "\\begin{a}", "\n", "\ud800", "\x00"])
    | st.text(st.characters(exclude_categories=())),
    max_size=30,
).map("".join)


@settings(deadline=None)
@given(wild_text, wild_text, st.sampled_from(["en", "zh", "ar", None]), st.integers(1, 20))
def test_any_trace_can_be_measured(reasoning, content, language, times):
    measures = measure(reasoning * times, content, language, [content, "Be brief."], reasoning)
    assert Measures.from_json(json.loads(json.dumps(measures.to_json()))) == measures
    unreadable(measures, ANY)


@pytest.mark.parametrize(
    "piece",
    [
        *("\\[ x ", "\\begin{align} ", "\\( ", "$$ x ", "$ x\n", "``` x ", "`", "word ", "a b c d e f g ", "\\text{"),
        *(
            "\\boxed{",
            "\\boxed{1} ",
            "\\boxed{1}\n\n",
            "{",
            "}",
            "x = ",
            "\\[ \\( ",
            "\\\\",
            "I'm sorry ",
            "| a ",
            "\n",
        ),
        *(" ", "\n \n", "αβ", "词 слово ", "\ud800\x00", "as an AI ", "answer is ", "~~~\n", "\\begin{w", "$$$ "),
    ],
)
def test_two_million_hostile_characters_end(piece):
    # A daemon, for an expression that takes quadratic time would take hours, and cannot be stopped.
    text = (piece * (2_000_000 // len(piece) + 1))[:2_000_001]
    done = []
    worker = threading.Thread(target=lambda: done.append(measure(text, text, "en", [text[:2_000]])), daemon=True)
    worker.start()
    worker.join(timeout=120)
    assert len(done) == 1
    assert isinstance(unreadable(done[0], ANY), list)


def test_a_language_that_cannot_be_told_apart_is_refused():
    for unknown in ("english", "xx", "EN"):
        with pytest.raises(ValueError, match="language"):
            Readability(language=unknown)

"""What Python programs hand to distill is held to what it expects, and never fails somewhere inside."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import distill
from distill.core.call_checks import fits

PROBLEM = distill.make_problem("What is 3 + 4?", "7")
RECIPE = {
    "name": "x",
    "student": "smollm2-135m",
    "traces": [{"source": "file:t.jsonl"}],
    "filter": {"max_tokens": 9},
    "sft": {"max_length": 99},
}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: distill.plan(RECIPE, gpus=-1), "gpus is -1, and should be 1 or more"),
        (lambda: distill.plan(RECIPE, gpus=0), "gpus is 0, and should be 1 or more"),
        (lambda: distill.plan(RECIPE, gpus=1.5), r"gpus is 1\.5, and should be a whole number or None"),
        (lambda: distill.plan(RECIPE, gpus=True), "gpus is True, and should be a whole number"),
        (lambda: distill.plan(RECIPE, gpus=1, gpu_memory_gib=math.nan), "gpu_memory_gib is nan"),
        (lambda: distill.plan(RECIPE, gpu=3), "gpu is 3, and should be a text or None"),
        (lambda: distill.plan(3), "plan: recipe is 3, and should be"),
        (
            lambda: distill.run("r.yaml", stages="filter"),
            r"run: stages is 'filter', and should be a list \(",
        ),
        (lambda: distill.run("r.yaml", stages=[3]), r"stages is \[3\], and should be a list"),
        (lambda: distill.run(RECIPE, stages=[]), "stages is empty"),
        (lambda: distill.run("r.yaml", overrides="seed=3"), "overrides is 'seed=3', and should be a list"),
        (lambda: distill.run([]), r"recipe is \[\], and should be"),
        (lambda: distill.run(None), "recipe is None, and should be"),
        (lambda: distill.run({"name": "x"}), "'student' is missing"),
        (lambda: distill.run("r.yaml", run_dir=None), "run_dir is None, and should be a text or a Path"),
        (lambda: distill.load_recipe({"name": "x"}), "load_recipe: reference is .* Pass a dict directly"),
        (lambda: distill.make_trace(PROBLEM, None), "make_trace: text is None, and should be a text"),
        (lambda: distill.make_trace(None, "x"), "make_trace: problem is None, and should be a Problem"),
        (lambda: distill.make_trace(PROBLEM, "x", finish_reason="done"), "one of stop, length, loop, error"),
        (lambda: distill.make_trace(PROBLEM, "x", num_completion_tokens=-1), "may be below 0"),
        (lambda: distill.make_problem("q", 7), "answer is 7, and should be a text or None"),
        (lambda: distill.make_problem("q", "7", task="maths"), "task is 'maths', and should be one of math, choice"),
        (lambda: distill.score([1], [2]), r"score: traces is \[1\], and should be a list \(a Trace each\)"),
        (lambda: distill.judge_traces(PROBLEM, [], {"max_tokens": 3}), "config is .* a FilterConfig or None"),
        (lambda: distill.grade(PROBLEM, None), "grade: "),
        (lambda: distill.open_run("b", run_dir=3), "run_dir is 3"),
        (lambda: distill.describe_run("nowhere"), "no run is here"),
        (lambda: distill.split_reasoning(None), "text is None"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_expected(call, says):
    with pytest.raises(distill.UserError, match=says):
        call()


def test_paths_may_be_texts(tmp_path):
    assert distill.list_runs(str(tmp_path)) == distill.list_runs(tmp_path) == []


def test_a_missing_argument_is_pythons_own_error():
    with pytest.raises(TypeError, match="required"):
        distill.make_problem("q")


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_nothing_but_a_users_error_comes_of_any_recipe(value):
    with pytest.raises(distill.UserError):
        distill.run(value if not isinstance(value, str) else [value])


def test_hints_are_followed_to_their_parts():
    assert fits(["a"], list[str])
    assert not fits(["a", 3], list[str])
    assert fits({"a": 1}, dict[str, int])
    assert not fits({"a": "1"}, dict[str, int])
    assert fits(None, str | None)
    assert not fits("abc", list[str])
    assert not fits(True, int)
    assert fits(3, float)

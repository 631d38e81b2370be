"""Records survive JSON, refuse what is not in the vocabulary, and turn into the rows that TRL reads."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import REASON_KEYS, REASONS, Problem, Trace, Verdict, problem_id
from distill.filters.rows import rl_row, sft_row
from distill.recipe.model import Recipe
from distill.results.eval import EvalResult
from distill.storage.files import read_jsonl, write_jsonl


def _json_keeps(text):
    """JSON joins a high and a low surrogate that stand side by side into one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text


any_text = st.text(st.characters(exclude_categories=())).filter(_json_keeps)
counts = st.integers(min_value=0)
shares = st.floats(min_value=0, max_value=1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(any_text, json_values, max_size=3)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": any_text}), max_size=3
)
problems = st.builds(Problem, any_text, messages, st.none() | any_text, any_text, any_text, json_objects)
traces = st.builds(
    Trace,
    problem_id=any_text,
    sample_index=counts,
    teacher=any_text,
    teacher_revision=any_text,
    text=any_text,
    reasoning=any_text,
    content=any_text,
    finish_reason=st.sampled_from(["stop", "length", "error"]),
    num_prompt_tokens=counts,
    num_completion_tokens=counts,
    seed=counts,
    sampling=json_objects,
    error=any_text,
)
verdicts = st.builds(
    Verdict,
    any_text,
    counts,
    st.none() | st.booleans(),
    st.none() | any_text,
    st.lists(st.sampled_from(list(REASONS))).map(tuple),
)
few = st.integers(0, 2**63 - 1)
eval_results = st.builds(
    EvalResult,
    model=st.text(),
    num_problems=few,
    samples_per_problem=few,
    pass_at_1=shares,
    interval_95=st.tuples(shares, shares),
    truncated_share=shares,
    num_ungraded=few,
    mean_completion_tokens=st.floats(0, 1e6),
)

PROBLEM = Problem("9f2c", [{"role": "user", "content": "What is 2 + 2?"}], "4", "math", "hf:org/set")
TRACE = Trace("9f2c", 0, "org/model", "f48b", "<think>\n2 + 2\n</think>\n\n4", "2 + 2", "4", "stop", 31, 19, 7)


@settings(deadline=None)
@given(problems | traces | verdicts | eval_results)
def test_json_round_trip(record):
    row = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(row) == record


@settings(deadline=None, max_examples=30)
@given(st.lists(problems, max_size=3))
def test_jsonl_round_trip(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("records") / "problems.jsonl"
    write_jsonl(path, [record.to_json() for record in records])
    assert [Problem.from_json(row) for row in read_jsonl(path)] == records


def test_json_keeps_the_order_of_the_fields():
    assert list(PROBLEM.to_json()) == ["id", "prompt", "answer", "task", "source", "metadata"]
    assert list(Verdict("a", 0, True, "4").to_json())[4:] == ["reasons", "graded_by", "details", "num_student_tokens"]


def test_keys_that_are_not_fields_are_left_aside():
    assert Problem.from_json({**PROBLEM.to_json(), "num_steps": 3}) == PROBLEM


def test_a_missing_field_is_named():
    row = PROBLEM.to_json()
    del row["task"]
    with pytest.raises(TypeError, match="task"):
        Problem.from_json(row)


def test_fields_with_defaults_may_be_missing():
    row = TRACE.to_json()
    del row["error"], row["sampling"]
    assert Trace.from_json(row) == TRACE


def test_records_are_fixed():
    with pytest.raises(AttributeError):
        PROBLEM.answer = "5"


def test_unknown_reason_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown reasons \['too_boring'\].*wrong_answer"):
        Verdict("a", 0, True, "4", ("too_boring", "truncated"))


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(REASONS))))
def test_reasons_are_distinct_and_in_the_order_of_the_vocabulary(reasons):
    verdict = Verdict("a", 0, None, None, tuple(reasons))
    assert verdict.reasons == tuple(reason for reason in REASONS if reason in reasons)
    assert verdict.kept == (not reasons)


def test_question_is_the_last_user_message():
    def asks(*roles):
        return Problem(
            "a", [{"role": r, "content": f"{r} {i}"} for i, r in enumerate(roles)], "4", "math", "s"
        ).question

    assert asks("system", "user", "assistant", "user", "assistant") == "user 3"
    assert asks("system") == ""
    assert asks() == ""


def test_keys_are_identities():
    assert TRACE.key == ("9f2c", 0)
    assert Verdict("9f2c", 0, True, "4").key == TRACE.key


def test_problem_id_is_the_same_on_every_machine_and_in_every_version():
    # recorded: a change would orphan the ledgers of all runs that there are
    assert problem_id([{"role": "user", "content": "What is 2 + 2?"}], "math", "4") == "eb7931a13ade9ac9"


@settings(deadline=None)
@given(messages, any_text, st.none() | any_text)
def test_problem_id_is_16_hex_digits_of_the_content(prompt, task, answer):
    name = problem_id(prompt, task, answer)
    assert re.fullmatch(r"[0-9a-f]{16}", name)
    # the order of a message's keys says nothing
    assert problem_id([dict(reversed(m.items())) for m in prompt], task, answer) == name


def test_problem_id_changes_with_prompt_task_and_answer():
    prompt = [{"role": "user", "content": "What is 2 + 2?"}]
    names = [
        problem_id(prompt, "math", "4"),
        problem_id([{"role": "user", "content": "What is 2 + 3?"}], "math", "4"),
        problem_id([{"role": "system", "content": "What is 2 + 2?"}], "math", "4"),
        problem_id(prompt, "gym", "4"),
        problem_id(prompt, "math", "5"),
        problem_id(prompt, "math", None),
        problem_id(prompt, "math", "None"),
    ]
    assert len(set(names)) == len(names)


def test_sft_row_is_conversational_prompt_and_completion():
    assert sft_row(PROBLEM, TRACE) == {
        "prompt": [{"role": "user", "content": "What is 2 + 2?"}],
        "completion": [{"role": "assistant", "content": "<think>\n2 + 2\n</think>\n\n4"}],
    }


def test_sft_row_of_a_trace_without_thinking_is_its_answer():
    plain = Trace("9f2c", 0, "org/model", "f48b", "4", "", "4", "stop", 31, 1, 7)
    assert sft_row(PROBLEM, plain)["completion"] == [{"role": "assistant", "content": "4"}]


def test_rl_row_is_the_prompt_with_what_a_reward_needs():
    assert rl_row(PROBLEM) == {"prompt": PROBLEM.prompt, "solution": "4", "task": "math"}


def _has_key(model, key):
    """Whether a recipe may have a dotted key."""
    name, _, rest = key.partition(".")
    field = model.model_fields.get(name)
    if field is None or not rest:
        return field is not None
    inner = [one for one in (field.annotation, *get_args(field.annotation)) if hasattr(one, "model_fields")]
    return any(_has_key(one, rest) for one in inner)


def test_every_reason_names_the_keys_of_the_recipe_that_decide_it():
    assert list(REASON_KEYS) == list(REASONS)
    for reason, keys in REASON_KEYS.items():
        for key in keys:
            assert _has_key(Recipe, key), f"{reason}: {key}"
    assert not _has_key(Recipe, "filter.select.nonsense")


def test_the_page_of_the_filter_lists_every_reason_with_its_keys():
    page = (Path(__file__).parents[2] / "docs" / "filter.md").read_text().partition("## Reasons")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    listed = [(reason.strip("`"), meaning.replace("`", "")) for reason, meaning, _ in rows]
    assert listed == [(reason, meaning.replace("`", "")) for reason, meaning in REASONS.items()]
    assert [tuple(re.findall(r"`([^`]+)`", keys)) for *_, keys in rows] == list(REASON_KEYS.values())

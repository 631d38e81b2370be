"""The answers that a judge compares with: matched by id or question, in any of the forms they are stored in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.errors import ProblemError
from distill.recipe.suites import Baseline
from distill.sources.baselines import _answer, load_baseline


def problem(name, question="Say hello."):
    return Problem(name, [{"role": "user", "content": question}], None, "judge", "hf:org/set")


def baseline(path, rows, **keys):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Baseline.model_validate({"source": f"file:{path}", "name": "base", **keys})


def chat(answer):
    return [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    "stored",
    [
        "Hello!",
        chat("Hello!"),
        chat({"answer": "Hello!"}),
        [*chat("An earlier one."), *chat("Hello!")],
        [*chat("Hello!"), {"role": "user", "content": "Thank you."}],
        [{"index": 0, "turns": [{"content": "Hello!", "token_len": 2}]}],
        [{"index": 0, "turns": ["Hello!"]}],
        {"answer": "Hello!"},
    ],
)
def test_an_answer_is_read_in_each_of_its_forms(stored, tmp_path):
    given_rows = [{"uid": "a1", "answer": stored}]
    found = load_baseline(baseline(tmp_path / "b.jsonl", given_rows, question="uid", answer="answer"), [problem("a1")])
    assert found == {"a1": "Hello!"}


@pytest.mark.parametrize(
    "stored", [None, "", "  ", 7, [], {}, {"answer": None}, [{"role": "user", "content": "Hello!"}], chat(None)]
)
def test_what_holds_no_answer_counts_as_missing(stored, tmp_path):
    source = baseline(tmp_path / "b.jsonl", [{"uid": "a1", "answer": stored}], question="uid", answer="answer")
    with pytest.raises(ProblemError, match=r"base has no answer to 1 of 1 problems \(a1\)"):
        load_baseline(source, [problem("a1")])


def test_ids_match_with_and_without_the_suites_name(tmp_path):
    rows = [{"uid": "a1", "output": "One."}, {"uid": 2, "output": "Two."}, {"uid": "other", "output": "Three."}]
    source = baseline(tmp_path / "b.jsonl", rows, question="uid")
    problems = [problem("arena-hard-0.1/a1"), problem("2", "Say bye.")]
    assert load_baseline(source, problems) == {"arena-hard-0.1/a1": "One.", "2": "Two."}


def test_questions_match_without_their_template_whatever_their_spaces_and_case(tmp_path):
    rows = [{"instruction": "Say  hello.\n", "output": "Hello!"}, {"instruction": "BYE", "output": "Bye!"}]
    source = baseline(tmp_path / "b.jsonl", rows)
    problems = [problem("s/1", "Answer this: Say hello."), problem("s/2", "Answer this: bye")]
    found = load_baseline(source, problems, "Answer this: {problem}")
    assert found == {"s/1": "Hello!", "s/2": "Bye!"}


def test_repeated_questions_have_the_same_answer_and_repeated_answers_are_one(tmp_path):
    source = baseline(tmp_path / "b.jsonl", [{"instruction": "Say hello.", "output": "Hello!"}] * 2)
    assert load_baseline(source, [problem("x"), problem("x-2")]) == {"x": "Hello!", "x-2": "Hello!"}


def test_two_answers_to_one_problem_are_refused_with_both_places(tmp_path):
    rows = [{"instruction": "Say hello.", "output": answer} for answer in ("Hello!", "Hi!")]
    with pytest.raises(ProblemError, match=r"b.jsonl:2: another answer to a problem that .*b.jsonl:1 answers too"):
        load_baseline(baseline(tmp_path / "b.jsonl", rows), [problem("x")])


def test_missing_answers_are_counted_and_the_first_are_named(tmp_path):
    source = baseline(tmp_path / "b.jsonl", [{"uid": "p0", "output": "One."}], question="uid")
    problems = [problem(f"s/p{number}", f"Say {number}.") for number in range(9)]
    with pytest.raises(ProblemError) as caught:
        load_baseline(source, problems)
    said = str(caught.value)
    assert "base has no answer to 8 of 9 problems (s/p1, s/p2, s/p3, s/p4, s/p5, …)" in said
    assert "baseline.question ('uid')" in said


@pytest.mark.parametrize(
    ("keys", "said"), [({"question": "ui"}, "Did you mean 'uid'"), ({"answer": "x"}, "baseline.answer")]
)
def test_a_missing_column_is_named(keys, said, tmp_path):
    source = baseline(tmp_path / "b.jsonl", [{"uid": "a", "output": "One."}], **{"question": "uid", **keys})
    with pytest.raises(ProblemError, match=said):
        load_baseline(source, [problem("a")])


def test_a_missing_file_is_refused(tmp_path):
    source = Baseline(source=f"file:{tmp_path}/none.jsonl", name="base")
    with pytest.raises(ProblemError, match="no such file"):
        load_baseline(source, [problem("a")])


def test_deep_nesting_ends():
    nested = "Hello!"
    for _ in range(900):
        nested = [{"content": nested}]
    assert _answer(nested) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "answer", "turns", "x"]), inner, max_size=3)
        ),
    )
)
def test_any_cell_is_an_answer_or_none(cell):
    found = _answer(cell)
    assert found is None or found.strip()

"""Traces that somebody else made, read as our own problems and traces."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import ProblemError
from distill.foreign import MAX_EXAMPLES, Skipped, foreign_traces
from distill.recipe import TraceSource
from distill.records import Problem, Trace, problem_id

THOUGHT = "<think>\n2 + 2 is 4\n</think>\n\nIt is \\boxed{4}."
OPEN_R1 = {
    "problem": "What is 2 + 2?",
    "solution": "Add them: 4",
    "answer": "4",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "olympiads",
    "uuid": "u-1",
    "is_reasoning_complete": [True, False],
    "generations": [THOUGHT, "<think>\n2 + 2 is"],
    "correctness_math_verify": [True, False],
    "correctness_llama": None,
    "finish_reasons": None,
    "messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": THOUGHT}],
}
CHAT = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": THOUGHT}]


@pytest.fixture
def write(tmp_path):
    """A function that writes rows (JSONL) or bytes into a file and gives its source."""

    def write_file(content, name="rows.jsonl"):
        path = tmp_path / name
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(content), path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".json"):
            path.write_text(json.dumps(content))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        return f"file:{path}"

    return write_file


def read(source, skipped=None, **keys):
    return list(foreign_traces(TraceSource(source=source, **keys), skipped))


def refusal(source, **keys):
    with pytest.raises(ProblemError) as caught:
        read(source, **keys)
    return str(caught.value)


# --- shapes of rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_generations_of_openr1_math_are_samples_of_one_problem(write, name):
    first, second = read(write([OPEN_R1], name))
    problem, trace = first
    assert (problem.id, problem.question, problem.answer, problem.task) == ("u-1", "What is 2 + 2?", "4", "math")
    assert problem.source == f"file:{name}"
    assert (trace.sample_index, trace.reasoning, trace.content) == (0, "2 + 2 is 4", "It is \\boxed{4}.")
    assert (trace.text, trace.finish_reason) == (THOUGHT, "stop")
    assert (trace.teacher, trace.teacher_revision, trace.seed, trace.num_completion_tokens) == (
        f"file:{name}",
        "",
        0,
        0,
    )
    assert second[0] == problem
    assert (second[1].sample_index, second[1].finish_reason, second[1].content) == (1, "length", "")


def test_finish_reasons_go_with_their_generations(write):
    row = OPEN_R1 | {"finish_reasons": ["length", "stop"]}
    assert [trace.finish_reason for _, trace in read(write([row]))] == ["length", "stop"]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"messages": CHAT, "num_tokens": 9, "source": "openr1"}, None),
        ({"problem": "What is 2 + 2?", "expected_answer": "4", "generated_solution": THOUGHT}, "4"),
        ({"prompt": "What is 2 + 2?", "completion": THOUGHT}, None),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, None),
        ({"problem": "What is 2 + 2?", "text": THOUGHT, "answer": 4}, "4"),
        ({"question": "What is 2 + 2?", "reasoning": "2 + 2 is 4", "answer": "It is \\boxed{4}."}, None),
        ({"problem": "What is 2 + 2?", "reasoning": "2 + 2 is 4", "content": "It is \\boxed{4}.", "answer": "4"}, "4"),
        ({"conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": THOUGHT}]}, None),
    ],
)
def test_usual_rows_are_read_without_being_told_how(write, row, answer):
    ((problem, trace),) = read(write([row]))
    assert problem.prompt == [{"role": "user", "content": "What is 2 + 2?"}]
    assert problem.answer == answer
    assert problem.id == problem_id(problem.prompt, "math", answer)
    assert (trace.text, trace.reasoning, trace.content) == (THOUGHT, "2 + 2 is 4", "It is \\boxed{4}.")


def test_the_model_column_names_the_teacher(write):
    row = {"problem": "q", "generated_solution": "a", "generation_model": "DeepSeek-R1"}
    assert read(write([row]))[0][1].teacher == "DeepSeek-R1"
    assert read(write([{"problem": "q", "text": "a"}]), teacher="org/teacher")[0][1].teacher == "org/teacher"


def test_own_traces_find_their_problems(write, tmp_path):
    problem = Problem("p1", CHAT[:1], "4", "exact", "gym:x", {"a": 1})
    trace = Trace("p1", 0, "org/t", "rev", THOUGHT, "2 + 2 is 4", "It is \\boxed{4}.", "stop", 3, 9, 5)
    problems = write([problem.to_json()], "problems.jsonl")
    rows = [trace.to_json() | {"sampling": None}, trace.to_json() | {"problem_id": "p2", "sampling": None}]
    skipped = Skipped()
    assert read(write(rows, "train.parquet"), skipped, problems=problems) == [(problem, trace)]
    assert skipped.counts == {"its problem_id is not among the problems.": 1}


GYM = {"task": "simple_integration", "options": {"min_terms": 2}, "size": 3, "seed": 1, "index": 0}


def gym_problem(**change):
    return Problem("p1", CHAT[:1], "1", "gym", "gym:simple_integration", {"gym": {**GYM, **change}}).to_json()


def test_gym_problems_of_a_file_are_refused_unless_the_recipe_allows_them(write):
    rows = write([{"problem_id": "p1", "response": THOUGHT}, {"problem": "q", "response": THOUGHT}])
    problems = write([gym_problem()], "problems.jsonl")
    for task in (None, "math"):
        with pytest.raises(ProblemError, match=r"problems\.jsonl.*task: gym beside problems:"):
            read(rows, problems=problems, task=task)
    found = read(rows, problems=problems, task="gym")
    assert [(problem.task, problem.metadata) for problem, _ in found] == [("gym", {"gym": GYM}), ("math", {})]
    with pytest.raises(ValueError, match="task: gym needs problems:"):
        TraceSource(source=rows, task="gym")


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"symbols": ["__import__('os').system('true')"]}},
        {"options": {"data_file": "../../secret"}},
        {"options": None},
        {"size": 10**12},
        {"size": -1},
        {"task": "a.b"},
        {"seed": []},
    ],
)
def test_what_a_file_says_of_a_gym_problem_is_checked_when_it_is_read(write, change):
    rows = write([{"problem_id": "p1", "response": THOUGHT}])
    problems = write([gym_problem(**change)], "problems.jsonl")
    with pytest.raises(ProblemError, match=r"problems\.jsonl.*metadata\.gym"):
        read(rows, problems=problems, task="gym")


def test_a_gym_problem_without_a_description_is_refused(write):
    rows = write([{"problem_id": "p1", "response": THOUGHT}])
    for metadata in ({}, {"gym": "simple_integration"}, {"gym": [1]}):
        problems = write([gym_problem() | {"metadata": metadata}], "problems.jsonl")
        with pytest.raises(ProblemError, match=r"metadata\.gym"):
            read(rows, problems=problems, task="gym")


def test_named_columns_count_before_the_usual_ones(write):
    row = {"problem": "not this", "frage": "q", "text": "nor this", "spur": "t", "answer": "0", "loesung": "x #### 7"}
    columns = {"problem": "frage", "text": "spur", "answer": "loesung"}
    ((problem, trace),) = read(
        write([row]), columns=columns, answer_after="####", template="{problem} Think.", task="exact"
    )
    assert (problem.question, problem.answer, problem.task, trace.text) == ("q Think.", "7", "exact", "t")


# --- identities


def test_equal_rows_are_samples_in_order_of_appearance(write):
    row = {"problem": "q", "text": "t"}
    assert [trace.key[1] for _, trace in read(write([row, {"problem": "r", "text": "t"}, row, row]))] == [0, 0, 1, 2]


def test_an_id_that_stands_for_two_problems_gives_way_to_the_contents_hash(write):
    rows = [
        {"id": 7, "problem": "q", "text": "t"},
        {"id": 7, "problem": "r", "text": "t"},
        {"id": 7, "problem": "q", "text": "u"},
    ]
    found = read(write(rows))
    assert [problem.id for problem, _ in found] == ["7", problem_id(found[1][0].prompt, "math", None), "7"]
    assert len({trace.key for _, trace in found}) == 3


# --- bad rows


def test_bad_rows_are_counted_shown_and_passed_over(write):
    good = json.dumps({"problem": "q", "text": "t"}).encode()
    bad = [b"nonsense", b'{"problem": "caf\xe9", "text": "t"}', b"[1]", b'{"problem": "q", "text": " "}',
           b'{"problem": "", "text": "t"}', b'{"problem": "q", "text": null}', b'{"generations": []}']  # fmt: skip
    source = write(b"\n".join([good, *bad, good]))
    skipped = Skipped()
    assert [trace.sample_index for _, trace in read(source, skipped)] == [0, 1]
    assert skipped.counts.total() == len(bad)
    assert [place.rpartition(":")[2] for place, _ in skipped.examples] == [str(2 + i) for i in range(len(bad))]
    reasons = [reason for _, reason in skipped.examples]
    assert "not valid JSON" in reasons[0]
    assert "not UTF-8" in reasons[1]
    assert "expected an object" in reasons[2]
    assert reasons[3:6] == ["it has no text.", "it has no question.", "it has no text."]


def test_a_generation_without_text_leaves_the_others(write):
    skipped = Skipped()
    found = read(write([OPEN_R1 | {"generations": [THOUGHT, None, "", "x"], "is_reasoning_complete": None}]), skipped)
    assert [trace.text for _, trace in found] == [THOUGHT, "x"]
    assert skipped.counts == {"a trace without text.": 2}


def test_examples_are_bounded_and_counts_are_not(write):
    skipped = Skipped()
    read(write([{"problem": "q", "text": "t"}, *[{"problem": "q"}] * 100]), skipped)
    assert (len(skipped.examples), skipped.counts.total()) == (MAX_EXAMPLES, 100)


def test_a_source_without_a_usable_row_is_refused(write):
    message = refusal(write([{"a": 1}, {"a": 2}]))
    assert "none of the 2 rows is usable" in message
    assert "rows.jsonl:1): it has no question." in message
    assert "columns:" in message
    assert "there are no rows" in refusal(write(b""))
    assert "no such file" in refusal("file:/nowhere/rows.jsonl")


def test_a_named_column_that_is_not_there_is_refused(write):
    message = refusal(write([{"problem": "q", "text": "t"}]), columns={"text": "trace"})
    assert "no column 'trace' (columns.text). There are: problem, text." in message


def test_surrogates_nul_and_ten_megabytes_do_no_harm(write):
    text = "<think>\n" + "x \\ud83d\\ude00 \\ud83d \\u0000 " * 400_000 + "\n</think>\n4"
    source = write(
        b'{"problem": "q\\udc00", "id": "i\\ud800", "text": "' + text.replace("\n", "\\n").encode() + b'"}\n'
    )
    ((problem, trace),) = read(source)
    assert (problem.id, problem.question) == ("i\ufffd", "q\ufffd")
    assert trace.content == "4"
    assert trace.reasoning.startswith("x \N{GRINNING FACE} \ufffd \0 x")
    json.dumps([problem.to_json(), trace.to_json()], ensure_ascii=False).encode()


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.just(THOUGHT)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["role", "content"]), inner)),
    max_leaves=6,
)
COLUMNS = st.sampled_from([*OPEN_R1, "text", "prompt", "completion", "reasoning", "content", "id", "finish_reason"])


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.dictionaries(COLUMNS, VALUES, max_size=6), max_size=3))
def test_whatever_the_rows_hold_the_last_good_one_is_read(write, rows):
    found = read(write([*rows, {"problem": "q", "text": "t"}]))
    assert found[-1][1].text == "t"
    assert len({trace.key for _, trace in found}) == len(found)


# --- much of it


def test_a_limit_takes_the_first_traces(write):
    rows = [{"problem": f"q{i}", "text": "t"} for i in range(9)]
    assert [problem.question for problem, _ in read(write(rows), limit=3)] == ["q0", "q1", "q2"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_large_file_is_never_held_whole(write, name):
    rows = [{"problem": f"q{i}", "text": f"{i} " + "x" * 50_000} for i in range(1_200)]
    source = write(rows, name)
    del rows
    tracemalloc.start()
    num = sum(1 for _ in foreign_traces(TraceSource(source=source)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num == 1_200
    assert peak < 20_000_000  # 60 MB of text in all


def test_a_named_column_may_be_missing_in_some_rows_and_not_in_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"problem": f"{i}?", "text": "<think>a</think>b", **({"who": "org/m"} if i == 5 else {})} for i in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": f"file:{path}", "columns": {"model": "who"}, "teacher": "org/t"}
    found = [trace.teacher for _, trace in foreign_traces(TraceSource.model_validate(source))]
    assert found == ["org/t"] * 5 + ["org/m"] + ["org/t"] * 3
    nobody = TraceSource.model_validate({**source, "columns": {"model": "whom"}})
    with pytest.raises(ProblemError, match=r"no column 'whom' \(columns\.model\)"):
        list(foreign_traces(nobody))

"""Traces that somebody else made, read as our own problems and traces."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.core.records import CodeTests, Problem, Trace, problem_id
from distill.errors import ProblemError
from distill.recipe.traces import TraceSource
from distill.sources.imported_traces import MAX_EXAMPLES, Skipped, foreign_traces

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


@pytest.mark.parametrize(
    "change", [{"task": ["gym"]}, {"task": "gym:"}, {"task": "Gym"}, {"answer": 7}, {"source": None}, {"id": 3}]
)
def test_a_problem_that_filter_could_not_read_is_refused_when_it_is_imported(write, change):
    rows = write([{"problem_id": "p1", "response": THOUGHT}])
    problems = write([Problem("p1", CHAT[:1], "4", "math", "x").to_json() | change], "problems.jsonl")
    with pytest.raises(ProblemError, match=r"problems\.jsonl:1: (not a problem in the format|unknown task)"):
        read(rows, problems=problems)


@pytest.mark.parametrize("case", [{}, {"kind": "stdin"}, {"kind": "call", "function": "f"}, {"kind": ["stdin"]}])
def test_stored_tests_that_cannot_be_run_are_refused_when_they_are_imported(write, case):
    rows = write([{"problem_id": "p1", "response": THOUGHT}])
    stored = Problem("p1", CHAT[:1], None, "code", "x", {}, CodeTests("0", 1, cases=[case])).to_json()
    with pytest.raises(ProblemError, match=r"problems\.jsonl:1: .*tests"):
        read(rows, problems=write([stored], "problems.jsonl"))
    in_file = stored | {"tests": {"sha256": "0", "num": 1, "file": "0.jsonl"}}
    with pytest.raises(ProblemError, match=r"problems\.jsonl:1: its tests cannot be read"):
        read(rows, problems=write([in_file], "problems.jsonl"))


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


# --- thoughts


THINKING, SAID = "2 + 2 is 4", "It is \\boxed{4}."
ASKED = {"role": "user", "content": "What is 2 + 2?"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, {"role": "assistant", "content": SAID, "reasoning_content": THINKING}]},
        {"messages": [ASKED, {"role": "assistant", "content": SAID, "thinking": THINKING}]},
        {"messages": [ASKED, {"role": "assistant", "content": SAID}], "reasoning": THINKING},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED["content"]}]},
                      {"role": "assistant", "content": [{"type": "thinking", "thinking": THINKING},
                                                        {"type": "text", "text": SAID}]}]},
        {"problem": ASKED["content"], "response": SAID, "thinking": THINKING},
        {"problem": ASKED["content"], "responses": [SAID], "thinking": [THINKING]},
        {"problem": ASKED["content"], "responses": [SAID], "thinking": THINKING},
        {"problem": ASKED["content"], "response": SAID, "thinking": [THINKING]},
        {"problem": ASKED["content"], "generations": [{"content": SAID, "reasoning_content": THINKING}]},
        {"problem": ASKED["content"], "completion": {"role": "assistant", "content": SAID, "reasoning": THINKING}},
        {"problem": ASKED["content"], "generations": [[{"role": "assistant", "content": THOUGHT}]]},
        {"problem": [{"role": "user", "content": [{"type": "text", "text": ASKED["content"]}]}], "text": THOUGHT},
        {"problem": ASKED["content"], "output": THOUGHT, "reasoning": "a short form of it"},
        {"problem": ASKED["content"], "response": SAID, "thinking": f"<think>\n{THINKING}\n</think>"},
        {"problem": ASKED["content"], "reasoning": [THINKING], "content": [SAID]},
    ],
    ids=range(15),
)  # fmt: skip
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_thought_is_read_wherever_it_stands(write, row, name):
    ((problem, trace),) = read(write([row], name))
    assert problem.prompt == [ASKED]
    assert (trace.text, trace.reasoning, trace.content) == (THOUGHT, THINKING, SAID)


def test_thoughts_go_with_their_answers(write):
    row = {"problem": "q", "responses": ["a", "b", None], "thinking": ["ta", None, "tc"]}
    skipped = Skipped()
    found = [(trace.reasoning, trace.content) for _, trace in read(write([row]), skipped)]
    assert found == [("ta", "a"), ("", "b"), ("tc", "")]
    bad = row | {"thinking": ["ta", "tb"]}
    assert "it has 2 thoughts beside 3 answers." in refusal(write([bad]))


@pytest.mark.parametrize(
    "row", [{"reasoning": "2 + 2 is", "content": ""}, {"output": {"content": None, "thinking": "2 + 2 is"}}]
)
def test_a_thought_that_was_cut_off_stays_open(write, row):
    ((_, trace),) = read(write([{"problem": "q", "finish_reason": "length", **row}]))
    assert (trace.text, trace.finish_reason) == ("<think>\n2 + 2 is", "length")


def test_named_columns_for_thought_and_answer_count_before_the_usual_text(write):
    row = {"problem": "q", "output": "neither", "why": "t", "final": "a"}
    ((_, trace),) = read(write([row]), columns={"reasoning": "why", "content": "final"})
    assert (trace.reasoning, trace.content) == ("t", "a")
    ((_, trace),) = read(write([row]), columns={"reasoning": "why", "text": "final"})
    assert (trace.reasoning, trace.content) == ("t", "a")


def test_a_named_thought_that_differs_from_the_texts_own_is_not_lost(write):
    row = {"problem": "q", "output": THOUGHT, "why": "another"}
    ((_, trace),) = read(write([row]), columns={"reasoning": "why"})
    assert trace.reasoning == "another"
    assert trace.content == THOUGHT


@pytest.mark.parametrize(
    "text",
    [
        f"<|begin_of_thought|>\n\n{THINKING}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{SAID}\n\n<|end_of_solution|>",
        f"[THINK]{THINKING}[/THINK]{SAID}",
        f"<thinking>{THINKING}</thinking>{SAID}",
        f"<reasoning>\n{THINKING}\n</reasoning>\n<answer>\n{SAID}\n</answer>",
        f"<|channel|>analysis<|message|>{THINKING}<|end|><|start|>assistant<|channel|>final<|message|>{SAID}<|return|>",
    ],
)
def test_other_marks_are_read_and_the_text_stays_verbatim(write, text):
    ((_, trace),) = read(write([{"problem": "q", "generation": text}]))
    assert (trace.text, trace.reasoning, trace.content) == (text, THINKING, SAID)


def test_marks_that_the_recipe_names(write):
    text = f"Here is my thought: {THINKING} Here is my answer: {SAID}"
    ((_, trace),) = read(
        write([{"problem": "q", "text": text}]), think_marks=["Here is my thought:", "Here is my answer:"]
    )
    assert (trace.text, trace.reasoning, trace.content) == (
        f"<think> {THINKING} </think> {SAID}",
        THINKING,
        SAID,
    )
    for wrong in (["<a>"], ["<a>", "<a>"], ["<a>", "</a>", "<b>"], ["", "</a>"]):
        with pytest.raises(ValueError, match="think_marks"):
            TraceSource(source="file:x.jsonl", think_marks=wrong)


# --- system messages and turns


def test_a_system_column_is_put_before_the_question_or_left_out(write):
    rows = [
        {"system": "In dozens.", "problem": "q", "text": "t"},
        {"system_prompt": "In dozens.", "messages": [{"role": "system", "content": "In tens."}, *CHAT]},
        {"system": None, "problem": "r", "text": "t"},
    ]
    kept = [problem.prompt for problem, _ in read(write(rows))]
    assert kept[0] == [{"role": "system", "content": "In dozens."}, {"role": "user", "content": "q"}]
    assert [m["content"] for m in kept[1]] == ["In tens.", "What is 2 + 2?"]
    assert [m["role"] for m in kept[2]] == ["user"]
    assert [m["role"] for problem, _ in read(write(rows), system="drop") for m in problem.prompt] == ["user"] * 3
    named = [{"rolle": "In dozens.", "problem": "q", "text": "t"}]
    ((problem, _),) = read(write(named), columns={"system": "rolle"})
    assert problem.prompt[0] == {"role": "system", "content": "In dozens."}


def test_all_turns_are_kept_and_earlier_thoughts_have_the_students_marks(write):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How far is it?"},
        {"role": "assistant", "content": "[THINK]5 and 4[/THINK]9 km"},
        {"role": "user", "content": "And in metres?"},
        {"role": "assistant", "content": "9000", "reasoning_content": "times 1000"},
    ]
    ((problem, trace),) = read(write([{"messages": chat, "answer": "9000"}]))
    assert problem.prompt == [
        *chat[:2],
        {"role": "assistant", "content": "<think>\n5 and 4\n</think>\n\n9 km"},
        chat[3],
    ]
    assert (problem.question, problem.questions) == ("And in metres?", "How far is it?\n\nAnd in metres?")
    assert (trace.reasoning, trace.content) == ("times 1000", "9000")


def test_a_chat_that_ends_in_a_question_is_answered_by_its_own_column_or_by_nobody(write):
    chat = [*CHAT, {"role": "user", "content": "And doubled?"}]
    ((problem, trace),) = read(write([{"messages": chat, "response": "<think>\ntwice 4\n</think>\n\n8"}]))
    assert problem.prompt == chat
    assert trace.content == "8"
    assert "it is a chat that does not end with an answer." in refusal(write([{"messages": chat}]))


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
    assert "rows.jsonl:1: it has no question." in message
    assert "There are: b." in refusal(write(b'nonsense\n{"b": 1}\n'))
    assert "columns:" in message
    assert "there are no rows" in refusal(write(b""))
    assert "no such file" in refusal("file:/nowhere/rows.jsonl")


@pytest.mark.parametrize(
    ("content", "said", "has_columns"),
    [
        (b'{"frage": "q", "text": "t"}', "it has no question.", True),
        (b'{"problem": "q", "spur": "t"}', "it has no text.", True),
        (b'{"problem": "q", "text": "caf\xe9"}', "not UTF-8", False),
        (b"{nonsense", "not valid JSON", False),
        (b'{"problem": "q", "text": "t", "n": ' + b"9" * 5_000 + b"}", "a number of more than 4,300 digits", False),
        (b'{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "t"}]}',
         "its chat cannot be read: message 1 (user) has content: null.", False),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "t"}]}',
         "holds a part of type 'image_url', which is not text.", False),
        (b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [1], "content": null}]}',
         "message 2 (assistant) calls a tool", False),
        (b'{"problem": "q", "generations": [{"content": [{"type": "audio"}]}]}',
         "its answer cannot be read: it holds a part of type 'audio', which is not text.", False),
        (b'{"problem": "q", "completion": [{"role": "assistant", "content": null}]}',
         "its answer cannot be read: message 1 (assistant) has content: null and no thought.", False),
    ],
    ids=range(10),
)  # fmt: skip
def test_the_reason_names_what_is_wrong_and_the_columns_only_where_they_may_be_it(write, content, said, has_columns):
    message = refusal(write(content + b"\n"))
    assert said in message
    assert ("There are: " in message) == has_columns
    assert "set_int_max_str_digits" not in message
    if has_columns:
        assert message.endswith(f"There are: {', '.join(json.loads(content))}.")


def test_a_null_in_a_named_question_column_is_told(write):
    message = refusal(write([{"frage": None, "text": "t"}]), columns={"problem": "frage"})
    assert "column 'frage' (columns.problem) is null." in message


def test_a_named_column_is_missed_within_the_limit_too(write):
    rows = [{"problem": f"{i}?", "text": "t"} for i in range(9)]
    assert "no column 'who' (columns.model)" in refusal(write(rows), columns={"model": "who"}, limit=3)


def test_binary_answers_are_text_or_cost_their_row(tmp_path):
    path = tmp_path / "rows.parquet"
    answers = pa.array([b"0.3", b"\xff", b"7"])
    pq.write_table(pa.table({"problem": ["a", "b", "c"], "text": ["t"] * 3, "answer": answers}), path)
    skipped = Skipped()
    assert [problem.answer for problem, _ in read(f"file:{path}", skipped)] == ["0.3", "7"]
    assert skipped.counts == {"its answer is bytes that are not UTF-8 text.": 1}


@pytest.mark.parametrize(("value", "answer"), [(72.0, "72"), (0.3, "0.3"), (None, None), (float("nan"), None)])
def test_numbers_as_answers(tmp_path, value, answer):
    for kind in (pa.float32(), pa.float64()):
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"problem": ["a"], "text": ["t"], "answer": pa.array([value], kind)}), path)
        assert read(f"file:{path}")[0][0].answer == answer


@pytest.mark.parametrize(
    ("told", "reason"),
    [("STOP", "stop"), ("end_turn", "stop"), (None, "stop"), ("", "stop"), ("MAX_TOKENS", "length"),
     ("SAFETY", "error"), ("abort", "error")],
)  # fmt: skip
def test_finish_reasons_in_any_words(write, told, reason):
    ((_, trace),) = read(write([{"problem": "q", "text": "t", "finish_reason": told}]))
    assert trace.finish_reason == reason
    assert trace.error == (f"finish_reason is {told}" if reason == "error" else "")


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


def test_a_text_whose_thought_the_prompt_has_opened_is_read_as_rollouts_are(write, tmp_path):
    problem = Problem("p", [{"role": "user", "content": "2 + 2?"}], "4", "math", "s")
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem.to_json()) + "\n")
    rows = [
        {"problem_id": "p", "text": "It may be", "think_opened": True, "finish_reason": "length", "seed": 7},
        {"problem_id": "p", "text": "It may be", "think_opened": False, "finish_reason": "length", "seed": 8},
    ]
    source = TraceSource(source=write(rows, "step-000001.parquet"), problems=f"file:{tmp_path / 'problems.jsonl'}")
    (known, first), (_, second) = foreign_traces(source)
    assert known == problem
    assert (first.reasoning, first.content, first.seed) == ("It may be", "", 7)
    assert (second.reasoning, second.content, second.seed) == ("", "It may be", 8)

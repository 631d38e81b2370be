"""Where problems come from, and the split that keeps what is measured out of training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distill.core.records import problem_id
from distill.errors import ProblemError
from distill.grading.gym_tasks import gym_dataset
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.sources.problems import HELD_OUT, draw, load_problem_sets, load_problems, problems_fingerprint

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SMALL_SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
PROPERTY = {
    "max_examples": 40,
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.fixture
def write(tmp_path):
    """A function that writes rows (JSONL), text or bytes into a file of the test's folder."""

    def write_file(content, name="rows.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def load(path, **keys):
    """The problems of a file; keyword arguments are keys of its source."""
    return load_problems(ProblemSource(source=f"file:{path}", **keys), seed=0)


def refusal(path, **keys):
    """What the reader is told."""
    with pytest.raises(ProblemError) as caught:
        load(path, **keys)
    return str(caught.value)


def sums(num):
    return [{"problem": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(num)]


def recipe(path, num_held_out=0, benchmarks=(), **source):
    """A recipe whose problems are the rows of `path`."""
    tree = {
        "name": "small",
        "student": "org/student",
        "seed": 3,
        "problems": [{"source": f"file:{path}", **source}],
        "generate": {"teacher": "org/teacher"},
    }
    if num_held_out or benchmarks:
        tree["eval"] = {"held_out": num_held_out, "benchmarks": list(benchmarks)}
    return Recipe.model_validate(tree)


# --- files


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_rows_of_every_kind_of_file_become_the_same_problems(write, tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(sums(3)), path)
    else:
        write(sums(3) if kind == "jsonl" else json.dumps(sums(3)), path.name)
    problems = load(path)
    assert [(p.question, p.answer) for p in problems] == [(row["problem"], row["answer"]) for row in sums(3)]
    assert [p.id for p in problems] == [p.id for p in load(write(sums(3), "other.jsonl"))]
    assert {(p.task, p.source) for p in problems} == {("math", f"file:rows.{kind}")}
    assert problems[0].prompt == [{"role": "user", "content": "What is 0 + 1?"}]


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_do_no_harm(write):
    text = "\n\r\n".join(json.dumps(row) for row in sums(2)) + "\r\n\n"
    assert load(write(text)) == load(write(sums(2)))
    assert load(write("\ufeff" + text)) == load(write(sums(2)))
    assert load(write("\ufeff" + json.dumps(sums(2)), "rows.json"))


def test_a_record_names_the_file_but_no_folder_of_this_machine(write, tmp_path):
    (problem,) = load(write(sums(1)))
    assert str(tmp_path) not in json.dumps(problem.to_json())


def test_answers_that_are_numbers_become_text(write):
    rows = [{"problem": f"q{i}", "answer": answer} for i, answer in enumerate([7, -1.5, 0, "x"])]
    assert [p.answer for p in load(write(rows))] == ["7", "-1.5", "0", "x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", ""), ("rows.jsonl", "\n\n"), ("rows.json", "[]")],
)
def test_an_empty_set_is_refused(write, name, content):
    assert refusal(write(content, name)).endswith(
        f"{name}: the problem set is empty. Give one with rows, or another split."
    )


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pq.write_table(
        pa.table({"problem": pa.array([], pa.string()), "answer": pa.array([], pa.string())}), tmp_path / "e.parquet"
    )
    assert "the problem set is empty" in refusal(tmp_path / "e.parquet")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"problem": ', "not valid JSON"),
        ("nonsense", "not valid JSON"),
        ("[1, 2]", "expected an object with columns, found a list"),
        ("null", "expected an object with columns"),
        ('"text"', "expected an object with columns, found a str"),
        ("[" * 100_000, "JSON"),
        ('{"problem": "q", "answer": ' + "9" * 5_000 + "}", "JSON"),
        ('{"problem": "", "answer": "1"}', "column 'problem' holds no question ('')"),
        ('{"problem": "  ", "answer": "1"}', "holds no question"),
        ('{"problem": null, "answer": "1"}', "holds no question (None)"),
        ('{"question": "q", "answer": "1"}', "column 'problem' holds no question"),
        ('{"problem": ["q"], "answer": "1"}', "holds no question"),
    ],
)
def test_a_bad_line_is_shown_with_file_and_line(write, line, what):
    good = json.dumps(sums(1)[0])
    path = write(f"{good}\n\n{line}\n{good}\n")
    message = refusal(path)
    assert message.startswith(f"file:{path}:3: ")
    assert what in message
    assert len(message) < 1_000


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", ":1: not valid JSON"),
        ('[\n{"problem": "q",\n}]', ":3: not valid JSON"),
        ('{"rows": []}', "expected a list of objects, found a dict"),
        ("[1]", " row 1: expected an object with columns"),
        ("[" * 100_000, "JSON"),
        ('[{"problem": "q", "answer": ' + "9" * 5_000 + "}]", "JSON"),
    ],
)
def test_a_bad_json_file_is_shown_with_its_place(write, content, what):
    path = write(content, "rows.json")
    message = refusal(path)
    assert message.startswith(f"file:{path}")
    assert what in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_file_that_is_not_utf_8_is_refused(write, name):
    path = write(b'[{"problem": "caf\xe9", "answer": "1"}]', name)
    message = refusal(path)
    assert message.startswith(f"file:{path}")
    assert "not UTF-8" in message
    assert "Save" in message


def test_the_line_that_is_not_utf_8_is_told(write):
    good = json.dumps({"problem": "x" * 500, "answer": "1"}).encode()
    path = write(b"\n".join([good] * 99 + [b'{"problem": "caf\xe9", "answer": "1"}', good]))
    assert refusal(path).startswith(f"file:{path}:100: ")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_parquet_file_is_refused(write, content):
    path = write(content, "rows.parquet")
    message = refusal(path)
    assert message.startswith(f"file:{path}: not a Parquet file")
    assert "\n" not in message


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    pq.write_table(pa.Table.from_pylist(sums(5)), tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    path = tmp_path / "cut.parquet"
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length] + content[-8:])
        assert "Parquet" in refusal(path)


def test_a_missing_file_an_unknown_kind_and_a_folder_are_refused(write, tmp_path):
    assert "no such file" in refusal(tmp_path / "none.jsonl")
    assert "relative to the recipe" in refusal(tmp_path / "none.jsonl")
    assert "unknown kind of file '.txt'; expected .jsonl, .json, .csv or .parquet" in refusal(write("a,b", "rows.txt"))
    (tmp_path / "folder.jsonl").mkdir()
    assert refusal(tmp_path / "folder.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_a_file_without_permission_is_refused(write, name):
    path = write(sums(1), name)
    path.chmod(0)
    assert str(path) in refusal(path)


# --- columns


@pytest.mark.parametrize("question", ["problem", "question", "prompt", "instruction"])
@pytest.mark.parametrize("answer", ["answer", "expected_answer", "gtruth_answer", "solution"])
def test_usual_column_names_are_found(write, question, answer):
    (problem,) = load(write([{"other": "x", question: "1 + 1?", answer: "2"}]))
    assert (problem.question, problem.answer) == ("1 + 1?", "2")


def test_the_first_of_several_usual_names_counts_and_a_named_column_before_it(write):
    path = write([{"question": "q", "problem": "p", "solution": "long", "answer": "short"}])
    assert [(p.question, p.answer) for p in load(path)] == [("p", "short")]
    named = load(path, columns={"problem": "question", "answer": "solution"})
    assert [(p.question, p.answer) for p in named] == [("q", "long")]


def test_a_column_that_is_not_there_gets_a_suggestion_and_the_list(write):
    path = write([{"question_text": "q", "answer": "1"}])
    message = refusal(path, columns={"problem": "question_txt"})
    assert message == (
        f"file:{path}:1: no column 'question_txt' (columns.problem). Did you mean 'question_text'? "
        "There are: question_text, answer."
    )
    assert "(columns.answer)" in refusal(path, columns={"problem": "question_text", "answer": "anser"})


def test_without_a_usual_name_the_reader_is_told_which_key_names_one(write):
    path = write([{"frage": "q", "antwort": "1"}])
    message = refusal(path)
    assert "none of the columns problem, question, prompt, instruction is there" in message
    assert "columns.problem" in message
    assert "There are: frage, antwort." in message
    assert "columns.answer" in refusal(path, columns={"problem": "frage"})


def test_the_template_surrounds_the_question(write):
    (problem,) = load(write(sums(1)), template="Solve: {problem} Box it as \\boxed{}.")
    assert problem.question == "Solve: What is 0 + 1? Box it as \\boxed{}."


# --- answers


def test_the_answer_is_what_follows_the_last_marker(write):
    (problem,) = load(write([{"problem": "q", "answer": "#### not this\n#### 1,234 "}]), answer_after="####")
    assert problem.answer == "1,234"


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("Adding $x = 3$ and $y = 5$ gives $\\boxed{8}$.", "8"),
        ("First \\boxed{1}, then $\\boxed{\\frac{1}{2}}$ of it.", "\\frac{1}{2}"),
        ("So it is $\\boxed{\\text{in \\boxed{3}}}$.", "\\text{in \\boxed{3}}"),
        ("That makes $\\boxed 2$.", "2"),
        ("Hence $\\fbox{12}$.", "12"),
    ],
)
def test_the_answer_of_a_solution_is_in_its_last_box(write, solution, answer):
    (problem,) = load(write([{"problem": "q", "solution": solution}]), answer_after="\\boxed")
    assert problem.answer == answer


def test_a_solution_without_a_box_has_no_answer(write):
    with pytest.raises(ProblemError, match=r"1 rows have no answer in column 'solution' after '\\\\boxed'"):
        load(write([{"problem": "q", "solution": "It is 8."}]), answer_after="\\boxed")


def test_an_empty_marker_is_refused():
    with pytest.raises(ValidationError, match="answer_after"):
        ProblemSource(source="file:x.jsonl", answer_after="")


def test_rows_without_an_answer_are_refused_with_their_places(write):
    rows = [{"problem": f"q{i}", "answer": answer} for i, answer in enumerate([None, "", " ", [], {}, None, "1"])]
    path = write(rows)
    message = refusal(path)
    assert f"rows.jsonl: 6 rows have no answer in column 'answer' (file:{path}:1, file:{path}:2," in message
    assert f"file:{path}:5, …)" in message
    assert "columns.answer" in message


def test_rows_without_the_marker_have_no_answer(write):
    path = write(
        [{"problem": "q", "answer": "1"}, {"problem": "r", "answer": "#### 2"}, {"problem": "s", "answer": "####"}]
    )
    assert f"2 rows have no answer in column 'answer' after '####' (file:{path}:1, file:{path}:3)" in refusal(
        path, answer_after="####"
    )


def test_a_row_without_the_answer_column_has_no_answer(write):
    path = write([*sums(1), {"problem": "q"}])
    assert f"(file:{path}:2)" in refusal(path)


# --- ids


def test_ids_are_hashes_of_the_content(write):
    first, second = load(write(sums(2)))
    assert first.id == problem_id(first.prompt, "math", "1")
    assert len(first.id) == 16
    assert load(write(sums(2), "elsewhere/renamed.jsonl"))[1].id == second.id
    assert load(write([{"question": "What is 1 + 2?", "solution": 3}], "b.jsonl"))[0].id == second.id


def test_whatever_the_student_sees_and_the_grader_expects_is_in_the_id(write):
    (plain,) = load(write(sums(1)))
    (framed,) = load(write(sums(1)), template="{problem} Think.")
    (other,) = load(write([sums(1)[0] | {"answer": "2"}]))
    assert len({plain.id, framed.id, other.id}) == 3


def test_explicit_ids_are_kept_as_text(write):
    rows = [{"problem": "q", "answer": "1", "uid": 7}, {"problem": "r", "answer": "1", "uid": "r-1"}]
    assert [p.id for p in load(write(rows), columns={"id": "uid"})] == ["7", "r-1"]


@pytest.mark.parametrize("row", [{}, {"uid": None}, {"uid": ""}, {"uid": " "}])
def test_a_row_without_its_explicit_id_is_refused(write, row):
    path = write([{"problem": "q", "answer": "1"} | row])
    assert f"file:{path}:1: column 'uid' (columns.id) is missing or empty." in refusal(path, columns={"id": "uid"})


def test_an_id_for_two_different_problems_is_refused(write):
    rows = [{"problem": "q", "answer": "1", "uid": "a"}, {"problem": "r", "answer": "1", "uid": "a"}]
    with pytest.raises(ProblemError, match=r"id 'a' stands for two different problems.*columns\.id"):
        load_problem_sets(recipe(write(rows), columns={"id": "uid"}))


def test_the_same_row_twice_is_one_problem(write):
    assert len(load_problem_sets(recipe(write(sums(3) * 2))).train) == 3


# --- text that no tokenizer takes


def test_lone_surrogates_are_replaced_and_pairs_joined(write):
    text = '{"problem": "smile \\ud83d\\ude00 half \\ud83d", "answer": "\\udc00 1", "uid": "i\\ud800"}\n'
    path = write(text)
    (problem,) = load(path)
    assert problem.question == "smile \N{GRINNING FACE} half \ufffd"
    assert problem.answer == "\ufffd 1"
    (named,) = load(path, columns={"id": "uid"}, template="\ud800 {problem}", limit=1)
    json.dumps(named.to_json(), ensure_ascii=False).encode()
    assert problems_fingerprint([named])


# --- limit


@settings(**PROPERTY)
@given(num=st.integers(1, 9), limit=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_a_limit_draws_the_same_problems_in_any_order_of_rows(write, num, limit, order):
    rows = sums(num)
    drawn = load(write(rows), limit=limit)
    order.shuffle(rows)
    assert load(write(rows), limit=limit) == drawn
    assert len(drawn) == min(num, limit)


@settings(**PROPERTY)
@given(num=st.integers(1, 9), more=st.integers(0, 9), limit=st.integers(1, 9))
def test_appended_rows_can_push_out_drawn_problems_but_pull_in_only_themselves(write, num, more, limit):
    before = {p.id for p in load(write(sums(num)), limit=limit)}
    old = {p.id for p in load(write(sums(num)))}
    after = {p.id for p in load(write(sums(num + more)), limit=limit)}
    assert after & old <= before


def test_a_larger_limit_keeps_what_a_smaller_one_drew(write):
    path = write(sums(20))
    assert load(path, limit=12)[:5] == load(path, limit=5)


def test_the_seed_decides_the_draw(write):
    path = write(sums(30))
    assert load(path, limit=5, seed=1) != load(path, limit=5, seed=2)
    assert load(path, limit=5, seed=0) == load(path, limit=5)


def test_repeated_rows_take_up_no_room_in_the_limit(write):
    path = write(sums(5) + sums(1) * 50)
    assert len({p.id for p in load(path, limit=5)}) == 5


def test_draw_takes_what_there_is(write):
    problems = load(write(sums(3)))
    assert len(draw(problems, 10, "salt")) == 3
    assert draw(problems, 0, "salt") == []


# --- the split

QUESTIONS = st.sampled_from(["What is 1 + 1?", "what is  1 + 1?", "WHAT IS 1 + 1? ", "Two?", "two?", "Three?", "Four?"])
ROWS = st.lists(st.tuples(QUESTIONS, st.sampled_from(["1", "2"])), min_size=2, max_size=12).map(
    lambda pairs: [{"problem": question, "answer": answer} for question, answer in pairs]
)


def bare(problems):
    return {" ".join(p.question.split()).casefold() for p in problems}


@settings(**PROPERTY)
@given(rows=ROWS, num=st.integers(1, 4))
def test_held_out_and_training_share_no_id_and_no_question(write, rows, num):
    try:
        sets = load_problem_sets(recipe(write(rows), num))
    except ProblemError:
        return
    held_out = sets.benchmarks[HELD_OUT]
    assert len(held_out) == num
    assert not {p.id for p in sets.train} & {p.id for p in held_out}
    assert not bare(sets.train) & bare(held_out)
    assert sets.train


@settings(**PROPERTY)
@given(num=st.integers(2, 10), num_held_out=st.integers(1, 5), order=st.randoms(use_true_random=False))
def test_the_split_is_the_same_in_any_order_of_rows(write, num, num_held_out, order):
    assume(num_held_out < num)
    rows = sums(num)
    before = load_problem_sets(recipe(write(rows), num_held_out))
    order.shuffle(rows)
    after = load_problem_sets(recipe(write(rows), num_held_out))
    assert after.benchmarks == before.benchmarks
    assert problems_fingerprint(after.train) == problems_fingerprint(before.train)


@settings(**PROPERTY)
@given(num=st.integers(2, 10), more=st.integers(0, 10), num_held_out=st.integers(1, 5))
def test_appended_rows_turn_no_training_problem_into_a_measured_one(write, num, more, num_held_out):
    assume(num_held_out < num)
    before = load_problem_sets(recipe(write(sums(num)), num_held_out))
    after = load_problem_sets(recipe(write(sums(num + more)), num_held_out))
    assert not {p.id for p in before.train} & {p.id for p in after.benchmarks[HELD_OUT]}


def test_held_out_needs_problems_left_to_train_on(write):
    path = write(sums(3))
    assert len(load_problem_sets(recipe(path, 2)).train) == 1
    with pytest.raises(ProblemError, match=r"eval\.held_out \(3\) leaves no problem to .* 3 distinct ones with"):
        load_problem_sets(recipe(path, 3))


def test_problems_of_a_benchmark_are_kept_out_of_training_and_counted(write):
    bench = write([{"problem": " what IS 0 +  1?", "answer": "one"}, *sums(3)[2:]], "bench.jsonl")
    sets = load_problem_sets(recipe(write(sums(5)), benchmarks=[{"source": f"file:{bench}"}]))
    assert [p.question for p in sets.train] == ["What is 1 + 2?", "What is 3 + 4?", "What is 4 + 5?"]
    assert list(sets.benchmarks) == ["bench"]
    assert sets.num_excluded == 2
    assert sets.num_by_source == {"file:rows.jsonl": 3}


@pytest.mark.parametrize("templates", [("{problem} Think first.", "{problem}"), ("{problem}", "Q: {problem}\nA:")])
def test_a_question_is_known_again_in_another_template(write, templates):
    """Training on a benchmark's questions is no better when other words stand around them."""
    bench = write(sums(2), "bench.jsonl")
    sets = load_problem_sets(
        recipe(
            write(sums(5)), template=templates[0], benchmarks=[{"source": f"file:{bench}", "template": templates[1]}]
        )
    )
    assert len(sets.train) == 3
    assert sets.num_excluded == 2


def test_when_every_problem_is_measured_none_is_left(write):
    path = write(sums(3))
    with pytest.raises(ProblemError, match="none is left to train on"):
        load_problem_sets(recipe(path, benchmarks=[{"source": f"file:{path}"}]))


def test_held_out_stands_beside_benchmarks(write):
    bench = write(sums(2), "bench.jsonl")
    sets = load_problem_sets(recipe(write(sums(9)), 3, [{"source": f"file:{bench}"}]))
    assert list(sets.benchmarks) == [HELD_OUT, "bench"]
    measured = {p.id for problems in sets.benchmarks.values() for p in problems}
    assert not measured & {p.id for p in sets.train}
    assert len(sets.train) + len(measured) == 9


def test_benchmarks_of_one_name_stay_apart(write):
    paths = [write(sums(i + 1), name) for i, name in enumerate(["a-2.jsonl", "a.jsonl", "b/a.jsonl", "c/a.jsonl"])]
    sources = [{"source": f"file:{path}"} for path in paths]
    sets = load_problem_sets(recipe(write(sums(9)), benchmarks=sources))
    assert [len(problems) for problems in sets.benchmarks.values()] == [1, 2, 3, 4]


def test_several_sources_are_one_pool_without_repeats(write):
    tree = recipe(write(sums(4))).model_dump()
    tree["problems"].append({"source": f"file:{write(sums(6), 'more.jsonl')}"})
    sets = load_problem_sets(Recipe.model_validate(tree))
    assert sets.num_by_source == {"file:rows.jsonl": 4, "file:more.jsonl": 2}


# --- reasoning-gym


def gym(task="chain_sum", seed=0, **keys):
    return load_problems(ProblemSource(source=f"gym:{task}", **keys), seed)


def test_a_gym_source_makes_the_same_problems_again():
    problems = gym(limit=5, seed=7)
    assert problems == gym(limit=5, seed=7)
    assert problems != gym(limit=5, seed=8)
    assert len(problems) == 5
    assert {(p.task, p.source) for p in problems} == {("gym", "gym:chain_sum")}
    for problem in problems:
        total = problem.question.rpartition(":")[2].removesuffix("=")
        assert eval(total) == int(problem.answer)


def test_a_gym_problem_remembers_how_to_make_its_entry():
    problem = gym(limit=5, options=SMALL_SUMS)[-1]
    made = problem.metadata["gym"]
    assert gym_dataset(made)[made["index"]]["question"] == problem.question


def test_gym_problems_that_repeat_themselves_count_once():
    problems = gym(limit=200, options=SMALL_SUMS)
    assert len({p.id for p in problems}) == len(problems) < 200


def test_a_gym_source_graded_as_math_needs_no_entry():
    (problem,) = load_problems(ProblemSource(source="gym:chain_sum", limit=1, task="math"), 0)
    assert (problem.task, problem.metadata) == ("math", {})


def test_an_unknown_gym_task_gets_a_suggestion():
    with pytest.raises(ProblemError, match=r"gym:chainsum: .* no such task\. Did you mean gym:chain_sum\?"):
        gym("chainsum")
    with pytest.raises(ProblemError, match=r"no such task\.$"):
        gym("zzzzqqq")


@pytest.mark.parametrize(
    "options",
    [
        {"min_termz": 3},
        {"min_terms": 9, "max_terms": 3},
        {"min_terms": "many"},
        {"min_terms": 2.5, "max_terms": 2.5},
        {"size": 3},
        {"seed": 3},
    ],
)
def test_options_that_a_gym_task_does_not_take_are_refused(options):
    with pytest.raises(ProblemError, match=r"gym:chain_sum: options .* are refused: ") as caught:
        gym(limit=3, options=options)
    assert str(options) in str(caught.value)


# --- Hub and real data


def test_a_hub_dataset_offline_names_the_id_and_the_way_out(tmp_path):
    script = (
        "from distill.sources.problems import load_problems; from distill.recipe.model import ProblemSource\n"
        "from distill.errors import ProblemError\n"
        "try: load_problems(ProblemSource(source='hf:org/no-such-set'), 0)\n"
        "except ProblemError as error: print(error)"
    )
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, cwd=tmp_path)
    assert done.stdout.startswith("hf:org/no-such-set: "), done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stdout
    assert "file:" in done.stdout
    assert ". Check the id and the network" in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(not (SHARED_DATA / "gsm8k_train.jsonl").exists(), reason="needs shared/data next to the repository")
def test_real_grade_school_problems():
    path = SHARED_DATA / "gsm8k_train.jsonl"
    problems = load(path, answer_after="####")
    assert len(problems) == 7_473
    assert problems[0].answer == "72"
    assert all(p.answer and "#" not in p.answer for p in problems)
    test = {"source": f"file:{SHARED_DATA / 'gsm8k_test.jsonl'}", "answer_after": "####"}
    sets = load_problem_sets(recipe(path, 100, [test], answer_after="####"))
    assert len(sets.benchmarks["gsm8k_test"]) == 1_319
    measured = [p for problems in sets.benchmarks.values() for p in problems]
    assert not bare(sets.train) & bare(measured)
    assert len(sets.train) + 100 + sets.num_excluded == len({p.id for p in problems})


def rows_file(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def test_options_are_lettered_and_remembered(tmp_path):
    rows = [{"question": "Which {options} is it?", "answer": "B", "choices": ["one", "two", 3]}]
    source = {"source": rows_file(tmp_path, rows), "task": "choice", "columns": {"options": "choices"}}
    (plain,) = load_problems(ProblemSource.model_validate(source), 0)
    assert plain.question == "Which {options} is it?\n\nA) one\nB) two\nC) 3"
    assert plain.metadata == {"options": ["one", "two", "3"]}
    placed = ProblemSource.model_validate({**source, "template": "{options}\n{problem}"})
    assert load_problems(placed, 0)[0].question == "A) one\nB) two\nC) 3\nWhich {options} is it?"


@pytest.mark.parametrize("options", [None, [], "A, B", [["x"]], ["o"] * 27])
def test_what_is_no_list_of_options_is_refused(tmp_path, options):
    source = {
        "source": rows_file(tmp_path, [{"question": "Which?", "answer": "A", "choices": options}]),
        "task": "choice",
        "columns": {"options": "choices"},
    }
    with pytest.raises(ProblemError, match=r"rows\.jsonl:1: .*options"):
        load_problems(ProblemSource.model_validate(source), 0)


def test_problems_without_answers_are_taken_only_where_something_stands_in(tmp_path):
    rows = [{"question": "One?", "answer": "1"}, {"question": "Two?"}, {"question": "Three?", "answer": None}]
    source = ProblemSource(source=rows_file(tmp_path, rows))
    with pytest.raises(ProblemError, match=r"2 rows have no answer .* or set filter\.majority"):
        load_problems(source, 0)
    assert sorted(str(p.answer) for p in load_problems(source, 0, may_lack_answers=True)) == ["1", "None", "None"]
    bare = ProblemSource(source=rows_file(tmp_path, [{"question": "One?"}]))
    assert load_problems(bare, 0, may_lack_answers=True)[0].answer is None


def test_what_is_held_out_has_answers(tmp_path):
    rows = [{"question": f"{i}?", "answer": "1" if i < 3 else None} for i in range(20)]
    recipe = {
        "name": "n",
        "student": "smollm2-135m",
        "problems": [{"source": rows_file(tmp_path, rows)}],
        "generate": {"teacher": "t", "samples_per_problem": 8, "sampling": {"max_tokens": 512}},
        "filter": {"majority": {}},
        "sft": {"max_length": 512},
        "eval": {"held_out": 2, "sampling": {"max_tokens": 512}},
    }
    sets = load_problem_sets(Recipe.model_validate(recipe))
    assert [p.answer for p in sets.benchmarks["held-out"]] == ["1", "1"]
    assert len(sets.train) == 18


def choice(question, options, answer, column="choices"):
    return {"question": question, column: options, "answer": answer}


METALS = ["zinc", "gold", "tin", "lead"]


def test_answers_that_are_indices_become_letters(write):
    rows = [choice("How many moons?", ["2", "3", "4", "5"], 2), choice("Which shines?", METALS, 1)]
    found = load(write(rows), task="choice", columns={"options": "choices"})
    assert [p.answer for p in found] == ["C", "B"]
    assert [p.answer for p in load(write(rows), task="choice")] == ["C", "B"]  # choices is one of the usual names
    assert found[0].question.endswith("A) 2\nB) 3\nC) 4\nD) 5")


def test_an_index_that_may_be_a_text_is_refused_until_the_recipe_says_what_it_is(write):
    path = write([choice("How many moons?", ["2", "3", "4", "5"], "2")])
    said = refusal(path, task="choice")
    assert "rows.jsonl:1" in said
    assert "answer_index" in said
    assert [p.answer for p in load(path, task="choice", answer_index=1)] == ["B"]


def test_an_expected_answer_that_names_no_option_is_refused_with_its_row(write):
    rows = [choice("Which shines?", METALS, "B"), choice("Which rusts?", METALS, "iron")]
    said = refusal(write(rows), task="choice")
    assert "rows.jsonl:2" in said
    assert "rows.jsonl:1)" not in said


def test_options_with_labels_of_their_own(write):
    rows = [choice("Which shines?", {"text": METALS, "label": ["1", "2", "3", "4"]}, "2")]
    (found,) = load(write(rows), task="choice")
    assert (found.answer, found.metadata) == ("B", {"options": METALS})


def test_options_that_the_question_lists_are_not_listed_twice(write):
    rows = [choice("Which shines? A) zinc B) gold C) tin", ["zinc", "gold", "tin"], 1)]
    (found,) = load(write(rows), task="choice")
    assert (found.question, found.answer) == (rows[0]["question"], "B")


def test_a_damaged_expected_answer_keeps_its_control_character_so_that_it_is_seen(write):
    (found,) = load(write([{"problem": "Half of one?", "answer": "\frac{1}{2}"}]))
    assert found.answer == "\frac{1}{2}"

"""Stored answers scored again, without a model: of a run, finished or not, and of a file."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.core.records import CodeTests, Problem, Trace
from distill.errors import ProblemError, StageError, UserError
from distill.evaluation.answers import Evaluation
from distill.evaluation.measured_sets import EXTRACTION, write_sets
from distill.evaluation.replay import answers_of_file, answers_of_run, replay, with_samples_of
from distill.grading import GRADER_VERSION
from distill.grading.code import grader
from distill.recipe.eval import EvalConfig
from distill.results.eval import Protocol
from distill.storage.files import write_json, write_jsonl
from distill.storage.layout import BENCHMARKS, IDENTITY, PROBLEMS
from distill.storage.ledger import Ledger

CONFIG = EvalConfig.model_validate({"held_out": 1, "grade_timeout_s": 30.0, "sampling": {"max_tokens": 64}})
PROMPT = "Solve this.\n\n{problem}"


def problem(name, question=None, answer="4"):
    content = PROMPT.format(problem=question or f"Question {name}?")
    return Problem(name, [{"role": "user", "content": content}], answer, "math", "s")


@pytest.fixture
def evaluation(tmp_path, measured_set):
    """Two suites with two problems each."""
    names = ["one/1", "one/2", "two/1", "two/3"]
    protocol = Protocol(prompt=PROMPT, temperature=0.6, max_tokens=64, suite="one").with_hash()
    sets = [
        measured_set("one", names[:2], protocol=protocol),
        measured_set("two", names[2:], protocol=protocol),
    ]
    problems = {name: problem(name) for name in names}
    return Evaluation(tmp_path / "eval", sets, problems, CONFIG, 0, tmp_path / "facts.sqlite")


@pytest.fixture
def one_set(evaluation):
    fields = {key: getattr(evaluation, key) for key in ("folder", "problems", "config", "seed", "facts")}
    return Evaluation(sets=evaluation.sets[:1], **fields)


def store(folder, role, **texts):
    with Ledger(folder / role / "ledger.jsonl") as ledger:
        ledger.append(
            Trace(name.replace("_", "/"), index, role, "r", text, "", text, "stop", 1, 9, 0)
            for name, several in texts.items()
            for index, text in enumerate(several)
        )


@pytest.fixture
def half_done(tmp_path, measured_set):
    """The folder of a stage that was killed at half of its samples: no manifest, no verdicts."""
    folder = tmp_path / "run" / "measure"
    write_sets(folder / BENCHMARKS, [measured_set("one", ["one/1", "one/2"], 4)])
    write_jsonl(folder / PROBLEMS, [problem(name).to_json() for name in ("one/1", "one/2")])
    write_json(folder / IDENTITY, {"models": {"org-m": "org/m@abc"}})
    store(folder, "org-m", one_1=["\\boxed{4}", "\\boxed{4}"], one_2=["\\boxed{4}", "\\boxed{5}"])
    return folder


def test_a_run_killed_at_half_is_scored_by_what_is_there_and_marked(half_done):
    (one,) = replay(answers_of_run(half_done, CONFIG, 0))
    (score,) = one.models.values()
    assert list(one.models) == ["org-m"]  # as where it was measured
    assert score.model == "org/m"
    assert score.pass_at_1 == 0.75  # not 0.375
    assert (score.num_missing, score.is_complete) == (4, False)
    assert score.bounds == pytest.approx((3 / 8, 7 / 8))


def test_stored_programs_whose_tests_cannot_be_run_are_refused(half_done, monkeypatch):
    monkeypatch.setattr(grader, "compiler", lambda: None)
    monkeypatch.setattr(grader, "sandbox_fails", lambda backend: None)
    tests = CodeTests("0", 1, "cpp", cases=[{"kind": "stdin", "stdin": "", "expected": ""}])
    programs = [replace(problem(name), task="code", tests=tests) for name in ("one/1", "one/2")]
    write_jsonl(half_done / PROBLEMS, [one.to_json() for one in programs])
    with pytest.raises(StageError, match=r"eval: .*g\+\+ is not installed"):
        replay(answers_of_run(half_done, CONFIG, 0))


def test_a_finished_run_has_the_score_it_had(half_done):
    store(half_done, "org-m", one_1=["x"] * 2 + ["\\boxed{4}"] * 2, one_2=["x"] * 2 + ["\\boxed{4}"] * 2)
    (one,) = replay(answers_of_run(half_done, CONFIG, 0))
    score = one.models["org-m"]
    assert (score.pass_at_1, score.is_complete, score.samples_per_problem) == (7 / 8, True, 4)


def test_regraded_scores_name_the_grader_of_today(tmp_path, half_done, measured_set):
    before = Protocol(suite="one", samples_per_problem=4, grader="math, version 0", extraction="first number")
    write_sets(half_done / BENCHMARKS, [measured_set("one", ["one/1", "one/2"], 4, protocol=before.with_hash())])
    (one,) = replay(answers_of_run(half_done, CONFIG, 0))
    grader = f"math, version {GRADER_VERSION}"
    assert (one.protocol.grader, one.protocol.extraction) == (grader, EXTRACTION)
    today = Protocol(suite="one", samples_per_problem=4, grader=grader, extraction=EXTRACTION).with_hash()
    assert one.protocol.to_json() == today.to_json()
    assert today.hash != before.with_hash().hash


def test_where_nothing_is_stored_says_so(tmp_path, half_done):
    with pytest.raises(UserError, match="no evaluation is stored there"):
        answers_of_run(tmp_path, CONFIG, 0)
    (half_done / "org-m" / "ledger.jsonl").unlink()
    with pytest.raises(UserError, match="no answer is stored there yet"):
        answers_of_run(half_done, CONFIG, 0)
    (half_done / PROBLEMS).write_text('{"id": ')
    with pytest.raises(UserError, match=r"problems\.jsonl: cannot be read"):
        answers_of_run(half_done, CONFIG, 0)


def write(path, *rows):
    write_jsonl(path, rows)
    return path


def keys(found):
    (traces,) = found.traces.values()
    return [trace.key for trace in traces]


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "response": "4"},
        {"problem_id": "one/1", "text": "4"},
        {"unique_id": 1, "output": "4"},
        {"question": "Question one/1?", "completion": "4"},
        {"question": "  question   ONE/1? ", "generation": "4"},
        {"prompt": "Solve this.\n\nQuestion one/1?", "completion": "4"},
        {"prompt": [{"role": "user", "content": "Question one/1?"}], "completion": "4"},
        {"doc_id": 2, "question": "Question one/1?", "completion": "4"},  # the number of a row is not the suite's id
    ],
)
def test_a_row_is_matched_by_id_or_question(tmp_path, one_set, row):
    found = answers_of_file(write(tmp_path / "theirs.jsonl", row), one_set)
    assert keys(found) == [("one/1", 0)]
    assert list(found.traces) == ["theirs"]


def test_an_id_that_two_suites_have_decides_nothing(tmp_path, evaluation):
    path = write(tmp_path / "theirs.jsonl", {"id": "1", "response": "4"}, {"id": "3", "response": "4"})
    with pytest.raises(ProblemError, match="1 of 2 rows answer no question of one, two"):
        answers_of_file(path, evaluation)
    told = [{"id": "1", "question": "Question two/1?", "response": "4"}, {"id": "2", "response": "4"}]
    assert keys(answers_of_file(write(path, *told), evaluation)) == [("one/2", 0), ("two/1", 0)]


def test_equal_questions_are_told_apart_by_their_ids(tmp_path, measured_set, evaluation):
    problems = {name: problem(name, "The same?") for name in ("one/1", "one/2")}
    twice = Evaluation(
        tmp_path, [measured_set("one", list(problems), protocol=Protocol(prompt=PROMPT))], problems, CONFIG, 0, tmp_path
    )
    rows = [{"id": number, "question": "The same?", "response": "4"} for number in ("2", "1")]
    assert keys(answers_of_file(write(tmp_path / "a.jsonl", *rows), twice)) == [("one/1", 0), ("one/2", 0)]


def test_several_answers_are_several_samples_in_a_list_or_in_rows(tmp_path, one_set):
    rows = [{"id": "1", "responses": ["4", "5", "4"]}, {"id": "2", "response": "4"}, {"id": "2", "response": "5"}]
    found = answers_of_file(write(tmp_path / "a.jsonl", *rows), one_set)
    assert keys(found) == [("one/1", 0), ("one/1", 1), ("one/1", 2), ("one/2", 0), ("one/2", 1)]
    (traces,) = found.traces.values()
    (one,) = replay(type(found)(with_samples_of(found.evaluation, traces), found.traces))
    score = one.models["a"]
    assert (score.samples_per_problem, score.num_missing) == (3, 1)
    assert score.pass_at_1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert score.bounds == pytest.approx(((2 / 3 + 1 / 3) / 2, (2 / 3 + 2 / 3) / 2))


def test_questions_that_nobody_answered_make_the_score_incomplete(tmp_path, one_set):
    found = answers_of_file(write(tmp_path / "a.jsonl", {"id": "1", "response": "4"}), one_set)
    (traces,) = found.traces.values()
    (one,) = replay(type(found)(with_samples_of(found.evaluation, traces), found.traces))
    assert (one.models["a"].pass_at_1, one.models["a"].num_missing, one.models["a"].bounds) == (1.0, 1, (0.5, 1.0))


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ({"response": "x", "finish_reason": "length"}, ["length"]),
        ({"response": "x", "stop_reason": "max_tokens"}, ["length"]),
        ({"response": "x", "finish_reason": "stop"}, ["stop"]),
        ({"response": "x"}, ["stop"]),
        ({"response": ""}, ["stop"]),
        ({"responses": ["x", "y"], "finish_reason": ["stop", "length"]}, ["stop", "length"]),
        ({"responses": ["x", "y"], "finish_reason": ["length"]}, ["length", "stop"]),
        ({"responses": ["x", "y"], "finish_reason": "length"}, ["length", "length"]),
        ({"response": "", "finish_reason": "error"}, ["error"]),
        ({"response": "", "stop_reason": "content_filter"}, ["error"]),
        ({"response": None}, ["error"]),
        ({"response": None, "finish_reason": "stop"}, ["error"]),
        ({"responses": ["x", None]}, ["stop", "error"]),
    ],
)
def test_answers_that_were_cut_off_or_failed_are_known_as_such(tmp_path, one_set, row, reasons):
    found = answers_of_file(write(tmp_path / "a.jsonl", {"id": "1", **row}), one_set)
    (traces,) = found.traces.values()
    assert [trace.finish_reason for trace in traces] == reasons


def test_a_failed_sample_of_a_file_is_missing_and_no_zero(tmp_path, one_set):
    rows = [
        {"id": "1", "sample_index": 0, "text": "\\boxed{4}", "finish_reason": "stop"},
        {"id": "1", "sample_index": 1, "text": "", "finish_reason": "error"},
        {"id": "2", "sample_index": 0, "text": "\\boxed{4}", "finish_reason": "stop"},
        {"id": "2", "sample_index": 1, "text": None},
    ]
    found = answers_of_file(write(tmp_path / "a.jsonl", *rows), one_set)
    (traces,) = found.traces.values()
    (one,) = replay(type(found)(with_samples_of(found.evaluation, traces), found.traces))
    score = one.models["a"]
    assert (score.pass_at_1, score.num_missing, score.is_complete, score.bounds) == (1.0, 2, False, (0.5, 1.0))


def test_a_sample_that_was_drawn_again_counts_once_and_its_last_row_counts(tmp_path, one_set):
    rows = [
        {"id": "1", "sample_index": 0, "text": "", "finish_reason": "error"},
        {"id": "1", "sample_index": 1, "text": "5"},
        {"id": "1", "sample_index": 0, "text": "4", "finish_reason": "stop"},
        {"id": "2", "text": "4"},
        {"id": "2", "text": "4"},
    ]
    found = answers_of_file(write(tmp_path / "a.jsonl", *rows), one_set)
    assert keys(found) == [("one/1", 0), ("one/1", 1), ("one/2", 0), ("one/2", 1)]
    (traces,) = found.traces.values()
    assert [trace.text for trace in traces] == ["4", "5", "4", "4"]
    (tmp_path / "a.csv").write_text("id,sample_index,response\n1,0,5\n1,0,4\n")  # all of a CSV file is text
    assert keys(answers_of_file(tmp_path / "a.csv", one_set)) == [("one/1", 0)]


def test_thinking_is_split_off(tmp_path, one_set):
    text = "<think>\nIt may be \\boxed{4}.\n</think>\n\nIt is 5."
    found = answers_of_file(write(tmp_path / "a.jsonl", {"id": "1", "response": text}), one_set)
    (traces,) = found.traces.values()
    assert (traces[0].reasoning, traces[0].content) == ("It may be \\boxed{4}.", "It is 5.")
    (one,) = replay(found)
    assert one.models["a"].pass_at_1 == 0.0


def test_answers_to_other_questions_are_refused_with_their_number_and_place(tmp_path, one_set):
    rows = [{"id": "1", "response": "4"}, *({"question": f"Another {i}?", "response": "4"} for i in range(5))]
    with pytest.raises(ProblemError) as refusal:
        answers_of_file(write(tmp_path / "a.jsonl", *rows), one_set)
    assert "5 of 6 rows answer no question of one (" in str(refusal.value)
    assert "a.jsonl:2" in str(refusal.value)
    assert "--suite" in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_a_few_rows_of_other_questions_are_left_out(tmp_path, one_set, capsys):
    rows = [{"id": "1", "response": "4"}] * 30 + [{"id": "nobody", "response": "4"}]
    assert len(keys(answers_of_file(write(tmp_path / "a.jsonl", *rows), one_set))) == 30
    assert "1 row of 31 left out" in capsys.readouterr().err


def test_an_empty_file_and_a_suite_without_answers_have_no_score(tmp_path, one_set, evaluation):
    with pytest.raises(ProblemError, match="the file is empty"):
        answers_of_file(write(tmp_path / "a.jsonl"), one_set)
    with pytest.raises(ProblemError, match="no row answers a question of two"):
        answers_of_file(write(tmp_path / "a.jsonl", {"id": "2", "response": "4"}), evaluation)


@pytest.mark.parametrize("answer", [{"response": 4}, {"responses": []}, {"responses": [4]}])
def test_a_row_without_an_answer_is_refused_with_its_place(tmp_path, one_set, answer):
    with pytest.raises(ProblemError, match=r"a\.jsonl:1: no answer, or list of answers, .* Rename the column"):
        answers_of_file(write(tmp_path / "a.jsonl", {"id": "1", "answered": "4"}), one_set)
    with pytest.raises(ProblemError, match=r"a\.jsonl:1: responses? holds no text"):
        answers_of_file(write(tmp_path / "a.jsonl", {"id": "1", **answer}), one_set)


def test_every_kind_of_file_is_read(tmp_path, one_set):
    rows = [{"id": "1", "response": "4"}, {"id": "2", "response": "5"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("id,response\n1,4\n2,5\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.json", "a.csv", "a.parquet"):
        assert keys(answers_of_file(tmp_path / name, one_set)) == [("one/1", 0), ("one/2", 0)]


def test_the_protocol_of_answers_made_elsewhere_does_not_claim_our_sampling(tmp_path, one_set):
    found = answers_of_file(write(tmp_path / "a.jsonl", {"id": "1", "response": "4"}), one_set)
    (traces,) = found.traces.values()
    (one,) = with_samples_of(found.evaluation, traces).sets
    assert (one.protocol.suite, one.protocol.temperature, one.protocol.prompt) == ("one", None, None)
    assert one.protocol.hash != one_set.sets[0].protocol.hash
    assert "temperature" not in one.protocol.to_json()

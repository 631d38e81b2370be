"""Grades that are made beside sampling and read back by an evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest

from distill.core.records import CodeTests, Problem, Trace
from distill.grading import Grade
from distill.grading.background import BackgroundGrader
from distill.grading.cached import NUM_AT_ONCE, NUM_PROGRAMS_KEPT, gradable, grade_key, grade_traces, versions_of
from distill.grading.code.verdicts import CodeVerdict
from distill.grading.sandbox import sandbox_fails
from distill.storage.case_files import INLINE_BYTES, pack_tests
from distill.storage.fact_cache import FactCache

TIMEOUT_S = 30.0
needs_sandbox = pytest.mark.skipif(sandbox_fails() is not None, reason="needs bubblewrap and user namespaces")


def problem(answer="x^2+1", task="math"):
    return Problem("p", [{"role": "user", "content": "Expand."}], answer, task, "test")


def trace(content, index=0, finish_reason="stop"):
    return Trace("p", index, "m", "r", content, "", content, finish_reason, 5, 7, 0)


def key_of(asked, text, last_number=True):
    return grade_key(asked, text, versions_of(), 1.0, last_number)


def spoil(facts, key):
    """Turn a cached grade into a wrong one, which shows who reads it."""
    with FactCache(facts, write=True) as cache:
        entry = cache.get([key])[key]
        cache.put({key: {**entry, "correct": False, "reason": "wrong_answer"}})


def test_an_evaluation_takes_the_grades_made_beside_sampling(tmp_path):
    facts, asked = tmp_path / "facts.sqlite", problem()
    with BackgroundGrader(TIMEOUT_S, cache=facts, last_number=True) as grader:
        grader.submit(asked, trace("So \\boxed{1+x^2}"))
        while not (found := grader.ready(1.0)):
            pass
    assert found == [(("p", 0), Grade(True, "1+x^2", None))]
    answers = [(asked, trace("So \\boxed{1+x^2}"))]
    assert list(grade_traces(answers, facts, TIMEOUT_S, last_number=True)) == [Grade(True, "1+x^2", None)]
    spoil(facts, key_of(asked, "So \\boxed{1+x^2}"))
    assert list(grade_traces(answers, facts, TIMEOUT_S, last_number=True)) == [Grade(False, "1+x^2", "wrong_answer")]
    # The filter accepts no last number, so it has a grade of its own.
    assert list(grade_traces(answers, facts, TIMEOUT_S)) == [Grade(True, "1+x^2", None)]


def test_a_fault_while_grading_costs_that_grade_alone():
    broken = replace(problem(task="code", answer=None), tests=CodeTests("0", 1, cases=[{}]))
    found = []
    with BackgroundGrader(TIMEOUT_S) as grader:
        grader.submit(broken, trace("```python\nprint(1)\n```"))
        grader.submit(problem(), trace("So \\boxed{1+x^2}", 1))
        while grader.num_waiting:
            found += grader.ready(1.0)
    reasons = {key[1]: (grade.correct, grade.reason) for key, grade in found}
    assert reasons == {0: (None, "ungraded_crash"), 1: (True, None)}


def test_what_is_graded_is_kept_and_read_the_next_time(tmp_path):
    facts, asked = tmp_path / "facts.sqlite", problem()
    answers = [(asked, trace("\\boxed{1+x^2}")), (asked, trace("\\boxed{7}", 1))]
    first = list(grade_traces(answers, facts, TIMEOUT_S, last_number=True))
    assert [grade.correct for grade in first] == [True, False]
    spoil(facts, key_of(asked, "\\boxed{1+x^2}"))
    assert [g.correct for g in grade_traces(answers, facts, TIMEOUT_S, last_number=True)] == [False, False]
    assert list(grade_traces(answers, None, TIMEOUT_S, last_number=True)) == first


@pytest.mark.parametrize(
    ("finish_reason", "last_number", "text"),
    [("length", True, "\\boxed{4}"), ("length", False, "\\boxed{4} or 37"), ("stop", True, "\\boxed{4} or 37")],
)
def test_only_boxes_count_of_an_answer_that_an_evaluation_cut_off(finish_reason, last_number, text):
    assert gradable(problem(), trace("\\boxed{4} or 37", finish_reason=finish_reason), last_number) == text


def test_instructions_are_checked_in_what_there_is_of_an_answer():
    asked = problem(task="instructions", answer=None)
    assert gradable(asked, trace("No commas so far", finish_reason="length"), last_number=True) == "No commas so far"


def test_a_last_number_counts_for_an_evaluation_alone(tmp_path):
    answers = [(problem("4"), trace("It is 4")), (problem("4"), trace("It is 4", 1, "length"))]
    facts = tmp_path / "facts.sqlite"
    assert [g.correct for g in grade_traces(answers, facts, TIMEOUT_S, last_number=True)] == [True, False]
    assert [g.correct for g in grade_traces(answers, facts, TIMEOUT_S)] == [False, False]


def test_answers_keep_their_order_over_several_rounds_of_the_cache(tmp_path):
    num = NUM_AT_ONCE + 3
    answers = [(problem("1"), trace(f"\\boxed{{{i % 2}}}", i)) for i in range(num)]
    for _ in range(2):
        grades = grade_traces(answers, tmp_path / "facts.sqlite", TIMEOUT_S, last_number=True)
        assert [grade.correct for grade in grades] == [i % 2 == 1 for i in range(num)]


def test_few_grades_of_programs_are_lost_if_grading_ends_early(tmp_path, monkeypatch):
    ran = []

    def run(program, *arguments):
        ran.append(program)
        return CodeVerdict(True, 1, 1)

    monkeypatch.setattr("distill.grading.code.grader.run_program_tests", run)
    tests = CodeTests("0", 1, cases=[{"kind": "stdin", "stdin": "", "expected": ""}])
    asked = replace(problem(answer=None, task="code"), tests=tests)
    answers = [(asked, trace(f"```python\nprint({i})\n```", i)) for i in range(NUM_PROGRAMS_KEPT + 2)]
    first = grade_traces(answers, tmp_path / "facts.sqlite", TIMEOUT_S)
    assert next(first).correct
    first.close()
    ran.clear()
    assert all(grade.correct for grade in grade_traces(answers, tmp_path / "facts.sqlite", TIMEOUT_S))
    assert sorted(ran) == [f"print({i})\n" for i in range(NUM_PROGRAMS_KEPT, NUM_PROGRAMS_KEPT + 2)]


def test_a_cache_that_cannot_be_used_costs_no_grade(tmp_path):
    facts = tmp_path / "no" / "folder"
    facts.parent.write_text("a file where a folder should be")
    answers = [(problem(), trace("\\boxed{1+x^2}"))]
    assert [g.correct for g in grade_traces(answers, facts, TIMEOUT_S, last_number=True)] == [True]


@needs_sandbox
@pytest.mark.parametrize("answer", [None, "print(1)"])
def test_a_grade_without_its_file_of_tests_is_made_again(tmp_path, answer):
    facts = tmp_path / "facts.sqlite"
    tests = pack_tests([{"kind": "stdin", "stdin": "x" * INLINE_BYTES, "expected": "1"}], tmp_path)
    answers = [(replace(problem(answer, "code"), tests=tests), trace("```python\nprint(1)\n```"))]
    file = Path(tests.file)
    content = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_text("{}\n")):
        damage()
        (found,) = grade_traces(answers, facts, TIMEOUT_S)
        assert (found.correct, found.reason) == (None, "ungraded_gold")
        assert tests.sha256 in found.details["ungraded_gold"]
    file.write_bytes(content)
    assert [found.correct for found in grade_traces(answers, facts, TIMEOUT_S)] == [True]


def test_a_grading_that_ran_out_of_time_is_known_and_made_again_with_more(tmp_path):
    facts, asked = tmp_path / "facts.sqlite", problem()
    text = "\\boxed{1+x^2}"
    with FactCache(facts, write=True) as cache:
        gave_up = {"correct": None, "extracted_answer": "1+x^2", "reason": "ungraded_timeout", "limits": [1.0, 4.0]}
        cache.put({key_of(asked, text): gave_up})
    answers = [(asked, trace(text))]
    assert [g.reason for g in grade_traces(answers, facts, 1.0, last_number=True)] == ["ungraded_timeout"]
    assert [g.correct for g in grade_traces(answers, facts, TIMEOUT_S, last_number=True)] == [True]

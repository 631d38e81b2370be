"""Programs as answers, through whole stages: while sampling, in the filter, in evaluations, and without a sandbox."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from distill.core.records import Problem, Trace
from distill.errors import StageError, UserError
from distill.evaluation.answers import verdict_of
from distill.grading.cached import grade_traces
from distill.grading.code import grader, testing
from distill.grading.code.verdicts import CodeVerdict
from distill.grading.sandbox import BUBBLEWRAP, Backend, sandbox_fails
from distill.recipe.model import Recipe
from distill.report import gather_run
from distill.runs import recipe_checks, runner, solutions_check
from distill.runs.checks import MISSING
from distill.runs.explain import explain, story
from distill.runs.runner import run_recipe
from distill.runs.solutions_check import check_solutions
from distill.sampling.job import SamplingJob
from distill.sampling.loop import run_sampling
from distill.stages import RunContext
from distill.storage.case_files import pack_tests, write_problems
from distill.storage.fact_cache import FactCache
from distill.storage.files import read_jsonl, write_jsonl
from distill.storage.ledger import index_ledger

needs_sandbox = pytest.mark.skipif(sandbox_fails() is not None, reason="needs bubblewrap and user namespaces")
NO_SANDBOX = "`bwrap` is not installed: `apt-get install bubblewrap`"
THOUGHT = "<think>\nThe number is added to the other one, as the tests want it for number {0}.\n</think>\n\n"


def answer(body, number=0):
    said = f"It adds both of them, so that all tests of number {number} are passed:"
    return f"{THOUGHT.format(number)}{said}\n\n```python\n{body}\n```\n"


def rows(num=4):
    return [
        {
            "question": f"Write a function plus_{i} that adds {i}.",
            "id": f"p{i}",
            "canonical_solution": f"def plus_{i}(x):\n    return x + {i + (i == 3)}",
            "tests": [{"kind": "asserts", "code": f"assert plus_{i}({x}) == {x + i}"} for x in range(3)],
            "generations": [
                answer(f"def plus_{i}(x):\n    return x + {i}", i),
                answer(f"def plus_{i}(x):\n    return x + {i} if x < 2 else x * 2 + 9", i),
                f"{THOUGHT.format(i)}I would rather not write it down, number {i}.",
            ],
        }
        for i in range(num)
    ]


def recipe_of(tmp_path, **sections):
    write_jsonl(tmp_path / "made.jsonl", rows())
    plain = {
        "name": "made",
        "student": "smollm2-135m",
        "traces": [{"source": f"file:{tmp_path / 'made.jsonl'}", "task": "code"}],
        "filter": {"compute": {"workers": 1}, "max_tokens": 2_000, "duplicates": None},
        "sft": {"max_length": 2_048},
    }
    return Recipe.model_validate({**plain, **sections})


@needs_sandbox
def test_the_filter_keeps_programs_that_pass_their_tests(tmp_path):
    runs = tmp_path / "runs"
    summary = run_recipe(recipe_of(tmp_path), runs, ["import", "filter"])
    assert summary["filter"]["num_kept"] == 3
    assert summary["filter"]["dropped"] == {"no_answer": 4, "wrong_answer": 3, "ungraded_gold": 2}
    verdicts = {
        (one["problem_id"], one["sample_index"]): one for one in read_jsonl(runs / "made/filter/verdicts.jsonl")
    }
    wrong = verdicts["p1", 1]["details"]
    assert wrong["tests_passed"] == "2 of 3"
    assert wrong["wrong_answer"] == "test 3 of 3: wrong answer; input assert plus_1(2) == 3; expected 3; got 13"
    assert json.loads(wrong["failed_test"])["number"] == 3
    assert verdicts["p3", 0]["details"]["ungraded_gold"].startswith("its own solution fails test 1 of 3: wrong answer")
    (dropped,) = [pq.read_table(file).to_pylist() for file in (runs / "made/filter/dropped").glob("*.parquet")]
    assert any("test 3 of 3" in (row["details"] or "") for row in dropped)
    told = story(explain(runs / "made", "import", "p1/1"))
    assert any("test 3 of 3: wrong answer" in line for line in told)
    assert not any("failed_test" in line or "outputs" in line for line in told)
    failed = [card.facts["failed"] for card in gather_run(runs / "made").cards if "failed" in card.facts]
    assert {one["number"] for one in failed} == {3}
    assert failed[0].keys() == {"number", "passed", "end", "input", "expected", "got", "detail"}


@needs_sandbox
def test_grades_are_kept_and_not_made_again(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    run_recipe(recipe_of(tmp_path), runs, ["import", "filter"])

    def never(*arguments, **named):
        raise AssertionError("a program was run again")

    monkeypatch.setattr(grader, "run_program_tests", never)
    changed = recipe_of(tmp_path, filter={"compute": {"workers": 1}, "max_tokens": 1_900, "duplicates": None})
    summary = run_recipe(changed, runs, ["filter"], force=True)
    assert summary["filter"]["num_kept"] == 3


def lose_sandbox(monkeypatch):
    for module in (grader, testing):
        monkeypatch.setattr(module, "sandbox_fails", lambda backend: NO_SANDBOX)


@pytest.mark.parametrize("stages", [["import"], ["import", "filter"], None])
def test_a_run_that_needs_a_sandbox_stops_before_anything_is_read(tmp_path, monkeypatch, stages):
    lose_sandbox(monkeypatch)
    with pytest.raises(StageError, match=r"traces.0: answers are programs.*`bwrap` is not installed.*distill doctor"):
        run_recipe(recipe_of(tmp_path), tmp_path / "runs", stages)
    assert not (tmp_path / "runs").exists()


CALL = {"kind": "call", "function": "f", "arguments": [], "expected": 1}
REMOTE = Backend("remote", "http://runner:2000/api/v2")


def fail_here(monkeypatch, why=None):
    """The remote runner works; this machine has no g++, and sandboxes unless there is a reason."""
    monkeypatch.setattr(grader, "compiler", lambda: None)
    monkeypatch.setattr(grader, "sandbox_fails", lambda backend: None if backend.url else why)


@pytest.mark.parametrize(
    ("backend", "tests", "why"),
    [
        (BUBBLEWRAP, {"language": "cpp"}, r"tests in C\+\+, and g\+\+ is not installed: `apt-get install g\+\+`"),
        (REMOTE, {"cases": [CALL]}, "calls or assertions in Python.*leave sandbox.url out"),
        (REMOTE, {"cases": [{"kind": "asserts", "code": "assert f() == 1"}]}, "calls or assertions in Python"),
        (REMOTE, {"checker": "def check(stdin, output, expected): ..."}, f"checkers.*this machine.*{NO_SANDBOX}"),
        (REMOTE, {"language": "cpp"}, None),
        (REMOTE, {}, None),
        (BUBBLEWRAP, {"cases": [CALL]}, None),
    ],
)
def test_tests_that_cannot_be_run_are_refused_with_the_reason(monkeypatch, backend, tests, why):
    fail_here(monkeypatch, NO_SANDBOX if backend.url else None)
    stdin = [{"kind": "stdin", "stdin": "", "expected": ""}]
    problems = [code_problem(0), code_problem(1, pack_tests(tests.pop("cases", stdin), **tests))]
    if why is None:
        grader.check_tests(backend, problems, "eval")
    else:
        with pytest.raises(StageError, match=f"eval: .*{why}.*Nothing is sampled.*distill doctor"):
            grader.check_tests(backend, problems, "eval")


def test_a_run_whose_tests_cannot_be_run_stops_before_anything_is_sampled(tmp_path, monkeypatch):
    fail_here(monkeypatch)
    served = {"base_urls": ["http://localhost:1/v1"]}
    source = {"source": f"file:{tmp_path / 'made.jsonl'}", "task": "code"}
    recipe = recipe_of(tmp_path, traces=[], problems=[source], generate={"teacher": "a/b", "compute": served})
    write_jsonl(tmp_path / "made.jsonl", [{**row, "language": "cpp"} for row in rows()])
    with pytest.raises(StageError, match=r"generate: .*g\+\+ is not installed"):
        run_recipe(recipe, tmp_path / "runs", ["generate"])
    assert not (tmp_path / "runs/made/generate").exists()
    found = recipe_checks._problems(recipe)
    assert [(check.status, "g++" in check.said) for check in found] == [(MISSING, True)]


def test_a_run_of_which_everything_is_done_needs_no_sandbox(tmp_path, monkeypatch):
    lose_sandbox(monkeypatch)
    run = RunContext(recipe_of(tmp_path), tmp_path / "runs" / "made")
    step = type("Step", (), {"stage": "import"})()
    monkeypatch.setattr(type(run.folder("import")), "is_complete", property(lambda folder: True))
    runner._need_sandbox([(step, run)])


def test_a_recipe_without_programs_needs_none(tmp_path, monkeypatch):
    lose_sandbox(monkeypatch)
    math = [{"problem": "What is 2 + 2?", "answer": "4", "text": "<think>\nTwo and two.\n</think>\n\n\\boxed{4}"}]
    write_jsonl(tmp_path / "made.jsonl", math)
    recipe = recipe_of(tmp_path)
    write_jsonl(tmp_path / "made.jsonl", math)
    source = recipe.traces[0].model_copy(update={"task": None})
    run_recipe(recipe.model_copy(update={"traces": [source]}), tmp_path / "runs", ["import"])


def code_problem(number=0, tests=None):
    cases = [{"kind": "stdin", "stdin": f"{x}\n", "expected": f"{x + number}\n"} for x in range(3)]
    tests = tests or pack_tests(cases)
    return Problem(f"p{number}", [{"role": "user", "content": f"Add {number}."}], None, "code", "test", tests=tests)


@needs_sandbox
def test_sampling_stops_once_enough_programs_pass(tmp_path, fake_engine):
    write_problems(tmp_path / "problems.jsonl", [code_problem(0)])
    plain = SamplingJob(
        title="test",
        model_name="fake/teacher",
        model_path="nowhere",
        model_revision="r1",
        chat_format=None,
        problems=str(tmp_path / "problems.jsonl"),
        ledger=str(tmp_path / "ledger.jsonl"),
        samples_per_problem=2,
        seed=7,
        sampling={"temperature": 0.6},
        compute={},
        facts=str(tmp_path / "facts.sqlite"),
    )
    run_sampling(plain, fake_engine([answer("print(7)"), answer("print(input())")]))
    engine = fake_engine([answer("print(input())")])
    run_sampling(replace(plain, samples_per_problem=6, grade_timeout_s=20.0, stop_after_correct=1), engine)
    index = index_ledger(tmp_path / "ledger.jsonl")
    assert (engine.num_requests, len(index.places), len(index.skipped)) == (0, 2, 4)
    assert set(index.skipped.values()) == {"stop_after_correct: 1 samples are right already"}


@needs_sandbox
def test_an_evaluation_grades_programs_by_the_same_function(tmp_path):
    def trace(text, index, finish_reason="stop"):
        return Trace("p0", index, "m", "r", text, "", text, finish_reason, 5, 7, 0)

    traces = [
        trace("```python\nprint(input())\n```", 0),
        trace("```python\nprint(input())", 1, "length"),
        trace("The answer is 7.", 2),
    ]
    pairs = [(code_problem(0), one) for one in traces]
    grades = list(grade_traces(pairs, tmp_path / "facts.sqlite", 10.0, last_number=True))
    verdicts = [verdict_of(one, found) for one, found in zip(traces, grades, strict=True)]
    assert [one.correct for one in verdicts] == [True, False, False]
    assert [one.reasons for one in verdicts] == [(), ("no_answer",), ("no_answer",)]
    assert verdicts[0].details["tests_passed"] == "3 of 3"


@needs_sandbox
def test_own_solutions_are_checked_without_any_trace(tmp_path, documented):
    run = RunContext(recipe_of(tmp_path), tmp_path / "runs" / "made")
    found = check_solutions(run)
    documented("distill filter --check-tests --json", found.to_json())
    assert (found.num_problems, found.num_checked) == (4, 4)
    assert [one.problem_id for one in found.unusable] == ["p3"]
    assert found.lines()[-1].startswith("  p3 (file:made.jsonl): its own solution fails test 1 of 3")
    again = check_solutions(run)
    assert again.unusable == found.unusable
    assert again.seconds < found.seconds
    source = run.recipe.traces[0].model_copy(update={"task": None})
    other = RunContext(run.recipe.model_copy(update={"traces": [source]}), run.run_dir)
    with pytest.raises(UserError, match="task: code"):
        check_solutions(other)


@needs_sandbox
def test_the_command_lists_what_grades_no_answer(tmp_path, distill):
    (tmp_path / "recipe.yaml").write_text(recipe_of(tmp_path).model_dump_json())
    command = ["filter", "--check-tests", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "runs")]
    code, out, err = distill(*command)
    assert (code, "1 grade no answer" in out) == (0, True), err
    code, _, err = distill(*command, "--force")
    assert (code, "changes nothing" in err) == (2, True)
    code, _, err = distill(*command, "--explain", "p1")
    assert (code, "cannot be combined" in err) == (2, True)


def test_what_is_known_of_own_solutions_is_kept_meanwhile(tmp_path, monkeypatch):
    num_kept = solutions_check.NUM_PROGRAMS_KEPT
    put = []
    monkeypatch.setattr(FactCache, "put", lambda cache, facts: put.append(len(facts)))
    monkeypatch.setattr(solutions_check, "check_sandbox", lambda backend, key: None)
    monkeypatch.setattr(grader, "run_program_tests", lambda *arguments: CodeVerdict(True, 3, 3))
    recipe = recipe_of(tmp_path)
    write_jsonl(tmp_path / "made.jsonl", rows(2 * num_kept + 1))
    assert check_solutions(RunContext(recipe, tmp_path / "runs" / "made")).num_checked == sum(put)
    assert len(put) == 3


def test_checking_needs_a_sandbox(tmp_path, monkeypatch):
    lose_sandbox(monkeypatch)
    with pytest.raises(StageError, match="not installed"):
        check_solutions(RunContext(recipe_of(tmp_path), tmp_path / "runs" / "made"))


@needs_sandbox
def test_a_sandbox_that_fails_later_leaves_its_answer_ungraded(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    run_recipe(recipe_of(tmp_path), runs, ["import"])
    monkeypatch.setattr(testing, "sandbox_fails", lambda backend: "it has gone")
    with pytest.raises(UserError, match="ungraded_sandbox 8"):
        run_recipe(recipe_of(tmp_path), runs, ["filter"])
    monkeypatch.undo()
    summary = run_recipe(recipe_of(tmp_path), runs, ["filter"])
    assert summary["filter"]["num_kept"] == 3


def test_a_trace_of_a_problem_without_tests_is_ungraded(tmp_path):
    problem = replace(code_problem(0), tests=None)
    trace = Trace("p0", 0, "m", "r", "```\nprint(1)\n```", "", "```\nprint(1)\n```", "stop", 5, 7, 0)
    (grade,) = grade_traces([(problem, trace)], None, 10.0)
    assert (grade.correct, grade.reason, grade.details) == (
        None,
        "ungraded_gold",
        {"ungraded_gold": "the problem has no tests"},
    )

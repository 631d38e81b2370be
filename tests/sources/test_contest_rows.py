"""Rows of LiveCodeBench and open-r1/codeforces: statements, packed tests, checkers."""

import base64
import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from distill.errors import ProblemError
from distill.recipe.problems import ProblemSource
from distill.sources.code_tests import UnreadableTestsError, read_tests
from distill.sources.contest_rows import CHECKER, PRELUDE, full_statement
from distill.sources.problems import load_problems
from distill.storage.case_files import iter_cases

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "livecodebench_sample.jsonl"
STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
CALLS = [{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}]


def packed(value, level=6):
    return base64.b64encode(zlib.compress(pickle.dumps(value), level)).decode()


def live_code_bench(public=STDIN, private=STDIN, starter="", metadata="{}", **more):
    """A row with the columns of livecodebench/code_generation_lite."""
    return {
        "question_title": "Add",
        "question_content": "Add two numbers.",
        "platform": "atcoder",
        "question_id": "abc1",
        "contest_id": "abc1",
        "contest_date": "2024-08-03T00:00:00",
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private if isinstance(private, str) else packed(json.dumps(private)),
        "metadata": metadata,
        **more,
    }


def codeforces(**more):
    """A row with the columns of open-r1/codeforces."""
    return {
        "id": "2051/A",
        "aliases": None,
        "contest_id": "2051",
        "contest_name": "Codeforces Round (Div. 3)",
        "contest_type": "ICPC",
        "contest_start": 1734618900,
        "contest_start_year": 2024,
        "index": "A",
        "time_limit": 2.0,
        "memory_limit": 512.0,
        "title": "Add",
        "description": "Add two numbers.",
        "input_format": "Two numbers.",
        "output_format": "Their sum.",
        "interaction_format": None,
        "note": None,
        "examples": [{"input": "1 2", "output": "3"}],
        "editorial": None,
        "rating": 800,
        "tags": ["math"],
        "testset_size": 1,
        "official_tests": [{"input": "1 2\r\n", "output": "3\r\n"}, {"input": "2 2\r\n", "output": "4\r\n"}],
        "official_tests_complete": True,
        "input_mode": "stdio",
        "generated_checker": None,
        "executable": True,
        "generated_tests": 0,
        **more,
    }


def cases_of(row):
    return list(iter_cases(read_tests(row)))


# --- LiveCodeBench


def test_public_and_private_tests_are_one_list():
    private = [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]
    assert cases_of(live_code_bench(private=private)) == [
        {"kind": "stdin", "stdin": "1 2\n", "expected": "3\n"},
        {"kind": "stdin", "stdin": "5 6\n", "expected": "11\n"},
    ]


def test_private_tests_may_be_plain_json():
    assert len(cases_of(live_code_bench(private=json.dumps(STDIN)))) == 2


@pytest.mark.parametrize("level", [1, 5, 6, 9])
def test_every_level_of_compression_opens(level):
    assert len(cases_of(live_code_bench(private=packed(json.dumps(STDIN), level)))) == 2
    assert (
        len(cases_of({"test": packed({"input_output": json.dumps({"inputs": ["1"], "outputs": ["2"]})}, level)})) == 1
    )


def test_functional_tests_call_the_function_that_the_metadata_names():
    row = live_code_bench(CALLS, CALLS, "class Solution:\n    def join(…", json.dumps({"func_name": "join"}))
    case = {"kind": "call", "function": "join", "arguments": [[1, 2], 3], "expected": [1, 2, 3]}
    assert cases_of(row) == [case, case]
    assert cases_of({**row, "metadata": {"func_name": "join"}}) == [case, case]


def test_programs_get_the_imports_of_livecodebenchs_own_runner():
    assert read_tests(live_code_bench()).prompt == PRELUDE
    names = "pow(3, 4, 5), abs, open, List, sqrt(4), heappush, defaultdict(int), bisect.insort, math.pi"
    code = f"print({names}, sys.getrecursionlimit())"
    ran = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("1 <built-in function abs> <built-in function open> typing.List 2.0")
    assert ran.stdout.endswith(" 50000\n")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (live_code_bench(private="rubbish"), "base64"),
        (live_code_bench(private=packed({"a": 1})), "no list of tests"),
        (live_code_bench(private=packed(json.dumps([1]))), "no list of tests"),
        (live_code_bench(private=packed("not JSON")), "JSON"),
        (live_code_bench(CALLS, CALLS, "class Solution:"), "without the name of its function"),
        (live_code_bench(metadata="{broken"), "JSON"),
        (live_code_bench(private=packed(json.dumps([{"testtype": "stdin"}]))), "say no input"),
        ({"test": packed([1, 2])}, "is a int"),
        ({"test": packed({"input_output": "{}"})}, "inputs"),
        ({"test": packed({"input_output": "[]"})}, "no tests"),
        ({"test": packed({"other": 1})}, "no tests"),
    ],
)
def test_tests_that_cannot_be_read_are_refused_with_the_reason(row, why):
    with pytest.raises(UnreadableTestsError, match=why):
        read_tests(row)


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "make", [lambda value: live_code_bench(private=packed(value)), lambda value: {"test": packed(value)}]
)
def test_a_hostile_row_stops_the_loading_and_runs_nothing(tmp_path, make):
    mark = tmp_path / "made"
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question_content": "Add.", **make([Runs(str(mark))])}))
    source = ProblemSource(source=f"file:{rows}", task="code", columns={"problem": "question_content"})
    with pytest.raises(ProblemError, match=r"rows\.jsonl:1.*more than plain data"):
        load_problems(source, 0)
    assert not mark.exists()


def test_the_statement_has_the_starter_code_or_says_how_to_read():
    assert full_statement(live_code_bench(), "Add two numbers.").endswith("writes to standard output.")
    starter = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
    said = full_statement(live_code_bench(starter=starter), "Add two numbers.")
    assert said.endswith(f"```python\n{starter.rstrip()}\n```")
    assert "standard input" not in said


@pytest.mark.skipif(not SAMPLES.is_file(), reason="the shared samples are not here")
def test_real_samples_are_read(tmp_path):
    problems = load_problems(ProblemSource(source=f"file:{SAMPLES}", task="code", columns={"problem": "content"}), 0)
    kinds = [{case["kind"] for case in iter_cases(problem.tests)} for problem in problems]
    assert kinds == [{"stdin"}, {"call"}, {"stdin"}]
    assert [problem.tests.num for problem in problems] == [5, 14, 15]
    call = next(iter_cases(problems[1].tests))
    assert (call["function"], call["expected"]) == ("countSeniors", 2)
    assert call["arguments"] == [["7868190130M7522", "5303914400F9211", "9273338290F4010"]]


# --- Codeforces


def test_a_statement_is_put_together_from_its_columns():
    said = full_statement(codeforces(note="Easy.", interaction_format=""), "Add two numbers.")
    assert said == (
        "# Add\n\nTime limit: 2 seconds\nMemory limit: 512 MB\n\nAdd two numbers.\n\n## Input\n\nTwo numbers.\n\n"
        "## Output\n\nTheir sum.\n\n## Examples\n\nInput:\n```\n1 2\n```\nOutput:\n```\n3\n```\n\n## Note\n\nEasy."
    )
    bare = codeforces(
        title=None, time_limit=None, memory_limit=None, input_format=None, output_format=None, examples=None
    )
    assert full_statement(bare, "Add.") == "Add."


def test_a_row_of_another_data_set_keeps_its_question():
    assert full_statement({"question": "Add.", "note": "no"}, "Add.") == "Add."


def test_official_tests_and_limits_are_read():
    tests = read_tests(codeforces())
    assert [case["expected"] for case in iter_cases(tests)] == ["3\r\n", "4\r\n"]
    assert (tests.time_s, tests.memory_mib, tests.checker, tests.prompt) == (2.0, 512, "", "")


MAIN = """\
import sys

def main(input_path, output_path, submission_path):
    expected, found = open(output_path).read().split(), open(submission_path).read().split()
    print(1 if sorted(expected) == sorted(found) else 0)

if __name__ == "__main__":
    main(*sys.argv[1:4])
"""
EXITS = """\
import sys
print("checked")
print(int(open(sys.argv[2]).read().split() == open(sys.argv[3]).read().split()[::-1]))
sys.exit(0)
"""


@pytest.mark.parametrize("source", [MAIN, EXITS])
def test_a_generated_checker_becomes_a_function(source):
    names = {}
    exec(read_tests(codeforces(generated_checker=source)).checker, names)
    assert names["check"]("", "2 1", "1 2") is True
    assert names["check"]("", "2 3", "1 2") is False
    assert sys.argv[0] != "checker.py"


@pytest.mark.parametrize(
    "source", ["", "print()", "print('ok')", "import sys; sys.exit(1)", "print(1); raise SystemExit(3)", "print(0.5)"]
)
def test_a_checker_that_does_not_say_one_accepts_nothing(source):
    names = {}
    exec(CHECKER.format(source=source), names)
    assert names["check"]("", "1", "1") is False

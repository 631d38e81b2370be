"""Tests of code problems: the shapes of the usual data sets, what is refused, and where long tests lie."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from distill.core.json_shape import PROBLEM, fault
from distill.core.records import Problem
from distill.errors import ProblemError, StoreError
from distill.recipe.model import Recipe
from distill.recipe.problems import CodeSettings, ProblemSource
from distill.recipe.traces import TraceSource
from distill.sources.code_tests import UnreadableTestsError, read_tests
from distill.sources.imported_traces import foreign_traces
from distill.sources.problems import load_problem_sets, load_problems
from distill.storage.case_files import INLINE_BYTES, iter_cases, pack_tests, write_problems
from distill.storage.layout import PROBLEMS
from distill.storage.problem_file import ProblemFile

DATA = Path(__file__).parents[3] / "shared" / "data"
ADD = [{"kind": "stdin", "stdin": "1 2", "expected": "3"}]
HUMAN_EVAL = {
    "prompt": 'import math\n\n\ndef add(a, b):\n    """Add."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    "canonical_solution": "    return a + b\n",
}
MBPP = {
    "text": "Add two numbers.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "test_setup_code": "import math",
    "challenge_test_list": ["assert add(-1, 1) == 0"],
}
CPP_MAIN = (
    '}\nint main() {\n  auto candidate = add;\n  assert(candidate((1), (2)) == (3));\n  assert(f(")") == 1);\n}\n'
)


@pytest.mark.parametrize(
    ("row", "cases", "more"),
    [
        pytest.param(
            {"tests": ADD, "time_limit": 2, "memory_limit": "256 MB"},
            ADD,
            {"time_s": 2.0, "memory_mib": 256},
            id="own",
        ),
        pytest.param({"tests": json.dumps({"cases": ADD, "language": "C++"})}, ADD, {"language": "cpp"}, id="own JSON"),
        pytest.param(
            HUMAN_EVAL,
            [{"kind": "asserts", "code": f"{HUMAN_EVAL['test'].rstrip()}\n\ncheck(add)\n"}],
            {"entry_point": "add", "prompt": HUMAN_EVAL["prompt"]},
            id="HumanEval",
        ),
        pytest.param(
            MBPP,
            [{"kind": "asserts", "code": code, "setup": "import math"} for code in MBPP["test_list"]],
            {},
            id="MBPP",
        ),
        pytest.param(
            {"prompt": "long add(long a, long b) {", "tests": CPP_MAIN, "language": "cpp"},
            [
                {"kind": "asserts", "code": "assert(candidate((1), (2)) == (3))"},
                {"kind": "asserts", "code": 'assert(f(")") == 1)'},
            ],
            {"language": "cpp", "entry_point": "add", "prompt": "long add(long a, long b) {"},
            id="MultiPL-E",
        ),
        pytest.param({"input_output": '{"inputs": ["1 2"], "outputs": ["3"]}'}, ADD, {}, id="TACO"),
        pytest.param({"verifier_metadata": {"unit_tests": {"inputs": [["1 2"]], "outputs": [3]}}}, ADD, {}, id="Gym"),
        pytest.param(
            {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"},
            [{"kind": "call", "function": "add", "arguments": [1, 2], "accepted": [3, [3]]}],
            {},
            id="APPS call",
        ),
        pytest.param({"test": '[{"input": {"stdin": "1 2"}, "output": {"stdout": "3"}}]'}, ADD, {}, id="SandboxFusion"),
        pytest.param(
            {"official_tests": [{"input": "1 2", "output": "3"}], "time_limit": 1.5},
            ADD,
            {"time_s": 1.5},
            id="Codeforces",
        ),
        pytest.param(
            {
                "public_tests": {"input": ["1 2"], "output": ["3"]},
                "generated_tests": {"input": [], "output": []},
                "time_limit": {"seconds": 2, "nanos": 500_000_000},
                "memory_limit_bytes": 256 << 20,
            },
            ADD,
            {"time_s": 2.5, "memory_mib": 256},
            id="CodeContests",
        ),
        pytest.param(
            {"fn_name": "add", "tests": [{"input": "1\n2", "output": "3", "testtype": "functional"}]},
            [{"kind": "call", "function": "add", "arguments": [1, 2], "expected": 3}],
            {},
            id="LiveCodeBench",
        ),
    ],
)
def test_the_shapes_of_the_usual_data_sets_are_read(row, cases, more):
    tests = read_tests(row)
    assert list(iter_cases(tests)) == cases
    assert {key: getattr(tests, key) for key in more} == more
    problem = Problem("a", [], None, "code", "", tests=tests)
    assert fault(problem.to_json(), PROBLEM) == ""
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem


def test_the_recipe_decides_before_the_row():
    settings = CodeSettings(language="cpp", time_s=9, memory_mib=32, hard=True)
    tests = read_tests({**MBPP, "time_limit": 1}, settings=settings)
    assert (tests.language, tests.time_s, tests.memory_mib, tests.num) == ("cpp", 9.0, 32, 3)
    own = read_tests({"tests": {"cases": ADD, "time_s": 1}, "time_limit": 2}, settings=settings)
    assert (own.language, own.time_s, own.memory_mib) == ("cpp", 1.0, 32), "tests speak for themselves first"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tests": "no JSON"}, "is not JSON"),
        ({"tests": 7}, "holds a int"),
        ({"tests": [{"kind": "magic"}]}, "of the kind 'magic'"),
        ({"tests": [{"kind": "call", "function": "f"}]}, "without 'arguments'"),
        ({"tests": [{"kind": "call", "function": "f", "arguments": []}]}, "without an expected result"),
        ({"tests": [{"kind": "stdin", "stdin": 1, "expected": "1"}]}, "stdin is not text"),
        ({"tests": [{"kind": "stdin", "stdin": "", "expected": 1}]}, "expected output is not text"),
        ({"tests": [{"output": "3"}]}, "which say no input"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"tests": ADD, "time_limit": "soon"}, "no number"),
        ({"tests": "int main() {}"}, "not a list of assertions"),
        ({"tests": "file:/etc/passwd"}, "beside a file: source"),
        ({"tests": [{"kind": ["stdin"]}]}, "is not plain JSON"),
    ],
)
def test_tests_that_cannot_be_read_are_refused(row, said):
    with pytest.raises(UnreadableTestsError, match=said):
        read_tests(row)


def test_a_file_of_tests_with_a_nul_in_its_name_is_refused(tmp_path):
    with pytest.raises(UnreadableTestsError, match="beside a file: source"):
        read_tests({"tests": "file:a\0b.jsonl"}, folder=tmp_path)


def test_a_problem_without_tests_is_refused_with_its_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "Add."}) + "\n" + json.dumps({"question": "Add.", "tests": ADD}) + "\n")
    with pytest.raises(ProblemError, match=r"1 rows have no tests .*rows.jsonl:1"):
        load_problems(ProblemSource(source=f"file:{path}", task="code"), 0)
    path.write_text(json.dumps({"question": "Add.", "tests": "{"}))
    with pytest.raises(ProblemError, match=r"rows.jsonl:1: the tests cannot be read: their column is not JSON"):
        load_problems(ProblemSource(source=f"file:{path}", task="code"), 0)


def test_the_template_shows_the_first_tests(tmp_path):
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(MBPP))
    source = ProblemSource(
        source=f"file:{path}", task="code", template="{problem} Your code passes:\n{tests}\n{letters}"
    )
    (problem,) = load_problems(source, 0)
    assert problem.question == "Add two numbers. Your code passes:\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n?"
    assert problem.answer == MBPP["code"]


def test_long_tests_lie_in_a_file_that_moves_with_the_problems(tmp_path):
    rows = tmp_path / "rows.jsonl"
    cases = [{"kind": "stdin", "stdin": str(i), "expected": "x" * 100} for i in range(1_000)]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    rows.write_text(json.dumps({"question": "Add.", "tests": "file:cases.jsonl"}))
    (problem,) = load_problems(ProblemSource(source=f"file:{rows}", task="code"), 0, store=tmp_path / "store")
    assert problem.tests.cases is None
    assert list(iter_cases(problem.tests)) == cases
    folder = tmp_path / "run" / "generate"
    folder.mkdir(parents=True)
    write_problems(folder / PROBLEMS, [problem])
    assert (folder / PROBLEMS).stat().st_size < 1_000
    (folder / "tests" / Path(problem.tests.file).name).unlink()
    (folder / "tests" / Path(problem.tests.file).name).write_text("damaged\n")
    write_problems(folder / PROBLEMS, [problem])
    (tmp_path / "store").rename(tmp_path / "gone")
    with ProblemFile(folder / PROBLEMS) as problems:
        found = problems[problem.id]
    assert list(iter_cases(found.tests)) == cases
    file = Path(found.tests.file)
    file.write_text("{}\n")
    with pytest.raises(StoreError, match=r"damaged\. `distill generate` writes"):
        list(iter_cases(found.tests))
    file.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        list(iter_cases(found.tests))


def test_tests_of_100_mb_are_never_held_whole(tmp_path):
    def cases():
        for number in range(100):
            yield {"kind": "stdin", "stdin": f"{number}\n" + "x" * (1 << 20), "expected": ""}

    tracemalloc.start()
    try:
        tests = pack_tests(cases(), tmp_path)
        assert sum(len(case["stdin"]) for case in iter_cases(tests)) > 100 << 20
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tests.num, tests.cases) == (100, None)
    assert most < 16 << 20


def test_short_tests_lie_in_the_record():
    assert pack_tests(ADD).cases == ADD
    assert pack_tests([{"kind": "stdin", "stdin": "x" * INLINE_BYTES, "expected": ""}]).cases is None


def test_traces_made_elsewhere_bring_their_tests(tmp_path):
    path = tmp_path / "traces.jsonl"
    rows = [
        {"question": "Add.", "tests": ADD, "generations": ["```python\nprint(3)\n```"] * 2},
        {"question": "Subtract.", "generations": ["```python\nprint(1)\n```"]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = list(foreign_traces(TraceSource(source=f"file:{path}", task="code")))
    assert [problem.tests and problem.tests.cases for problem, _ in pairs] == [ADD, ADD, None]


def test_problems_of_one_statement_with_other_tests_are_two(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"question": "Add.", "tests": [{"kind": "stdin", "stdin": x, "expected": x}], "text": "```\nprint(1)\n```"}
        for x in "1213"
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": f"file:{path}", "task": "code"}
    recipe = {"name": "two", "student": "a/b", "problems": [source], "generate": {"teacher": "a/c"}}
    sets = load_problem_sets(Recipe.model_validate(recipe))
    assert sorted(one.tests.cases[0]["stdin"] for one in sets.train) == ["1", "2", "3"]
    pairs = list(foreign_traces(TraceSource(**source)))
    assert [(trace.sample_index, one.tests.cases[0]["stdin"]) for one, trace in pairs] == [
        (0, "1"),
        (0, "2"),
        (1, "1"),
        (0, "3"),
    ]
    assert {one.id for one, _ in pairs} == {one.id for one in sets.train}


def rows_of(name):
    path = DATA / name
    if not path.exists():
        pytest.skip("needs the shared data")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.parametrize(
    ("name", "num_rows", "num_tests"),
    [
        ("humaneval.jsonl.gz", 164, 164),
        ("mbpp.jsonl", 974, 2_922),
        ("humaneval_cpp.jsonl", 161, 1_130),
        ("code_contests_sample.jsonl", 20, 2_233),
        ("codeforces_taco_sample.jsonl", 5, 283),
    ],
)
def test_real_data_sets_are_read_whole(name, num_rows, num_tests):
    found = [read_tests(row) for row in rows_of(name)]
    assert len(found) == num_rows
    assert sum(tests.num for tests in found) == num_tests

"""Suites of code loaded from rows with the Hub's columns and types, and from real ones where they are."""

import base64
import gzip
import importlib.util
import json
import pickle
import sys
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import ProblemError
from distill.evaluation.groups import group_scores
from distill.recipe.eval import EvalConfig
from distill.recipe.suites import load_suite
from distill.sources.evaluation_sets import load_pack
from distill.sources.problems import load_problems
from distill.storage.case_files import iter_cases

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared problems are not here")


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


def bench_row(number, day, difficulty, **more):
    stdin = [{"input": f"{number}\n", "output": f"{number}\n", "testtype": "stdin"}]
    return {
        "question_title": f"Echo {number}",
        "question_content": f"Echo {number}.",
        "platform": "atcoder",
        "question_id": f"abc{number}_a",
        "contest_id": f"abc{number}",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": difficulty,
        "public_test_cases": json.dumps(stdin),
        "private_test_cases": packed(stdin * 2),
        "metadata": "{}",
        **more,
    }


CALL = {"input": "[1, 2]", "output": "3", "testtype": "functional"}
FUNCTION = {
    "starter_code": "class Solution:\n    def total(self, nums: List[int]) -> int:\n        ",
    "public_test_cases": json.dumps([CALL]),
    "private_test_cases": packed([CALL]),
    "metadata": '{"func_name": "total"}',
}
TESTS = [{"input": "1 2\r\n", "output": "3\r\n"}]
ROWS = {
    "humaneval": [
        {"task_id": "HumanEval/0", "prompt": '\n\ndef add(a, b):\n    """Add."""\n', "entry_point": "add",
         "canonical_solution": "    return a + b\n",
         "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"},
    ],
    "mbpp": [
        {"task_id": 11, "text": "Write a function to add.", "code": "def add(a, b):\n    return a + b",
         "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(2, 2) == 4"],
         "test_setup_code": "", "challenge_test_list": ["assert add(-1, 1) == 0"]},
    ],
    "livecodebench": [
        bench_row(1, "2024-07-31", "easy"),
        bench_row(2, "2024-08-01", "easy"),
        bench_row(3, "2024-08-17", "hard", **FUNCTION),
        bench_row(4, "2025-01-31", "medium"),
        bench_row(5, "2025-02-01", "medium"),
    ],
    "codeforces": [
        {"id": f"{contest}/{index}", "aliases": None, "contest_id": contest, "contest_name": "Round (Div. 2)",
         "contest_type": "CF", "contest_start": start, "contest_start_year": 2024, "index": index, "time_limit": 2.0,
         "memory_limit": 256.0, "title": "Add", "description": f"Add, {contest}{index}.",
         "input_format": "Two numbers.",
         "output_format": "One.", "interaction_format": None, "note": "Easy.",
         "examples": [{"input": "1 2", "output": "3"}], "editorial": None, "rating": rating, "tags": ["math"],
         "testset_size": 1, "official_tests": TESTS, "official_tests_complete": True, "input_mode": "stdio",
         "generated_checker": checker, "executable": True, "generated_tests": 0}
        for contest, index, start, rating, checker in [
            ("2040", "A", 1732545300, 800, None), ("2040", "B", 1732545300, 1300, "print(1)"),
            ("2051", "A", 1734618900, None, None),
        ]
    ],
}  # fmt: skip
"""Made rows, with the columns and the types that each suite has on the Hub."""
NAMES = list(ROWS)


def save(rows, path):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(suite, path, **keys):
    entry = {"suite": suite, "source": f"file:{path}", **keys}
    (found,) = EvalConfig.model_validate({"benchmarks": [entry]}).benchmarks
    return load_problems(found, 0)


def rows_of(suite, tmp_path, kind=".jsonl", **keys):
    return load(suite, save(ROWS[suite], tmp_path / f"rows{kind}"), **keys)


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
@pytest.mark.parametrize("suite", NAMES)
def test_rows_as_on_the_hub_become_problems_with_tests(suite, kind, tmp_path):
    problems = rows_of(suite, tmp_path, kind)
    same = [replace(problem, source=f"file:rows{kind}") for problem in rows_of(suite, tmp_path)]
    assert problems == same
    assert {problem.task for problem in problems} == {"code"}
    assert all(problem.tests.num for problem in problems)
    for problem in problems:
        assert "{" not in problem.question.replace("{}", "")  # nothing of the template is left
        assert "```" in problem.question
        assert "return a + b" not in problem.question


def test_a_function_to_complete_stands_in_a_block_and_its_solution_is_the_answer(tmp_path):
    (problem,) = rows_of("humaneval", tmp_path)
    assert problem.id == "HumanEval/0"
    assert '```python\ndef add(a, b):\n    """Add."""\n```' in problem.question
    assert (problem.tests.entry_point, problem.tests.prompt) == ("add", ROWS["humaneval"][0]["prompt"])
    assert problem.answer == "    return a + b\n"


def test_a_task_shows_its_three_assertions_and_not_the_challenge(tmp_path):
    (problem,) = rows_of("mbpp", tmp_path)
    assert "assert add(1, 2) == 3\nassert add(0, 0) == 0\nassert add(2, 2) == 4\n```" in problem.question
    assert problem.tests.num == 3
    assert rows_of("mbpp", tmp_path, tests={"hard": True})[0].tests.num == 4


def test_the_papers_window_is_from_august_2024_to_january_2025(tmp_path):
    problems = rows_of("livecodebench", tmp_path)
    assert [problem.id for problem in problems] == ["abc2_a", "abc3_a", "abc4_a"]
    assert len(rows_of("livecodebench", tmp_path, window=None)) == 5
    later = {"column": "contest_date", "first": "2025-02-01", "last": None}
    assert [problem.id for problem in rows_of("livecodebench", tmp_path, window=later)] == ["abc5_a"]


def test_public_and_private_tests_of_programs_and_of_functions(tmp_path):
    program, function, _ = rows_of("livecodebench", tmp_path)
    assert [case["stdin"] for case in iter_cases(program.tests)] == ["2\n"] * 3
    assert "reads from standard input" in program.question
    assert [case["arguments"] for case in iter_cases(function.tests)] == [[[1, 2]]] * 2
    assert "class Solution:" in function.question


def test_scores_are_split_by_month_and_difficulty(tmp_path):
    for suite, expected in (
        ("livecodebench", {"2024-08": 2, "2025-01": 1, "easy": 1, "medium": 1, "hard": 1}),
        ("codeforces", {"2024-11": 2, "2024-12": 1, "800 to 1199": 1, "1200 to 1599": 1}),
    ):
        problems = {problem.id: problem for problem in rows_of(suite, tmp_path)}
        found = group_scores(list(problems), {name: [1.0] for name in problems}, problems)
        assert found.num_problems == expected


def test_contest_problems_have_their_statement_limits_checker_and_language(tmp_path):
    plain, checked, _ = rows_of("codeforces", tmp_path)
    assert (plain.id, plain.metadata["contest"], plain.metadata["index"]) == ("2040/A", "2040", "A")
    assert (plain.tests.language, plain.tests.time_s, plain.tests.memory_mib, plain.tests.checker) == (
        "cpp",
        2.0,
        256,
        "",
    )
    assert "def check(stdin, output, expected)" in checked.tests.checker
    for part in ("# Add", "Time limit: 2 seconds", "## Input\n\nTwo numbers.", "## Examples", "## Note", "```cpp"):
        assert part in plain.question


def test_a_row_without_tests_is_refused(tmp_path):
    path = save([{**row, "test_list": []} for row in ROWS["mbpp"]], tmp_path / "rows.jsonl")
    with pytest.raises(ProblemError, match="1 rows have no tests"):
        load("mbpp", path)


# --- from the Hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on loopback that the client takes for the Hub."""
    from huggingface_hub import constants

    place = Path(__file__).parents[1] / "hub_server.py"
    spec = importlib.util.spec_from_file_location("code_suites_hub_server", place)
    sys.modules["code_suites_hub_server"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_test_canary_0123456789abcdef")
        yield server


def test_the_problems_of_several_files_are_one_set(hub, tmp_path):
    measured = load_suite("livecodebench").benchmark
    rows = ROWS["livecodebench"]
    files = {
        name: save(own, tmp_path / name).read_bytes()
        for name, own in zip(measured.files, (rows[:2], rows[2:3], rows[3:]), strict=True)
    }
    repo = hub.make("dataset", measured.source.removeprefix("hf:"))
    repo.commits.append((measured.revision, "release", files))
    repo.branches["main"] = measured.revision
    assert [problem.id for problem in load_problems(measured, 0)] == ["abc2_a", "abc3_a", "abc4_a"]
    pack = load_pack("livecodebench")
    assert [name for name, _ in pack.items] == [f"abc{number}_a" for number in range(1, 6)]
    assert pack.source == "hf:livecodebench/code_generation_lite/test3.jsonl+test4.jsonl+test5.jsonl"
    broken = dict(files) | {"test4.jsonl": b'{"question_content": "", "contest_date": "2024-08-02"}\n'}
    repo.commits.append(("e" * 40, "broken", broken))
    with pytest.raises(ProblemError, match=r"code_generation_lite/test4\.jsonl:1: column 'question_content' holds no"):
        load_problems(measured.model_copy(update={"revision": "e" * 40}), 0)


# --- real problems, where they are


@needs_shared
def test_all_of_humaneval_and_of_mbpps_test_split_load(tmp_path):
    with gzip.open(SHARED_DATA / "humaneval.jsonl.gz", "rt") as stream:
        (tmp_path / "humaneval.jsonl").write_text(stream.read())
    found = load("humaneval", tmp_path / "humaneval.jsonl")
    assert len(found) == 164
    assert all(problem.tests.entry_point and problem.answer for problem in found)
    rows = [json.loads(line) for line in (SHARED_DATA / "mbpp.jsonl").read_text().splitlines()]
    tested = load("mbpp", save([row for row in rows if 11 <= row["task_id"] <= 510], tmp_path / "mbpp.jsonl"))
    assert Counter(problem.tests.num for problem in tested) == {3: 500}

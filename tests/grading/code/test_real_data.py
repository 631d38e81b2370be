"""Programs for real problems: canonical solutions pass, and the same with a fault planted fail.

The answers to the contest problems below are the tests' own.
"""

import ast
import base64
import gzip
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distill.grading.code.grader import CodeGrader, solution_of
from distill.grading.code.programs import python_source
from distill.grading.code.testing import run_program_tests
from distill.grading.sandbox import sandbox_fails
from distill.grading.sandbox.compiled import compiler
from distill.recipe.problems import CodeSettings, ProblemSource
from distill.sources.code_tests import read_tests
from distill.sources.problems import load_problems
from distill.storage.case_files import iter_cases

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data"),
    pytest.mark.skipif(sandbox_fails() is not None, reason="needs bubblewrap and user namespaces"),
]

OPPOSITE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip


def problems_of(name, tmp_path, **settings):
    path = DATA / name
    if path.suffix == ".gz":
        unpacked = tmp_path / path.stem
        unpacked.write_bytes(gzip.decompress(path.read_bytes()))
        path = unpacked
    return load_problems(ProblemSource.model_validate({"source": f"file:{path}", "task": "code", **settings}), 0)


def rows_of(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def with_a_fault(source, seed):
    """A program with one comparison turned round, else one operation changed, else another result."""
    tree = ast.parse(source)
    compares = [node for node in ast.walk(tree) if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE]
    sums = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and type(node.op) in OTHER]
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    node = random.Random(seed).choice(compares or sums or returns)
    if isinstance(node, ast.Compare):
        node.ops[0] = OPPOSITE[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = OTHER[type(node.op)]()
    else:
        node.value = ast.Constant("wrong")
    return ast.unparse(ast.fix_missing_locations(tree))


def passes_in_plain_python(program, tests):
    """Whether a program that we wrote passes its assertions without any sandbox, in one process with them."""
    asserts = "\n".join(f"{case.get('setup', '')}\n{case['code']}" for case in iter_cases(tests))
    return subprocess.run([sys.executable, "-c", f"{program}\n{asserts}"], capture_output=True).returncode == 0


def verdicts_on(programs):
    """Verdicts on (program, tests), several at a time."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(lambda pair: run_program_tests(*pair), programs))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "num_weaker"),
    [pytest.param("humaneval.jsonl.gz", 0, id="HumanEval"), pytest.param("mbpp.jsonl", 3, id="MBPP")],
)
def test_canonical_solutions_pass_and_planted_faults_fail(name, num_weaker, tmp_path):
    problems = problems_of(name, tmp_path, tests={"time_s": 2})
    with CodeGrader() as grader, ThreadPoolExecutor(grader.num_workers) as threads:
        own = list(threads.map(grader.own_solution, problems))
    assert [(problem.id, found.fault) for problem, found in zip(problems, own, strict=True) if found.fault] == []
    assert sum(bool(found.weaker) for found in own) == num_weaker
    planted = [with_a_fault(python_source(one.answer, one.tests), number) for number, one in enumerate(problems)]
    pairs = [(program, problem.tests) for program, problem in zip(planted, problems, strict=True)]
    passed = [pair for pair, found in zip(pairs, verdicts_on(pairs), strict=True) if found.correct is not False]
    assert len(passed) <= 0.05 * len(problems)
    # What passes is not a matter of grading: the fault is one that these assertions do not see.
    assert all(passes_in_plain_python(*pair) for pair in passed)


@pytest.mark.long
@pytest.mark.skipif(compiler() is None, reason="needs g++")
def test_answers_in_cpp_come_out_as_the_compiler_and_the_assertions_say(tmp_path):
    problems = problems_of("humaneval_cpp.jsonl", tmp_path, columns={"answer": "gpt_solution"})[:16]
    wrong = {10}
    found = verdicts_on([(solution_of(problem), problem.tests) for problem in problems])
    assert {number for number, one in enumerate(found) if not one.correct} == wrong
    assert not any(one.weaker for one in found)
    # The statement, not the word in a comment before it.
    turned = [re.sub(r"^( +)return\b", r"\1return !", solution_of(problem), flags=re.M) for problem in problems[:6]]
    broken = [(program, problem.tests) for program, problem in zip(turned, problems[:6], strict=True)]
    assert not any(one.correct for one in verdicts_on(broken))


CARDS = "for _ in range(int(input())):\n    print('YES' if input() in ('abc', 'acb', 'bac', 'cba') else 'NO')"
SENIORS = (
    "class Solution:\n    def countSeniors(self, details):\n        return sum(int(one[11:13]) > 60 for one in details)"
)
GAMES = (
    "n = int(input())\ns = input()\nt = s.count('T')\nprint('T' if t * 2 > n or t * 2 == n and s[-1] == 'A' else 'A')"
)
LIVE = {
    "1": [(CARDS, True), (CARDS.replace(", 'cba'", ""), False)],
    "10": [(SENIORS, True), (SENIORS.replace("> 60", ">= 60"), False)],
    "191": [(GAMES, True), (GAMES.replace("== 'A' else", "== 'T' else"), False)],
}


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name}")


def live_tests(row):
    packed = zlib.decompress(base64.b64decode(row["test"]))
    return read_tests(PlainUnpickler(io.BytesIO(packed)).load())


def test_answers_to_live_code_bench():
    found = {}
    for row in rows_of("livecodebench_sample.jsonl"):
        tests = live_tests(row)
        assert run_program_tests(row["canonical_solution"], tests).correct is False  # it only exits
        for program, correct in LIVE[str(row["id"])]:
            verdict = run_program_tests(program, tests)
            assert verdict.correct is correct, (row["id"], verdict.failed)
            found[row["id"]] = verdict.num
    assert found == {1: 5, 10: 14, 191: 15}


KING = """
for _ in range(int(input())):
    n, m, k = map(int, input().split())
    if max(n, m) > k:
        print(-1)
    elif (n + m) % 2:
        print(k - 1)
    else:
        print(k if (k - max(n, m)) % 2 == 0 else k - 2)
"""
BARRELS = """
for _ in range(int(input())):
    n, k = map(int, input().split())
    a = sorted(map(int, input().split()))
    print(sum(a[-k - 1:]))
"""
BEAUTIFUL = """
for _ in range(int(input())):
    n = int(input())
    at = {value: place for place, value in enumerate(map(int, input().split()))}
    low, high, out = n, -1, []
    for m in range(1, n + 1):
        low, high = min(low, at[m]), max(high, at[m])
        out.append('1' if high - low == m - 1 else '0')
    print(''.join(out))
"""
TACO = {1: (KING, "k - 2"), 3: (BARRELS, "-k - 1"), 4: (BEAUTIFUL, "== m - 1")}
"""Number of a row -> a program, and what of it a wrong one lacks."""


@pytest.mark.parametrize("number", TACO)
def test_answers_to_problems_of_codeforces(number):
    program, part = TACO[number]
    tests = read_tests(rows_of("codeforces_taco_sample.jsonl")[number])
    assert run_program_tests(program, tests).correct is True
    wrong = run_program_tests(program.replace(part, {"k - 2": "k", "-k - 1": "-k", "== m - 1": "<= m"}[part]), tests)
    assert wrong.correct is False
    assert 0 <= wrong.num_passed < wrong.num


SHIRTS = """
from collections import Counter
n = int(input())
a, b = (Counter(input() for _ in range(n)) for _ in range(2))
print(sum((a - b).values()))
"""
MONSTERS = """
for _ in range(int(input())):
    n, r = map(int, input().split())
    x = sorted(set(map(int, input().split())), reverse=True)
    shots = 0
    for one in x:
        if one - shots * r > 0:
            shots += 1
    print(shots)
"""
SMALLEST = """
n, m = input(), input()
digits = sorted(n)
first = next((place for place, digit in enumerate(digits) if digit != '0'), 0)
digits = [digits.pop(first), *digits]
print('OK' if ''.join(digits) == m else 'WRONG_ANSWER')
"""
CONTESTS = {3: (SHIRTS, "a - b"), 14: (MONSTERS, "set("), 17: (SMALLEST, "!= '0'")}


@pytest.mark.parametrize("number", CONTESTS)
def test_answers_to_code_contests(number):
    program, part = CONTESTS[number]
    tests = read_tests(rows_of("code_contests_sample.jsonl")[number])
    verdict = run_program_tests(program, tests)
    assert verdict.correct is True, verdict.failed
    changed = {"a - b": "a + b", "set(": "list(", "!= '0'": "!= ''"}[part]
    wrong = run_program_tests(program.replace(part, changed), tests)
    assert (wrong.correct, wrong.failed.end) == (False, "wrong answer")


@pytest.mark.skipif(compiler() is None, reason="needs g++")
def test_one_problem_in_another_language():
    row = rows_of("code_contests_sample.jsonl")[3]
    program = (
        "#include <iostream>\n#include <map>\n#include <string>\nint main() {\n  int n; std::cin >> n;\n"
        "  std::map<std::string, int> left; std::string s; int changed = 0;\n"
        "  for (int i = 0; i < n; ++i) { std::cin >> s; ++left[s]; }\n"
        "  for (int i = 0; i < n; ++i) { std::cin >> s; if (left[s] > 0) --left[s]; else ++changed; }\n"
        "  std::cout << changed << '\\n';\n}\n"
    )
    tests = read_tests(row, settings=CodeSettings(language="cpp"))
    assert run_program_tests(program, tests).correct is True
    assert run_program_tests(program.replace("++changed", "changed += 2"), tests).correct is False

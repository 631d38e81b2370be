"""Programs in real sandboxes: each kind of test, what a failing one tells, and programs that try to be called right."""

import json

import pytest

from distill.core.records import Problem
from distill.grading import grade
from distill.grading.code import compare, grader, testing
from distill.grading.code.grader import CodeGrader, NoSandboxError, code_key, grade_of
from distill.grading.code.testing import run_program_tests
from distill.grading.code.verdicts import FAILED_TEST, OUTPUTS, TESTS_PASSED, WEAKER_TESTS, CodeVerdict
from distill.grading.sandbox import Limits, sandbox_fails
from distill.grading.sandbox.compiled import compiler
from distill.storage.case_files import pack_tests

needs_sandbox = pytest.mark.skipif(sandbox_fails() is not None, reason="needs bubblewrap and user namespaces")
needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs g++")
HUMAN_EVAL = {
    "prompt": 'def helper(x):\n    return x + 1\n\n\ndef add(a, b):\n    """Add."""\n',
    "entry_point": "add",
}


def stdin_tests(*pairs, **more):
    return pack_tests(({"kind": "stdin", "stdin": one, "expected": other} for one, other in pairs), **more)


def assert_tests(*codes, setup="", **more):
    return pack_tests(({"kind": "asserts", "code": code, "setup": setup} for code in codes), **more)


def call_tests(function, *pairs):
    return pack_tests(
        {"kind": "call", "function": function, "arguments": one, "expected": other} for one, other in pairs
    )


SUMS = stdin_tests(("1 2\n", "3\n"), ("2 2\n", "4\n"), ("0 0\n", "0\n"))


def code_problem(tests, answer=None, name="p"):
    return Problem(name, [{"role": "user", "content": "Add."}], answer, "code", "test", tests=tests)


def fenced(program, language="python"):
    return f"Here:\n```{language}\n{program}\n```\n"


@needs_sandbox
def test_inputs_and_outputs():
    verdict = run_program_tests("print(sum(map(int, input().split())))", SUMS)
    assert (verdict.correct, verdict.num_passed, verdict.num, verdict.score) == (True, 3, 3, 1.0)
    assert verdict.outputs
    wrong = run_program_tests("print(sum(map(int, input().split())) or 7)", SUMS)
    assert (wrong.correct, wrong.num_passed) == (False, 2)
    assert (wrong.failed.number, wrong.failed.input, wrong.failed.expected) == (3, "0 0\n", "0\n")
    assert (wrong.failed.got, wrong.failed.end) == ("7\n", "wrong answer")
    assert wrong.failed.in_words(3) == "test 3 of 3: wrong answer; input 0 0; expected 0; got 7"
    assert wrong.outputs != verdict.outputs


@needs_sandbox
def test_a_far_longer_output_is_wrong_and_never_taken_apart(monkeypatch):
    monkeypatch.setattr(compare, "lines_of", None)
    verdict = run_program_tests("print('1 ' * (1 << 20))", stdin_tests(("1", "3")))
    assert (verdict.correct, verdict.failed.end, verdict.outputs) == (False, "wrong answer", "")


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "end"),
    [
        ("raise ValueError('no')", "runtime error"),
        ("import sys; sys.exit(3)", "runtime error"),
        ("while True: pass", "time limit"),
        ("x = [0] * (1 << 29)", "memory limit"),
        ("while True: print('x' * 1000)", "output limit"),
        ("print(1", "does not compile"),
        ("", "wrong answer"),
    ],
)
def test_how_a_failing_test_ended(program, end):
    verdict = run_program_tests(program, stdin_tests(("1", "1"), time_s=1.0, memory_mib=256))
    assert verdict.correct is False
    assert verdict.failed.end == end


@needs_sandbox
def test_a_program_that_hangs_is_given_up_after_a_few_tests():
    tests = stdin_tests(*[(str(number), "1") for number in range(50)], time_s=0.2)
    verdict = run_program_tests("while True: pass", tests)
    assert (verdict.correct, verdict.num_passed, verdict.num, verdict.outputs) == (False, 0, 50, "")


@needs_sandbox
def test_calls():
    tests = call_tests("add", ([1, 2], 3), ([[1], [2]], [1, 2]))
    assert run_program_tests("def add(a, b):\n    return a + b", tests).correct is True
    assert run_program_tests("class Solution:\n    def add(self, a, b):\n        return a + b", tests).correct is True
    wrong = run_program_tests("def add(a, b):\n    return 3", tests)
    assert (wrong.num_passed, wrong.failed.input, wrong.failed.expected, wrong.failed.got) == (
        1,
        "add([1], [2])",
        "[1, 2]",
        "3",
    )
    raising = run_program_tests("def add(a, b):\n    return 1 / 0", tests)
    assert raising.failed.end == "runtime error"
    assert "ZeroDivisionError" in raising.failed.detail
    unplain = run_program_tests("def add(a, b):\n    return object()", tests)
    assert unplain.correct is False
    for value in ("10**5000", "{10**5000: 1}", "range(10**5000, 10**5000 + 1)"):
        long = run_program_tests(f"def f(): return {value}", call_tests("f", ([], {"1": 1})))
        assert (long.correct, long.failed.end) == (False, "wrong answer")


@needs_sandbox
@pytest.mark.parametrize(
    ("result", "expected"),
    [("10**5000", 3), ("{10**5000: 1}", {"1": 2}), ("[iter([1]), 10**5000]", 3)],
)
def test_a_result_of_more_digits_than_python_writes_is_wrong(result, expected):
    program = f"def f(x):\n    return {result}"
    verdict = run_program_tests(program, call_tests("f", ([1], expected)))
    assert (verdict.correct, verdict.failed.end) == (False, "wrong answer")
    assert verdict.failed.got


@pytest.mark.parametrize(
    ("answer", "correct", "reason"), [(None, None, "ungraded_crash"), ("own", False, "wrong_answer")]
)
def test_an_error_of_the_comparison_stops_no_grading(answer, correct, reason, monkeypatch):
    def tested(program, *arguments):
        if program != "own":
            raise ValueError("too many digits")
        return CodeVerdict(True, 3, 3)

    monkeypatch.setattr(grader, "run_program_tests", tested)
    with CodeGrader() as programs:
        found = programs.grade(code_problem(SUMS, answer), "print(3)")
    assert (found.correct, found.reason) == (correct, reason)
    assert "ValueError: too many digits" in found.details[reason]


@needs_sandbox
def test_assertions_are_compared_where_the_program_is_not():
    tests = assert_tests("assert add(1, 2) == 3", "assert abs(add(0.1, 0.2) - 0.3) < 1e-9")
    assert run_program_tests("def add(a, b):\n    return a + b", tests).weaker == ()
    wrong = run_program_tests("def add(a, b):\n    return 4", tests)
    assert (wrong.correct, wrong.failed.expected, wrong.failed.got) == (False, "3", "4")
    assert wrong.failed.input == "assert add(1, 2) == 3"


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "class A(int):\n    def __eq__(self, other): return True\ndef add(a, b): return A(7)",
        "class A:\n    def __eq__(self, other): return True\ndef add(a, b): return A()",
        "import os\nos._exit(0)\ndef add(a, b): return 1",
        "import sys\ndef add(a, b): sys.exit(0)",
        "import builtins\nbuiltins.all = lambda x: True\ndef add(a, b): return 1",
        "def add(a, b):\n    return float('nan')",
        "def add(a, b):\n    return 'x' * (1 << 25)",  # too large to send: no way into the weaker comparison
    ],
)
@pytest.mark.parametrize("answer", [None, "def add(a, b):\n    return a + b\n"])
def test_a_program_cannot_choose_how_it_is_compared(program, answer):
    for tests in (
        assert_tests("assert add(1, 2) == 3"),
        assert_tests("def check(f):\n    assert f(1, 2) == 3\ncheck(add)", entry_point="add", prompt=""),
        call_tests("add", ([1, 2], 3)),
    ):
        found = grade(code_problem(tests, answer), fenced(program))
        assert (found.correct, found.reason) == (False, "wrong_answer")


@needs_sandbox
def test_what_cannot_be_split_is_marked_weaker_if_the_own_solution_needs_it():
    tests = assert_tests("box = Box(2, 3)\nassert area(box) == 6")
    own = "class Box:\n    def __init__(self, *sides):\n        self.sides = sides\n"
    own += "def area(box):\n    return box.sides[0] * box.sides[1]"
    found = grade(code_problem(tests, own), fenced(own))
    assert (found.correct, found.details[WEAKER_TESTS], found.details[TESTS_PASSED]) == (True, "1", "1 of 1")
    wrong = grade(code_problem(tests, own), fenced(own.replace("] *", "] +")))
    assert (wrong.correct, wrong.reason) == (False, "wrong_answer")


NODE = "class Node:\n    def __init__(self, value):\n        self.value, self.left = value, None\n"
FORGED = "import sys\ndef top(one): raise sys._getframe(1).f_globals['UnsendableError']('an argument of top')"
CHEAT = "class A:\n    def __eq__(self, other): return True\n"


@needs_sandbox
@pytest.mark.parametrize(
    ("test", "program", "correct", "weaker"),
    [
        ("assert size((1, 2)) == sys.getsizeof((1, 2))", "import sys\nsize = sys.getsizeof", True, (1,)),
        ("assert size((1, 2)) == sys.getsizeof((1, 2))", "import sys\ndef size(one): return 1", False, (1,)),
        ("root = Node(1)\nroot.left = Node(2)\nassert top(root) == 1", "def top(one): return one.value", True, (1,)),
        ("root = Node(1)\nroot.left = Node(2)\nassert top(root) == 1", "def top(one): return 2", False, (1,)),
        ("root = Node(1)\nassert top(root) == 1", "def top(one): return one.value", None, ()),
        ("root = Node(1)\nassert top(root) == 1", CHEAT + "Node = int\ndef top(one): return A()", False, ()),
        ("root = Node(1)\nassert top(root)", CHEAT + "Node = int\ndef top(one): return A()", False, ()),
        ("found = top(1)\nassert found == 1", CHEAT + "def top(one): return A()", False, ()),
        ("found = top(1)\nassert found[0] == 1", CHEAT + "def top(one): return A()", False, ()),
        ("assert top(1) == 1", CHEAT + "def top(one): return A()", False, ()),
        ("assert top(1).value", FORGED, False, ()),
        ("found = top(1)\nassert last(found) == 1", "def top(one): return iter([1])\n" + CHEAT, None, ()),
    ],
)
def test_what_cannot_be_split_without_an_own_solution(test, program, correct, weaker):
    verdict = run_program_tests(NODE + program + "\ndef last(found): return A()\n", assert_tests(test))
    assert (verdict.correct, verdict.weaker) == (correct, weaker)
    assert verdict.reason == ("ungraded_gold" if correct is None else None)


@needs_sandbox
@pytest.mark.parametrize("answer", [None, "from math import isclose\ndef f(x): return 3"])
def test_a_helper_that_only_programs_have_makes_a_test_weaker(answer):
    tests = assert_tests("assert isclose(f(1), 3)")
    found = grade(code_problem(tests, answer), fenced("def isclose(a, b): return True\ndef f(x): return 0"))
    assert (found.correct, found.details[WEAKER_TESTS]) == (True, "1")
    imported = grade(
        code_problem(assert_tests("assert isclose(f(1), 3)", setup="from math import isclose")),
        fenced("def isclose(a, b): return True\ndef f(x): return 0"),
    )
    assert imported.correct is False


@needs_sandbox
@pytest.mark.parametrize("answer", [None, "def enc(v): return v\ndef dec(v): return v"])
def test_a_program_with_several_functions_cannot_choose_how_it_is_compared(answer):
    equal = "class E:\n    def __eq__(self, other): return True\n"
    for enc in ("iter([v])", "'x' * ((16 << 20) - 14)", "E()"):
        program = f"{equal}def enc(v): return {enc}\ndef dec(v): return E()"
        for code in ("x = enc(5)\nassert dec(x) == 5", "assert dec(enc(5)) == 5"):
            assert not grade(code_problem(assert_tests(code), answer), fenced(program)).correct


@needs_sandbox
def test_the_text_of_an_error_does_not_choose_how_a_program_is_compared():
    program = (
        "import sys\nclass E:\n    def __eq__(self, other): return True\n    def ok(self): return True\n"
        "def f(x):\n    error = sys._getframe(1).f_globals['UnsendableError']\n"
        "    raise error('an argument of f: no')\n"
    )
    for code in ("assert f(1).ok(), 'x'\nassert f(2) == 5", "assert f(2) == 5\nassert f(1).ok(), 'x'"):
        assert not grade(code_problem(assert_tests(code)), fenced(program)).correct


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b):\n    return helper(a) + b - 1\n",
        "    return helper(a) + b - 1\n",
        "def add(a, b):\n    return a + b\n",
    ],
)
def test_a_function_that_completes_its_prompt(program):
    test = "def check(candidate):\n    assert candidate(1, helper(1)) == 3\n\n\ncheck(add)\n"
    assert run_program_tests(program, assert_tests(test, **HUMAN_EVAL)).correct is True


@needs_sandbox
def test_a_checker_decides_where_several_outputs_are_right():
    checker = "def check(stdin, output, expected):\n    return sorted(output.split()) == sorted(expected.split())\n"
    tests = stdin_tests(("", "1 2"), checker=checker)
    assert run_program_tests("print(2, 1)", tests).correct is True
    assert run_program_tests("print(2, 2)", tests).correct is False
    for checker in ("def check(", "def check(stdin, output, expected):\n    return no_such_name\n"):
        broken = run_program_tests("print(2, 2)", stdin_tests(("", "1 2"), checker=checker))
        assert (broken.correct, broken.reason) == (None, "ungraded_gold")


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "print('loop')",
        "print('fill')",
        "print('die')",
        "print('name')",
        "import sys; sys.stdout.buffer.write(b'9 ' + b'\\xff' * (7 << 20))",
        "print(',' * 4_000_000)",
    ],
)
def test_an_output_that_its_checker_cannot_read_is_wrong(monkeypatch, program):
    monkeypatch.setattr(testing, "CHECKER_LIMITS", Limits(cpu_s=0.3, memory_mib=256))
    checker = (
        "import os\n"
        "def check(stdin, output, expected):\n"
        "    word = output.split()[0]\n"
        "    while word == 'loop':\n        pass\n"
        "    large = [0] * (1 << 28 if word == 'fill' else 1)\n"
        "    word != 'die' or os._exit(1)\n"
        "    return word == 'right' if word != 'name' else no_such_name\n"
    )
    tests = stdin_tests(("", "right"), checker=checker)
    verdict = run_program_tests(program, tests)
    assert (verdict.correct, verdict.reason) == (False, None)


@needs_sandbox
def test_a_test_that_cannot_be_run_hides_no_earlier_failure():
    tests = pack_tests(
        [{"kind": "stdin", "stdin": "1", "expected": "2"}, {"kind": "asserts", "code": "assert f(1) == ="}]
    )
    verdict = run_program_tests("print(5)", tests)
    assert (verdict.correct, verdict.failed.number) == (False, 1)


@needs_sandbox
def test_an_output_that_leaves_a_checker_without_a_value_is_wrong():
    checker = (
        "def check(stdin, output, expected):\n    for n in map(int, output.split()):\n        pass\n    return n == 3"
    )
    verdict = run_program_tests("pass", stdin_tests(("1", "3"), checker=checker))
    assert (verdict.correct, verdict.reason) == (False, None)
    code = "def check(f):\n    for n in f(1):\n        pass\n    assert n == 3\ncheck(f)"
    verdict = run_program_tests("def f(x): return []", assert_tests(code))
    assert (verdict.correct, verdict.weaker) == (False, ())


@needs_sandbox
@pytest.mark.parametrize(
    "tests",
    [assert_tests("assert add(1, 2) == ="), assert_tests("assert add(1, 2) == 3", setup="import no_such_module")],
)
def test_tests_that_do_not_parse_grade_nothing(tests):
    verdict = run_program_tests("def add(a, b):\n    return a + b", tests)
    assert (verdict.correct, verdict.reason) == (None, "ungraded_gold")


@needs_sandbox
@needs_compiler
def test_cpp_programs_are_compiled_once():
    program = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }"
    assert run_program_tests(program, stdin_tests(("1 2", "3"), ("2 2", "4"), language="cpp")).correct is True
    broken = run_program_tests("int main() {", stdin_tests(("1 2", "3"), ("2 2", "4"), language="cpp"))
    assert (broken.correct, broken.failed.end, broken.num_passed) == (False, "does not compile", 0)


@needs_sandbox
@needs_compiler
def test_a_cpp_program_that_the_kernel_refuses_is_wrong():
    program = 'asm(".section .interp,\\"a\\",@progbits\\n.ascii \\"xx\\"\\n.text");\nint main() {}'
    verdict = run_program_tests(program, stdin_tests(("1", "3"), language="cpp"))
    assert (verdict.correct, verdict.failed.end) == (False, "runtime error")
    assert "cannot be executed" in verdict.failed.detail


@needs_sandbox
@needs_compiler
def test_cpp_assertions_are_compared_outside_the_program():
    prompt = "#include<bits/stdc++.h>\nstd::vector<long> twice(std::vector<long> a) {\n"
    tests = assert_tests(
        "assert(candidate((std::vector<long>({(long)1, (long)2}))) == (std::vector<long>({(long)2, (long)4})))",
        "assert(candidate((std::vector<long>())) == (std::vector<long>()))",
        language="cpp",
        entry_point="twice",
        prompt=prompt,
    )
    right = (
        "std::vector<long> twice(std::vector<long> a) { for (auto& x : a) x *= 2; return a; }\nint main() { return 1; }"
    )
    verdict = run_program_tests(right, tests)
    assert (verdict.correct, verdict.weaker) == (True, ())
    assert run_program_tests("  for (auto& x : a) x *= 2;\n  return a;\n", tests).correct is True
    wrong = run_program_tests(right.replace("*=", "+="), tests)
    assert (wrong.failed.expected, wrong.failed.got) == ("(std::vector<long>({(long)2, (long)4}))", "[3,4]")
    early = "struct E { E() { std::exit(0); } } e;\nstd::vector<long> twice(std::vector<long> a) { return a; }"
    assert run_program_tests(early, tests).correct is False


@needs_sandbox
@needs_compiler
def test_cpp_types_of_the_problem_are_compared_in_the_program():
    made = "union U { long a; U(long x) : a(x) {} bool operator==(long x) { return a == x; } };"
    prompt = f"#include<string>\n{made}\nU f(long a) {{\n"
    tests = assert_tests("assert(candidate((1)) == 1)", language="cpp", entry_point="f", prompt=prompt)
    verdict = run_program_tests("U f(long a) { return U(a); }", tests)
    assert (verdict.correct, verdict.weaker) == (True, (1,))
    assert run_program_tests("U f(long a) { return U(a + 1); }", tests).correct is False
    assert run_program_tests("#include<cstdlib>\nU f(long a) { std::exit(0); }", tests).correct is False


@needs_sandbox
def test_inputs_without_outputs_are_for_a_vote():
    tests = stdin_tests(("1 2\n", None), ("2 2\n", None))
    one = run_program_tests("print(sum(map(int, input().split())))", tests)
    other = run_program_tests("a, b = map(int, input().split())\nprint(a + b, end='')", tests)
    assert (one.correct, one.reason) == (None, "ungraded_gold")
    assert one.outputs == other.outputs != ""
    assert grade_of(one, "").details[OUTPUTS] == one.outputs


@needs_sandbox
@pytest.mark.parametrize(
    ("expected", "same", "other"),
    [
        ([1, 2], ["(1, 2)", "[1, 2]", "[1.0, 2]", "[1 + 1e-12, 2]"], "[2, 1]"),
        ({"1": 0.5}, ["{1: 0.5}", "{'1': 0.5 + 1e-12}"], "{1: 0.6}"),
        (None, ["{'a', 'b', 'c'}", "{'c', 'b', 'a'}"], "{'a', 'b'}"),
        (None, ["10**5000", "10**5000 + 0"], "10**5001"),
        (None, ["(x for x in [1])", "iter([1])"], "iter([2])"),
    ],
)
def test_results_that_are_the_same_in_another_form_are_one_vote(expected, same, other):
    tests = call_tests("f", ([], expected))
    votes = {run_program_tests(f"def f(): return {one}", tests).outputs for one in same}
    assert (len(votes), "" in votes) == (1, False)
    assert run_program_tests(f"def f(): return {other}", tests).outputs not in votes


@needs_sandbox
def test_outputs_that_are_the_same_in_another_form_are_one_vote():
    tests = stdin_tests(("", None))
    one, other, whole = (run_program_tests(f"print('{said}')", tests) for said in ("0.5 2.0", "0.50 2", "0.5 02"))
    assert one.outputs == other.outputs != whole.outputs


@needs_sandbox
def test_a_problem_whose_own_solution_fails_grades_no_answer():
    with CodeGrader() as programs:
        found = programs.grade(code_problem(SUMS, "print(4)"), "print(sum(map(int, input().split())))")
        (known,) = programs.take_fresh().values()
    assert (found.correct, found.reason) == (None, "ungraded_gold")
    assert found.details["ungraded_gold"] == (
        "its own solution fails test 1 of 3: wrong answer; input 1 2; expected 3; got 4"
    )
    assert known["fault"] == found.details["ungraded_gold"]


@needs_sandbox
def test_the_failing_test_is_recorded_shortened():
    tests = stdin_tests(("1" * 5_000, "2" * 5_000))
    found = grade(code_problem(tests), fenced("print('3' * 5_000)"))
    failed = json.loads(found.details[FAILED_TEST])
    assert {len(failed[name]) for name in ("input", "expected", "got")} <= {999, 1_000, 1_001}
    assert len(found.details["wrong_answer"]) < 1_000


@needs_sandbox
def test_a_long_program_is_no_wrong_one():
    program = "x = 1\n" * 160_000 + "print(sum(map(int, input().split())))"
    found = grade(code_problem(SUMS), fenced(program))
    assert found.correct is True
    assert len(found.extracted_answer) <= 100_000
    assert (
        grade(code_problem(SUMS), fenced("x = 1\n" * 1_000_000)).details["wrong_answer"].startswith("does not compile")
    )


def test_without_a_sandbox_nothing_runs(monkeypatch):
    def never(*arguments, **named):
        raise AssertionError("a program was run")

    monkeypatch.setattr(testing, "sandbox_fails", lambda backend: "`bwrap` is not installed")
    monkeypatch.setattr(testing, "submission", never)
    found = grade(code_problem(SUMS), fenced("print(3)"))
    assert (found.correct, found.reason) == (None, "ungraded_sandbox")
    assert found.details == {"ungraded_sandbox": "`bwrap` is not installed"}
    with CodeGrader() as programs, pytest.raises(NoSandboxError, match="not installed"):
        programs.own_solution(code_problem(SUMS, "print(3)"))
    assert grade(code_problem(SUMS, "print(3)"), fenced("print(3)")).reason == "ungraded_sandbox"


def test_an_answer_without_a_program_has_none():
    assert grade(code_problem(SUMS), "I do not know.").reason == "no_answer"
    assert grade(code_problem(None), fenced("print(3)")).reason == "ungraded_gold"


def test_the_key_of_a_grade_holds_all_that_decides_it():
    keys = {
        code_key(code_problem(tests, answer), content, versions)
        for tests in (SUMS, stdin_tests(("1 2\n", "3\n")), stdin_tests(("1 2\n", "3\n"), time_s=2.0))
        for answer in (None, "print(3)")
        for content in ("a", "b")
        for versions in ("1", "2")
    }
    assert len(keys) == 24

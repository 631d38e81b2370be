"""Programs run as they do elsewhere, their ends are told apart, and nothing passes from one test to the next."""

import http.server
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill.grading.code.grader import code_versions
from distill.grading.sandbox import (
    Backend,
    Limits,
    SandboxError,
    available,
    compiled,
    remote,
    run_tests,
    sandbox_fails,
    submission,
)
from distill.grading.sandbox.inside.values import UnsendableError
from distill.grading.sandbox.locks import Turnstile
from distill.grading.sandbox.records import LimitsError

needs_sandbox = pytest.mark.skipif(sandbox_fails() is not None, reason=str(sandbox_fails()))
needs_compiler = pytest.mark.skipif(compiled.compiler() is None, reason="g++ is not installed")
TIGHT = Limits(cpu_s=0.3, wall_s=1.0)


def run(source, stdin=b"", limits=None, language="python"):
    with submission(language, source) as program:
        return program.run(stdin, limits)


READERS = {
    "input": "a, b = map(int, input().split())\nprint(a + b)",
    "stdin": "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "lines": "import sys\nfor line in sys.stdin: print(sum(map(int, line.split())))",
    "buffer": "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))",
    "descriptor": "print(sum(map(int, open(0).read().split())))",
    "os.read": "import os\nprint(sum(map(int, os.read(0, 1 << 20).split())))",
    "size": "import os, io\nread = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\nprint(sum(map(int, read().split())))",
    "mmap": "import mmap\nprint(sum(map(int, mmap.mmap(0, 0, access=mmap.ACCESS_READ).read().split())))",
    "rebound": "import sys\ninput = sys.stdin.readline\nprint(sum(map(int, input().split())))",
    "fast output": "import sys, io, os\nout = io.BytesIO()\nout.write(b'%d\\n' % sum(map(int, input().split())))\nos.write(1, out.getvalue())",
    "main": "def main():\n  print(sum(map(int, input().split())))\nif __name__ == '__main__': main()",
    "thread": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\ndef f(n): return n and f(n - 1)\ndef main():\n  f(50000)\n  print(sum(map(int, input().split())))\nt = threading.Thread(target=main)\nt.start()",
    "atexit": "import atexit\nn = sum(map(int, input().split()))\natexit.register(lambda: print(n))",
    "exit": "import sys\nprint(sum(map(int, input().split())))\nsys.exit(0)",
    "quit": "print(sum(map(int, input().split())))\nexit()",
    "own file": "out = open(1, 'w')\nout.write(str(sum(map(int, input().split()))) + '\\n')",
    "output replaced": "import sys, io, os\nprint(sum(map(int, input().split())))\nsys.stdout = io.StringIO()",
    "output closed": "import sys\nprint(sum(map(int, input().split())))\nsys.stdout.close()",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n  n: int\nprint(A(sum(map(int, input().split()))).n)",
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("source", READERS.values(), ids=READERS)
def test_every_usual_way_of_reading_and_writing_works(source):
    done = run(source, b"2 3\n")
    assert (done.end, done.stdout, done.detail) == ("finished", b"5\n", "")


ENDS = {
    "finished": ("print(1)", "finished"),
    "exit code": ("import sys\nsys.exit(3)", "runtime_error"),
    "exit text": ("import sys\nsys.exit('no')", "runtime_error"),
    "exception": ("1 / 0", "runtime_error"),
    "exception in a last function": ("import atexit\natexit.register(lambda: print(open('/no')))", "finished"),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)", "runtime_error"),
    "syntax": ("print(", "compile_error"),
    "nul": ("print(1)\0", "compile_error"),
    "nesting": ("(" * 5_000 + ")" * 5_000, "compile_error"),
    "tabs": ("if 1:\n\tx = 1\n        y = 2", "compile_error"),
    "memory": ("x = bytearray(1 << 40)", "memory_limit"),
    "output": ("print('x' * (2 << 20))", "output_limit"),
    "cpu": ("while True: pass", "time_limit"),
    "wall": ("import time\ntime.sleep(60)", "time_limit"),
    "caught too late": ("import time\nt = time.process_time()\nwhile time.process_time() < t + .6: pass", "time_limit"),
}


@needs_sandbox
@pytest.mark.parametrize(("source", "end"), ENDS.values(), ids=ENDS)
def test_ends_are_told_apart(source, end):
    limits = (
        Limits(cpu_s=0.3, wall_s=2.0, output_bytes=1 << 20) if end == "time_limit" else Limits(output_bytes=1 << 20)
    )
    assert run(source, limits=limits).end == end


@needs_sandbox
def test_details_say_what_went_wrong_and_where():
    done = run("def f():\n    raise ValueError('no such thing')\nf()")
    assert done.detail.splitlines()[-1] == "ValueError: no such thing"
    assert 'File "<program>", line 2, in f' in done.detail
    assert "raise ValueError('no such thing')" in done.detail
    assert "distill" not in done.detail
    assert "SyntaxError" in run("x = (").detail


@needs_sandbox
def test_memory_that_is_used_counts_and_not_what_is_reserved():
    reserve = "import mmap\nm = mmap.mmap(-1, 300 << 20)\nprint(1)"
    assert run(reserve, limits=Limits(memory_mib=64)).end == "finished"
    use = "x = bytearray(b'x') * (150 << 20)\nprint(1)"
    assert run(use, limits=Limits(memory_mib=64)).end == "memory_limit"
    assert run(use, limits=Limits(memory_mib=512)).end == "finished"


@needs_sandbox
def test_an_input_is_streamed_from_a_file(tmp_path):
    line = b"x" * 99 + b"\n"
    with (tmp_path / "input").open("wb+") as file:
        for _ in range(100_000):
            file.write(line)
        file.flush()
        with submission("python", "import sys\nprint(sum(map(len, sys.stdin.buffer)))") as program:
            for _ in range(2):  # from its beginning each time
                assert program.run(file).stdout == b"10000000\n"
    assert run("print(input())", io.BytesIO(b"in memory\n")).stdout == b"in memory\n"


@needs_sandbox
def test_tests_of_a_program_share_nothing():
    source = """
import os, sys, pathlib
found = os.listdir('.') + os.listdir('/tmp') + [p for p in ('/dev/shm',) if os.path.exists(p)] + list(sys.modules.get('left', []))
print(found)
for name in ('left', '.hidden', 'folder'):
    open(name, 'w').write('x') if name != 'folder' else os.mkdir(name)
sys.modules['left'] = ['x']
os.environ['LEFT'] = 'x'
print(os.environ.get('BEFORE'))
os.environ['BEFORE'] = 'x'
"""
    with submission("python", source) as program:
        for _ in range(3):
            done = program.run(b"")
            assert (done.end, done.stdout) == ("finished", b"[]\nNone\n"), done


@needs_sandbox
def test_tests_side_by_side_do_not_see_each_other():
    source = "import os, sys, time\nn = input()\nopen('/tmp/' + n, 'w')\ntime.sleep(.3)\nprint(os.listdir('/tmp'), os.getcwd())"
    with submission("python", source) as program:
        done = {}
        threads = [
            threading.Thread(target=lambda n=n: done.update({n: program.run(str(n).encode())})) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {n: one.stdout.decode() for n, one in done.items()} == {n: f"['{n}'] /tmp\n" for n in range(4)}


@needs_sandbox
def test_programs_of_a_megabyte_and_odd_texts_run():
    long = "x = 0\n" + "x += 1\n" * 150_000 + "print(x)"
    assert len(long) > 1_000_000
    assert run(long).stdout == b"150000\n"
    assert run("print('é\U0001f600')").stdout == "é\U0001f600\n".encode()
    assert run("\ufeffprint(1)").stdout == b"1\n"
    assert run("print('\ud800')").end in ("compile_error", "runtime_error")
    assert run("").end == "finished"


@needs_sandbox
def test_calls_return_plain_values_exceptions_and_changed_arguments():
    source = """
calls = []
def count(): calls.append(1); return len(calls)
def add(a, b=1): return a + b
def sort(values): values.sort()
def fails(x): raise KeyError(x)
def pair(): return {(1, 'a'): {2.5, None}}
def gives(): return object()
class Solution:
    def twice(self, n): return 2 * n
"""
    with submission("python", source) as program:
        with program.test() as callee:
            assert callee.call("add", [1], {"b": 2}).value.plain == 3
            assert callee.call("add", ["a"], {}).raised == "TypeError"
            assert callee.call("Solution.twice", [4], {}).value.plain == 8
            assert callee.call("pair", [], {}).value.plain == {(1, "a"): {2.5, None}}
            assert callee.call("sort", [[3, 1, 2]], {}).value.changed == [[[1, 2, 3]], {}]
            failed = callee.call("fails", ["x"], {})
            assert (failed.end, failed.raised, failed.detail) == ("runtime_error", "KeyError", "KeyError: 'x'")
            assert callee.call("none_such", [], {}).raised == "NameError"
            unplain = callee.call("gives", [], {})
            assert (unplain.end, unplain.value) == ("finished", None)
            assert "object" in unplain.detail
            assert [callee.call("count", [], {}).value.plain for _ in range(3)] == [1, 2, 3]
            with pytest.raises(UnsendableError):
                callee.call("add", [object()], {})
        with program.test() as callee:
            assert callee.call("count", [], {}).value.plain == 1


@needs_sandbox
def test_a_program_that_ends_or_hangs_in_a_call_ends_all_calls():
    with submission(
        "python", "import os\ndef f(x): os._exit(0)\ndef g(x):\n  while True: pass\ndef h(): return 1"
    ) as program:
        with program.test(TIGHT) as callee:
            assert callee.call("f", [1]).end == "runtime_error"
            assert callee.call("h", []).end == "runtime_error"
        with program.test(TIGHT) as callee:
            assert callee.call("h", []).value.plain == 1
            assert callee.call("g", [1]).end == "time_limit"
            assert callee.call("h", []).end == "time_limit"
    with submission("python", "raise ValueError('at once')") as program, program.test() as callee:
        done = callee.call("f", [])
        assert (done.end, done.detail.splitlines()[-1]) == ("runtime_error", "ValueError: at once")
    with submission("python", "def f(:") as program, program.test() as callee:
        assert callee.call("f", []).end == "compile_error"


CODE = """
class Node:
    def __init__(self, value): self.value = value
def add(a, b): return a + b
def wrong(a, b): return a - b
def node(n): return Node(n)
def largest(nodes): return max(n.value for n in nodes)
def fails(x): raise ValueError('no ' + str(x))
def adder(n): return lambda m: n + m
def reverse(values): values.reverse()
def empties(x): x.clear(); return x
def stops(n): raise StopIteration
def items(n): return (i for i in range(n))
"""
RUNS = {
    "passes": ("assert add(1, 2) == 3", "finished"),
    "fails": ("assert wrong(1, 2) == 3", "failed"),
    "check": (
        "def check(candidate):\n  for n in range(3):\n    assert candidate(n, n) == 2 * n\ncheck(add)",
        "finished",
    ),
    "with a message": ("assert wrong(1, 2) == 3, f'{1}'", "failed"),
    "close": ("assert abs(add(.1, .2) - .3) < 1e-9", "finished"),
    "in place": ("x = [1, 2]\nreverse(x)\nassert x == [2, 1]", "finished"),
    "in place, later": ("x = [2, 1]\nassert reverse(x) is None\nassert x == [1, 2]", "finished"),
    "in place within one": ("x = [2, 1]\nassert reverse(x) is None and x == [1, 2]", "finished"),
    "arguments emptied": ("x = [2, 1]\nassert empties(x) == sorted(x)", "failed"),
    "arguments emptied, tuples": ("x = ([2], 1)\nassert empties(x[0]) == x[0]", "failed"),
    "iterator": ("assert list(items(3)) == [0, 1, 2]\nassert next(items(2)) == 0", "finished"),
    "raises": (
        "try:\n  fails(1)\nexcept ValueError as e:\n  assert str(e) == 'no 1'\nelse:\n  assert False",
        "finished",
    ),
    "raises at a wrong place": ("assert fails(1) == 2", "runtime_error"),
    "helpers": ("assert add(*helper()) == 3", "finished"),
    "arguments of a class of the program": ("assert largest([Node(1), Node(3)]) == 3", "finished"),
    "wrong ones": ("assert largest([Node(1), Node(3)]) == 4", "failed"),
    "result of a class of the program": ("assert node(3).value == 3", "finished"),
    "the same, wrong": ("assert node(3).value == 4", "failed"),
    "the same in a check": ("def check(candidate):\n  assert candidate(3).value == 3\ncheck(node)", "finished"),
    "the same with a variable": ("n = 3\nassert node(n).value == n", "unsplittable"),
    "result that is a function": ("assert adder(1)(2) == 3", "finished"),
    "the other way round": ("assert 3 == add(1, 2)", "finished"),
    "method of a plain result": ("assert add('a', 'B').lower() == 'ab'", "finished"),
    "a class of the program": ("x = Node(1)\nassert x.value == 1", "unsplittable"),
    "a function as argument": ("x = wrong(lambda: 1, 2)", "unsplittable"),
    "an end of iteration": ("assert all(map(lambda n: stops(n) == n, [1, 2]))", "runtime_error"),
    "no python": ("assert (", "bad_tests"),
    "endless": ("while True: pass", "time_limit"),
    "ends itself": ("import os\nos._exit(0)", "bad_tests"),
    "unittest": ("import unittest\nunittest.TestCase().assertEqual(add(1, 2), 3)", "finished"),
}


@needs_sandbox
@pytest.mark.parametrize(("tests", "end"), RUNS.values(), ids=RUNS)
def test_test_code_is_split_from_the_program(tests, end):
    names = ["add", "wrong", "node", "largest", "fails", "adder", "reverse", "items", "stops", "empties"]
    with submission("python", CODE) as program, program.test() as callee:
        done = run_tests(tests, "def helper(): return 1, 2", names, callee, Limits(cpu_s=0.5))
        assert done.end == end, done
        if end == "unsplittable" and "lambda" not in tests:
            assert callee.check(tests).end == "finished"


@needs_sandbox
def test_a_failed_assertion_says_what_was_got_and_expected():
    with submission("python", CODE) as program, program.test() as callee:
        done = run_tests("x = 1\nassert wrong(x, 2) == 3", "", ["wrong"], callee)
        assert (done.line, done.got, done.expected) == ("assert wrong(x, 2) == 3", "-1", "3")
        done = run_tests("assert not add(1, 2)", "", ["add"], callee)
        assert (done.end, done.line) == ("failed", "assert not add(1, 2)")
        checked = run_tests(
            "assert check(output, 'a')", "def check(a, b): return a == b", (), callee, given={"output": "b"}
        )
        assert checked.end == "failed"
        assert run_tests("1", "1 / 0", (), callee).end == "bad_tests"


@needs_sandbox
def test_the_programs_process_never_sees_what_is_expected():
    source = "import sys\nseen = []\ndef f(x):\n  seen.append(x)\n  return repr(seen) + str(sys._getframe(1).f_locals)"
    with submission("python", source) as program, program.test() as callee:
        done = run_tests("assert f(1) == 'a-secret'\n", "secret = 'a-secret'", ["f"], callee)
    assert done.end == "failed"
    assert "a-secret" not in done.got


@needs_sandbox
@needs_compiler
@pytest.mark.slow
def test_cpp_programs_are_compiled_once_and_run(monkeypatch):
    source = "#include <bits/stdc++.h>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << '\\n'; }"
    with submission("cpp", source) as program:
        assert [program.run(f"1 {n}".encode()).stdout for n in range(3)] == [b"1\n", b"2\n", b"3\n"]
    monkeypatch.setattr(compiled, "_compile", None)  # the same source again needs no compiler
    with submission("cpp", source) as program:
        assert program.run(b"2 3").stdout == b"5\n"
        with pytest.raises(ValueError, match="Python"), program.test():
            pass


@needs_sandbox
@needs_compiler
@pytest.mark.slow
def test_ends_of_cpp_programs_are_told_apart():
    head = "#include <bits/stdc++.h>\n"
    for source, end in (
        ("int main() { return 3; }", "runtime_error"),
        ("int main() { std::abort(); }", "runtime_error"),
        ("int main() { std::vector<char> v(1L << 40); }", "memory_limit"),
        ("int main() { return x; }", "compile_error"),
        ("int main() { volatile int n = 0; while (true) n = n + 1; }", "time_limit"),
        (
            "long f(long n) { return n < 2 ? n : 1 + f(n - 1); } int main() { return f(1000000) != 1000000; }",
            "finished",
        ),
    ):
        done = run(head + source, limits=Limits(cpu_s=1.0), language="cpp")
        assert done.end == end, done


@needs_sandbox
def test_without_a_compiler_cpp_is_an_error_of_the_sandbox(monkeypatch):
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    done = run("int main() {} // never compiled", language="cpp")
    assert done.end == "sandbox_error"
    assert "apt-get install g++" in done.detail


@needs_sandbox
def test_a_time_limit_is_confirmed_alone(monkeypatch):
    """A program that is slow the first time only, as on a busy machine."""
    from distill.grading.sandbox.submission import Submission

    runs = []
    once = Submission._run_once

    def slow_once(self, stdin, limits):
        runs.append(limits)
        return once(self, stdin, limits if len(runs) > 1 else Limits(cpu_s=0.05))

    monkeypatch.setattr(Submission, "_run_once", slow_once)
    source = "import time\nt = time.process_time()\nwhile time.process_time() < t + .2: pass\nprint(1)"
    assert run(source).end == "finished"
    assert len(runs) == 2


def test_one_that_is_alone_is_alone():
    turnstile, inside, most = Turnstile(), [], []

    def work(alone):
        with turnstile.alone() if alone else turnstile.together():
            inside.append(alone)
            most.append((any(inside), len(inside)))
            time.sleep(0.002)
            inside.remove(alone)

    threads = [threading.Thread(target=work, args=(n % 5 == 0,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(count == 1 for alone, count in most if alone)
    assert len(most) == 40


@pytest.mark.parametrize(
    "wrong",
    [{"cpu_s": 0}, {"cpu_s": -1}, {"cpu_s": float("nan")}, {"memory_mib": 0}, {"output_bytes": -1}, {"wall_s": 1e9}],
)
def test_limits_that_are_none_are_refused(wrong):
    with pytest.raises(LimitsError):
        Limits(**wrong)


def test_without_bubblewrap_nothing_runs(monkeypatch):
    available.bubblewrap_fails.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        said = sandbox_fails()
        assert "apt-get install bubblewrap" in said or "Linux" in said
        with pytest.raises(SandboxError):
            submission("python", "print(1)")
    finally:
        monkeypatch.undo()
        available.bubblewrap_fails.cache_clear()


def test_a_bubblewrap_that_does_not_work_is_reported_with_what_it_said(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    available.bubblewrap_fails.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    try:
        said = sandbox_fails()
        assert "No permissions to create new namespace" in said
        assert "sysctl -w kernel.unprivileged_userns_clone=1" in said
    finally:
        monkeypatch.undo()
        available.bubblewrap_fails.cache_clear()


@needs_sandbox
def test_a_sandbox_that_is_gone_is_replaced_and_never_a_verdict(monkeypatch):
    with submission("python", "print(1)") as program:
        assert program.run(b"").end == "finished"
        program.sandbox()._process.kill()
        assert program.run(b"").end == "finished"
    with submission("python", "def f(): return 1") as program, program.test() as callee:
        assert callee.call("f", []).value.plain == 1
        program.sandbox()._process.kill()
        assert callee.call("f", []).value.plain == 1


class _Piston(http.server.BaseHTTPRequestHandler):
    answer = None
    asked = None

    runtimes = None

    def do_POST(self):
        self.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self.send(self.answer)

    def do_GET(self):
        self.send(self.runtimes if self.path == "/api/v2/runtimes" else None)

    def send(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def piston():
    remote.remote_fails.cache_clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Piston)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Piston.answer, _Piston.asked = {"run": {"stdout": "42\n", "stderr": "", "code": 0, "signal": None}}, []
    yield Backend("remote", f"http://127.0.0.1:{server.server_port}/api/v2")
    server.shutdown()
    server.server_close()


ANSWERS = [
    ({"run": {"stdout": "1\n", "code": 0}}, "finished"),
    ({"run": {"stdout": "1\n", "code": 0, "signal": None, "status": None, "cpu_time": 12}}, "finished"),
    ({"run": {"stdout": "", "code": 1, "stderr": "boom"}}, "runtime_error"),
    ({"run": {"stdout": "", "code": None, "signal": "SIGKILL", "status": "TO"}}, "time_limit"),
    ({"run": {"stdout": "", "code": None, "signal": "SIGKILL", "status": "XX"}}, "sandbox_error"),
    ({"run": {"stdout": "", "code": None, "signal": "SIGKILL", "memory": 1 << 40}}, "memory_limit"),
    ({"run": {"stdout": "x" * 101, "code": 0}}, "output_limit"),
    ({"compile": {"code": 1, "stderr": "no"}, "run": None}, "compile_error"),
    ({"message": "runtime is unknown"}, "sandbox_error"),
    ({"run": {"stdout": 5, "code": 0}}, "sandbox_error"),
    ([], "sandbox_error"),
]


@pytest.mark.parametrize(("answer", "end"), ANSWERS, ids=str)
def test_a_remote_runner_runs_whole_programs(piston, answer, end):
    with submission("cpp", "int main() {}", backend=piston) as program:
        _Piston.answer = answer
        assert program.run(b"in", Limits(output_bytes=100)).end == end
        path, asked = _Piston.asked[-1]
        assert path == "/api/v2/execute"
        assert (asked["language"], asked["files"][0]["content"], asked["stdin"]) == ("c++", "int main() {}", "in")
        with pytest.raises(SandboxError):
            program.test()


def test_a_time_limit_of_a_remote_runner_is_confirmed_by_one_more_run(piston):
    with submission("python", "print(1)", backend=piston) as program:
        _Piston.asked.clear()
        _Piston.answer = {"run": {"stdout": "", "code": None, "signal": "SIGKILL", "status": "TO"}}
        assert program.run(b"").end == "time_limit"
        assert len(_Piston.asked) == 2
        _Piston.answer = {"run": {"stdout": "1", "code": 0}}
        assert program.run(b"").end == "finished"
        assert len(_Piston.asked) == 3


@pytest.mark.parametrize("odd", [None, {}, [1], [{"language": "python"}]], ids=str)
def test_grades_of_a_remote_runner_are_kept_under_its_versions(piston, odd):
    def versions(told):
        _Piston.runtimes = told
        remote.runtimes.cache_clear()
        return code_versions(piston)

    python, compiler, other = ({"language": name, "version": "3.1"} for name in ("python", "c++", "rust"))
    first = versions([python, compiler])
    assert versions([compiler, other, python]) == first
    assert versions([{**python, "version": "3.2"}, compiler]) != first
    assert piston.url in versions(odd)


def test_a_remote_runner_that_does_not_answer_stops_before_anything_runs():
    remote.remote_fails.cache_clear()
    for url in ("http://127.0.0.1:1", "not-a-url", ""):
        assert sandbox_fails(Backend("remote", url))
        with pytest.raises(SandboxError):
            submission("python", "print(1)", backend=Backend("remote", url))


@needs_sandbox
def test_nothing_is_left_when_the_parent_is_killed(tmp_path):
    """Killed so that it cannot clean up, while programs, a compiler and tests run."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import threading, sys\n"
        "from distill.grading.sandbox import Limits, submission, run_tests\n"
        "def run(): submission('python', 'import time\\ntime.sleep(600)').run(b'', Limits(cpu_s=300))\n"
        "def call():\n"
        "  with submission('python', 'def f():\\n  while True: pass').test(Limits(cpu_s=300)) as c:\n"
        "    run_tests('assert f() == 1', '', ['f'], c, Limits(cpu_s=300))\n"
        "for work in (run, run, call): threading.Thread(target=work).start()\n"
        "with submission('python', 'print(1)') as program: program.run(b'')\n"
        "print('ready', flush=True)\n"
        "threading.Event().wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True)
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.5)
    below = {one for one in descendants(parent.pid) if one[0] != parent.pid}
    assert len(below) > 3
    groups = list(Path("/sys/fs/cgroup").rglob(f"distill-{parent.pid}-*"))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 60
    while time.monotonic() < until and (any(map(is_there, below)) or any(group.exists() for group in groups)):
        time.sleep(0.05)
    assert not [one for one in below if is_there(one)]
    assert not [group for group in groups if group.exists()]


def descendants(pid):
    """Every process below one, with its start time."""
    parents, started = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if folder.name.isdigit():
            parents[int(folder.name)], started[int(folder.name)] = int(fields[1]), fields[19]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {(one, started[one]) for one in found if one in started}


def is_there(process):
    try:
        fields = Path(f"/proc/{process[0]}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return False
    return fields[19] == process[1] and fields[0] != "Z"

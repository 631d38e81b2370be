"""No program of the red team is called right, gets out, or leaves anything behind."""

import importlib.util
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import pytest

from distill.grading.sandbox import Limits, run_tests, sandbox_fails, submission
from distill.grading.sandbox.compiled import compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sandbox_fails() is not None, reason=str(sandbox_fails())),
]

spec = importlib.util.spec_from_file_location("attacks", Path(__file__).with_name("attacks.py"))
attacks = importlib.util.module_from_spec(spec)
sys.modules["attacks"] = attacks
spec.loader.exec_module(attacks)

TOKEN = f"token-{secrets.token_hex(16)}"
MARK = f"mark-{secrets.token_hex(8)}"
CONTROL_CODES = {*map(chr, range(32)), "\x7f"} - {"\n"}
TESTS = (
    f"assert f(1) == {TOKEN!r}",
    f"def check(candidate):\n    assert candidate(1) == {TOKEN!r}, 'wrong'\ncheck(f)",
    f"got = f(1)\nassert got == {TOKEN!r}",
    f"assert [f(1)] == [{TOKEN!r}]",
    f"assert f(1) in {{{TOKEN!r}}}",
    f"assert not f(1) != {TOKEN!r}",
    "assert abs(f(1) - 4711.25) < 1e-6",
    f"assert isinstance(f(1), str) and f(1).startswith('{TOKEN[:12]}')",
    f"assert f(1).startswith({TOKEN[:12]!r}) == True",
    f"assert True is f(1).__eq__({TOKEN!r})",
    f"assert f(1).count({TOKEN!r}) > 0",
    f"expected = {TOKEN!r}\nright = expected\nassert expected == f(1)",
)


@pytest.fixture(scope="module", autouse=True)
def leaks(tmp_path_factory):
    """The token where harnesses have it lie: in the environment, in files, in memory."""
    os.environ["EXPECTED_OUTPUT"] = TOKEN
    with tempfile.NamedTemporaryFile("w", prefix=TOKEN) as file:
        file.write(TOKEN)
        file.flush()
        yield
    os.environ.pop("EXPECTED_OUTPUT", None)


def processes_below(pid):
    """Every process that descends from one, with its start time, so that a number used again is told apart."""
    parents, started = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            parents[int(folder.name)], started[int(folder.name)] = int(fields[1]), fields[19]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {(one, started[one]) for one in found if one in started}


def is_there(process):
    pid, started = process
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return False
    return fields[19] == started and fields[0] != "Z"


def marked_files():
    places = {"/tmp", "/var/tmp", "/dev/shm", "/usr", "/", str(Path.home()), str(Path.cwd())}
    return [path for place in places for path in Path(place).glob(f"*{MARK}*")]


def run_attack(attack):
    """The executions of an attack, and whether the judge of its kind calls it right."""
    source = attack.source.replace("MARK", MARK)
    limits = Limits(cpu_s=attack.cpu_s, wall_s=attack.wall_s, memory_mib=256, output_bytes=1 << 20)
    with submission("cpp" if attack.how == "cpp" else "python", source) as program:
        if attack.how in ("run", "cpp"):
            done = program.run(f"{TOKEN[6:9]}\n".encode(), limits)
            executions, right = [done], done.end == "finished" and TOKEN.encode() in done.stdout
        elif attack.how == "call":
            with program.test(limits) as callee:
                done = callee.call("f", [1], {})
                executions = [done, callee.call("f", [2], {})]
                right = done.end == "finished" and done.value is not None and done.value.plain == TOKEN
        else:
            executions, right = [], False
            for tests in TESTS:
                with program.test(limits) as callee:
                    done = run_tests(tests, "", ["f"], callee, limits)
                executions.append(done)
                # What cannot be split would run beside the program, which must not choose that.
                right |= done.end in ("finished", "unsplittable", "bad_tests")
                if done.end == "time_limit":  # the others take as long
                    break
        running = processes_below(program.sandbox()._process.pid) if attack.how != "cpp" or done.stdout else set()
    return executions, right, running


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=str)
def test_an_attack_is_not_called_right_and_leaves_nothing(attack, bystander):
    if attack.how == "cpp" and compiler() is None:
        pytest.skip("g++ is not installed")
    before = len(list(Path("/proc/self/fd").iterdir()))
    executions, right, running = run_attack(attack)
    assert not right, executions
    for done in executions:
        assert b"HOLE" not in getattr(done, "stdout", b""), done
        assert not CONTROL_CODES & {*done.detail}, done
        assert done.end != "sandbox_error", done
        if attack.ends:
            assert done.end in attack.ends, done
    until = time.monotonic() + 20  # the kernel takes a moment to end the processes of a namespace
    while (left := [one for one in running if is_there(one)]) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left
    assert not marked_files()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 6  # sandboxes that wait for the next
    done = bystander.run(b"4 5")
    assert (done.end, done.stdout) == ("finished", b"9\n"), "the machine is not usable any more"


@pytest.fixture(scope="module")
def bystander():
    """A right program that runs beside the others."""
    with submission("python", "print(sum(map(int, input().split())))") as program:
        assert program.run(b"1 2").stdout == b"3\n"
        yield program


def test_there_are_enough_kinds_of_attack():
    by_kind = {}
    for attack in attacks.ATTACKS:
        by_kind.setdefault(attack.kind, set()).add(attack.name)
    assert sum(map(len, by_kind.values())) >= 60
    assert min(map(len, by_kind.values())) >= 10, by_kind
    assert {*by_kind} == {"equality", "exit", "patching", "channel", "resources", "leaks", "cpp"}


def test_right_programs_are_called_right_by_the_same_judges():
    echo = f"import sys\nTOKEN = {TOKEN!r}\nif __name__ == '__main__': print(TOKEN)\ndef f(x): return TOKEN"
    with submission("python", echo) as program:
        assert TOKEN.encode() in program.run(b"").stdout
        for tests in TESTS:
            with program.test() as callee:
                done = run_tests(tests, "", ["f"], callee)
            assert done.end == ("finished" if "4711" not in tests else "failed"), (tests, done)

"""Many executions in a row leave memory, descriptors, mounts and processes as they were.

`DISTILL_SOAK` sets how many; 10,000 take some minutes on two cores.
"""

import os
import resource
from pathlib import Path

import pytest

from distill.grading.sandbox import Limits, run_tests, sandbox_fails, submission
from distill.grading.sandbox.pool import close_pool

NUM = int(os.environ.get("DISTILL_SOAK", "400"))
PROGRAMS = {
    "print(sum(map(int, input().split())))": "finished",
    "open('/tmp/x', 'wb').write(bytes(1 << 20))\nprint(1)": "finished",
    "import os\nos._exit(3)": "runtime_error",
    "x = bytearray(1 << 40)": "memory_limit",
    "import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()": "finished",
    "print('x' * (3 << 20))": "output_limit",
    "raise ValueError": "runtime_error",
}


def state():
    """Descriptors, mounts, processes below this one, control groups, and resident memory in MiB."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
    below = {os.getpid()}
    while more := {one for one, parent in parents.items() if parent in below} - below:
        below |= more
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "processes": len(below),
        "groups": len(list(Path("/sys/fs/cgroup").glob(f"**/distill-{os.getpid()}-*"))),
        "memory": memory,
    }


def execute(num, num_each):
    """Run programs of every kind, each in a fresh sandbox and several times; then calls and tests."""
    limits = Limits(cpu_s=10, wall_s=60, memory_mib=256, output_bytes=1 << 20)
    done = 0
    while done < num:
        for source, end in PROGRAMS.items():
            with submission("python", source) as program:
                for _ in range(num_each):
                    assert program.run(b"1 2", limits).end == end, source
                    done += 1
        with submission("python", "def f(x): return x") as program:
            for _ in range(num_each):
                with program.test(limits) as callee:
                    assert callee.call("f", [1]).value.plain == 1
                    assert run_tests("assert f(2) == 2", "", ["f"], callee, limits).end == "finished"
                done += 2
    close_pool()
    return done


@pytest.mark.slow
@pytest.mark.skipif(sandbox_fails() is not None, reason=str(sandbox_fails()))
def test_executions_in_a_row_leak_nothing(capsys):
    execute(100, 10)
    before = state()
    done = execute(NUM, 20)
    after = state()
    with capsys.disabled():
        print(f"\n{done} executions: {before} to {after}")
    for what in ("mounts", "processes", "groups", "descriptors"):
        assert after[what] <= before[what], (what, before, after)
    assert after["memory"] < before["memory"] + 32

"""Executions of Python programs a second in the sandbox, over a bare `subprocess.run` of the same programs.

Each program reads numbers and prints an answer. Three ways take turns: `subprocess.run` of a new Python, which confines
nothing; `zygote`, a fork for each test in a program's sandbox, once it has started; `cold`, a fresh sandbox for every
execution, its start included. The process and all that it starts are bound to one core. Rates are executions per second
of CPU time of all processes together, so that other jobs on the machine count less; those by the clock stand beside.

    python benchmarks/sandbox.py [--rounds 5] [--executions 200] [--cold 30]

The last line is JSON: the ratio of the medians (zygote over subprocess) and every round.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from distill.grading.sandbox import Limits, sandbox_fails
from distill.grading.sandbox.pool import close_pool
from distill.grading.sandbox.submission import Submission

PROGRAMS = (
    "print(sum(map(int, input().split())))",
    "import sys\nfrom collections import Counter\nprint(Counter(sys.stdin.read().split()).most_common(1)[0][0])",
    "import heapq\nheap = list(map(int, input().split()))\nheapq.heapify(heap)\nprint(heapq.heappop(heap))",
    "from functools import cache\n@cache\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(60))",
    "import math, bisect\nvalues = sorted(map(int, input().split()))\nprint(bisect.bisect(values, math.gcd(*values)))",
)
INPUT = b"3 9 12 6 3\n"


def main() -> None:
    """Take turns, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (the median counts)")
    parser.add_argument("--executions", type=int, default=200, help="executions a round, of subprocess and zygote")
    parser.add_argument("--cold", type=int, default=30, help="executions a round, each in a fresh sandbox")
    options = parser.parse_args()
    if (reason := sandbox_fails()) is not None:
        sys.exit(reason)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    close_pool()
    ways: dict[str, Callable[[int], tuple[int, float]]] = {"subprocess": bare, "zygote": forked, "cold": cold}
    nums = {"subprocess": options.executions, "zygote": options.executions, "cold": options.cold}
    per_cpu_s: dict[str, list[float]] = {way: [] for way in ways}
    per_s: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            started = time.perf_counter()
            num, used = ways[way](nums[way])
            per_s[way].append(num / (time.perf_counter() - started))
            per_cpu_s[way].append(num / used)
            print(f"{way:>12}: {per_cpu_s[way][-1]:,.0f} a CPU second, {per_s[way][-1]:,.0f} a second", flush=True)
    medians = {way: round(statistics.median(rates), 1) for way, rates in per_cpu_s.items()}
    told = {
        "ratio": round(medians["zygote"] / medians["subprocess"], 2),
        "per_cpu_second": medians,
        "per_second": {way: round(statistics.median(rates), 1) for way, rates in per_s.items()},
        "rounds": {way: [round(rate, 1) for rate in rates] for way, rates in per_cpu_s.items()},
    }
    print(json.dumps(told))


def bare(num: int) -> tuple[int, float]:
    """Run programs as new processes; return how many ran and the CPU time in seconds."""
    before = own_cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num):
            path = Path(folder, f"{number % len(PROGRAMS)}.py")
            if number < len(PROGRAMS):
                path.write_text(PROGRAMS[number])
            subprocess.run([sys.executable, str(path)], input=INPUT, capture_output=True, check=True, timeout=10)
    return num, own_cpu_s() - before


def forked(num: int) -> tuple[int, float]:
    """Run each program in one sandbox, once that has started."""
    return in_sandboxes(len(PROGRAMS), num // len(PROGRAMS), counts_start=False)


def cold(num: int) -> tuple[int, float]:
    """Run each program once in a sandbox of its own."""
    return in_sandboxes(num, 1, counts_start=True)


def in_sandboxes(num_sandboxes: int, num_runs: int, counts_start: bool) -> tuple[int, float]:
    """Run programs in fresh sandboxes; return how many executions that were and the CPU time in seconds."""
    used = 0.0
    for number in range(num_sandboxes):
        before = own_cpu_s()
        with Submission("python", PROGRAMS[number % len(PROGRAMS)]) as program:
            if not counts_start:
                program.run(INPUT)
                before = own_cpu_s() + cpu_s_below(program.sandbox()._process.pid)
            for _ in range(num_runs):
                done = program.run(INPUT, Limits(cpu_s=10))
                if done.end != "finished":
                    sys.exit(f"a program ended with {done}")
                used += done.cpu_s
            began = time.process_time()
            used += cpu_s_below(program.sandbox()._process.pid)
            used -= time.process_time() - began  # looking is no part of it
        used += own_cpu_s() - before
    return num_sandboxes * num_runs, used


def own_cpu_s() -> float:
    """CPU time of this process and of those that it waited for, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def cpu_s_below(pid: int) -> float:
    """CPU time of a process's running descendants, in seconds."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(") ")[2].split()[1])
    below = {pid}
    while more := {one for one, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(int(Path(f"/proc/{one}/schedstat").read_text().split()[0]) for one in below - {pid}) / 1e9


if __name__ == "__main__":
    main()

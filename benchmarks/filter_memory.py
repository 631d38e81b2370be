"""Peak memory and traces per second of `distill filter` at 10,000, 100,000 and 1,000,000 traces of 8,000 characters.

Makes a run folder of traces (four a problem, half of them right, texts that do not repeat), then filters it in a
process of its own with the default recipe. Memory is the proportional set size (PSS) of that process and its workers
together, read twice a second. Peer: a process that holds all traces and their verdicts in memory, as reading them into
a list does (`--peer-at`, the same texts), which takes more with each trace.

    python benchmarks/filter_memory.py [--sizes 10000 100000 1000000] [--peer-at 10000 100000] [--folder DIR]

The last line is JSON: memory and rate at each size, the growth from the smallest to the largest, and the peer's memory
over ours at the largest size that both have seen.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.core.records import Problem, Trace
from distill.core.thinking import split_reasoning
from distill.recipe.model import Recipe
from distill.stages import RunContext, filter
from distill.storage.files import write_json
from distill.storage.layout import LEDGER, PROBLEMS
from distill.storage.ledger import Ledger
from distill.storage.run_folder import describe_outputs
from distill.storage.trace_store import finalise, stored_traces

NUM_CHARS = 8_000
BLOCK_CHARS = 400
NUM_BLOCKS = 5_000
"""Traces are made of such blocks in a random order: making each word of them would take longer than filtering."""
PER_PROBLEM = 4
EVERY_S = 0.5
SENTENCES = (
    "So we have {a} + {b} = {c}, which is what we wanted to see here. ",
    "Let me check that again: {a} times {b} is {c}, and the rest is {d}. ",
    "Wait, the condition says that x must be greater than {a}, so x = {b} is left. ",
    "If we put {a} in place of y, then the left side becomes {b} and the right side {c}. ",
    "The sum of the first {a} terms is therefore {b}, because each pair gives {c}. ",
    "Dividing both sides by {a} gives $\\frac{{{b}}}{{{c}}}$, which cannot be made any simpler.\n\n",
    "There are {a} ways to choose the first one and {b} ways for the second, {c} in all. ",
    "Hmm, that contradicts the earlier result of {d}; let us look for the mistake.\n\n",
)


def main() -> None:
    """Measure each size, print it, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="traces")
    parser.add_argument("--peer-at", type=int, nargs="*", default=[10_000, 100_000], help="sizes for the peer")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the traces are made (3 KB each)")
    parser.add_argument("--child", choices=("filter", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        (run_filter if options.child == "filter" else run_peer)(options.folder)
        return
    found: dict[str, dict[int, dict[str, float]]] = {"ours": {}, "peer": {}}
    for size in sorted(options.sizes):
        with tempfile.TemporaryDirectory(dir=options.folder, prefix=".filter-benchmark-") as scratch:
            run_dir = Path(scratch) / "run"
            make_traces(run_dir / "generate", size)
            found["ours"][size] = in_a_child("filter", run_dir, size)
            print(f"{size:>9,} traces: {_shown(found['ours'][size])}", flush=True)
            if size in options.peer_at:
                found["peer"][size] = in_a_child("peer", run_dir, size)
                print(f"{'in memory':>16}: {_shown(found['peer'][size])}", flush=True)
    ours, peer = found["ours"], found["peer"]
    both = max((size for size in ours if size in peer), default=None)
    first, last = min(ours), max(ours)
    result: dict[str, Any] = {
        "ratio": peer[both]["peak_gib"] / ours[both]["peak_gib"] if both else None,
        "at": both,
        "growth": ours[last]["peak_gib"] / ours[first]["peak_gib"],
        **found,
    }
    print(json.dumps(result))


def make_traces(folder: Path, num: int) -> None:
    """A finished generate stage, without a teacher."""
    folder.mkdir(parents=True)
    dice = random.Random(0)
    blocks = [_block(dice) for _ in range(NUM_BLOCKS)]
    with (folder / PROBLEMS).open("w") as problems, Ledger(folder / LEDGER) as ledger:
        for number in range((num + PER_PROBLEM - 1) // PER_PROBLEM):
            answer = str(dice.randrange(10_000))
            question = f"Take {number} sheep and {dice.randrange(10**6)} goats. How many legs are left after {answer}?"
            problem = Problem(f"p{number:07d}", [{"role": "user", "content": question}], answer, "math", "benchmark")
            problems.write(json.dumps(problem.to_json()) + "\n")
            indices = range(min(PER_PROBLEM, num - number * PER_PROBLEM))
            ledger.append(_trace(problem, index, blocks, dice) for index in indices)
    outputs, _ = finalise(folder, lambda key: True)
    write_json(folder / "manifest.json", {"outputs": describe_outputs(folder, {PROBLEMS: None, **outputs})})


def _block(dice: random.Random) -> str:
    """About `BLOCK_CHARS` of reasoning."""
    text = ""
    while len(text) < BLOCK_CHARS:
        a, b, c, d = (dice.randrange(1_000) for _ in range(4))
        text += dice.choice(SENTENCES).format(a=a, b=b, c=c, d=d)
    return text


def _trace(problem: Problem, index: int, blocks: list[str], dice: random.Random) -> Trace:
    given = problem.answer if dice.random() < 0.5 else str(dice.randrange(10_000))
    thought = "".join(dice.choices(blocks, k=NUM_CHARS // BLOCK_CHARS)).strip()
    text = f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{{given}}}."
    split = split_reasoning(text)
    num_tokens = len(text) // 3
    return Trace(
        problem.id, index, "org/teacher", "main", text, split.reasoning, split.content, "stop", 40, num_tokens, index
    )


def run_filter(run_dir: Path) -> None:
    """The default filter over the run folder."""
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "student": "smollm2-135m",
            "problems": [{"source": "file:unused.jsonl"}],
            "generate": {"teacher": "org/teacher", "sampling": {"max_tokens": 4_096}},
            "sft": {"max_length": 4_096},
        }
    )
    filter.run(RunContext(recipe, run_dir))


def run_peer(run_dir: Path) -> None:
    """All traces in a list, with a row for what is said of each."""
    traces = list(stored_traces(run_dir / "generate"))
    rows = [{"problem_id": trace.problem_id, "text": trace.text, "reasons": []} for trace in traces]
    print(len(rows), file=sys.stderr)


def in_a_child(kind: str, run_dir: Path, num: int) -> dict[str, float]:
    """Peak memory in GiB, traces a second, and seconds."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", kind, "--folder", str(run_dir)]
    started, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            peak = max(peak, sum(pss_bytes(pid) for pid in family(child.pid)))
            time.sleep(EVERY_S)
        if child.returncode and child.stderr is not None:
            sys.exit(f"{kind} failed:\n{child.stderr.read()[-2000:]}")
    seconds = time.monotonic() - started
    return {"peak_gib": peak / 2**30, "traces_per_second": num / seconds, "seconds": seconds}


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def pss_bytes(pid: int) -> int:
    """A process's own memory and its part of what it shares."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _shown(measured: dict[str, float]) -> str:
    return f"{measured['peak_gib']:.2f} GiB, {measured['traces_per_second']:,.0f} traces/s"


if __name__ == "__main__":
    main()

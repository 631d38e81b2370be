"""An evaluation on the disk with every kind of sample, and environments with the real packages."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.core.records import Problem, Trace, Verdict
from distill.core.thinking import split_reasoning
from distill.storage.ledger import Ledger

BASE = "org/base-model"
SECRET_TEXT = "the aardvark of Zanzibar"
PROTOCOL = {"hash": "5f0c" * 16, "samples_per_problem": 2, "temperature": 0.6, "top_p": 0.95, "max_tokens": 64}

INSPECT_PINS = ("inspect-ai==0.3.285", "openai==3.57.0", "pandas==3.1.1", "pyarrow==26.0.1")
LIGHTEVAL_PINS = ("lighteval==0.13.0", "inspect-ai==0.3.285", "xxhash<4", "torch==2.13.*")
"""lighteval 0.13.0 hashes texts, which xxhash 4 refuses."""


def sum_problem(index):
    prompt = [{"role": "user", "content": f"What is {index} + {index + 1}?"}]
    return Problem(f"{index:016x}", prompt, str(2 * index + 1), "math", "file:sums.jsonl")


def trace_of(problem, index, text, model=BASE, finish="stop", error=""):
    split = split_reasoning(text)
    return Trace(
        problem.id, index, model, "r", text, split.reasoning, split.content, finish, 9, len(text.split()), 7, {}, error
    )


CHOICE = Problem(
    "c" * 16,
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Where is {SECRET_TEXT}?\nA) Here\nB) There"},
    ],
    "B",
    "choice",
    "hf:org/zoo",
    {"options": ["Here", "There"], "share": float("inf")},
)
RIGHT, WRONG = "<think>\n1 + 2 = 3\n</think>\n\nIt is \\boxed{3}.", "It is 4."


def write_evaluation(folder, drop_sample=False, fail=False):
    """`eval/` of a run: two sums, twice each, and a choice, once, by two models."""
    sums = [sum_problem(1), sum_problem(2)]
    folder.mkdir(parents=True)
    lines(folder / "problems.jsonl", [*(one.to_json() for one in sums), CHOICE.to_json()])
    lines(
        folder / "benchmarks.jsonl",
        [
            {"name": "sums", "protocol": PROTOCOL, "problems": [one.id for one in sums]},
            {"name": "zoo", "protocol": {**PROTOCOL, "samples_per_problem": 1}, "problems": [CHOICE.id]},
        ],
    )
    for role, model in (("base", BASE), ("student", str(folder / "somewhere" / "student"))):
        traces = [
            trace_of(sums[0], 0, RIGHT, model),
            trace_of(sums[0], 1, WRONG, model),
            trace_of(sums[1], 0, f"<think>\nhm {chr(0xD800)}", model, "length"),
            *([] if drop_sample else [trace_of(sums[1], 1, "It is 5, 5, 5", model, "loop")]),
        ]
        if fail:
            traces.append(trace_of(CHOICE, 0, "", model, "error", "no room"))
        else:
            traces.append(trace_of(CHOICE, 0, f"B, as {SECRET_TEXT} is", model))
        with Ledger(folder / role / "ledger.jsonl") as ledger:
            ledger.append(traces)
        verdicts = [
            Verdict(sums[0].id, 0, True, "3"),
            Verdict(sums[0].id, 1, False, "4", ("wrong_answer",)),
            Verdict(sums[1].id, 0, None, None, ("ungraded_timeout",)),
            Verdict(sums[1].id, 1, True, "5"),
            Verdict(CHOICE.id, 0, None if fail else True, None if fail else "B", ("error",) if fail else ()),
        ]
        lines(folder / role / "verdicts.jsonl", [one.to_json() for one in verdicts])
    return folder


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def evaluation(tmp_path):
    """A complete evaluation."""
    return write_evaluation(tmp_path / "runs" / "small" / "eval")


@pytest.fixture
def credit():
    """A function that gives a model's answers to the first sum partial credit, as a judge does."""

    def give(role, *scores):
        path = role / "verdicts.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row, score in zip(rows, scores, strict=False):
            row |= {"correct": score > 0.5, "details": {"score": repr(score)}}
        lines(path, rows)

    return give


@pytest.fixture
def incomplete(tmp_path):
    """One that lacks a sample and has a failed one."""
    return write_evaluation(tmp_path / "runs" / "cut" / "eval", drop_sample=True, fail=True)


def environment_with(name, pins):
    """The Python of an environment with pinned packages, made once and kept; skips if it cannot be made.

    It is in `DISTILL_TEST_ENVIRONMENTS`, or in the user's cache.
    """
    root = Path(os.environ.get("DISTILL_TEST_ENVIRONMENTS") or Path.home() / ".cache" / "distill-test-environments")
    digest = hashlib.sha256(json.dumps([pins, sys.version_info[:2]]).encode()).hexdigest()[:12]
    folder = root / f"{name}-{digest}"
    root.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    if uv is None:
        commands = [[sys.executable, "-m", "venv", folder], [folder / "bin" / "python", "-m", "pip", "install", "-q"]]
    else:
        source = ["--find-links", links] if links else ["--torch-backend", "cpu"]
        install = [uv, "pip", "install", "-q", "--python", folder / "bin" / "python", *source]
        commands = [[uv, "venv", "-q", "--python", sys.executable, folder], install]
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of pytest may be making it
        if (folder / "complete").exists():
            return folder / "bin" / "python"
        shutil.rmtree(folder, ignore_errors=True)
        index = os.environ.get("PIP_INDEX_URL")
        variables = os.environ | ({"UV_DEFAULT_INDEX": index} if index else {})
        for command in (commands[0], [*commands[1], *pins]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=variables)
            except subprocess.TimeoutExpired:
                pytest.skip(f"no environment with {pins[0]}: not installed within 240 s")
            if done.returncode:
                pytest.skip(f"no environment with {pins[0]}: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def inspect_python():
    """Python with the real Inspect."""
    return environment_with("inspect", INSPECT_PINS)


@pytest.fixture(scope="session")
def lighteval_python():
    """Python with the real lighteval, which needs torch."""
    return environment_with("lighteval", LIGHTEVAL_PINS)

"""Child processes: results, errors and deaths as the parent sees them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.core.records import Problem
from distill.errors import ModelError, StageError, StoreError
from distill.execution.jobs import run_job
from distill.sampling.job import SamplingJob
from distill.storage.files import write_jsonl


def job(tmp_path, model, **changes):
    problems = [Problem(f"p{i}", [{"role": "user", "content": f"Say {i}"}], "1", "math", "test") for i in range(4)]
    write_jsonl(tmp_path / "problems.jsonl", (p.to_json() for p in problems))
    fields = {
        "title": "test",
        "model_name": "tiny",
        "model_path": str(model),
        "model_revision": "r",
        "chat_format": None,
        "problems": str(tmp_path / "problems.jsonl"),
        "ledger": str(tmp_path / "ledger.jsonl"),
        "samples_per_problem": 1,
        "seed": 1,
        "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 4},
        "compute": {"engine": "transformers"},
    }
    return SamplingJob(**(fields | changes))


@pytest.mark.slow
def test_a_job_returns_its_value_and_its_memory(tmp_path, tiny_llama):
    value, peak_gib = run_job("sample", job(tmp_path, tiny_llama), tmp_path)
    assert value["num_sampled"] == 4
    assert value["engine"]["name"] == "transformers"
    assert 0.05 < peak_gib < 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["engine.json", "ledger.jsonl", "problems.jsonl", "sample.log"]


@pytest.mark.slow
def test_a_users_mistake_in_the_child_is_the_same_error_in_the_parent(tmp_path, tiny_llama):
    too_long = job(tmp_path, tiny_llama, sampling={"max_tokens": 4096})
    with pytest.raises(ModelError, match="leaves no room for a prompt"):
        run_job("sample", too_long, tmp_path)


def test_a_child_that_dies_leaves_its_last_words(tmp_path):
    with pytest.raises(StageError) as caught:
        run_job("sample", job(tmp_path, "nowhere", compute={"no_such_setting": 1}), tmp_path)
    assert "the sample process died (exit code 1)" in str(caught.value)
    assert "no_such_setting" in str(caught.value)


def test_a_stage_error_in_the_child_keeps_its_kind(tmp_path):
    with pytest.raises(StoreError, match="/proc/no/such/place"):
        run_job("sample", job(tmp_path, "nowhere", ledger="/proc/no/such/place"), tmp_path)


def test_a_child_dies_with_its_parent(tmp_path):
    """kill -9 of the caller must not leave a process that goes on writing."""
    child = (
        "import time; from distill.execution.jobs import end_with_parent\n"
        "end_with_parent(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE, text=True)\n"
        "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    child_pid = int(process.stdout.readline())
    assert Path(f"/proc/{child_pid}").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(child_pid):
        time.sleep(0.05)
    assert not _alive(child_pid)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_hung_grader_dies_with_a_killed_caller():
    script = (
        "import time; from distill.grading.pool import GradingPool\n"
        "if __name__ == '__main__':\n"
        "    with GradingPool(workers=1, timeout_s=1) as pool:\n"
        "        list(pool.map(abs, [1])); print(pool._workers[0].process.pid, flush=True)\n"
        "        list(pool.map(time.sleep, [300]))"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker_pid = int(caller.stdout.readline())
    assert _alive(worker_pid)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _alive(worker_pid):
        time.sleep(0.05)
    assert not _alive(worker_pid)

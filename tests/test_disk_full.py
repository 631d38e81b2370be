"""A disk that fills up in the middle of sampling: a clear error, nothing lost, and the same command goes on."""

import json
import subprocess
import sys
import time

import pytest

from distill.storage.ledger import read_ledger
from distill.storage.trace_store import stored_traces

pytestmark = pytest.mark.slow

NUM_PROBLEMS, NUM_SAMPLES = 150, 4


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 64 MiB; skipped where mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.long
def test_sampling_onto_a_full_disk_stops_clearly_and_goes_on_later(small_disk, tiny_llama, tmp_path):
    problems = [{"problem": f"Say {i}.", "answer": str(i)} for i in range(NUM_PROBLEMS)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(p) + "\n" for p in problems))
    (tmp_path / "recipe.yaml").write_text(
        f"name: full\nstudent: {tiny_llama}\nproblems: [{{source: 'file:problems.jsonl'}}]\n"
        f"generate:\n  teacher: {tiny_llama}\n  samples_per_problem: {NUM_SAMPLES}\n"
        "  sampling: {temperature: 1.0, top_p: 1.0, max_tokens: 48}\n"
        "  compute: {engine: transformers, max_num_seqs: 16}\n"
        "sft: {max_length: 256}\n"
    )
    command = [sys.executable, "-m", "distill", "generate", str(tmp_path / "recipe.yaml"), "--run-dir", str(small_disk)]
    ledger = small_disk / "full" / "generate" / "ledger.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (ledger.exists() and ledger.stat().st_size > 0):
        time.sleep(0.01)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while process.poll() is None:
                stream.write(b"x" * 4096)
        except OSError:
            pass
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2, said
    assert "the disk is full. Free some space" in said
    assert "the same command goes on from here" in said
    kept = {trace.key: trace for trace in read_ledger(ledger)}
    assert 0 < len(kept) < NUM_PROBLEMS * NUM_SAMPLES
    assert ledger.read_bytes().endswith(b"\n")
    filler.unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stored = {trace.key: trace for trace in stored_traces(ledger.parent)}
    assert {key: stored[key] for key in kept} == kept
    assert len(list(stored_traces(ledger.parent))) == len(stored) == NUM_PROBLEMS * NUM_SAMPLES

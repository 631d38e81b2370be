"""Finished traces are there, once each, whatever happens while they are brought into shards."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.core.records import Trace
from distill.storage import shards
from distill.storage.ledger import Ledger, index_ledger
from distill.storage.trace_store import check_shards, finalise, stored, stored_traces

SAMPLING = {"temperature": 0.6, "top_p": 1.0, "top_k": 0, "max_tokens": 8}


def trace(i, index=0, text="<think>\n1\n</think>\n\n2"):
    return Trace(f"p{i:04d}", index, "teacher", "rev", text, "1", "2", "stop", 5, 6, seed=i, sampling=SAMPLING)


def fill(folder, traces):
    with Ledger(folder / "ledger.jsonl") as ledger:
        ledger.append(traces)


def everything(key):
    return True


def keys(folder):
    return [t.key for t in stored_traces(folder)]


def test_shards_hold_what_the_ledger_held_sorted_and_datasets_reads_them(tmp_path):
    from datasets import load_dataset

    shuffled = [trace(i, index) for i in range(50) for index in range(2)]
    random.Random(1).shuffle(shuffled)
    fill(tmp_path, shuffled)
    outputs, tally = finalise(tmp_path, everything)
    assert outputs == {"traces/train-00000-of-00001.parquet": 100}
    assert tally.num_completion_tokens == 600
    assert list(stored_traces(tmp_path)) == sorted(shuffled, key=lambda t: t.key)
    assert not (tmp_path / "ledger.jsonl").exists()
    rows = load_dataset("parquet", data_dir=str(tmp_path / "traces"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 100
    assert rows[0]["text"] == shuffled[0].text


def test_more_traces_join_those_that_are_there_and_nothing_is_lost_by_asking_for_less(tmp_path):
    fill(tmp_path, [trace(i, index) for i in range(4) for index in range(2)])
    finalise(tmp_path, everything)
    fill(tmp_path, [trace(9)])
    outputs, tally = finalise(tmp_path, lambda key: key[1] == 0)
    assert sum(outputs.values()) == tally.num_samples == 5
    assert len(stored(tmp_path).keys) == 9
    assert [t.key for t in stored_traces(tmp_path, "unused")] == [(f"p{i:04d}", 1) for i in range(4)]
    finalise(tmp_path, everything)
    assert len(keys(tmp_path)) == 9
    assert not list((tmp_path / "unused").glob("*"))


def test_the_same_traces_make_the_same_bytes_whatever_came_first(tmp_path):
    traces = [trace(i) for i in range(20)]
    for name, parts in (("once", [traces]), ("twice", [traces[::-2], traces[::2][::-1]])):
        (tmp_path / name).mkdir()
        for part in parts:
            fill(tmp_path / name, part)
            finalise(tmp_path / name, everything)
    assert keys(tmp_path / "once") == keys(tmp_path / "twice")
    shards = [json.loads((tmp_path / name / "shards.json").read_text()) for name in ("once", "twice")]
    assert shards[0] == shards[1]


def test_shards_end_when_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 200_000)
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 50_000)
    noise = random.Random(0)
    fill(tmp_path, [trace(i, text=noise.randbytes(10_000).hex()) for i in range(100)])
    outputs, _ = finalise(tmp_path, everything)
    assert len(outputs) > 3
    assert sorted(outputs) == list(outputs)
    assert list(outputs)[-1] == f"traces/train-{len(outputs) - 1:05d}-of-{len(outputs):05d}.parquet"
    assert all((tmp_path / name).stat().st_size < 300_000 for name in outputs)
    assert len(keys(tmp_path)) == 100


def test_a_trace_too_large_for_a_row_is_kept_whole_beside_the_shards(tmp_path):
    giant = trace(1, text="x" * 3_000_000)
    fill(tmp_path, [trace(0), giant])
    finalise(tmp_path, everything)
    _, stand_in = stored_traces(tmp_path)
    assert (stand_in.finish_reason, stand_in.text) == ("error", "")
    assert "oversize.jsonl" in stand_in.error
    assert Trace.from_json(json.loads((tmp_path / "oversize.jsonl").read_text())) == giant


@pytest.mark.parametrize("position", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_bit_costs_its_own_shard_only(tmp_path, monkeypatch, position):
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 10)
    fill(tmp_path, [trace(i) for i in range(40)])
    outputs, _ = finalise(tmp_path, everything)
    assert list(outputs.values()) == [10, 10, 10, 10]
    victim = tmp_path / list(outputs)[2]
    content = bytearray(victim.read_bytes())
    content[int(position * len(content))] ^= 4
    victim.write_bytes(content)
    assert check_shards(tmp_path) == [list(outputs)[2]]
    assert {key[0] for key in stored(tmp_path).keys} == {f"p{i:04d}" for i in [*range(20), *range(30, 40)]}
    assert (tmp_path / "damaged" / f"{victim.name}.0").read_bytes() == bytes(content)
    assert check_shards(tmp_path) == []
    fill(tmp_path, [trace(i) for i in range(20, 30)])
    finalise(tmp_path, everything)
    assert len(keys(tmp_path)) == 40


def test_damaged_ledger_lines_are_kept_for_a_look(tmp_path):
    fill(tmp_path, [trace(0), trace(1), trace(2)])
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"teacher", b"taecher")
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(lines))
    finalise(tmp_path, everything)
    assert [name for name, _ in keys(tmp_path)] == ["p0000", "p0002"]
    assert (tmp_path / "damaged" / "ledger.jsonl.0").read_bytes() == lines[1]


CRASHING = """
import os, sys
from pathlib import Path
import pyarrow, pyarrow.parquet  # before forking
from distill.storage.trace_store import finalise

folder, last = Path(sys.argv[1]), int(sys.argv[2])

def crash_at(event):
    seen = 0
    def hook(name, arguments):
        nonlocal seen
        # Opening to read changes nothing, so only what is written counts.
        reads = name == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not reads and name in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            seen += 1
            if seen == event:
                os._exit(9)
    return hook

for event in range(1, last):
    child = os.fork()
    if child == 0:
        sys.addaudithook(crash_at(event))
        finalise(folder / str(event), lambda key: key[1] == 0)
        os._exit(0)
    print(event, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_crash_at_any_step_of_finalising_loses_nothing_and_doubles_nothing(tmp_path):
    """The process ends before each of its operations on files in turn: opens, renames, removals."""
    num_steps = 70
    for event in range(1, num_steps):
        folder = tmp_path / str(event)
        folder.mkdir()
        fill(folder, [trace(i, index) for i in range(6) for index in range(2)])
        finalise(folder, everything)
        fill(folder, [trace(i, index) for i in range(6, 9) for index in range(2)])
    command = [sys.executable, "-c", CRASHING, str(tmp_path), str(num_steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes = dict(map(int, line.split()) for line in done.stdout.splitlines())
    assert codes[1] == 9
    assert codes[num_steps - 1] == 0, "finalising has more steps than are tried"
    for event in codes:
        folder = tmp_path / str(event)
        assert check_shards(folder) == []
        there = stored(folder).keys | set(index_ledger(folder / "ledger.jsonl").places)
        assert there == {(f"p{i:04d}", index) for i in range(9) for index in range(2)}, event
        finalise(folder, lambda key: key[1] == 0)
        assert keys(folder) == [(f"p{i:04d}", 0) for i in range(9)]
        assert len(list(stored_traces(folder, "unused"))) == 9
        # A kill may leave an unfinished temporary file of an atomic write, whose name begins with a dot.
        visible = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".shards.json."))
        assert visible == ["shards.json", "traces", "unused"]


SAMPLING_SCRIPT = """
import json, random, sys, time
from pathlib import Path
from distill.engines.base import Completion
from distill.sampling.loop import run_sampling
from distill.sampling.job import SamplingJob
from distill.storage.trace_store import finalise

class Engine:
    settings = {"name": "fake"}
    max_in_flight = 8
    def __init__(self):
        self.waiting, self.asked = [], open(sys.argv[2], "a")
    @property
    def num_in_flight(self):
        return len(self.waiting)
    num_tokens_in_flight = 0
    def submit(self, request):
        print(*request.key, file=self.asked, flush=True)
        self.waiting.append(request)
    def step(self):
        time.sleep(0.0005)
        random.shuffle(self.waiting)
        done, self.waiting = self.waiting[:3], self.waiting[3:]
        return [Completion(r.key, "x" * random.randrange(5_000), "stop", 1, 1) for r in done]
    def close(self):
        pass

folder = Path(sys.argv[1])
job = SamplingJob("t", "m", "m", "r", None, str(folder / "problems.jsonl"), str(folder / "ledger.jsonl"), 4, 1, {}, {})
run_sampling(job, Engine())
finalise(folder, lambda key: True)
"""


@pytest.mark.long
@pytest.mark.slow
def test_kills_at_fifty_random_points_leave_each_sample_exactly_once(tmp_path):
    num_problems, num_kills, max_in_flight = 1_600, 50, 8
    rows = [
        {
            "id": f"p{i:04d}",
            "prompt": [{"role": "user", "content": str(i)}],
            "answer": "1",
            "task": "math",
            "source": "s",
        }
        for i in range(num_problems)
    ]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script, asked = tmp_path / "script.py", tmp_path / "asked.txt"
    script.write_text(SAMPLING_SCRIPT)
    environment = {**os.environ, "DISTILL_QUIET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    dice = random.Random(7)
    ledger = tmp_path / "ledger.jsonl"
    kills = before = 0
    while kills < num_kills:
        process = subprocess.Popen([sys.executable, str(script), str(tmp_path), str(asked)], env=environment)
        while process.poll() is None and not (ledger.exists() and ledger.stat().st_size > before):
            time.sleep(0.001)
        time.sleep(dice.random() * 0.02)
        finished = process.poll() is not None
        process.kill()
        process.wait()
        if finished:
            break
        kills += 1
        before = ledger.stat().st_size if ledger.exists() else 0
    assert kills == num_kills, "the job ended before all kills: give it more problems"
    subprocess.run([sys.executable, str(script), str(tmp_path), str(asked)], env=environment, check=True)
    assert keys(tmp_path) == [(f"p{i:04d}", index) for i in range(num_problems) for index in range(4)]
    num_asked = len(asked.read_text().splitlines())
    assert num_asked - num_problems * 4 <= num_kills * max_in_flight

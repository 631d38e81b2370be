"""scripts/gpu_check.py: its time, processes and files with parts that are made up, and a part for real on a CPU."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"

FAKE = """
import json, os, subprocess, sys, time
from pathlib import Path

told, result = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])

def say(status, reason="", summary="", **figures):
    result.write_text(json.dumps({"status": status, "reason": reason, "summary": summary, "figures": figures}))

print("words of", told["part"])
if told["job"] == "works":
    say("ok", summary="all | is well", speed=12.5, heard=told.get("path"))
elif told["job"] == "finds":
    say("ok", for_other_parts={"path": "/somewhere"})
elif told["job"] == "cannot":
    say("skipped", "vllm is not installed")
elif told["job"] == "fails":
    say("failed", "OutOfMemoryError: CUDA out of memory")
elif told["job"] == "dies":
    say("failed", "it ended before it was done", half=1)
    print("about to die", flush=True)
    os.kill(os.getpid(), told["options"]["signal"])
elif told["job"] == "ends":
    sys.exit("nothing to say")
elif told["job"] == "hangs":
    child = subprocess.Popen(["sleep", "600"], process_group=0)
    say("failed", "it ended before it was done", child=child.pid)
    time.sleep(600)
"""


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_check

    return gpu_check


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_parts

    return gpu_parts


@pytest.fixture
def make_check(gpu_check, tmp_path):
    """A function that makes a check of parts `(name, job)` or `(name, job, limit_s, least_s, options)`."""
    jobs = tmp_path / "fake.py"
    jobs.write_text(FAKE)

    def make(*parts, budget_s=60.0):
        made = [gpu_check.Part(*{2: (*part, 30.0, 0.0)}.get(len(part), part)) for part in parts]
        return gpu_check.Check(made, {"device": "cpu"}, tmp_path / "out", budget_s, jobs)

    return make


def report(tmp_path):
    return json.loads((tmp_path / "out" / "gpu_check.json").read_text())


def is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_part_that_dies_takes_no_other_with_it(make_check, tmp_path):
    check = make_check(
        ("first", "works"),
        ("segfault", "dies", 30.0, 0.0, {"signal": signal.SIGSEGV}),
        ("memory", "fails"),
        ("exits", "ends"),
        ("engine", "cannot"),
        ("last", "works"),
    )
    check.run()
    assert check.exit_code == 1
    found = {part["name"]: part for part in report(tmp_path)["parts"]}
    assert {name: part["status"] for name, part in found.items()} == {
        "first": "ok",
        "segfault": "failed",
        "memory": "failed",
        "exits": "failed",
        "engine": "skipped",
        "last": "ok",
    }
    assert found["segfault"]["reason"] == "killed by SIGSEGV; last words: about to die"
    assert found["segfault"]["figures"] == {"half": 1}, "what it measured before is kept"
    assert found["memory"]["reason"] == "OutOfMemoryError: CUDA out of memory"
    assert found["exits"]["reason"] == "exit code 1; last words: nothing to say"
    assert found["engine"]["reason"] == "vllm is not installed"
    assert found["last"]["figures"]["speed"] == 12.5
    assert not report(tmp_path)["ok"]
    table = (tmp_path / "out" / "gpu_check.md").read_text()
    assert "| first | ok | 0 | all \\| is well |" in table
    assert "| engine | skipped | 0 | vllm is not installed |" in table
    assert "=== segfault\nwords of segfault\nabout to die" in (tmp_path / "out" / "gpu_check.log").read_text()


def test_skipped_parts_are_no_failure(make_check, tmp_path):
    check = make_check(("first", "works"), ("engine", "cannot"))
    check.run()
    assert check.exit_code == 0
    assert report(tmp_path)["ok"]


def test_a_part_that_takes_too_long_is_ended_with_all_its_processes(make_check, tmp_path):
    check = make_check(("slow", "hangs", 1.5, 0.0), ("next", "works"))
    check.run()
    slow, following = report(tmp_path)["parts"]
    assert (slow["status"], slow["reason"]) == ("failed", "took longer than 2 s")
    assert following["status"] == "ok"
    assert not is_alive(slow["figures"]["child"]), "a child with a process group of its own"


def test_the_budget_is_kept_and_what_no_longer_fits_is_named(gpu_check, make_check, tmp_path):
    check = make_check(
        ("first", "works"),
        ("slow", "hangs", 600.0, 0.0),
        ("long", "works", 30.0, 20.0),
        budget_s=2.0 + gpu_check.END_S,
    )
    began = time.monotonic()
    check.run()
    assert time.monotonic() - began < 2.0 + gpu_check.END_S
    first, slow, long = report(tmp_path)["parts"]
    assert first["status"] == "ok"
    assert slow["status"] == "skipped", "the budget's fault and not its own"
    assert slow["reason"].startswith("no time left: stopped after")
    assert slow["figures"]["child"]
    assert long["status"] == "skipped"
    assert long["reason"] == "no time left: 0 s of 5 s, and it needs 20 s"
    assert check.exit_code == 0


def test_a_machine_that_cannot_be_used_stops_the_others_before_they_begin(make_check, tmp_path):
    check = make_check(("machine", "fails"), ("memory-full", "works"))
    check.run()
    _, memory = report(tmp_path)["parts"]
    assert (memory["status"], memory["reason"]) == ("skipped", "machine: OutOfMemoryError: CUDA out of memory")
    assert check.exit_code == 1


def test_what_one_part_makes_later_ones_are_told(make_check, tmp_path):
    make_check(("model", "finds"), ("memory-full", "works")).run()
    model, memory = report(tmp_path)["parts"]
    assert memory["figures"]["heard"] == "/somewhere"
    assert model["figures"] == {}


def test_ctrl_c_ends_the_part_and_writes_what_is_there(make_check, tmp_path):
    check = make_check(("first", "works"), ("slow", "hangs"), ("last", "works"))
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        check.run()
    first, slow, last = report(tmp_path)["parts"]
    assert first["status"] == "ok"
    assert slow["status"] == "skipped"
    assert slow["reason"].startswith("stopped after")
    assert not is_alive(slow["figures"]["child"])
    assert last["reason"] == "stopped before it began"
    assert "| last | skipped |" in (tmp_path / "out" / "gpu_check.md").read_text()


def test_every_part_names_a_function_and_options_that_it_takes(gpu_check, parts):
    import inspect

    for part in gpu_check.PARTS:
        inspect.signature(parts.PARTS[part.job]).bind(None, **part.options)
    names = [part.name for part in gpu_check.PARTS]
    assert len(set(names)) == len(names)


def test_results_of_tests_are_counted_and_failures_named(parts):
    counts, failed = parts.read_junit(
        """<testsuites><testsuite>
        <testcase classname="t" name="test_one"/>
        <testcase classname="t" name="test_two[lora]"><failure message="assert 1 == 2&#10;more">…</failure></testcase>
        <testcase classname="t" name="test_three"><skipped message="needs two GPUs"/></testcase>
        <testcase classname="t" name="test_four"><error message="fixture failed"/></testcase>
        </testsuite></testsuites>"""
    )
    assert counts == {"passed": 1, "failed": 2, "skipped": 1}
    assert failed == ["test_two[lora] (assert 1 == 2)", "test_four (fixture failed)"]


def test_a_package_that_is_missing_is_found_behind_the_errors_of_libraries(parts):
    def wrapped(name):
        try:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        except ModuleNotFoundError as error:
            try:
                raise RuntimeError("Failed to import trl.trainer") from error
            except RuntimeError as outer:
                return outer

    assert parts._missing_module(wrapped("datasets.arrow")) == "datasets"
    assert parts._missing_module(wrapped("distill.gone")) is None
    assert parts._missing_module(ValueError("datasets")) is None


@pytest.mark.long
@pytest.mark.slow
def test_on_a_cpu_a_part_is_done_for_real(tmp_path):
    command = [
        sys.executable,
        "scripts/gpu_check.py",
        "--device",
        "cpu",
        "--only",
        "memory-lora",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(command, cwd=SCRIPTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    found = report(tmp_path)
    assert [part["status"] for part in found["parts"]] == ["ok"] * 3
    assert found["machine"]["versions"]["transformers"]
    memory = found["parts"][-1]["figures"]
    assert memory["tokens_per_second"] > 0
    assert memory["estimate_gib"] > 0
    assert len(memory["losses"]) == 2
    assert memory["device"]["on_gpu"] is False


def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, "scripts/gpu_check.py", "--only", "tests", "--out", tmp_path / "out"]
    done = subprocess.run(
        command, cwd=SCRIPTS.parent, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 1
    assert "torch sees no GPU" in report(tmp_path)["parts"][0]["reason"]
    assert report(tmp_path)["parts"][-1]["reason"].startswith("machine: RuntimeError: torch sees no GPU")

"""Several processes of one job: they end together, and the one that is to blame is named."""

import os
import sys
import time

import pytest

from distill.errors import ModelError, StageError
from distill.execution.process_group import ProcessGroup

ANSWER = """
import json, os, signal, sys, time
rank, fd = int(os.environ["RANK"]), int(sys.argv[1])
def answer(value=None, error=None):
    with os.fdopen(fd, "w") as stream:
        json.dump({"value": value, "error": error, "peak_memory_gib": 0.25}, stream)
"""


def crew(tmp_path, script, num=2, drain_s=0.0):
    """`num` processes that run a script, which knows its `rank` and may `answer`."""
    made = ProcessGroup("train", [sys.executable, "-c", ANSWER + script], tmp_path, dict(os.environ), drain_s)
    for rank in range(num):
        made.start({"RANK": str(rank)}, rank)
    return made


def pids(tmp_path, num):
    """The process ids that the scripts have left in files, as soon as all are there."""
    while not all((tmp_path / f"pid{rank}").exists() for rank in range(num)):
        time.sleep(0.01)
    time.sleep(0.1)
    return [int((tmp_path / f"pid{rank}").read_text()) for rank in range(num)]


def interrupt(tmp_path, script, drain_s):
    """Ctrl-C while two processes run the script; returns their ids."""
    running = []
    try:
        with crew(tmp_path, script, drain_s=drain_s):
            running = pids(tmp_path, 2)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return running


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_first_processs_value_comes_back_and_memory_is_added_up(tmp_path):
    with crew(tmp_path, "answer({'rank': rank, 'much': 'x' * 500_000})", num=3) as made:
        value, peak_gib = made.wait()
    assert (value["rank"], len(value["much"]), peak_gib) == (0, 500_000, 0.75)


def test_a_death_stops_all_and_is_told_with_the_end_of_that_processs_log(tmp_path):
    script = (
        "print('last words of', rank, flush=True)\nif rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"
    )
    started = time.monotonic()
    with pytest.raises(StageError) as caught, crew(tmp_path, script, num=3) as made:
        made.wait()
    assert time.monotonic() - started < 15
    assert "the train process of rank 1 (of 3 here) died (SIGKILL" in str(caught.value)
    assert "last words of 1" in str(caught.value)
    assert "train.rank1.log" in str(caught.value)


def test_the_error_that_explains_itself_goes_before_the_deaths_that_it_causes(tmp_path):
    script = (
        "if rank == 1: raise SystemExit(3)\n"  # sees its peer go, and dies of it first
        "time.sleep(0.5)\n"
        "answer(error={'type': 'ModelError', 'message': 'rows are too long'})"
    )
    with pytest.raises(ModelError, match="rows are too long"), crew(tmp_path, script) as made:
        made.wait()


def test_a_process_that_forks_does_not_keep_its_death_secret(tmp_path):
    """What it has forked holds the pipe open."""
    script = "os.set_inheritable(fd, True)\nif os.fork() == 0: time.sleep(20)\nos._exit(5)"
    started = time.monotonic()
    with pytest.raises(StageError, match="exit code 5"), crew(tmp_path, script, num=1) as made:
        made.wait()
    assert time.monotonic() - started < 10


def test_a_signal_reaches_all_and_they_may_finish_what_they_have_begun(tmp_path):
    script = f"""
def stop(*_):
    time.sleep(0.3)
    open(f"{tmp_path}/stopped{{rank}}", "w").close()
    raise SystemExit
signal.signal(signal.SIGTERM, stop)
open(f"{tmp_path}/pid{{rank}}", "w").write(str(os.getpid()))
time.sleep(60)
"""
    running = interrupt(tmp_path, script, drain_s=20)
    assert all((tmp_path / f"stopped{rank}").exists() for rank in range(2))
    assert not any(is_alive(pid) for pid in running)


def test_who_does_not_stop_in_time_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.execution.process_group.STOP_WITHIN_S", 0.2)
    script = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"{tmp_path}/pid{{rank}}", "w").write(str(os.getpid()))
time.sleep(60)
"""
    running = interrupt(tmp_path, script, drain_s=0.3)
    assert not any(is_alive(pid) for pid in running)


def test_what_goes_wrong_elsewhere_stops_all_here(tmp_path):
    def check():
        pids(tmp_path, 2)
        raise StageError("the process of rank 5 failed")

    script = f'open(f"{tmp_path}/pid{{rank}}", "w").write(str(os.getpid()))\ntime.sleep(60)'
    with pytest.raises(StageError, match="rank 5"), crew(tmp_path, script) as made:
        made.wait(check)
    assert not any(is_alive(pid) for pid in pids(tmp_path, 2))


def test_only_the_first_process_shows_progress(tmp_path):
    script = "print(os.environ.get('DISTILL_QUIET'), flush=True)\nanswer()"
    with crew(tmp_path, script) as made:
        made.wait()
    assert (tmp_path / "train.log").read_text() == "None\n"
    assert (tmp_path / "train.rank1.log").read_text() == "1\n"

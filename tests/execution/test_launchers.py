"""Processes that a launcher has started: which one is this, and how they find each other."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill.errors import StageError, UserError
from distill.execution import launchers
from distill.execution.launchers import ProcessPlace, joined, launched_place

TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SRUN = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
SBATCH = {"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        (TORCHRUN, ProcessPlace(3, 1, 4, True)),
        ({"WORLD_SIZE": "2", "RANK": "1"}, ProcessPlace(1, 1, 2, False)),
        (SRUN, ProcessPlace(9, 1, 16, False)),
        (SRUN | {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}, ProcessPlace(9, 1, 16, True)),
        (SBATCH, None),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    ],
)
def test_the_launchers_variables_tell_the_place(environ, place):
    assert launched_place(environ) == place


@pytest.mark.parametrize("environ", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "many"}, {**SRUN, "SLURM_LOCALID": ""}])
def test_half_a_launchers_variables_are_refused(environ):
    with pytest.raises(UserError, match="torchrun, accelerate launch or srun"):
        launched_place(environ)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(launchers, "POLL_S", 0.01)
    monkeypatch.setattr(launchers, "BEAT_S", 0.05)
    monkeypatch.setattr(launchers, "MEET_WITHIN_S", 5.0)


def in_thread(function):
    """Run a function in a thread; the list holds its result or error once the thread has ended."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def follow(rank, run_dir, world_size=2, late_s=0.0):
    def wait():
        time.sleep(late_s)
        with joined(ProcessPlace(rank, rank, world_size, False), run_dir) as member:
            return member.wait_for_call()

    return in_thread(wait)


def lead(run_dir, world_size=2):
    return joined(ProcessPlace(0, 0, world_size, False), run_dir)


def test_all_meet_and_hear_the_call(tmp_path):
    threads = [follow(rank, tmp_path, 3) for rank in (1, 2)]
    with lead(tmp_path, 3) as leader:
        assert leader.is_one_machine
        assert leader.local_world_size == 3
        leader.call(Path("x/.train.job.json"), ("127.0.0.1", 1234))
        for thread, _ in threads:
            thread.join()
    call = {"job": ".train.job.json", "master": ["127.0.0.1", 1234], "local_world_sizes": [3, 3, 3]}
    assert [outcome for _, outcome in threads] == [[call], [call]]


@pytest.mark.parametrize("leader_is_late", [True, False])
def test_files_of_an_earlier_launch_mislead_nobody(tmp_path, leader_is_late):
    meeting = tmp_path / ".ranks"
    meeting.mkdir()
    stale = {
        "nonce": "old",
        "beat": 1,
        "host": "h",
        "failure": "old",
        "members": {"1": "older"},
        "call": {"job": "old"},
    }
    for rank in (0, 1):
        (meeting / f"rank-{rank}.json").write_text(json.dumps(stale))
    thread, outcome = follow(1, tmp_path, late_s=0.0 if leader_is_late else 0.3)
    time.sleep(0.3 if leader_is_late else 0.0)
    with lead(tmp_path) as leader:
        leader.call(Path(".new.json"), None)
        thread.join()
    assert outcome[0]["job"] == ".new.json"


def test_a_leader_without_work_for_them_lets_the_others_go(tmp_path):
    thread, outcome = follow(1, tmp_path)
    with lead(tmp_path):
        pass
    thread.join()
    assert outcome == [None]


def test_a_leader_that_fails_says_why(tmp_path):
    thread, outcome = follow(1, tmp_path)
    with pytest.raises(UserError), lead(tmp_path):
        raise UserError("the filter is not complete")
    thread.join()
    assert isinstance(outcome[0], StageError)
    assert str(outcome[0]) == "rank 0 stopped: the filter is not complete"


def test_a_follower_that_fails_is_noticed(tmp_path):
    def fail():
        with joined(ProcessPlace(1, 1, 2, False), tmp_path) as member:
            member.wait_for_call()
            raise StageError("no memory")

    thread, _ = in_thread(fail)
    with lead(tmp_path) as leader:
        leader.check()
        leader.call(Path("job"), None)
        thread.join()
        with pytest.raises(StageError, match="rank 1 failed: no memory"):
            leader.check()


def test_who_falls_silent_is_taken_for_dead(tmp_path, monkeypatch):
    script = (
        "import sys, time; from pathlib import Path; from distill.execution import launchers; launchers.BEAT_S = 0.05\n"
        "with launchers.joined(launchers.ProcessPlace(1, 1, 2, False), Path(sys.argv[1])) as member:\n"
        "    member.wait_for_call(); print('called', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with lead(tmp_path) as leader:
        leader.call(Path("job"), None)
        assert other.stdout.readline() == "called\n"
        monkeypatch.setattr(launchers, "SILENT_AFTER_S", 1.0)
        leader.check()
        time.sleep(1.2)
        leader.check()
        other.kill()
        other.wait()
        time.sleep(0.2)
        leader.check()
        time.sleep(1.2)
        with pytest.raises(StageError, match=rf"rank 1 on {socket.gethostname()} has not responded"):
            leader.check()


def test_those_who_wait_in_vain_are_told_what_to_look_at(tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "MEET_WITHIN_S", 0.2)
    with (
        pytest.raises(StageError, match=r"2 of 3 processes \(rank 1, 2\) .* must share this folder"),
        lead(tmp_path, 3),
    ):
        pass
    thread, outcome = follow(1, tmp_path / "elsewhere")
    thread.join()
    assert "rank 0 has not appeared" in str(outcome[0])


def test_without_a_launch_nobody_is_waited_for(tmp_path):
    with joined(None, tmp_path) as member:
        assert member is None
    assert list(tmp_path.iterdir()) == []


def test_a_followers_own_end_does_not_count_as_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, "SILENT_AFTER_S", 0.1)
    thread, _ = follow(1, tmp_path)
    with lead(tmp_path) as leader:
        leader.call(Path("job"), None)
        thread.join()
        leader.check()
        time.sleep(0.3)
        leader.check()

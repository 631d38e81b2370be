"""Threads follow what other processes take of the cores."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.execution import cpu_load
from distill.execution.cpu_load import LoadFollower, threads_beside


@pytest.mark.parametrize(
    ("others", "num_cores", "num"),
    [(0.0, 2, 2), (0.3, 2, 2), (1.0, 2, 1), (1.4, 2, 2), (4.0, 16, 12), (15.5, 16, 16), (1.0, 1, 1)],
)
def test_a_thread_for_each_core_that_is_left(others, num_cores, num):
    assert threads_beside(others, num_cores, num_cores) == num


@given(st.floats(0, 300), st.integers(1, 256), st.integers(1, 256))
def test_there_is_always_a_thread_and_never_more_than_wanted(others, num_cores, most):
    assert 1 <= threads_beside(others, num_cores, most) <= most


class Harness:
    """A follower whose clock and neighbours are played."""

    def __init__(self, monkeypatch, num_cores=2, max_threads=2):
        self.now = self.used = 0.0
        self.threads = []
        monkeypatch.setattr(cpu_load.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpu_load.os, "sched_getaffinity", lambda pid: set(range(num_cores)))
        monkeypatch.setattr(LoadFollower, "_used_by_others_s", lambda follower: self.used)
        self.follower = LoadFollower(max_threads)
        self.follower._set_num_threads = self.threads.append

    def second(self, others):
        self.now += 1.0
        self.used += others
        self.follower.follow()


@pytest.fixture
def harness(monkeypatch):
    made = Harness(monkeypatch)
    yield made
    made.follower.close()


def test_beside_a_busy_neighbour_fewer_threads_compute_and_none_waits_awake(harness):
    harness.second(0.7)
    assert harness.follower.waits_asleep
    harness.second(1.0)
    assert harness.follower.num_threads == 1
    assert harness.threads == [1]


def test_when_the_neighbour_leaves_all_is_as_before(harness):
    for others in (0.7, 1.0, 1.0, 0.0):
        harness.second(others)
    assert not harness.follower.waits_asleep
    assert harness.follower.num_threads == 2


def test_beside_more_neighbours_than_cores_all_threads_compute(harness):
    for others in (1.2, 1.4, 1.4):
        harness.second(others)
    assert harness.follower.num_threads == 2
    assert harness.follower.waits_asleep


def test_a_light_neighbour_takes_no_thread_away(harness):
    harness.second(0.3)
    harness.second(0.3)
    assert (harness.follower.waits_asleep, harness.follower.num_threads) == (True, 2)


def test_on_idle_cores_nothing_changes(harness):
    for _ in range(5):
        harness.second(0.05)
    assert (harness.follower.waits_asleep, harness.threads) == (False, [])


def test_without_a_number_of_threads_it_is_left_alone(monkeypatch):
    harness = Harness(monkeypatch, max_threads=None)
    harness.second(0.7)
    harness.second(1.0)
    assert harness.follower.waits_asleep
    assert harness.threads == []
    harness.follower.close()


def test_it_looks_no_more_often_than_it_says(harness):
    harness.now += cpu_load.LOOK_EVERY_S / 2
    harness.used += 5.0
    harness.follower.follow()
    assert not harness.follower.waits_asleep


def test_a_real_neighbour_is_seen():
    follower = LoadFollower()
    before = follower._used_by_others_s()
    busy = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-S", "-c", busy], check=True)
    assert follower._used_by_others_s() - before > 0.4


def test_a_team_that_sleeps_makes_all_threads_wait_asleep_and_its_end_undoes_it():
    """Two threads that share small products use less of the cores when they wait asleep."""
    script = """
import time, torch
from distill.execution.cpu_load import _IdleTeam
wide = torch.ones(1 << 17)
def cpu_share():
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() - began < 1.0:
        wide.add_(1.0)
        time.sleep(0.002)
    return (time.process_time() - used) / (time.monotonic() - began)
awake = cpu_share()
team = _IdleTeam()
asleep = cpu_share()
team.close()
print(torch.get_num_threads(), awake, asleep, cpu_share())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    num_threads, awake, asleep, again = map(float, done.stdout.split())
    if num_threads < 2:
        pytest.skip("one thread waits for nobody")
    assert asleep < awake
    assert asleep < again

"""Ctrl-C and SIGTERM while samples are in flight: the deadline holds, whatever the engine is doing."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from distill.core.records import Problem
from distill.core.stop_signals import Stopping
from distill.engines.base import Completion
from distill.execution.jobs import run_job
from distill.grading.background import BackgroundGrader
from distill.sampling.job import SamplingJob
from distill.sampling.loop import make_trace
from distill.storage.files import write_jsonl
from distill.storage.ledger import index_ledger

LONG_S = 60.0


def signal_after(seconds, *signums):
    """Signals to this process, one after so many seconds and each further one so much later."""

    def send():
        for signum in signums:
            time.sleep(seconds)
            os.kill(os.getpid(), signum)

    threading.Thread(target=send, daemon=True).start()


def break_off(stop):
    with pytest.raises(KeyboardInterrupt), stop.interruptible():
        time.sleep(LONG_S)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_takes_too_long_is_broken_off_at_the_deadline_and_the_signal_is_answered_at_once(signum):
    before = signal.getsignal(signum)
    said_at = []
    with Stopping(0.6, lambda: said_at.append(time.monotonic())) as stop:
        assert not stop.is_asked
        began = time.monotonic()
        signal_after(0.2, signum)
        break_off(stop)
        ended = time.monotonic()
        assert stop.is_asked
        assert stop.is_over
    assert 0.7 < ended - began < 2.0
    assert said_at[0] - began < 0.6
    assert len(said_at) == 1
    assert signal.getsignal(signum) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_only_what_may_be_broken_off_is():
    with Stopping(0.05, lambda: None) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # writing to the ledger, say
        assert stop.is_over
        break_off(stop)


def test_what_cleans_up_after_being_broken_off_is_left_alone():
    cleaned = []

    def step():
        try:
            time.sleep(LONG_S)
        finally:
            time.sleep(0.4)
            cleaned.append(True)

    with Stopping(0.05, lambda: None) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.interruptible():
            step()
    assert cleaned


def test_a_second_signal_breaks_off_at_once():
    with Stopping(LONG_S, lambda: None) as stop:
        began = time.monotonic()
        signal_after(0.1, signal.SIGINT, signal.SIGINT)
        break_off(stop)
    assert time.monotonic() - began < 5


def test_nothing_is_said_without_a_signal():
    said = []
    with Stopping(1.0, lambda: said.append(True)) as stop, stop.interruptible():
        pass
    assert not said


def job(tmp_path, model_name="slow", **compute):
    problems = [Problem(f"p{i}", [{"role": "user", "content": f"Say {i}"}], "1", "math", "test") for i in range(8)]
    write_jsonl(tmp_path / "problems.jsonl", (problem.to_json() for problem in problems))
    return SamplingJob(
        title="test",
        model_name=model_name,
        model_path="nowhere",
        model_revision="r",
        chat_format=None,
        problems=str(tmp_path / "problems.jsonl"),
        ledger=str(tmp_path / "ledger.jsonl"),
        samples_per_problem=1,
        seed=1,
        sampling={"max_tokens": 4},
        compute={"engine": "transformers", **compute},
    )


# A module of its own, which the job's process and its replicas import (`sitecustomize`).
SLOW_ENGINE = f"""
import hashlib, os, time
from pathlib import Path

import distill.engines.start
from distill.engines.base import Completion

FOLDER = Path(os.environ["SLOW_ENGINE"])


class SlowEngine:
    # Answers half of what it is asked; then one step takes {LONG_S:.0f} s.

    settings = {{"name": "slow"}}
    max_in_flight = 2
    num_tokens_in_flight = 0

    def __init__(self, spec):
        self.way = spec.model_name
        self.waiting, self.num_steps = [], 0

    @property
    def num_in_flight(self):
        return len(self.waiting)

    def submit(self, request):
        self.waiting.append(request)

    def step(self):
        self.num_steps += 1
        if self.num_steps <= 2:
            return [Completion(self.waiting.pop(0).key, "5", "stop", 10, 1)]
        time.sleep(0.5)
        (FOLDER / f"step{{os.getpid()}}").touch()
        if self.way == "slow in C":  # where no signal is heard
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000_000)
        time.sleep({LONG_S})

    def close(self):
        (FOLDER / "closed").touch()


def start(spec):
    return SlowEngine(spec)


distill.engines.start.ENGINES["transformers"] = start
"""


def interrupted(job, tmp_path, num_stuck):
    """Ctrl-C once so many engines are in a long step; the seconds that the job then took to end."""
    sent = []

    def send():
        while len(list(tmp_path.glob("step*"))) < num_stuck:
            time.sleep(0.05)
        time.sleep(0.3)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_job("sample", job, tmp_path, drain_s=job.compute["drain_s"])
    return time.monotonic() - sent[0]


@pytest.fixture
def slow_engine(tmp_path, monkeypatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "slow_engine.py").write_text(SLOW_ENGINE)
    (folder / "sitecustomize.py").write_text("import slow_engine\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("SLOW_ENGINE", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("DISTILL_QUIET", "")


def alive(tmp_path):
    """Of the processes that were in a long step, those that still run."""
    stats = [Path("/proc", file.name.removeprefix("step"), "stat") for file in tmp_path.glob("step*")]
    return [stat for stat in stats if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"]


def test_the_deadline_holds_in_the_middle_of_a_step_and_what_has_finished_is_kept(tmp_path, slow_engine, capfd):
    took_s = interrupted(job(tmp_path, drain_s=1.0), tmp_path, num_stuck=1)
    assert 0.9 < took_s < 3.5
    assert len(index_ledger(tmp_path / "ledger.jsonl").places) == 2
    assert "Stopping: up to 1 s for the 2 samples in flight to finish" in capfd.readouterr().err
    assert (tmp_path / "closed").exists()
    assert not (tmp_path / "live.json").exists()
    assert not alive(tmp_path)


def test_the_deadline_holds_where_the_engine_hears_no_signal(tmp_path, slow_engine, monkeypatch):
    monkeypatch.setattr("distill.execution.process_group.STOP_WITHIN_S", 1.0)
    took_s = interrupted(job(tmp_path, "slow in C", drain_s=0.5), tmp_path, num_stuck=1)
    assert 1.4 < took_s < 4.0
    assert len(index_ledger(tmp_path / "ledger.jsonl").places) == 2
    assert not alive(tmp_path)


@pytest.mark.parametrize("way", ["slow", "slow in C"])
def test_the_deadline_holds_for_replicas_in_the_middle_of_a_step(tmp_path, slow_engine, way):
    took_s = interrupted(job(tmp_path, way, drain_s=1.0, replicas=2), tmp_path, num_stuck=2)
    assert 0.9 < took_s < 3.5
    assert len(index_ledger(tmp_path / "ledger.jsonl").places) == 4
    assert not alive(tmp_path)


def test_nobody_waits_for_grades_once_sampling_is_broken_off(monkeypatch):
    class SlowPool:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def map(self, function, arguments):
            time.sleep(0.3)
            return []

    monkeypatch.setattr("distill.grading.background.GradingPool", SlowPool)
    problem = Problem("p", [{"role": "user", "content": "?"}], "x^2+1", "math", "test")

    def break_off():
        with BackgroundGrader(timeout_s=20.0) as grader:
            for i in range(50):
                grader.submit(problem, _trace(i))
            assert grader.num_waiting == 50
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert time.monotonic() - began < 2.0


def _trace(index):
    completion = Completion(("p", index), "\\boxed{1+x^2}", "stop", 1, 1)
    return make_trace(SamplingJob("t", "m", "m", "r", None, "p", "l", 1, 1, {}, {}), completion)

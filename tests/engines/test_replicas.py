"""Copies of an engine in real processes: who answers what, and what becomes of a copy that dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distill.engines.base import EngineSpec, Request
from distill.engines.replicas import ReplicatedEngine, find_places
from distill.engines.start import start_engine
from distill.errors import ModelError, StageError
from distill.recipe.sampling import Sampling, SamplingCompute

WITHIN_S = 60.0

# A module of its own: a spawned process cannot import this file, as pytest does not put it on sys.path.
FAKE = """
import os, signal, time
from pathlib import Path

from distill.engines.base import Completion
from distill.errors import ModelError


class Echo:
    # Answers the last request first, with the name of the device that it runs on. `extra_body` says what goes wrong.

    def __init__(self, spec):
        self.device = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.options = spec.extra_body
        self.max_in_flight = self.options.get("places", 2)
        self.settings = {
            "name": "echo",
            "device": self.device,
            "memory_share": spec.memory_share,
            "copies": spec.compute.replicas,
        }
        self.waiting = []

    @property
    def num_in_flight(self):
        return len(self.waiting)

    @property
    def num_tokens_in_flight(self):
        each = self.options.get("tokens_each", 0)
        return None if each is None else each * len(self.waiting)

    def submit(self, request):
        if "too long" in request.messages[0]["content"]:
            return Completion(request.key, "", "error", 9, 0, error="too long")
        self.waiting.append(request)

    def step(self):
        go = self.options.get("go")
        if go and self.device in self.options["held"] and not Path(go).exists():
            time.sleep(0.01)
            return []
        request = self.waiting.pop()
        words = request.messages[0]["content"]
        if "die" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "how" in words:
            return [Completion(request.key, repr(request.sampling), "stop", 1, 1)]
        return [Completion(request.key, self.device + " " * self.options.get("padding", 0), "stop", 1, 1)]

    def close(self):
        self.waiting.clear()


def start(spec):
    if "fail" in spec.extra_body:
        raise ModelError(spec.extra_body["fail"])
    if "crash" in spec.extra_body:
        raise RuntimeError("out of luck")
    return Echo(spec)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    (tmp_path / "echo_engine.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "echo_engine", raising=False)
    import echo_engine

    return echo_engine.start


@pytest.fixture
def replicas(start, monkeypatch):
    """Starts so many copies of the fake engine; each believes that it has a GPU."""
    engines = []

    def make(num, **options):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num))))
        engines.append(ReplicatedEngine(spec(num, **options), start))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
    assert not multiprocessing.active_children()


def spec(num, **options):
    return EngineSpec(
        model_path=Path("none"),
        model_name="echo",
        sampling=Sampling(),
        compute=SamplingCompute(replicas=num),
        chat_format=None,
        longest_messages=[],
        extra_body=options,
    )


def request(name, content="hello"):
    return Request((name, 0), [{"role": "user", "content": content}], 0)


def submit_all(engine, requests):
    for one in requests:
        assert engine.submit(one) is None


def step_until(engine, is_done, finished=None):
    """Steps until `is_done(finished)`; what finished, by the request's name, each once."""
    finished = {} if finished is None else finished
    deadline = time.monotonic() + WITHIN_S
    while not is_done(finished):
        assert time.monotonic() < deadline, f"only {sorted(finished)} finished"
        for completion in engine.step():
            assert completion.key[0] not in finished
            finished[completion.key[0]] = completion
    return finished


def drain(engine, finished=None):
    return step_until(engine, lambda _: engine.num_in_flight == 0, finished)


def test_a_requests_own_sampling_reaches_the_replica(replicas):
    engine, own = replicas(2), Sampling(temperature=0.1, top_p=0.5, top_k=3, max_tokens=7)
    submit_all(engine, [replace(request("own", "how"), sampling=own), request("none", "how")])
    finished = step_until(engine, lambda finished: len(finished) == 2)
    assert {name: completion.text for name, completion in finished.items()} == {"own": repr(own), "none": "None"}


def test_each_request_is_answered_once_and_all_copies_take_part(replicas):
    engine = replicas(3)
    assert engine.max_in_flight == 6
    submit_all(engine, [request(f"p{i}") for i in range(30)])
    assert engine.num_in_flight == 30
    answers = drain(engine)
    assert sorted(answers) == sorted(f"p{i}" for i in range(30))
    assert {completion.text for completion in answers.values()} == {"0", "1", "2"}


def test_settings_tell_the_devices_and_the_share_of_the_memory(replicas):
    engine = replicas(2)
    assert engine.settings["name"] == "echo"
    assert engine.settings["replicas"] == 2
    assert engine.settings["devices"] == ["GPU 0", "GPU 1"]
    assert engine.settings["copies"] == 1
    assert engine.settings["memory_share"] == 0.5


def test_a_copy_that_stands_still_holds_up_only_what_it_has(replicas, tmp_path):
    go = tmp_path / "go"
    engine = replicas(3, go=str(go), held=["1"])
    submit_all(engine, [request(f"p{i}") for i in range(20)])
    answers = step_until(engine, lambda finished: len(finished) == 18)
    assert {completion.text for completion in answers.values()} == {"0", "2"}
    go.touch()
    late = drain(engine, answers).keys()
    assert len(late) == 20
    assert sum(completion.text == "1" for completion in answers.values()) == 2


def test_tokens_in_flight_are_those_of_all_copies_and_go_with_what_has_finished(replicas, tmp_path):
    go = tmp_path / "go"
    engine = replicas(2, go=str(go), held=["0", "1"], tokens_each=7)
    assert engine.num_tokens_in_flight == 0
    submit_all(engine, [request(f"p{i}") for i in range(4)])
    assert not step_until(engine, lambda _: engine.num_tokens_in_flight == 28)
    go.touch()
    step_until(engine, lambda finished: len(finished) == 4)
    assert engine.num_tokens_in_flight == 0


def test_an_engine_that_cannot_tell_what_is_in_flight_says_so_through_copies(replicas, tmp_path):
    engine = replicas(1, go=str(tmp_path / "never"), held=["0"], tokens_each=None)
    submit_all(engine, [request("p")])
    step_until(engine, lambda _: engine.num_tokens_in_flight is None)
    assert engine.num_in_flight == 1


def test_a_refusal_comes_back_as_an_error(replicas):
    engine = replicas(2)
    submit_all(engine, [request("long", "too long"), request("short")])
    answers = drain(engine)
    assert (answers["long"].finish_reason, answers["long"].error) == ("error", "too long")
    assert answers["short"].finish_reason == "stop"


def test_long_prompts_and_answers_do_not_block_each_other(replicas):
    engine = replicas(2, places=8, padding=300_000)
    submit_all(engine, [request(f"p{i}", "x" * 300_000) for i in range(40)])
    assert len(drain(engine)) == 40


def test_what_a_killed_copy_had_is_asked_again(replicas, tmp_path, capsys):
    go = tmp_path / "go"
    engine = replicas(3, go=str(go), held=["0", "1", "2"])
    submit_all(engine, [request(f"p{i}") for i in range(9)])
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(0.2)
    engine.step()
    assert engine.num_in_flight == 9
    go.touch()
    answers = drain(engine)
    assert sorted(answers) == [f"p{i}" for i in range(9)]
    assert {completion.finish_reason for completion in answers.values()} == {"stop"}
    assert "died (SIGKILL" in (said := capsys.readouterr().err)
    assert "2 samples are retried, 0 given up; it is restarted" in said


def test_a_copy_that_was_started_again_works(replicas):
    engine = replicas(2)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    submit_all(engine, [request(f"p{i}") for i in range(8)])
    assert len(drain(engine)) == 8
    assert engine.max_in_flight > 0


def test_a_request_that_kills_every_copy_is_given_up_and_only_that_one(replicas, capsys):
    engine = replicas(2, places=4)
    submit_all(engine, [request("poison", "die"), *(request(f"p{i}") for i in range(12))])
    answers = drain(engine)
    assert answers["poison"].finish_reason == "error"
    assert "in flight when 3 replicas died" in answers["poison"].error
    assert [answers[f"p{i}"].finish_reason for i in range(12)] == ["stop"] * 12
    assert "1 given up" in capsys.readouterr().err


def test_when_all_copies_keep_dying_sampling_stops(replicas, capsys):
    engine = replicas(2)
    submit_all(engine, [request(f"p{i}", "die") for i in range(20)])
    with pytest.raises(StageError, match=r"every replica died \(the last one: SIGKILL.*the same command resumes it"):
        drain(engine)
    assert capsys.readouterr().err.count("it is not restarted") == 2


def test_an_error_while_starting_is_the_same_in_the_parent(replicas):
    with pytest.raises(ModelError, match="no such weights"):
        replicas(2, fail="no such weights")
    assert not multiprocessing.active_children()


def test_a_crash_while_starting_names_the_exit_code(replicas):
    with pytest.raises(StageError, match=r"GPU 0\) died while starting \(exit code 1\)"):
        replicas(2, crash=True)
    assert not multiprocessing.active_children()


def test_close_ends_copies_that_are_busy(replicas, tmp_path):
    engine = replicas(2, go=str(tmp_path / "never"), held=["0", "1"])
    submit_all(engine, [request(f"p{i}") for i in range(4)])
    started = time.monotonic()
    engine.close()
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 5.0
    assert engine.num_in_flight == 0


def test_copies_end_with_their_parent(start, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, sys, time\n"
        "from pathlib import Path\n"
        "from distill.engines.base import EngineSpec\n"
        "from distill.engines.replicas import ReplicatedEngine\n"
        "from distill.recipe.sampling import Sampling, SamplingCompute\n"
        "import echo_engine\n"
        "if __name__ == '__main__':\n"
        "    spec = EngineSpec(Path('none'), 'echo', Sampling(), SamplingCompute(replicas=2), None, [])\n"
        "    engine = ReplicatedEngine(spec, echo_engine.start)\n"
        "    print(*(process.pid for process in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + WITHIN_S
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_each_copy_gets_gpus_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    places = find_places(SamplingCompute(replicas=2, tensor_parallel=2))
    assert [place.environment for place in places] == [{"CUDA_VISIBLE_DEVICES": g} for g in ("4,5", "6,7")]


def test_too_few_gpus_are_refused_with_both_numbers(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(ModelError, match=r"need 4 GPUs; there are 3 \(0, 1, 2\)"):
        find_places(SamplingCompute(replicas=2, tensor_parallel=2))


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 8, 9, 10, 11})


@pytest.mark.parametrize(
    ("compute", "names"),
    [
        ({"replicas": 2}, ["cores 0-3", "cores 8-11"]),
        ({"replicas": 3}, ["cores 0-1", "cores 2-3,8", "cores 9-11"]),
        ({"replicas": 2, "cpu_threads": 1}, ["cores 0", "cores 8"]),
    ],
)
def test_without_a_gpu_the_cores_are_shared_out(eight_cores, compute, names):
    places = find_places(SamplingCompute(**compute))
    assert [place.name for place in places] == names
    assert len({core for place in places for core in place.cores}) == sum(len(place.cores) for place in places)


@pytest.mark.parametrize("compute", [{"replicas": 9}, {"replicas": 3, "cpu_threads": 3}])
def test_too_few_cores_are_refused(eight_cores, compute):
    with pytest.raises(ModelError, match=r"need 9 cores .* there are 8"):
        find_places(SamplingCompute(**compute))


@pytest.mark.slow
def test_two_real_engines_share_the_cores(tiny_llama):
    """The engine of the recipe's own choice, started by name in each process."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    messages = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(12)]
    engine = start_engine(
        EngineSpec(
            model_path=tiny_llama,
            model_name="tiny",
            sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=8),
            compute=SamplingCompute(engine="transformers", replicas=2, max_num_seqs=2, dtype="float32"),
            chat_format=None,
            longest_messages=messages,
        )
    )
    try:
        assert engine.settings["replicas"] == 2
        assert len(set(engine.settings["devices"])) == 2
        submit_all(engine, [Request((f"p{i}", 0), m, 0) for i, m in enumerate(messages)])
        answers = drain(engine)
    finally:
        engine.close()
    assert sorted(answers) == sorted(f"p{i}" for i in range(12))
    assert all(completion.num_completion_tokens > 0 for completion in answers.values())

"""A task in an environment of its own: its command, what it may see, and that nothing is left running."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.errors import ExchangeError, StageError
from distill.exchange.child_server import answers, child_server, free_port
from distill.exchange.inspect_task import (
    InspectRun,
    absolute_python,
    check_inspect,
    eval_command,
    run_inspect_task,
    task_environment,
    task_of,
)
from distill.exchange.model_server import Endpoint

HERE = Path(__file__).parent
SERVER = HERE / "openai_server.py"
KEY = "key-of-the-server"

# Stands for an environment's Python: tells its version, or what it was called with, and "writes" a log.
FAKE = """#!{python}
import json, os, pathlib, shutil, subprocess, sys, time
if sys.argv[1] == "-c":
    sys.stdout.write({version!r})
    sys.exit({probe_code})
told = {{"program": sys.argv[0], "arguments": sys.argv[1:], "environment": dict(os.environ)}}
told |= {{"folder": os.getcwd(), "files": os.listdir()}}
pathlib.Path({told!r}).write_text(json.dumps(told))
logs = sys.argv[sys.argv.index("--log-dir") + 1]
{then}
"""
COPY = "shutil.copy({log!r}, logs)"


@pytest.fixture
def fake(tmp_path):
    """A function that makes such a Python; `then` is what its task does."""

    def make(then=None, version="0.3.285", probe_code=0):
        then = COPY.format(log=str(HERE / "golden" / "sums.json")) if then is None else then
        text = FAKE.format(
            python=sys.executable, version=version, probe_code=probe_code, told=str(tmp_path / "told"), then=then
        )
        path = tmp_path / "python"
        path.write_text(text)
        path.chmod(0o755)
        return path

    return make


@contextlib.contextmanager
def served(tmp_path):
    """A real server in a child process, as a model's."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, str(SERVER), str(port)]
    log = tmp_path / "server.log"
    with child_server(command, os.environ, log, lambda: answers(f"{url}/models", KEY), 30.0):
        yield Endpoint(url, "student", KEY)


def told(tmp_path):
    return json.loads((tmp_path / "told").read_text())


def test_the_log_of_a_task_is_taken_in(fake, tmp_path):
    run = InspectRun("inspect_evals/gsm8k", fake(), limit=5, temperature=0.6)
    log = run_inspect_task(run, served(tmp_path), tmp_path / "out")
    assert (log.task, len(log.traces)) == ("sums", 4)
    arguments = told(tmp_path)["arguments"]
    assert arguments[:4] == ["-m", "inspect_ai", "eval", "inspect_evals/gsm8k"]
    assert arguments[arguments.index("--model") + 1] == "openai-api/distill/student"
    assert arguments[arguments.index("--limit") + 1] == "5"
    assert "--epochs" not in arguments
    assert KEY not in arguments


def test_a_task_sees_no_secret(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("SOMETHING_ELSE", "canary")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:canary@proxy:1")
    monkeypatch.setenv("HF_HOME", "/somewhere/cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-canary\n")
    run_inspect_task(InspectRun("gsm8k", fake()), served(tmp_path), tmp_path / "out")
    seen = told(tmp_path)
    assert "canary" not in json.dumps(seen)
    assert seen["environment"]["DISTILL_API_KEY"] == KEY
    assert seen["environment"]["HF_HOME"] == "/somewhere/cache"
    assert seen["files"] == []
    assert tmp_path not in Path(seen["folder"]).parents  # where Inspect would look for a .env
    assert not Path(seen["folder"]).exists()


def test_a_proxy_without_a_password_is_passed_on(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    environment = task_environment({"DISTILL_API_KEY": "key"})
    assert environment["HTTPS_PROXY"] == "http://proxy:1"
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert environment["DISTILL_API_KEY"] == "key"


def test_a_file_with_tasks_is_found_from_elsewhere(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    run_inspect_task(InspectRun("mine.py@sums", fake()), served(tmp_path), tmp_path / "out")
    assert told(tmp_path)["arguments"][3] == f"{tmp_path / 'mine.py'}@sums"
    with pytest.raises(ExchangeError, match="there is no such file"):
        run_inspect_task(InspectRun("other.py", fake()), served(tmp_path), tmp_path / "out")


def test_a_python_is_found_from_elsewhere_and_keeps_its_links(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(fake())
    run_inspect_task(InspectRun("gsm8k", Path("bin/python")), served(tmp_path), tmp_path / "out")
    assert told(tmp_path)["program"] == str(tmp_path / "bin" / "python")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir("/")
    assert absolute_python(Path("python")) == tmp_path / "bin" / "python"


def test_a_task_that_fails_without_a_log(fake, tmp_path):
    run = InspectRun("gsm8k", fake("sys.exit('No such task: gsm8k')"))
    with pytest.raises(StageError, match=r"wrote no log of gsm8k \(exit code 1\)(.|\n)*No such task: gsm8k"):
        run_inspect_task(run, served(tmp_path), tmp_path / "out")


def test_a_log_from_before_is_not_taken(fake, tmp_path):
    folder = tmp_path / "out"
    run_inspect_task(InspectRun("gsm8k", fake()), served(tmp_path), folder)
    with pytest.raises(StageError, match="wrote no log"):
        run_inspect_task(InspectRun("gsm8k", fake("pass")), served(tmp_path), folder)


def test_several_tasks_have_no_score_in_common(fake, tmp_path):
    then = "".join(f"shutil.copy({str(HERE / 'golden' / name)!r}, logs);" for name in ("sums.json", "colours.json"))
    with pytest.raises(ExchangeError, match="2 tasks ran"):
        run_inspect_task(InspectRun("mine", fake(then)), served(tmp_path), tmp_path / "out")


def test_a_task_without_any_answer_failed(fake, tmp_path):
    log = json.loads((HERE / "golden" / "sums.json").read_text())
    for sample in log["samples"]:
        sample["error"] = {"message": "connection refused"}
    (tmp_path / "failed.json").write_text(json.dumps(log))
    with pytest.raises(StageError, match=r"no sample was answered\. .*connection refused"):
        run_inspect_task(
            InspectRun("mine", fake(COPY.format(log=str(tmp_path / "failed.json")))), served(tmp_path), tmp_path / "out"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probe_code": 1}, "not installed there"),
        ({"version": "0.3.12"}, "has Inspect 0.3.12"),
        ({"version": "?"}, "not in"),
    ],
)
def test_an_environment_without_inspect_is_told_before_a_server_starts(fake, tmp_path, options, words):
    @contextlib.contextmanager
    def unused():
        pytest.fail("the server was started")
        yield

    with pytest.raises(ExchangeError, match=words):
        run_inspect_task(InspectRun("gsm8k", fake(**options)), unused(), tmp_path / "out")


def test_a_python_that_is_none(tmp_path):
    with pytest.raises(ExchangeError, match="cannot be run"):
        check_inspect(tmp_path / "bin" / "python")


@pytest.mark.parametrize("via", ["gsm8k", "inspect:", "inspect:--model=x", "inspect: x", "inspect:a\nb", "lm-eval:x"])
def test_what_names_no_task(via):
    with pytest.raises(ExchangeError, match="write inspect:TASK"):
        task_of(via)


def test_what_names_a_task():
    assert task_of("inspect:inspect_evals/gsm8k") == "inspect_evals/gsm8k"


def test_only_what_is_asked_for_is_set(tmp_path):
    endpoint = Endpoint("http://127.0.0.1:1/v1", "m", "k")
    command = eval_command(InspectRun("t", Path("p"), samples_per_problem=4, max_tokens=9), "t", endpoint, tmp_path)
    assert command[command.index("--epochs") + 1] == "4"
    assert command[command.index("--max-tokens") + 1] == "9"
    assert "--temperature" not in command
    assert "--no-fail-on-error" in command


def group_of(pid):
    """The processes of a group that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == pid and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def is_alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


def gone(pid, within_s=20.0):
    deadline = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


def group_gone(pid, within_s=20.0):
    """Wait for a killed group: a process that has been sent SIGKILL is alive until the kernel next runs it."""
    deadline = time.monotonic() + within_s
    while group_of(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not group_of(pid)


PARENT = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_a_server_and_its_children_end_with_the_block(tmp_path, error):
    log = tmp_path / "server.log"
    expected = contextlib.nullcontext() if error is None else pytest.raises(error)
    with expected, child_server([sys.executable, "-c", PARENT], os.environ, log, lambda: bool(log.read_text())) as one:
        inner = int(log.read_text())
        assert is_alive(inner)
        if error is not None:
            raise error
    assert gone(one.pid)
    assert gone(inner)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.exchange.child_server.STOP_WITHIN_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    log = tmp_path / "server.log"
    with child_server([sys.executable, "-c", deaf], os.environ, log, lambda: bool(log.read_text())) as process:
        assert len(group_of(process.pid)) == 2  # the guard and the server
    assert process.returncode == -signal.SIGKILL
    assert group_gone(process.pid)


def test_a_server_that_dies_or_never_answers(tmp_path):
    log = tmp_path / "server.log"
    with (
        pytest.raises(StageError, match=r"died before it was ready \(exit code 1\)(.|\n)*no such option"),
        child_server([sys.executable, "-c", "exit('no such option')"], os.environ, log, lambda: False),
    ):
        pass
    with (
        pytest.raises(StageError, match="not ready after 0 s"),
        child_server(["sleep", "600"], os.environ, log, lambda: False, timeout_s=0.3),
    ):
        pass


def test_a_task_that_is_interrupted_ends_with_what_it_started(fake, tmp_path):
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    then = "print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    before = signal.signal(signal.SIGALRM, interrupt)
    log, out = tmp_path / "out" / "inspect.log", tmp_path / "out"

    @contextlib.contextmanager
    def interrupted():
        with served(tmp_path) as endpoint:
            signal.setitimer(signal.ITIMER_REAL, 2.0)
            yield endpoint

    try:
        with pytest.raises(KeyboardInterrupt):
            run_inspect_task(InspectRun("gsm8k", fake(then)), interrupted(), out)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert gone(int(log.read_text().split()[0]))


def test_the_task_and_the_server_die_with_a_killed_distill(fake, tmp_path):
    python = fake("subprocess.Popen(['sleep', '600']); print(os.getpid(), flush=True); time.sleep(600)")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import test_inspect_task as t; from distill.exchange.inspect_task import InspectRun, run_inspect_task\n"
        f"tmp = Path({str(tmp_path)!r})\n"
        f"run_inspect_task(InspectRun('gsm8k', Path({str(python)!r})), t.served(tmp), tmp / 'out')"
    )
    root = HERE.parents[1]
    ours = subprocess.Popen([sys.executable, "-c", script, str(HERE)], env={**os.environ, "PYTHONPATH": str(root)})
    log, deadline = tmp_path / "out" / "inspect.log", time.monotonic() + 60
    while not (log.exists() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.1)
    children = [int(one) for one in Path(f"/proc/{ours.pid}/task/{ours.pid}/children").read_text().split()]
    assert [len(group_of(pid)) for pid in children] == [2, 3]  # guard and server; guard, task and what it started
    ours.kill()
    ours.wait()
    deadline = time.monotonic() + 30
    while any(map(group_of, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(group_of, children))

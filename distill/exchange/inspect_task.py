"""Run a task of Inspect, such as those of inspect-evals, against a model of ours, and take its log in.

The task runs in an environment of the user's own (`--inspect-python`): distill neither installs nor imports Inspect. It
sees the model as an OpenAI-compatible server on loopback, through Inspect's provider `openai-api/distill/<name>`, which
reads `DISTILL_API_KEY` (`inspect_ai/model/_providers/openai_compatible.py`, 0.3.285).
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distill.errors import ExchangeError, StageError
from distill.exchange.child_server import end_group, end_of
from distill.exchange.guard import guarded
from distill.exchange.inspect_import import ImportedLog, read_inspect_log
from distill.exchange.model_server import Endpoint
from distill.execution.process_group import cause_of_death
from distill.storage.files import disk_errors

VIA = "inspect:"
SERVICE = "distill"
LOGS = "logs"
TASK_LOG = "inspect.log"
PROBE_TIMEOUT_S = 60.0
STOP_WITHIN_S = 10.0
MAX_CONNECTIONS = 64
"""Requests in flight."""
MIN_VERSION = (0, 3, 140)
"""The oldest version whose command line was tried."""
KEPT = (
    *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"),
    *("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_ENDPOINT", "NLTK_DATA"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
)
"""Variables that a task may see: where things are. None holds a secret."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
"""Passed on unless they hold a password."""

_PROBE = "from importlib.metadata import version; print(version('inspect-ai'))"
"""Importing Inspect itself takes seconds."""


@dataclass(frozen=True, slots=True)
class InspectRun:
    """What to run, and how."""

    task: str
    """`inspect_evals/gsm8k`, or `file.py` or `file.py@name` with tasks of one's own."""
    python: Path
    """Python of the environment in which Inspect and the task are installed."""
    samples_per_problem: int | None = None
    """Inspect's epochs. Default: the task's own."""
    limit: int | None = None
    """Number of items. Default: all."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """Longest answer. Default for these: the task's own, else the server's."""


def task_of(via: str) -> str:
    """Return the task that `--via inspect:TASK` names.

    Raises:
        ExchangeError: it names none.
    """
    task = via.removeprefix(VIA)
    if not via.startswith(VIA) or not re.fullmatch(r"[A-Za-z0-9_./~][^\x00-\x1f]{0,999}", task):
        raise ExchangeError(f"--via {via[:80]!r}: write inspect:TASK, for example --via inspect:inspect_evals/gsm8k.")
    return task


def check_inspect(python: Path) -> str:
    """Return the version of Inspect in an environment.

    Args:
        python: the environment's Python.

    Raises:
        ExchangeError: there is no such Python, or Inspect is not installed there or too old.
    """
    what = f"--inspect-python {python}"
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            env=task_environment({}),
        )
    except OSError as error:
        raise ExchangeError(
            f"{what}: cannot be run ({error.strerror}). Name the Python of a virtual environment."
        ) from None
    except subprocess.TimeoutExpired:
        raise ExchangeError(f"{what}: did not answer within {PROBE_TIMEOUT_S:.0f} s.") from None
    version = done.stdout.strip()[-40:]
    numbers = tuple(int(one) for one in re.findall(r"\d+", version)[:3])
    if done.returncode or len(numbers) < 3:
        raise ExchangeError(
            f"{what}: Inspect is not installed there. Install it with the evaluations: "
            f"`{python} -m pip install inspect-ai inspect-evals openai`."
        )
    if numbers < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        raise ExchangeError(f"{what}: has Inspect {version}; {least} or newer is needed. Upgrade inspect-ai there.")
    return version


def absolute_python(python: Path) -> Path:
    """Return a Python with an absolute path, because it is run in another folder; a name without one is looked up.

    Links are left: the Python of a virtual environment is a link, and knows its packages by where the link lies.
    """
    path = python.expanduser()
    return Path(path if path.is_file() else shutil.which(path) or path).absolute()


def run_inspect_task(run: InspectRun, server: contextlib.AbstractContextManager[Endpoint], folder: Path) -> ImportedLog:
    """Run a task against a server, and read its log.

    Args:
        run: what to run.
        server: serves the model for the length of its block, as `serve_model` does.
        folder: keeps the log of Inspect in `logs/`, and what it printed in `inspect.log`.

    Raises:
        ExchangeError: the environment has no Inspect, there is no such task, or its log cannot be read.
        StageError: the server or the task failed; with the end of its log.
    """
    run = replace(run, python=absolute_python(run.python))
    check_inspect(run.python)
    task = _absolute(run.task)
    logs = folder / LOGS
    with disk_errors(folder):
        logs.mkdir(parents=True, exist_ok=True)
    before = set(logs.iterdir())
    with server as endpoint:
        code = _run(eval_command(run, task, endpoint, logs), endpoint, folder / TASK_LOG)
    made = sorted(path for path in set(logs.iterdir()) - before if path.suffix in (".eval", ".json"))
    if not made:
        raise StageError(
            f"Inspect wrote no log of {run.task} ({cause_of_death(code)}).\n"
            f"The end of {folder / TASK_LOG}:\n{end_of(folder / TASK_LOG)}"
        )
    if len(made) > 1:
        raise ExchangeError(
            f"{run.task}: {len(made)} tasks ran, which have no score in common. Name one of them, as in file.py@name. "
            f"Their logs are in {logs}."
        )
    found = read_inspect_log(made[0])
    if found.num_failed == len(found.traces):
        raise StageError(f"{run.task}: no sample was answered. {found.why_incomplete} The log is {made[0]}.")
    return found


def eval_command(run: InspectRun, task: str, endpoint: Endpoint, logs: Path) -> list[str]:
    """Return the command line of Inspect."""
    options = {
        "model": f"openai-api/{SERVICE}/{endpoint.model}",
        "model-base-url": endpoint.url,
        "log-dir": logs.absolute(),
        "log-format": "eval",  # read sample by sample; a .json log would be in memory as a whole
        "display": "plain",
        "max-connections": MAX_CONNECTIONS,
        "epochs": run.samples_per_problem,
        "limit": run.limit,
        "temperature": run.temperature,
        "top-p": run.top_p,
        "max-tokens": run.max_tokens,
    }
    given = [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]
    # A failed sample is recorded and makes the score incomplete; it must not cost all the others.
    return [str(run.python), "-m", "inspect_ai", "eval", task, *given, "--no-fail-on-error", "--no-log-realtime"]


def task_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a task: no variable that may hold a secret, and those that are given."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    proxies = {name: os.environ[name] for name in PROXIES if "@" not in os.environ.get(name, "@")}
    # The server is on this machine: no proxy stands between.
    direct = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return {**kept, **proxies, **direct, "PYTHONUNBUFFERED": "1", **given}


def _absolute(task: str) -> str:
    """Return a task with an absolute path if it is a file, because it is run in another folder."""
    path, mark, name = task.partition("@")
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise ExchangeError(f"{path}: there is no such file. Name a Python file with a task of Inspect.")
        return f"{Path(path).absolute()}{mark}{name}"
    return task


def _run(command: list[str], endpoint: Endpoint, log: Path) -> int:
    """Run the command to its end and return its exit code; stop it and what it started if we are stopped."""
    key = f"{SERVICE.upper()}_API_KEY"
    # In an empty folder: Inspect reads a `.env` of its working directory and of those above, which may hold secrets.
    with disk_errors(log), tempfile.TemporaryDirectory(prefix="distill-inspect-") as empty, log.open("wb") as stream:
        process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=empty,
            env=task_environment({key: endpoint.key}),
            process_group=0,
        )
        try:
            return process.wait()
        finally:
            end_group(process, signal.SIGINT, STOP_WITHIN_S)  # at which Inspect writes its log

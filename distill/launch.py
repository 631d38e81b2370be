"""How a job is started, never what it does: one child process a job, its settings handed over as JSON.

A child of its own gives back all memory when it ends, leaves the caller free of torch, and keeps vLLM's thread
pinning out of training. Its output goes to a log file; only its progress bar reaches the terminal. It dies with its
parent, so that a killed run leaves nobody writing.

    python -m distill.launch sample job.json 5     # 5: the file descriptor that takes the result
"""

import ctypes
import dataclasses
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from distill import errors
from distill.errors import DistillError, StageError
from distill.progress import PROGRESS_FD
from distill.store import disk_errors, write_json

STOP_WITHIN_S = 30.0
"""How long a child may take to end after Ctrl-C or SIGTERM, beside what its job asks for, before it is killed."""

NUM_LOG_LINES = 12

JOBS = {
    "sample": ("distill.sampling", "SamplingJob", "run_sampling"),
    "train": ("distill.training.run", "TrainJob", "train"),
    "check_student": ("distill.training.student", "StudentCheck", "check_student"),
}
"""Job -> module, its dataclass, its function from job to JSON-ready dict."""

CHILD_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",  # the children fork no workers that would profit
    "PYTHONWARNINGS": "ignore",
}


def run_job(kind: str, job: Any, folder: Path, drain_s: float = 0.0) -> tuple[dict[str, Any], float]:
    """Run a job in a child process and wait for it.

    Args:
        kind: a key of `JOBS`.
        job: the job's dataclass instance.
        folder: where its log is kept.
        drain_s: how long the job may go on after a signal to finish what it has begun, in seconds.

    Returns:
        What the job's function returned, and the child's peak resident memory in GiB.

    Raises:
        DistillError: the same error that the job raised, or StageError with the end of the log if the child died.
    """
    job_file, log_file = folder / f".{kind}.job.json", folder / f"{kind}.log"
    write_json(job_file, dataclasses.asdict(job))
    # The result comes through a pipe, not a file: a child has to be able to say that the disk is full.
    from_child, to_parent = os.pipe()
    progress = os.dup(2)
    with disk_errors(log_file), log_file.open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "distill.launch", kind, str(job_file), str(to_parent)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(progress, to_parent),
            env={**CHILD_ENVIRONMENT, **os.environ, PROGRESS_FD: str(progress)},
            process_group=0,  # Ctrl-C in a terminal goes to this process alone, which then stops the child in order
        )
    os.close(to_parent)
    os.close(progress)
    try:
        with os.fdopen(from_child) as stream:
            answer = stream.read()
        code = child.wait()
    except BaseException:  # Ctrl-C, or SIGTERM as raised by the CLI: let the child store what it has
        _stop(child, drain_s + STOP_WITHIN_S)
        raise
    finally:
        job_file.unlink(missing_ok=True)
    if not answer:
        raise StageError(_death_notice(kind, code, log_file))
    result = json.loads(answer)
    if result["error"] is not None:
        kind_of_error = getattr(errors, result["error"]["type"], StageError)
        raise kind_of_error(result["error"]["message"])
    return result["value"], result["peak_memory_gib"]


def _stop(child: subprocess.Popen[bytes], within_s: float) -> None:
    """Ask a child to end; a second signal meanwhile, or the time running out, kills it."""
    child.terminate()
    try:
        child.wait(within_s)
    except BaseException as error:
        child.kill()
        child.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def _death_notice(kind: str, code: int, log_file: Path) -> str:
    cause = f"exit code {code}"
    if code < 0:
        cause = signal.Signals(-code).name
        if code == -signal.SIGKILL:
            cause += "; if you did not kill it, memory may have run out"
    with log_file.open(errors="replace") as stream:
        tail = "".join(deque(stream, NUM_LOG_LINES)).rstrip()
    return (
        f"the {kind} process died ({cause}). What it finished is kept: the same command goes on from there.\n"
        f"The end of {log_file}:\n{tail}"
    )


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing happens)."""
    parent = os.getppid()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(kind: str, job_path: str, result_fd: str) -> int:
    """The child's side: read the job, do it, write the result or the error into the pipe."""
    end_with_parent()
    os.set_inheritable(int(result_fd), False)
    signal.signal(signal.SIGTERM, _terminated)
    module_name, job_name, function_name = JOBS[kind]
    error: dict[str, str] | None = None
    value: dict[str, Any] | None = None
    try:
        module = importlib.import_module(module_name)
        job = getattr(module, job_name)(**json.loads(Path(job_path).read_text()))
        function: Callable[[Any], dict[str, Any]] = getattr(module, function_name)
        value = function(job)
    except DistillError as known:
        traceback.print_exc()
        error = {"type": type(known).__name__, "message": str(known)}
    except KeyboardInterrupt:
        return 130
    peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with os.fdopen(int(result_fd), "w") as stream:
        json.dump({"value": value, "error": error, "peak_memory_gib": peak_kib / 2**20}, stream)
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(*sys.argv[1:4])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # vLLM's and torch's exit handlers may hang or print; all that matters is on the disk

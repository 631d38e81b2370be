"""How a job is started, never what it does: one child process a job, its settings handed over as JSON.

A child of its own gives back all memory when it ends, leaves the caller free of torch, and keeps vLLM's thread
pinning out of training. Its output goes to a log file; only its progress bar reaches the terminal. It dies with its
parent, so that a killed run leaves nobody writing.

    python -m distill.launch sample job.json result.json
"""

import contextlib
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
from distill.store import read_json, write_json

STOP_WITHIN_S = 30.0
"""How long a child may take to end after Ctrl-C or SIGTERM before it is killed."""

NUM_LOG_LINES = 12

JOBS = {
    "sample": ("distill.sampling", "SamplingJob", "run_sampling"),
    "train": ("distill.training", "TrainJob", "train"),
}
"""Job -> module, its dataclass, its function from job to JSON-ready dict."""

CHILD_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",  # the children fork no workers that would profit
    "PYTHONWARNINGS": "ignore",
}


def run_job(kind: str, job: Any, folder: Path) -> tuple[dict[str, Any], float]:
    """Run a job in a child process and wait for it.

    Args:
        kind: a key of `JOBS`.
        job: the job's dataclass instance.
        folder: where its log is kept.

    Returns:
        What the job's function returned, and the child's peak resident memory in GiB.

    Raises:
        DistillError: the same error that the job raised, or StageError with the end of the log if the child died.
    """
    job_file, result_file, log_file = (folder / f".{kind}.{end}" for end in ("job.json", "result.json", "log"))
    log_file = folder / f"{kind}.log"
    result_file.unlink(missing_ok=True)
    write_json(job_file, dataclasses.asdict(job))
    progress = os.dup(2)
    try:
        with log_file.open("w") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "distill.launch", kind, str(job_file), str(result_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(progress,),
                env={**CHILD_ENVIRONMENT, **os.environ, PROGRESS_FD: str(progress)},
            )
            try:
                code = child.wait()
            except BaseException:  # Ctrl-C, or SIGTERM as raised by the CLI: let the child store what it has
                _stop(child)
                raise
    finally:
        os.close(progress)
    result = read_json(result_file)
    for leftover in (job_file, result_file):
        leftover.unlink(missing_ok=True)
    if result is None:
        raise StageError(_death_notice(kind, code, log_file))
    if result["error"] is not None:
        kind_of_error = getattr(errors, result["error"]["type"], StageError)
        raise kind_of_error(result["error"]["message"])
    return result["value"], result["peak_memory_gib"]


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


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


def main(kind: str, job_path: str, result_path: str) -> int:
    """The child's side: read the job, do it, write the result or the error."""
    end_with_parent()
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
    with contextlib.suppress(DistillError):  # a full disk: the parent then reports a death with the log's end
        write_json(Path(result_path), {"value": value, "error": error, "peak_memory_gib": peak_kib / 2**20})
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(*sys.argv[1:4])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # vLLM's and torch's exit handlers may hang or print; all that matters is on the disk

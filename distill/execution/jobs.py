"""Run a job in one or several child processes, with its settings passed as JSON.

A child process frees all memory when it ends, keeps torch out of the caller, and keeps vLLM's thread pinning out of
training. Its output goes to a log file; only its progress bar reaches the terminal. It dies with its parent, so that a
killed run leaves no process writing. Several children form a torch.distributed group and end together.

    python -m distill.execution.jobs sample job.json 5     # 5: the file descriptor for the result
"""

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from distill.errors import DistillError, StageError
from distill.execution.launchers import RANK_VARIABLES, Follower, Leader, host_store
from distill.execution.process_group import STORE_FD, ProcessGroup
from distill.storage.files import read_json, write_json

JOBS = {
    "sample": ("distill.sampling.loop", "SamplingJob", "run_sampling"),
    "train": ("distill.training.run", "TrainJob", "train"),
    "train_rl": ("distill.training.rl.run", "RlJob", "train_rl"),
    "check_student": ("distill.training.student", "StudentCheck", "check_student"),
}
"""Job -> module, its dataclass, its function from job to JSON-ready dict."""

CHILD_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",  # the children fork no workers that would benefit
    "PYTHONWARNINGS": "ignore",
}

OTHERS_SAY = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_")
"""Settings of accelerate that a launcher or a shell may have set. Only the recipe decides how a job is laid out."""


def run_job(
    kind: str,
    job: Any,
    folder: Path,
    drain_s: float = 0.0,
    num_processes: int = 1,
    is_group: bool = False,
    leader: Leader | None = None,
) -> tuple[dict[str, Any], float]:
    """Run a job in child processes and wait for it.

    Args:
        kind: a key of `JOBS`.
        job: the job's dataclass instance.
        folder: where its logs are kept.
        drain_s: seconds that the job may continue after a signal to finish what it has begun.
        num_processes: number of processes that run the job together.
        is_group: whether to create a torch.distributed group even for a single process.
        leader: of an external launch, whose other processes exist already and are called.

    Returns:
        The result of the job's function in the first child, and the sum of the children's peak resident memory in GiB.

    Raises:
        DistillError: the error that the job raised, or StageError with the end of the log if a child died.
    """
    job_file = folder / f".{kind}.job.json"
    write_json(job_file, dataclasses.asdict(job))
    try:
        with _crew(kind, job_file, folder, drain_s) as crew:
            if leader is not None:
                _start_first(crew, leader, job_file)
                return crew.wait(leader.check)
            if num_processes > 1 or is_group:
                _start_group(crew, num_processes)
            else:
                crew.start({})
            return crew.wait()
    finally:
        job_file.unlink(missing_ok=True)


def follow(kind: str, folder: Path, follower: Follower, drain_s: float = 0.0) -> None:
    """Take part in the job that rank 0 runs, if it runs one.

    Args:
        kind: a key of `JOBS`.
        folder: where rank 0 keeps the job, and this process its log.
        follower: has met the others.
        drain_s: as for `run_job`.

    Raises:
        DistillError: as `run_job`, or rank 0 has stopped.
    """
    call = follower.wait_for_call()
    if call is None:
        return
    job_file = folder / call["job"]
    if read_json(job_file) is None:
        raise StageError(f"{job_file}: rank 0's job is not there. All machines must share this folder.")
    place = follower.place
    rank = _rank_variables(place.rank, place.local_rank, place.world_size, call["local_world_sizes"][place.rank])
    with _crew(kind, job_file, folder, drain_s) as crew:
        crew.start(rank | _master_variables(call["master"]), place.rank)
        crew.wait(follower.check)


def _crew(kind: str, job_file: Path, folder: Path, drain_s: float) -> ProcessGroup:
    command = [sys.executable, "-m", "distill.execution.jobs", kind, str(job_file)]
    return ProcessGroup(kind, command, folder, _clean_environment(), drain_s)


def _start_group(crew: ProcessGroup, num_processes: int) -> None:
    """Start all processes of a group on this machine."""
    with _bound("127.0.0.1") as store:
        master = _master_variables(("127.0.0.1", store.getsockname()[1])) | _loopback()
        for rank in range(num_processes):
            environment = _rank_variables(rank, rank, num_processes, num_processes) | master
            crew.start(environment, rank, store if rank == 0 else None)


def _start_first(crew: ProcessGroup, leader: Leader, job_file: Path) -> None:
    """Start the first process of a group whose others are started elsewhere."""
    place = leader.place
    rank = _rank_variables(0, place.local_rank, place.world_size, leader.local_world_size)
    if place.has_master:
        leader.call(job_file, None)
        crew.start(rank | _master_variables(None))
        return
    here = leader.is_one_machine
    with _bound("127.0.0.1" if here else "") as store:
        # In Slurm, other nodes know this machine by its node name.
        host = "127.0.0.1" if here else os.environ.get("SLURMD_NODENAME", socket.gethostname())
        master = host, store.getsockname()[1]
        leader.call(job_file, master)
        crew.start(rank | _master_variables(master), 0, store)


@contextlib.contextmanager
def _bound(address: str) -> Iterator[socket.socket]:
    """Yield a listening socket on a free port, for the first child to take over."""
    with socket.socket() as bound:
        bound.bind((address, 0))
        bound.listen(socket.SOMAXCONN)
        yield bound


def _rank_variables(rank: int, local_rank: int, world_size: int, local_world_size: int) -> dict[str, str]:
    """Return the variables that torch.distributed and accelerate read. This machine's processes share its cores."""
    num_threads = max(1, len(os.sched_getaffinity(0)) // local_world_size)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(num_threads)),
    }


def _master_variables(master: tuple[str, int] | None) -> dict[str, str]:
    """Return the variables that say where the processes meet; `None` for where the launcher says."""
    if master is None:
        return {name: value for name, value in os.environ.items() if name in ("MASTER_ADDR", "MASTER_PORT")}
    # `host_store` serves the store on a socket of the parent, so every rank is a client, as under torchrun's agent.
    return {"MASTER_ADDR": master[0], "MASTER_PORT": str(master[1]), "TORCHELASTIC_USE_AGENT_STORE": "True"}


def _loopback() -> dict[str, str]:
    """Return variables that keep gloo on the loopback interface: a machine's own name may not resolve to itself."""
    return {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")} if sys.platform == "linux" else {}


def _clean_environment() -> dict[str, str]:
    """Return the environment without what would make a single child believe that it is one of several."""
    ours = {n: v for n, v in os.environ.items() if n not in RANK_VARIABLES and not n.startswith(OTHERS_SAY)}
    return CHILD_ENVIRONMENT | ours


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies. Linux only; elsewhere nothing happens."""
    parent = os.getppid()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(kind: str, job_path: str, result_fd: str) -> int:
    """Run a job in the child process, and write its result or error to the pipe."""
    end_with_parent()
    os.set_inheritable(int(result_fd), False)
    signal.signal(signal.SIGTERM, _terminated)
    module_name, job_name, function_name = JOBS[kind]
    error: dict[str, str] | None = None
    value: dict[str, Any] | None = None
    store: Any = None
    try:
        if STORE_FD in os.environ:
            store = host_store(int(os.environ.pop(STORE_FD)))
        module = importlib.import_module(module_name)
        job = getattr(module, job_name)(**json.loads(Path(job_path).read_text()))
        function: Callable[[Any], dict[str, Any]] = getattr(module, function_name)
        value = function(job)
    except DistillError as known:
        traceback.print_exc()
        error = {"type": type(known).__name__, "message": str(known)}
    except KeyboardInterrupt:
        return 130
    del store  # kept alive until the job was done
    peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with os.fdopen(int(result_fd), "w") as stream:
        json.dump({"value": value, "error": error, "peak_memory_gib": peak_kib / 2**20}, stream)
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(*sys.argv[1:4])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # vLLM's and torch's exit handlers may hang or print; all results are stored by now

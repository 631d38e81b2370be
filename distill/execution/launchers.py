"""Training in processes of an external launcher: find out which process this is, and meet the others.

`distill sft` under torchrun, `accelerate launch` or `srun` is the same command in every process. Rank 0 owns the run
folder and runs the stage; the others wait for its call and then join the training. They meet in `runs/<name>/.ranks/`,
which all machines share. Each process keeps a file there, which only it writes, and renews it every few seconds:

    {"nonce": "f3a9…", "beat": 7, "host": "node2", "failure": null, "members": {"1": "77c0…"}, "call": {"master": …}}
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distill.errors import DistillError, StageError, UserError
from distill.storage.files import read_json, write_json

MEETING = ".ranks"
MEET_WITHIN_S = 600.0
"""Time limit for the processes of a launch to appear, in seconds."""
BEAT_S = 5.0
SILENT_AFTER_S = 180.0
"""A process that has not renewed its file for this long is presumed dead. Network file systems show changes late."""
POLL_S = 0.2

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torch.distributed reads."""


@dataclass(frozen=True, slots=True)
class ProcessPlace:
    """The position of this process in a launch."""

    rank: int
    local_rank: int
    """Rank among the processes of this machine, which is the number of its GPU."""
    world_size: int
    has_master: bool
    """Whether the launcher has set where the processes meet (MASTER_ADDR, MASTER_PORT)."""


def launched_place(environ: Mapping[str, str] = os.environ) -> ProcessPlace | None:
    """Return this process's place in a launch of several, or `None` if no launcher started it.

    Raises:
        UserError: the launcher's variables are incomplete.
    """
    # torchrun and `accelerate launch` set WORLD_SIZE, RANK and LOCAL_RANK; `srun` sets the SLURM_ variables below.
    # A batch script has some of those too, but SLURM_STEP_NUM_TASKS is set by `srun` alone.
    has_master = "MASTER_ADDR" in environ and "MASTER_PORT" in environ
    try:
        if int(environ.get("WORLD_SIZE", "1")) > 1:
            rank = int(environ["RANK"])
            return ProcessPlace(rank, int(environ.get("LOCAL_RANK", rank)), int(environ["WORLD_SIZE"]), has_master)
        if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            num_tasks = int(environ["SLURM_STEP_NUM_TASKS"])
            return ProcessPlace(int(environ["SLURM_PROCID"]), int(environ["SLURM_LOCALID"]), num_tasks, has_master)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"this looks like one of several processes of a launcher, but {error} is not as expected. Start distill "
            "with torchrun, accelerate launch or srun, or unset WORLD_SIZE to use one process."
        ) from None
    return None


class Member:
    """One process of a launch: its own file in the meeting folder, renewed by a thread, and its view of the others."""

    def __init__(self, place: ProcessPlace, folder: Path) -> None:
        self.place = place
        self._folder = folder
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._content: dict[str, Any] = {
            "nonce": uuid.uuid4().hex,
            "beat": 0,
            "host": socket.gethostname(),
            "failure": None,
        }
        self._seen: dict[int, tuple[Any, float]] = {}
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        if self.place.rank == 0:
            # Remove the files of an earlier launch. A process of this one that was faster writes its file again.
            for file in self._folder.glob("rank-*.json"):
                file.unlink(missing_ok=True)
        self._write({})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        # The file stays, so that processes that wait learn how this one ended.
        with contextlib.suppress(DistillError):
            self._write({"failure": None if error is None else str(error) or type(error).__name__, "ended": True})

    def _write(self, changes: dict[str, Any]) -> None:
        with self._lock:
            self._content |= changes
            self._content["beat"] += 1
            write_json(self._file(self.place.rank), self._content, sync=False)

    def _renew(self) -> None:
        while not self._is_over.wait(BEAT_S):
            with contextlib.suppress(DistillError):  # the disk may work again at the next beat
                self._write({})

    def _file(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.json"

    def _read(self, rank: int) -> dict[str, Any]:
        with contextlib.suppress(DistillError):
            return read_json(self._file(rank)) or {}
        return {}


class Leader(Member):
    """The member with rank 0."""

    def gather(self) -> None:
        """Wait until every other process has appeared.

        Raises:
            StageError: some have not appeared in time.
        """
        deadline = time.monotonic() + MEET_WITHIN_S
        while missing := self._missing():
            if time.monotonic() > deadline:
                raise StageError(
                    f"{len(missing)} of {self.place.world_size} processes (rank {_some(missing)}) have not appeared in "
                    f"{self._folder} within {MEET_WITHIN_S:.0f} s. All machines must share this folder and run the "
                    "same command."
                )
            time.sleep(POLL_S)
        members = {rank: self._read(rank) for rank in range(1, self.place.world_size)}
        self._write({"members": {str(rank): file["nonce"] for rank, file in members.items()}})
        self._hosts = [self._content["host"], *(file["host"] for file in members.values())]

    def _missing(self) -> list[int]:
        return [rank for rank in range(1, self.place.world_size) if "nonce" not in self._read(rank)]

    @property
    def is_one_machine(self) -> bool:
        return len(set(self._hosts)) == 1

    def call(self, job_file: Path, master: tuple[str, int] | None) -> None:
        """Ask the others to join a job.

        Args:
            job_file: what to train, on the shared file system.
            master: host and port of the store where torch.distributed meets; `None` for the launcher's.
        """
        sizes = [self._hosts.count(host) for host in self._hosts]
        self._write({"call": {"job": job_file.name, "master": master, "local_world_sizes": sizes}})

    @property
    def local_world_size(self) -> int:
        return self._hosts.count(self._hosts[0])

    def check(self) -> None:
        """Check on the others.

        Raises:
            StageError: one of them has failed, or has been silent for too long.
        """
        for rank in range(1, self.place.world_size):
            content = self._read(rank)
            if content.get("failure"):
                raise StageError(f"the process of rank {rank} failed: {content['failure']}")
            if not content.get("ended") and _is_silent(self._seen, rank, content):
                raise StageError(
                    f"the process of rank {rank} on {content.get('host', 'an unknown host')} has not responded for "
                    f"{SILENT_AFTER_S:.0f} s. What is finished is kept: the same command goes on from there."
                )


class Follower(Member):
    """A member with any other rank."""

    def wait_for_call(self) -> dict[str, Any] | None:
        """Wait for rank 0's call. Return `None` if rank 0 has ended without one.

        Raises:
            StageError: rank 0 has failed, has not appeared in time, or is dead.
        """
        deadline = time.monotonic() + MEET_WITHIN_S
        while True:
            leader = self._leader()
            if leader is None and time.monotonic() > deadline:
                raise StageError(
                    f"rank {self.place.rank}: rank 0 has not appeared in {self._folder} within {MEET_WITHIN_S:.0f} s. "
                    "See its output. All machines must share this folder and run the same command."
                )
            if leader is not None:
                self.check()
                if leader.get("call") or leader.get("ended"):
                    call: dict[str, Any] | None = leader.get("call")
                    return call
            if not self._file(self.place.rank).exists():
                self._write({})  # rank 0 removed it along with the files of an earlier launch
            time.sleep(POLL_S)

    def _leader(self) -> dict[str, Any] | None:
        """Return rank 0's file if it belongs to this launch: that of an earlier one does not name this process."""
        content = self._read(0)
        is_ours = content.get("members", {}).get(str(self.place.rank)) == self._content["nonce"]
        return content if is_ours else None

    def check(self) -> None:
        """Check on rank 0.

        Raises:
            StageError: it has failed, or has been silent for too long.
        """
        leader = self._leader() or {}
        if leader.get("failure"):
            raise StageError(f"rank 0 stopped: {leader['failure']}")
        if not leader.get("ended") and _is_silent(self._seen, 0, leader):
            raise StageError(f"rank 0 has not responded for {SILENT_AFTER_S:.0f} s; rank {self.place.rank} stops.")


@contextlib.contextmanager
def joined(place: ProcessPlace | None, run_dir: Path) -> Iterator[Leader | Follower | None]:
    """Meet the other processes of a launch for the duration of the block; yield `None` if there is no launch.

    Raises:
        StageError: the others have not appeared.
    """
    if place is None:
        yield None
        return
    folder = run_dir / MEETING
    if place.rank:
        with Follower(place, folder) as follower:
            yield follower
        return
    with Leader(place, folder) as leader:
        leader.gather()
        yield leader


def host_store(descriptor: int) -> Any:
    """Serve the store where torch.distributed's processes meet, on a socket that is already bound."""
    from torch.distributed import TCPStore

    # With the bound socket handed over, no other program can take the port in between.
    with socket.socket(fileno=os.dup(descriptor)) as bound:
        port = bound.getsockname()[1]
    return TCPStore("localhost", port, is_master=True, wait_for_workers=False, master_listen_fd=descriptor)


def _is_silent(seen: dict[int, tuple[Any, float]], rank: int, content: Mapping[str, Any]) -> bool:
    """Return whether a process's file has not changed for `SILENT_AFTER_S`, by the local clock."""
    beat = content.get("beat")
    before, since = seen.setdefault(rank, (beat, time.monotonic()))
    if beat != before:
        seen[rank] = beat, time.monotonic()
        return False
    return time.monotonic() - since > SILENT_AFTER_S


def _some(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8])
    return shown if len(ranks) <= 8 else f"{shown}, …"

"""A control group for each sandbox, where this process may make one: it bounds memory and threads from outside."""

import contextlib
import functools
import itertools
import os
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MAX_PROCESSES = 192
MORE_MIB = 256
"""Beyond a test's memory: files in its /tmp and the sandbox's first process."""
REMOVE_S = 2.0
CLEAN = """read nothing
try=0
while [ $((try += 1)) -le 100 ]; do
  left=
  for parent in "$@"; do
    for group in "$parent"/$0-*; do
      if [ -d "$group" ]; then rmdir "$group" 2> /dev/null || left=1; fi
    done
  done
  [ "$left" ] || exit 0
  sleep 0.3
done"""
"""A shell's script that waits until the process that started it has ended, however, and removes the groups it left."""
_numbers = itertools.count()
_lock = threading.Lock()
_cleaners: dict[int, subprocess.Popen[bytes]] = {}


class Cgroup:
    """A control group (version 1 or 2) of one sandbox.

    Args:
        folders: of the group, one for each hierarchy.
    """

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders

    def add(self, pid: int) -> None:
        """Move a process into it, whose later children are in it too."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, mib: int) -> None:
        """Bound the memory of all processes in it."""
        for folder in self._folders:
            for name in ("memory.max", "memory.limit_in_bytes"):
                if (folder / name).exists():
                    with contextlib.suppress(OSError):
                        (folder / name).write_text(str((mib + MORE_MIB) << 20))

    def close(self) -> None:
        """Remove it, once its processes have ended."""
        deadline = time.monotonic() + REMOVE_S
        for folder in self._folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break  # the cleaner removes it later
                    time.sleep(0.002)


def new_cgroup() -> Cgroup | None:
    """Return a new control group; `None` where none can be made."""
    if not _parents():
        return None
    _start_cleaner()
    folders = [parent / f"{_prefix()}-{next(_numbers)}" for parent in _parents()]
    try:
        for folder in folders:
            folder.mkdir()
            if (folder / "pids.max").exists():
                (folder / "pids.max").write_text(str(MAX_PROCESSES))
    except OSError:
        Cgroup(folders).close()
        return None
    return Cgroup(folders)


def _prefix() -> str:
    return f"distill-{os.getpid()}"


def _start_cleaner() -> None:
    with _lock:
        if os.getpid() not in _cleaners:
            _cleaners.clear()
            _cleaners[os.getpid()] = subprocess.Popen(
                ["sh", "-c", CLEAN, _prefix(), *map(str, _parents())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )


@functools.cache
def _parents() -> tuple[Path, ...]:
    """Return the folders in which groups with limits can be made. Tried only once."""
    usable = []
    for line in _own_groups():
        _, controllers, path = line.split(":", 2)
        files = {"pids": "pids.max", "memory": "memory.limit_in_bytes"} if controllers else {"": "pids.max"}
        wanted = [name for controller, name in files.items() if controller in controllers.split(",")]
        parent = ROOT / controllers / path.lstrip("/")
        if wanted and _can_make(parent, wanted):
            usable.append(parent)
    return tuple(usable)


def _own_groups() -> list[str]:
    try:
        return Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []


def _can_make(parent: Path, names: list[str]) -> bool:
    trial = parent / f"{_prefix()}-trial"
    try:
        trial.mkdir()
    except OSError:
        return False
    try:
        return all(os.access(trial / name, os.W_OK) for name in (*names, "cgroup.procs"))
    finally:
        trial.rmdir()

"""Adapt the number of computing threads, and how they wait for each other, to the load from other processes.

Threads that share a matrix product synchronise at its end, thousands of times a second. libgomp lets them busy-wait
there, which is fastest on idle cores. Beside a busy process it is slowest: the waiting thread holds the core that the
thread it waits for needs, and each synchronisation takes a whole time slice of the scheduler. `benchmarks/neighbour.py`
measures both.
"""

import os
import threading
import time
from pathlib import Path

LOOK_EVERY_S = 0.5
NEIGHBOUR = 0.2
"""Load from other processes, in cores, from which threads sleep while they wait."""
BUSY_NEIGHBOUR = 0.5
"""Load from other processes, in cores, from which fewer threads compute."""
TICKS = os.sysconf("SC_CLK_TCK")
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""User, nice, system, irq, softirq, steal in a line of /proc/stat. https://docs.kernel.org/filesystems/proc.html"""


class LoadFollower:
    """A controller that adapts this process's computing threads to the load of other processes on its cores.

    Create it in the thread that computes, and before vLLM is loaded, which replaces `torch.set_num_threads`.

    Args:
        max_threads: threads that compute without other load. Default: never change their number.
    """

    def __init__(self, max_threads: int | None = None) -> None:
        import torch

        self._set_num_threads = torch.set_num_threads
        self._max_threads = max_threads
        self.num_threads = max_threads
        """Threads that compute now; `None` if their number is never changed."""
        if max_threads is not None:
            self._set_num_threads(max_threads)
        self._cores = os.sched_getaffinity(0)
        self._team: _IdleTeam | None = None
        self._looked_at = time.monotonic()
        self._before = self._used_by_others_s()

    @property
    def waits_asleep(self) -> bool:
        return self._team is not None

    def follow(self) -> None:
        """Measure the load, at most every `LOOK_EVERY_S`, and adapt. Call it between two steps of computing."""
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed < LOOK_EVERY_S:
            return
        used_s = self._used_by_others_s()
        self._adapt(max(0.0, used_s - self._before) / elapsed)
        self._looked_at, self._before = now, used_s

    def _adapt(self, others: float) -> None:
        """Adapt to a load of `others` cores from other processes."""
        was_asleep = self.waits_asleep
        if others < NEIGHBOUR:
            self.close()
        elif self._team is None:
            self._team = _IdleTeam()
        # Busy-waiting threads keep other processes from running, so their real load shows only once threads sleep.
        if self._max_threads is not None and was_asleep and self.waits_asleep:
            self._compute_with(threads_beside(others, len(self._cores), self._max_threads))

    def _compute_with(self, num_threads: int | None) -> None:
        if num_threads is not None and num_threads != self.num_threads:
            self._set_num_threads(num_threads)
            self.num_threads = num_threads

    def close(self) -> None:
        """Let all threads compute again, and busy-wait."""
        if self._team is not None:
            self._team.close()
            self._team = None
        self._compute_with(self._max_threads)

    def _used_by_others_s(self) -> float:
        """Return the CPU seconds on these cores used so far by other processes and other guests of a hypervisor."""
        used = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in self._cores:
                used += sum(int(fields[i]) for i in BUSY_FIELDS)
        return used / TICKS - time.process_time()


def threads_beside(others: float, num_cores: int, max_threads: int) -> int:
    """Return how many threads compute fastest beside other processes.

    Args:
        others: cores' worth of CPU time that other processes use.
        num_cores: cores of this process.
        max_threads: maximum number of threads.

    Returns:
        One for each free core. If no core is entirely free, all of them, which get a larger share of the cores' time.
    """
    if others < BUSY_NEIGHBOUR:
        return max_threads
    num_free = int(num_cores - others + 0.1)
    return min(num_free, max_threads) if num_free >= 1 else max_threads


class _IdleTeam:
    """OpenMP threads that only sleep, which makes all OpenMP threads of the process sleep while they wait.

    libgomp has no call for this, but one rule: while a process has more OpenMP threads than cores, they busy-wait only
    briefly (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). A second thread that uses OpenMP has a
    team of its own, which ends with it. Other OpenMP libraries are not affected.
    """

    def __init__(self) -> None:
        self._end = threading.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="idle-openmp-team", daemon=True)
        self._thread.start()
        ready.wait()

    def _run(self, ready: threading.Event) -> None:
        import torch

        torch.zeros(1 << 18).add_(1)  # large enough to be split among threads
        ready.set()
        self._end.wait()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

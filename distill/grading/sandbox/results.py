"""From the end of a process to what it says about the program."""

import signal

from distill.grading.sandbox.inside.candidate import BAD_SOURCE
from distill.grading.sandbox.process import Ended
from distill.grading.sandbox.records import End, Execution, Limits, cleaned, cleaned_text

WHY: dict[str, End] = {"cpu": "time_limit", "wall": "time_limit", "memory": "memory_limit"}
OUT_OF_MEMORY = (b"MemoryError", b"std::bad_alloc", b"Cannot allocate memory")


def as_execution(ended: Ended, limits: Limits) -> Execution:
    """Return what the end of a program's process says about the program."""
    detail = cleaned_text(ended.fault) or cleaned(ended.stderr)
    if not detail and ended.status < 0:
        detail = signal.strsignal(-ended.status) or f"signal {-ended.status}"
    return Execution(_end(ended, limits), ended.stdout, detail, ended.cpu_s, ended.wall_s)


def _end(ended: Ended, limits: Limits) -> End:
    if ended.fault:
        return "sandbox_error"
    if ended.over:
        return "output_limit"
    if ended.why in WHY:
        return WHY[ended.why]
    if ended.cpu_s > limits.cpu_s or ended.status == -signal.SIGXCPU:
        return "time_limit"
    if ended.rss_kib > limits.memory_mib << 10:
        return "memory_limit"
    if ended.status == 0:
        return "finished"
    if ended.status == BAD_SOURCE:
        return "compile_error"
    if ended.status == -signal.SIGKILL and not ended.why:  # by the kernel, whose memory had run out
        return "memory_limit"
    return "memory_limit" if any(one in ended.stderr[-2_000:] for one in OUT_OF_MEMORY) else "runtime_error"


def ended_early(done: Execution) -> Execution:
    """Return the execution of a program that ended where it should have answered."""
    if done.end != "finished":
        return done
    return Execution("runtime_error", b"", "the program ended before it answered", done.cpu_s, done.wall_s)


def sandbox_error(error: Exception) -> Execution:
    """Return the execution of a program that could not be run."""
    return Execution("sandbox_error", b"", str(error)[:2_000], 0.0, 0.0)

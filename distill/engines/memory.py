"""Does a model fit on this machine? Asked before anything is loaded, from the files' headers alone.

Enters: a model's folder and where it is to run. Leaves: nothing, or an error that says what would fit.
"""

import json
import math
import struct
import subprocess
from pathlib import Path

from distill.errors import ModelError
from distill.hub import Model
from distill.recipe import SamplingCompute
from distill.store import read_json

BYTES_PER_WEIGHT = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}
HEADROOM = 1.1
"""Weights are not all: activations and a KV cache for at least one sample come on top."""


def check_memory(model: Model, compute: SamplingCompute) -> None:
    """Refuse a model whose weights do not fit where they are to be sampled.

    Raises:
        ModelError: with the memory that it needs and that there is, and what would fit.
    """
    needed_gib = weights_gib(model.path, compute.dtype)
    gpus_gib = gpu_memory_gib()
    num_shared = compute.tensor_parallel * compute.pipeline_parallel
    if gpus_gib:
        there_gib = min(gpus_gib) * num_shared * compute.gpu_memory_share
        where = f"{num_shared} GPU{'s' if num_shared > 1 else ''} of {min(gpus_gib):.0f} GiB"
    else:
        there_gib = free_memory_gib() / compute.replicas
        where = "free memory" + (f" for each of {compute.replicas} replicas" if compute.replicas > 1 else "")
    if needed_gib * HEADROOM <= there_gib:
        return
    per_weight = BYTES_PER_WEIGHT[compute.dtype]
    largest = there_gib / HEADROOM * 2**30 / per_weight / 1e9
    ways = [f"a teacher of up to {largest:.1f}B parameters fits here"]
    if gpus_gib:
        num_gpus = 2 ** math.ceil(math.log2(needed_gib * HEADROOM / (min(gpus_gib) * compute.gpu_memory_share)))
        ways.append(f"{num_gpus} such GPUs would hold this one (compute.tensor_parallel: {num_gpus})")
    elif compute.replicas > 1:
        ways.append("fewer compute.replicas leave more for each")
    ways.append("a server elsewhere may hold it (compute.base_urls)")
    raise ModelError(
        f"{model.name}: its weights take {needed_gib:.1f} GiB in {'bfloat16' if per_weight == 2 else compute.dtype}, "
        f"and there are {there_gib:.1f} GiB ({where}). What would do: {'; '.join(ways)}."
    )


def weights_gib(folder: Path, dtype: str) -> float:
    """Memory of a model's weights once loaded, in GiB: quantised ones as they are, others in `dtype`."""
    files = list(folder.glob("*.safetensors"))
    config = read_json(folder / "config.json") or {}
    if config.get("quantization_config"):
        return sum(file.stat().st_size for file in files) / 2**30
    return sum(_num_weights(file) for file in files) * BYTES_PER_WEIGHT[dtype] / 2**30


def _num_weights(file: Path) -> int:
    """Numbers in a safetensors file: the shapes in its header.

    Raises:
        ModelError: the file is not a safetensors file.

    Source: https://huggingface.co/docs/safetensors/index#format
    """
    with file.open("rb") as stream:
        try:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        except (struct.error, ValueError):
            raise ModelError(f"{file}: not a safetensors file, or cut short. Fetch the model again.") from None
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def gpu_memory_gib() -> list[float]:
    """Whole memory of each NVIDIA GPU, in GiB; empty without one."""
    try:
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [float(line) / 1024 for line in listed.split() if line.strip().isdigit()]


def free_memory_gib() -> float:
    """Memory that can be had without swapping, caches included (Linux's MemAvailable), in GiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return math.inf

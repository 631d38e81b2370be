"""Memory checks before a model is loaded, from the headers of its files alone."""

import json
import math
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

from distill.errors import ModelError
from distill.execution.cpu_products import ProductSpeed, measure, shapes_of
from distill.models.hub import Model
from distill.recipe.sampling import SamplingCompute
from distill.storage.files import read_json

BYTES_PER_WEIGHT = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}
HEADROOM = 1.1
"""Factor on the weights' size, for activations and a KV cache for at least one sample."""
KV_HEADROOM = 1.4
"""Factor for choosing the number of GPUs: room for a KV cache with more samples makes sampling fast."""
CPU_BLOCK_SIZE = 32
"""Tokens in a KV block. vLLM's CPU default of 128 leaves up to 127 tokens of a shared few-shot prompt uncached."""
CPU_KV_SHARE = 0.4
"""Largest share of the free memory for the KV cache on CPU."""


def check_memory(model: Model, compute: SamplingCompute) -> None:
    """Check that a model's weights fit on the devices that sample it.

    Raises:
        ModelError: they do not; names the memory needed, the memory available, and what would fit.
    """
    needed_gib = weights_gib(model.path, compute.dtype)
    gpus_gib = list(visible_gpus().values())
    num_shared = (with_tensor_parallel(compute, model.path).tensor_parallel or 1) * compute.pipeline_parallel
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
        f"and only {there_gib:.1f} GiB are available ({where}). Options: {'; '.join(ways)}."
    )


def with_tensor_parallel(compute: SamplingCompute, folder: Path) -> SamplingCompute:
    """Return the settings with a number for `tensor_parallel`, chosen for this machine if the recipe sets none.

    Args:
        compute: vLLM's settings.
        folder: the model's folder.
    """
    if compute.tensor_parallel is not None:
        return compute
    gpus_gib = list(visible_gpus().values())
    picked = 1
    if len(gpus_gib) > 1:
        config = read_json(folder / "config.json") or {}
        heads = (config.get("text_config") or config).get("num_attention_heads")
        picked = pick_tensor_parallel(compute, weights_gib(folder, compute.dtype), min(gpus_gib), len(gpus_gib), heads)
    return compute.model_copy(update={"tensor_parallel": picked})


def pick_tensor_parallel(
    compute: SamplingCompute, needed_gib: float, gpu_gib: float, num_gpus: int, heads: int | None
) -> int:
    """Choose how many GPUs share each layer: the smallest power of two that divides the heads and leaves enough room.

    Args:
        compute: vLLM's settings.
        needed_gib: size of the weights.
        gpu_gib: memory of the smallest GPU.
        num_gpus: GPUs in the machine.
        heads: query heads of a layer; `None`: unknown.

    Returns:
        The number of GPUs; the largest possible one if the weights need more.
    """
    most = max(1, num_gpus // (compute.replicas * compute.pipeline_parallel))
    powers: list[int] = [2**i for i in range(most.bit_length())]
    possible = [n for n in powers if n <= most and not (heads and heads % n)]
    one_gib = gpu_gib * compute.gpu_memory_share * compute.pipeline_parallel
    return next((n for n in possible if needed_gib * KV_HEADROOM <= n * one_gib), possible[-1])


def weights_gib(folder: Path, dtype: str) -> float:
    """Return the memory of a model's loaded weights in GiB: quantised weights as stored, others in `dtype`."""
    files = list(folder.glob("*.safetensors"))
    config = read_json(folder / "config.json") or {}
    if config.get("quantization_config"):
        return sum(file.stat().st_size for file in files) / 2**30
    return sum(_num_weights(file) for file in files) * BYTES_PER_WEIGHT[dtype] / 2**30


def pick_cpu_dtype(folder: Path, wanted: str, memory_share: float = 1.0) -> tuple[str, ProductSpeed | None]:
    """Choose the number format for sampling on CPU, by measuring speeds in this process if the recipe says `auto`.

    Args:
        folder: the model's folder.
        wanted: `compute.dtype`.
        memory_share: share of the free memory that the weights may use.

    Returns:
        The format, and the measured speeds (`None`: set by the recipe, or by quantised weights).
    """
    if wanted != "auto":
        return wanted, None
    config = read_json(folder / "config.json") or {}
    if config.get("quantization_config"):
        return "bfloat16", None
    speed = measure(shapes_of(config))
    fits = weights_gib(folder, speed.faster) * HEADROOM <= free_memory_gib() * memory_share
    return speed.faster if fits else "bfloat16", speed


def _num_weights(file: Path) -> int:
    """Return how many weights a safetensors file holds, from the shapes in its header.

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


def kv_gib_needed(config: Any, num_tokens: int, dtype: str) -> float:
    """Return the size in GiB of a KV cache for `num_tokens`: keys and values of every layer and KV head.

    Args:
        config: the model's transformers configuration.
        num_tokens: tokens held at once, over all requests.
        dtype: the model's number format.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    num_kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    num_bytes = 2 * BYTES_PER_WEIGHT[dtype] * config.num_hidden_layers * num_kv_heads * head_dim * num_tokens
    return float(num_bytes / 2**30)


def visible_gpus() -> dict[str, float]:
    """Return the NVIDIA GPUs that this process may use, without starting CUDA.

    Returns:
        Each GPU's name, as in CUDA_VISIBLE_DEVICES, and its total memory in GiB; infinite if nvidia-smi does not report
        it (a part of a GPU has its own name).
    """
    try:
        command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        listed = ""
    there: dict[str, float] = {}
    uuids: dict[str, str] = {}
    for line in listed.splitlines():
        index, uuid, memory = (cell.strip() for cell in line.split(","))
        there[index] = float(memory) / 1024 if memory.isdigit() else math.inf
        uuids[uuid] = index
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return there
    names = [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return {
        name: there.get(next((index for uuid, index in uuids.items() if uuid.startswith(name)), name), math.inf)
        for name in names
    }


def free_memory_gib() -> float:
    """Return the memory available without swapping, including caches (Linux's MemAvailable), in GiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return math.inf

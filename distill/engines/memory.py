"""Does a model fit on this machine? Asked before anything is loaded, from the files' headers alone.

Enters: a model's folder and where it is to run. Leaves: nothing, or an error that says what would fit.
"""

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
"""Weights are not all: activations and a KV cache for at least one sample come on top."""
KV_HEADROOM = 1.4
"""The same where GPUs are to be had: with a KV cache for more samples, which is what makes sampling fast."""
CPU_BLOCK_SIZE = 32
"""Tokens in a KV block. vLLM's CPU default of 128 leaves up to 127 tokens of a shared few-shot prompt uncached."""
CPU_KV_SHARE = 0.4
"""Most of the free memory that the KV cache takes on CPU."""


def check_memory(model: Model, compute: SamplingCompute) -> None:
    """Refuse a model whose weights do not fit where they are to be sampled.

    Raises:
        ModelError: with the memory that it needs and that there is, and what would fit.
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
        f"and there are {there_gib:.1f} GiB ({where}). What would do: {'; '.join(ways)}."
    )


def with_tensor_parallel(compute: SamplingCompute, folder: Path) -> SamplingCompute:
    """The same with a number for `tensor_parallel`, picked for this machine where the recipe leaves it out.

    Args:
        compute: where vLLM is to run.
        folder: the model's.
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
    """GPUs that share each layer: a power of two that divides the heads, as small as leaves room beside the weights.

    Args:
        compute: where vLLM is to run.
        needed_gib: the weights, in GiB.
        gpu_gib: memory of the smallest GPU.
        num_gpus: GPUs of the machine.
        heads: query heads of a layer; `None`: not known.

    Returns:
        The most that there are where the weights would need more.
    """
    most = max(1, num_gpus // (compute.replicas * compute.pipeline_parallel))
    powers: list[int] = [2**i for i in range(most.bit_length())]
    possible = [n for n in powers if n <= most and not (heads and heads % n)]
    one_gib = gpu_gib * compute.gpu_memory_share * compute.pipeline_parallel
    return next((n for n in possible if needed_gib * KV_HEADROOM <= n * one_gib), possible[-1])


def weights_gib(folder: Path, dtype: str) -> float:
    """Memory of a model's weights once loaded, in GiB: quantised ones as they are, others in `dtype`."""
    files = list(folder.glob("*.safetensors"))
    config = read_json(folder / "config.json") or {}
    if config.get("quantization_config"):
        return sum(file.stat().st_size for file in files) / 2**30
    return sum(_num_weights(file) for file in files) * BYTES_PER_WEIGHT[dtype] / 2**30


def pick_cpu_dtype(folder: Path, wanted: str, memory_share: float = 1.0) -> tuple[str, ProductSpeed | None]:
    """The number format that a model is sampled in on CPU, measured in this process where the recipe leaves it open.

    Args:
        folder: the model's.
        wanted: `compute.dtype`.
        memory_share: share of the free memory that the weights may count on.

    Returns:
        The format, and the speeds that decided (`None`: the recipe or the weights did).
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


def kv_gib_needed(config: Any, num_tokens: int, dtype: str) -> float:
    """KV cache in GiB for `num_tokens`: keys and values of every layer and KV head.

    Args:
        config: the model's transformers configuration.
        num_tokens: tokens held at once, over all requests.
        dtype: the format that the model computes in.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    num_kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    num_bytes = 2 * BYTES_PER_WEIGHT[dtype] * config.num_hidden_layers * num_kv_heads * head_dim * num_tokens
    return float(num_bytes / 2**30)


def visible_gpus() -> dict[str, float]:
    """The NVIDIA GPUs that a process may use. Starts no CUDA.

    Returns:
        Each one's name, as CUDA_VISIBLE_DEVICES takes it, and its whole memory in GiB; infinite where nvidia-smi does
        not tell (a part of a GPU has a name of its own).
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
    """Memory that can be had without swapping, caches included (Linux's MemAvailable), in GiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return math.inf

"""Serve a model to other tools with vLLM's OpenAI-compatible server, prompted and stopped as in distill's evaluations.

The server gets a tokenizer that `load_tokenizer` has made: the same chat template, and the token that ends a turn as
its end of sequence. It listens on the loopback interface alone and wants a key.
"""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.thinking import opens_thinking
from distill.engines.memory import (
    CPU_BLOCK_SIZE,
    CPU_KV_SHARE,
    free_memory_gib,
    pick_cpu_dtype,
    visible_gpus,
    with_tensor_parallel,
)
from distill.engines.vllm import CPU_MAX_NUM_SEQS, MIN_BATCHED_TOKENS, cpu_environment
from distill.exchange.child_server import LOOPBACK, answers, child_server, free_port
from distill.execution.jobs import CHILD_ENVIRONMENT
from distill.models.hub import CONFIG, Model
from distill.models.tokenizers import load_tokenizer, render_prompt
from distill.recipe.sampling import SamplingCompute

MODULE = "vllm.entrypoints.openai.api_server"
SERVER_LOG = "server.log"
CPU_KV_GIB = 4.0
"""Most KV cache on CPU unless the recipe says otherwise, in GiB: what the requests will be is not known beforehand."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running OpenAI-compatible server."""

    url: str
    """Ends in `/v1`."""
    model: str
    """The name under which it serves the model."""
    key: str


@contextlib.contextmanager
def serve_model(
    model: Model, name: str, chat_format: str | None, compute: SamplingCompute, folder: Path
) -> Iterator[Endpoint]:
    """Serve a model for the length of a `with` block.

    Args:
        model: on this machine.
        name: the name to serve it under: letters, digits, dots, hyphens, underscores.
        chat_format: the template to use if the model has none.
        compute: how vLLM runs; for one copy of the model.
        folder: keeps the server's log.

    Raises:
        ModelError: the model has no usable chat template.
        StageError: the server died or did not start; with the end of its log.
    """
    tokenizer = load_tokenizer(model.path, chat_format, key="")
    key, port = secrets.token_hex(16), free_port()
    url = f"http://{LOOPBACK}:{port}/v1"
    with tempfile.TemporaryDirectory(prefix="distill-tokenizer-") as tokenizer_folder:
        tokenizer.save_pretrained(tokenizer_folder)
        shutil.copy(model.path / CONFIG, tokenizer_folder)  # vLLM looks for the kind of model beside a tokenizer too
        thinks = opens_thinking(render_prompt(tokenizer, [{"role": "user", "content": "Hello"}]))
        command, environment = server_command(model, name, Path(tokenizer_folder), port, compute, thinks)
        environment |= {"VLLM_API_KEY": key}  # not an argument: those can be seen by anybody on this machine
        with child_server(command, environment, folder / SERVER_LOG, lambda: answers(f"{url}/models", key)):
            yield Endpoint(url, name, key)


def server_command(
    model: Model, name: str, tokenizer: Path, port: int, compute: SamplingCompute, opens_thought: bool
) -> tuple[list[str], dict[str, str]]:
    """Return vLLM's command line and environment.

    Args:
        model: on this machine.
        name: the name to serve it under.
        tokenizer: folder of its tokenizer.
        port: on the loopback interface.
        compute: how vLLM runs.
        opens_thought: whether the chat template ends in an opening mark of thought, which answers then lack.
    """
    on_gpu = bool(visible_gpus())
    context = compute.max_model_len or int(model.config.get("max_position_embeddings", 0)) or None
    dtype = compute.dtype if on_gpu else pick_cpu_dtype(model.path, compute.dtype)[0]
    options: dict[str, Any] = {
        "host": LOOPBACK,
        "port": port,
        "model": model.path,
        "tokenizer": tokenizer,
        "served-model-name": name,
        "dtype": dtype,
        "max-num-seqs": compute.max_num_seqs or (256 if on_gpu else CPU_MAX_NUM_SEQS),
        "tensor-parallel-size": with_tensor_parallel(compute, model.path).tensor_parallel,
        "pipeline-parallel-size": compute.pipeline_parallel,
        # The sampling is what the request says: other defaults than a model's own, as in distill's evaluations.
        "generation-config": "vllm",
        **({} if context is None else {"max-model-len": context}),
    }
    flags = ["--disable-uvicorn-access-log"]
    environment = {**CHILD_ENVIRONMENT, **os.environ, "VLLM_LOGGING_LEVEL": "WARNING"}
    if compute.enforce_eager if compute.enforce_eager is not None else not on_gpu:
        flags.append("--enforce-eager")
    if opens_thought:
        # Splits off a thought whose opening mark stands in the prompt; clients look for both marks in the answer.
        options["reasoning-parser"] = "deepseek_r1"
    if on_gpu:
        options["gpu-memory-utilization"] = compute.gpu_memory_share
    else:
        flags.append("--no-enable-chunked-prefill")  # as in distill.engines.vllm
        options["max-num-batched-tokens"] = max(context or 0, MIN_BATCHED_TOKENS)
        options["block-size"] = CPU_BLOCK_SIZE
        kv_gib = compute.kv_cache_gib or max(1.0, min(CPU_KV_GIB, free_memory_gib() * CPU_KV_SHARE))
        environment = {**cpu_environment(kv_gib), **environment}
        # The server has its engine in a process of its own.
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
    return [sys.executable, "-m", MODULE, *arguments, *flags], environment

"""Starting the engine that a recipe asks for, from the table `ENGINES`."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace

from distill.engines.base import Engine, EngineSpec
from distill.errors import ModelError
from distill.recipe.sampling import SamplingCompute


def _vllm(spec: EngineSpec) -> Engine:
    from distill.engines.vllm import VllmEngine

    return VllmEngine(spec)


def _transformers(spec: EngineSpec) -> Engine:
    from distill.engines.transformers import TransformersEngine

    return TransformersEngine(spec)


def _server(spec: EngineSpec) -> Engine:
    from distill.engines.server import ServerEngine

    return ServerEngine(spec)


ENGINES: dict[str, Callable[[EngineSpec], Engine]] = {
    "vllm": _vllm,
    "server": _server,
    "transformers": _transformers,
}


def pick_engine(compute: SamplingCompute) -> str:
    """Return the engine's name: `server` if a URL is set, else as requested; `auto` prefers vLLM if installed.

    Raises:
        ModelError: the requested engine is not installed.
    """
    wanted = compute.engine
    if compute.base_urls:
        return "server"
    has_vllm = importlib.util.find_spec("vllm") is not None
    if wanted == "auto":
        return "vllm" if has_vllm else "transformers"
    if wanted == "vllm" and not has_vllm:
        raise ModelError(
            "compute.engine is vllm, which is not installed. Install it (`make install` in "
            "your checkout of distill, on a GPU machine) or set compute.engine: transformers."
        )
    return wanted


def start_engine(spec: EngineSpec) -> Engine:
    """Start the requested engine and load the model into it.

    Raises:
        ModelError: the engine is not installed, or cannot run the model with these settings.
    """
    name = pick_engine(spec.compute)
    start = ENGINES[name]
    if name == "vllm":
        from distill.engines.memory import with_tensor_parallel

        spec = replace(spec, compute=with_tensor_parallel(spec.compute, spec.model_path))
    if spec.compute.replicas == 1:
        return start(spec)
    from distill.engines.replicas import ReplicatedEngine

    return ReplicatedEngine(spec, start)

"""Engine that runs vLLM in this process. The only module that imports vllm.

Driving `LLM.llm_engine` directly (add_request, step) allows each finished sample to be stored at once and replaced by
the next; a blocking `LLM.generate` would hold all of them until the last is done.
"""

import math
import os
from dataclasses import dataclass
from typing import Any

from distill.core.records import FinishReason, SampleKey
from distill.core.thinking import opens_thinking
from distill.engines.base import (
    Completion,
    EngineSpec,
    Request,
    check_room,
    check_template,
    refuse_long_prompt,
    refuse_prompt,
)
from distill.engines.loops import CHECK_EVERY, loop_period
from distill.engines.memory import CPU_BLOCK_SIZE, CPU_KV_SHARE, free_memory_gib, kv_gib_needed, pick_cpu_dtype
from distill.errors import ModelError
from distill.execution.cpu_load import LoadFollower
from distill.models.chat_templates import TemplateError
from distill.models.tokenizers import encode, load_tokenizer, render_prompt
from distill.recipe.sampling import LoopStop

CPU_MAX_NUM_SEQS = 128
MIN_BATCHED_TOKENS = 4_096

GPU_ENVIRONMENT = {
    # Keep the engine core in this process, which dies with its parent: a forked one would survive a kill and hold GPU
    # memory and the ledger's lock. Tensor-parallel workers watch their parent themselves.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def cpu_environment(kv_cache_gib: float) -> dict[str, str]:
    """Return the environment variables that vLLM reads on import, for a machine without a GPU.

    They set one process on all cores, with unbound threads. vLLM's defaults reserve a core for a second process and
    bind threads to cores, even next to a busy process (`benchmarks/generate_cpu.py`, `neighbour.py`).

    Args:
        kv_cache_gib: size of the KV cache, rounded up because vLLM takes whole GiB.
    """
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(math.ceil(kv_cache_gib)),
    }


class VllmEngine:
    """One vLLM engine in this process. Implements `distill.engines.base.Engine`.

    Raises:
        ModelError: the model cannot be loaded, or a prompt and `max_tokens` do not fit its context.
    """

    def __init__(self, spec: EngineSpec) -> None:
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # the check for a GPU must not start CUDA
        import torch
        from transformers import AutoConfig

        on_gpu = torch.cuda.is_available()
        self._tokenizer = load_tokenizer(spec.model_path, spec.chat_format, key="")
        config = AutoConfig.from_pretrained(spec.model_path, trust_remote_code=False).get_text_config()
        check_template(self._tokenizer, spec)
        max_model_len = _context_needed(spec, self._tokenizer, config)
        dtype: str = spec.compute.dtype
        speed = None
        if not on_gpu:
            dtype, speed = pick_cpu_dtype(spec.model_path, dtype, spec.memory_share)
        arguments = _engine_arguments(spec, max_model_len, dtype, on_gpu)
        environment = GPU_ENVIRONMENT
        self._load: LoadFollower | None = None
        if not on_gpu:
            self._load = LoadFollower(spec.compute.cpu_threads or len(os.sched_getaffinity(0)))
            environment = cpu_environment(_cpu_kv_gib(spec, config, arguments))
        for key, value in environment.items():
            os.environ.setdefault(key, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        import vllm

        if not on_gpu:
            _draw_with_our_sampler()
        try:
            self.llm = vllm.LLM(**arguments)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{spec.model_name}: vLLM cannot load it: {str(error).splitlines()[0][:300]}. The log "
                "in the run folder says more. Lower compute.max_model_len, or set compute.engine: transformers."
            ) from error
        self._engine: Any = self.llm.llm_engine
        self._sampling = spec.sampling
        self._max_model_len = max_model_len
        self._stop_ids = [self._tokenizer.eos_token_id]
        self._loops = spec.loops
        self._num_steps = 0
        self._in_flight: dict[str, _InFlight] = {}
        self.max_in_flight: int = arguments["max_num_seqs"] * 2  # the surplus waits inside, ready to take a free slot
        hidden = ("model", "tokenizer", "disable_log_stats")
        self.settings: dict[str, Any] = {
            "name": "vllm",
            "version": vllm.__version__,
            "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
            **{key: value for key, value in arguments.items() if key not in hidden},
            **{key: os.environ[key] for key in environment},
            **({} if self._load is None else {"threads": self._load.num_threads}),
            **({} if speed is None else {"gflops": speed.to_json()}),
        }

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def num_tokens_in_flight(self) -> int:
        states = self._engine.output_processor.request_states
        return sum(states[s.inner_name].detokenizer.num_output_tokens() for s in self._in_flight.values())

    def submit(self, request: Request) -> Completion | None:
        from vllm.inputs import TokensPrompt

        try:
            text = render_prompt(self._tokenizer, request.messages)
        except TemplateError as error:
            return refuse_prompt(request, error)
        ids = encode(self._tokenizer, text)
        room = self._max_model_len - len(ids)
        if room < 1:
            return refuse_long_prompt(request, len(ids), self._max_model_len)
        name = f"{request.key[0]}/{request.key[1]}"
        params = self.sampling_params(request, room)
        inner_name = self._engine.add_request(name, TokensPrompt(prompt_token_ids=ids), params)
        self._in_flight[name] = _InFlight(request.key, inner_name, len(ids), opens_thinking(text))
        return None

    def sampling_params(self, request: Request, room: int) -> Any:
        """Return vLLM's parameters for a request.

        Args:
            request: the request.
            room: tokens of the context left by its prompt.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            top_k=self._sampling.top_k,
            max_tokens=min(self._sampling.max_tokens, room),
            seed=request.seed,
            stop_token_ids=self._stop_ids,
            skip_special_tokens=False,  # the text is kept verbatim; in some models <think> is a special token
            output_kind=RequestOutputKind.FINAL_ONLY,  # other kinds copy the whole text at each token
        )

    def close(self) -> None:
        if self._load is not None:
            self._load.close()
        self._engine.engine_core.shutdown()

    def step(self) -> list[Completion]:
        if self._load is not None:
            self._load.follow()
        finished = []
        for output in self._engine.step():
            if not output.finished:
                continue
            sample = self._in_flight.pop(output.request_id)
            answer = output.outputs[0]
            reason: FinishReason = answer.finish_reason if answer.finish_reason in ("stop", "length") else "error"
            error = f"vLLM: {answer.finish_reason}" if reason == "error" else ""
            finished.append(sample.completion(answer.text, reason, len(answer.token_ids), error))
        self._num_steps += 1
        if self._loops is not None and self._num_steps % CHECK_EVERY == 0:
            finished += self._stop_loops(self._loops)
        return finished

    def _stop_loops(self, loops: LoopStop) -> list[Completion]:
        """Remove samples that only repeat themselves from the engine."""
        # vLLM's own `repetition_detection` checks every period after every token of every request, in Python. It is
        # cheaper to check the detokenizer's tokens only now and then.
        states = self._engine.output_processor.request_states
        stopped = []
        for name, sample in list(self._in_flight.items()):
            detokenizer = states[sample.inner_name].detokenizer
            if loop_period(detokenizer.output_token_ids, loops) is None:
                continue
            text = detokenizer.get_next_output_text(finished=True, delta=False)
            stopped.append(sample.completion(text, "loop", detokenizer.num_output_tokens(), ""))
            self._engine.abort_request([sample.inner_name], internal=True)
            del self._in_flight[name]
        return stopped


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A request inside the engine."""

    key: SampleKey
    inner_name: str
    """vLLM's own name for it, the key of its state."""
    num_prompt_tokens: int
    think_opened: bool

    def completion(self, text: str, reason: FinishReason, num_tokens: int, error: str) -> Completion:
        return Completion(self.key, text, reason, self.num_prompt_tokens, num_tokens, self.think_opened, error)


def _draw_with_our_sampler() -> None:
    """Make vLLM sample on CPU with `cpu_sampler.draw` in this process."""
    # vLLM has no setting for its sampler (0.31: vllm/v1/sample/ops/topk_topp_sampler.py), so its CPU method is
    # replaced. Besides tokens, that method returns only log-probabilities, which distill never requests.
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    from distill.engines.cpu_sampler import draw

    def forward_cpu(sampler: Any, logits: Any, generators: dict[int, Any], k: Any, p: Any) -> tuple[Any, None]:
        return draw(logits, generators, k, p), None

    TopKTopPSampler.forward_cpu = forward_cpu


def _cpu_kv_gib(spec: EngineSpec, config: Any, arguments: dict[str, Any]) -> float:
    """Return the recipe's KV cache size, or what a full batch needs within a share of the free memory, in GiB."""
    if spec.compute.kv_cache_gib is not None:
        return spec.compute.kv_cache_gib
    most = max(1.0, math.floor(free_memory_gib() * CPU_KV_SHARE * spec.memory_share))
    num_tokens = arguments["max_num_seqs"] * arguments["max_model_len"]
    return min(most, kv_gib_needed(config, num_tokens, arguments["dtype"]))


def _context_needed(spec: EngineSpec, tokenizer: Any, config: Any) -> int:
    """Return the tokens of the longest prompt and completion together, limited by the model's context."""
    context = int(getattr(config, "max_position_embeddings", 0)) or 1 << 20
    if spec.compute.max_model_len is not None:
        if spec.compute.max_model_len > context:
            raise ModelError(
                f"compute.max_model_len ({spec.compute.max_model_len}) exceeds the context of {spec.model_name} "
                f"({context} tokens). Lower it, or leave it out."
            )
        return spec.compute.max_model_len
    check_room(spec, context)
    prompts = (len(encode(tokenizer, render_prompt(tokenizer, m))) for m in spec.longest_messages)
    return min(context, max(prompts, default=0) + spec.sampling.max_tokens)


def _engine_arguments(spec: EngineSpec, max_model_len: int, dtype: str, on_gpu: bool) -> dict[str, Any]:
    compute = spec.compute
    arguments: dict[str, Any] = {
        "model": str(spec.model_path),
        "tokenizer": str(spec.model_path),
        "dtype": dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": compute.max_num_seqs or (256 if on_gpu else CPU_MAX_NUM_SEQS),
        "tensor_parallel_size": compute.tensor_parallel or 1,
        "pipeline_parallel_size": compute.pipeline_parallel,
        "enforce_eager": compute.enforce_eager if compute.enforce_eager is not None else not on_gpu,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "trust_remote_code": False,
    }
    if on_gpu:
        arguments["gpu_memory_utilization"] = compute.gpu_memory_share
    else:
        # On vLLM 0.31's CPU backend, a chunked prefill of a request with its own seed raises "CPU Generator does not
        # use offset".
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(max_model_len, MIN_BATCHED_TOKENS)
        arguments["block_size"] = CPU_BLOCK_SIZE
    return arguments

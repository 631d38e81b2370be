"""Engine that runs vLLM in this process. The only module that imports vllm.

Driving `LLM.llm_engine` directly (add_request, step) allows each finished sample to be stored at once and replaced by
the next; a blocking `LLM.generate` would hold all of them until the last is done.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distill.core.records import FinishReason, SampleKey
from distill.engines.base import (
    Completion,
    EngineSpec,
    Request,
    Weights,
    check_room,
    check_template,
    check_update,
    read_prompt,
    refuse_long_prompt,
    refuse_prompt,
)
from distill.engines.loops import CHECK_EVERY, loop_period
from distill.engines.memory import CPU_BLOCK_SIZE, CPU_KV_SHARE, free_memory_gib, kv_gib_needed, pick_cpu_dtype
from distill.engines.weights import checked, file_names
from distill.errors import ModelError, StageError
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
            num_threads = spec.compute.cpu_threads or len(os.sched_getaffinity(0))
            if spec.updates:
                # Another number of threads may round otherwise, and a resumed run is to draw the same tokens.
                torch.set_num_threads(num_threads)
                self._load = LoadFollower()
            else:
                self._load = LoadFollower(num_threads)
            environment = cpu_environment(_cpu_kv_gib(spec, config, arguments))
        for key, value in environment.items():
            os.environ.setdefault(key, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        import vllm

        if not on_gpu:
            _draw_with_our_sampler()
            if spec.updates:
                _keep_weights()
        try:
            self.llm = vllm.LLM(**arguments)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{spec.model_name}: vLLM cannot load it: {str(error).splitlines()[0][:300]}. The log "
                "in the run folder says more. Lower compute.max_model_len, or set compute.engine: transformers."
            ) from error
        self._engine: Any = self.llm.llm_engine
        self._sampling = spec.sampling
        self._logprobs, self._updates, self._sleeps = spec.logprobs, spec.updates, spec.sleeps
        self._on_gpu = on_gpu
        self._is_alone = arguments["tensor_parallel_size"] * arguments["pipeline_parallel_size"] == 1
        self._model_path = spec.model_path
        self._sleep_level = 0
        """0: awake."""
        self._weights_are_gone = False
        """Weights were dropped, or an update of them was broken off: requests would get nonsense."""
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
            **({} if on_gpu else {"threads": num_threads}),
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

        if self._sleep_level or self._weights_are_gone:
            raise ValueError("the engine sleeps, or its weights are gone: call wake, update_weights")
        try:
            ids, think_opened = read_prompt(self._tokenizer, request)
        except TemplateError as error:
            return refuse_prompt(request, error)
        room = self._max_model_len - len(ids)
        if room < 1:
            return refuse_long_prompt(request, len(ids), self._max_model_len)
        name = f"{request.key[0]}/{request.key[1]}"
        params = self.sampling_params(request, room)
        inner_name = self._engine.add_request(name, TokensPrompt(prompt_token_ids=ids), params)
        self._in_flight[name] = _InFlight(request.key, inner_name, len(ids), think_opened)
        return None

    def sampling_params(self, request: Request, room: int) -> Any:
        """Return vLLM's parameters for a request.

        Args:
            request: the request.
            room: tokens of the context left by its prompt.

        Raises:
            ModelError: on a GPU, log-probabilities of a draw that top-p or top-k limit.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling or self._sampling
        wants_logprobs = self._logprobs and sampling.temperature > 0
        if wants_logprobs and self._on_gpu and (sampling.top_p < 1 or sampling.top_k > 0):
            # vLLM 0.31 has log-probabilities before the temperature or after these limits, and TRL's are in between.
            raise ModelError(
                "vLLM on a GPU gives no log-probabilities of tokens drawn with top_p or top_k. Set sampling.top_p to 1 "
                "and sampling.top_k to 0."
            )
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=min(sampling.max_tokens, room),
            seed=request.seed,
            stop_token_ids=self._stop_ids,
            skip_special_tokens=False,  # the text is kept verbatim; in some models <think> is a special token
            output_kind=RequestOutputKind.FINAL_ONLY,  # other kinds copy the whole text at each token
            logprobs=0 if wants_logprobs else None,  # those of the drawn token alone
            flat_logprobs=True,
        )

    def update_weights(self, weights: Weights) -> None:
        check_update(self._updates, len(self._in_flight))
        self.wake()
        self._weights_are_gone = True  # until all have come
        arrived = checked(weights, file_names(self._model_path))
        if not self._on_gpu:
            self.llm.apply_model(lambda model: _load_and_pack(model, arrived))
        else:
            # vLLM's own way keeps the tensors that CUDA graphs know. Processes of tensor parallelism get pickles.
            weights = arrived if self._is_alone else [(name, tensor.cpu()) for name, tensor in arrived]
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if not self.llm.reset_prefix_cache():
            raise StageError("vLLM keeps what it computed with old weights: its prefix cache cannot be emptied.")
        self._weights_are_gone = False

    def sleep(self, level: Literal[1, 2] = 1) -> None:
        if self._in_flight:
            raise ValueError(f"{len(self._in_flight)} requests are in flight")
        if not self._sleeps:
            raise ValueError("started without EngineSpec.sleeps")
        if self._on_gpu and not self._sleep_level:
            self.llm.sleep(level=level)  # empties the prefix cache too
            self._sleep_level = level

    def wake(self) -> None:
        if self._sleep_level:
            self.llm.wake_up()
            self._weights_are_gone = self._weights_are_gone or self._sleep_level == 2
            self._sleep_level = 0

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
            finished.append(self._completion(sample, answer.text, reason, answer.token_ids, answer.logprobs, error))
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
            logprobs = states[sample.inner_name].logprobs_processor.logprobs
            stopped.append(self._completion(sample, text, "loop", detokenizer.output_token_ids, logprobs))
            self._engine.abort_request([sample.inner_name], internal=True)
            del self._in_flight[name]
        return stopped

    def _completion(
        self, sample: "_InFlight", text: str, reason: FinishReason, ids: Sequence[int], logprobs: Any, error: str = ""
    ) -> Completion:
        """Return a finished request's completion; `logprobs` are vLLM's flat ones, or `None`."""
        # `ids` may be vLLM's own view of a list that it goes on to fill.
        token_ids = tuple(ids) if self._logprobs else ()
        return Completion(
            sample.key,
            text,
            reason,
            sample.num_prompt_tokens,
            len(ids),
            sample.think_opened,
            error,
            token_ids=token_ids,
            logprobs=() if logprobs is None else tuple(logprobs.logprobs),
        )


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A request inside the engine."""

    key: SampleKey
    inner_name: str
    """vLLM's own name for it, the key of its state."""
    num_prompt_tokens: int
    think_opened: bool


def _draw_with_our_sampler() -> None:
    """Make vLLM sample on CPU with `cpu_sampler.draw` in this process."""
    # vLLM has no setting for its sampler (0.31: vllm/v1/sample/ops/topk_topp_sampler.py), so its CPU method is
    # replaced. Its log-probabilities of the whole vocabulary are replaced by one column, those of the drawn tokens,
    # which `Sampler.gather_logprobs` would search for others and for ranks.
    import torch
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
    from vllm.v1.sample.sampler import Sampler

    from distill.engines.cpu_sampler import draw

    def forward_cpu(sampler: Any, logits: Any, generators: dict[int, Any], k: Any, p: Any) -> tuple[Any, Any]:
        tokens_B, logprobs_B = draw(logits, generators, k, p)
        return tokens_B, logprobs_B[:, None]

    def gather_logprobs(logprobs_B1: Any, num_logprobs: int, token_ids: Any) -> Any:
        return LogprobsTensors(token_ids[:, None].int(), logprobs_B1, torch.zeros_like(token_ids))

    TopKTopPSampler.forward_cpu = forward_cpu
    Sampler.gather_logprobs = staticmethod(gather_logprobs)


def _keep_weights() -> None:
    """Make vLLM keep weights on a CPU that it has packed for oneDNN, in this process, so that they can be loaded again.

    vLLM 0.31 drops them (layers/utils.py, `dispatch_cpu_unquantized_gemm`). Its `reload_weights` makes them anew each
    time, which takes longer (`benchmarks/weight_sync.py`), and leaves the packed copy of a tied head as it was: not
    being in the files, that weight counts as not loaded (model_loader/reload/layerwise.py,
    `finalize_layerwise_processing`). Without any packing an update would take a fifth of the time, and sampling more
    than twice (SmolLM2-135M in float32, two AVX-512 cores of an AMD EPYC Zen 5).
    """
    from vllm.model_executor.layers import utils

    dispatch = utils.dispatch_cpu_unquantized_gemm
    if not hasattr(dispatch, "keeps"):

        def keep(layer: Any, remove_weight: bool) -> None:
            dispatch(layer, remove_weight=False)

        keep.keeps = True  # type: ignore[attr-defined]
        utils.dispatch_cpu_unquantized_gemm = keep


def _load_and_pack(model: Any, weights: Weights) -> None:
    """Load weights into vLLM's model on a CPU, and pack them again.

    Raises:
        ModelError: the model has layers whose packed weights are not known here.
    """
    from vllm.model_executor.layers import utils
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )

    layers = [module for module in model.modules() if getattr(module, "weight", None) is not None]
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        packs = isinstance(method, UnquantizedLinearMethod | UnquantizedEmbeddingMethod)
        if method is not None and (not packs or hasattr(module, "_cpu_unpacked_conv_weight")):
            raise ModelError(
                f"vLLM's weights of a {type(module).__name__} cannot be updated on a CPU: use compute.engine "
                "transformers."
            )
    model.load_weights(weights)
    has_head = any(isinstance(module, ParallelLMHead) for module in layers)
    for module in layers:
        # Embeddings compute nothing, unless they are the head.
        if hasattr(module, "cpu_linear") and not (has_head and type(module) is VocabParallelEmbedding):
            utils.dispatch_cpu_unquantized_gemm(module, remove_weight=False)


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
    if spec.sleeps and on_gpu:
        arguments["enable_sleep_mode"] = True
    if spec.logprobs:
        arguments["logprobs_mode"] = "processed_logprobs"  # after the temperature, as in TRL's `vllm_generation.py`
    if on_gpu:
        arguments["gpu_memory_utilization"] = compute.gpu_memory_share
        if spec.updates and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # An engine in each training process, on that process's GPU, as TRL's colocated mode does it.
            arguments["distributed_executor_backend"] = "external_launcher"
    else:
        # On vLLM 0.31's CPU backend, a chunked prefill of a request with its own seed raises "CPU Generator does not
        # use offset".
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(max_model_len, MIN_BATCHED_TOKENS)
        arguments["block_size"] = CPU_BLOCK_SIZE
    return arguments

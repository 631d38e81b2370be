"""How models are sampled: sampling parameters, engine settings, loop detection and token prices."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.recipe.base import Share, Strict, Url
from distill.recipe.lengths import ANSWER_TOKENS, ROW_TOKENS


class Sampling(Strict):
    """Sampling parameters. The defaults are DeepSeek-R1's evaluation protocol."""

    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.6
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Nucleus sampling: the smallest set of tokens with this total probability. On CPU, 1.0 avoids sorting the
    vocabulary."""
    top_k: NonNegativeInt = 0
    """Sample from the k most probable tokens; 0: all."""
    max_tokens: PositiveInt = ROW_TOKENS
    """Longest completion, in tokens of the sampled model. If omitted under `generate:`, it is lowered to fit
    `sft.max_length` and the teacher's context."""


class EvalSampling(Sampling):
    """Sampling parameters for evaluation."""

    max_tokens: PositiveInt = ANSWER_TOKENS
    """Longest answer, in tokens of the evaluated model. If omitted, it is lowered to fit the student's context."""


class SamplingCompute(Strict):
    """Where and how an engine runs. Affects speed, never what a result means; not part of a fingerprint."""

    engine: Literal["auto", "vllm", "server", "transformers"] = "auto"
    """`auto`: the server if base_urls is set, else vLLM if it is installed, else transformers."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the computation; auto: the model's own on a GPU, the faster of bfloat16 and float32 on CPU."""
    tensor_parallel: PositiveInt | None = None
    """GPUs that share each layer of one copy of the model. Default: the fewest that hold its weights and leave room for
    a KV cache (vllm)."""
    pipeline_parallel: PositiveInt = 1
    """Pipeline stages: groups of GPUs that split the layers of one copy (vllm)."""
    replicas: PositiveInt = 1
    """Copies of the model, each a process with its own GPUs (or CPU cores); all share one queue."""
    max_num_seqs: PositiveInt | None = None
    """Maximum number of samples in flight per copy. Default: the engine decides."""
    max_model_len: PositiveInt | None = None
    """Longest prompt and completion together, in tokens. Default: what the longest prompt needs, within the context."""
    kv_cache_gib: PositiveFloat | None = None
    """KV cache of one copy on CPU, in GiB. Default: depends on free memory."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of each GPU's memory for the engine (vllm)."""
    enforce_eager: bool | None = None
    """Skip compilation and CUDA graphs. Default: true on CPU, false on GPU (vllm)."""
    cpu_threads: PositiveInt | None = None
    """Compute threads of one copy (no GPU). Default: the number of cores, divided among the replicas."""
    base_urls: list[Url] = []
    """OpenAI-compatible endpoints, e.g. `http://host:8000/v1`; each request goes to one that has room (server)."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Environment variable with the API key; a server without keys needs none (server)."""
    max_in_flight: PositiveInt | None = None
    """Maximum number of requests in flight, over all base_urls. Default: 256 per URL (server)."""
    request_timeout_s: PositiveFloat = 3_600.0
    """Time after which a request is cancelled and retried, in seconds (server)."""
    max_attempts: PositiveInt = 6
    """Attempts at one request while others succeed; after that, its sample is recorded as an error (server)."""
    give_up_after_s: PositiveFloat = 1_800.0
    """Stop if no server has answered any request for this long, in seconds (server)."""
    max_error_share: Share = 0.5
    """Stop with an error if more than this share of the samples ended in errors; the same command retries them."""
    drain_s: Annotated[float, Field(ge=0.0)] = 15.0
    """Time for samples in flight to finish after Ctrl-C or SIGTERM, in seconds."""

    @model_validator(mode="after")
    def _urls_belong_to_the_server(self) -> Self:
        if self.engine == "server" and not self.base_urls:
            raise ValueError("engine: server needs base_urls, e.g. base_urls: [http://localhost:8000/v1]")
        if self.base_urls and self.engine not in ("server", "auto"):
            raise ValueError(f"base_urls is for engine: server; engine is {self.engine}. Remove one of the two")
        if self.base_urls and self.replicas > 1:
            raise ValueError("replicas are copies on this machine; for several servers, list them in base_urls")
        return self


class LoopStop(Strict):
    """Limits at which a sample is stopped as a loop: its last tokens repeat one phrase."""

    min_repeats: Annotated[int, Field(ge=3)] = 8
    """Minimum number of repeats of the phrase."""
    min_tokens: Annotated[int, Field(ge=16)] = 256
    """Minimum length of all repeats together, in tokens."""
    max_period: PositiveInt = 512
    """Longest phrase that is detected, in tokens."""


class Price(Strict):
    """Prices of the teacher's tokens."""

    input_per_million: Annotated[float, Field(ge=0.0)]
    """Price of a million prompt tokens."""
    output_per_million: Annotated[float, Field(ge=0.0)]
    """Price of a million completion tokens, including the reasoning."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    """Currency shown with the amounts."""

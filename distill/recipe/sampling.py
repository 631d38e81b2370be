"""How models are sampled: what is drawn, where an engine runs, what tokens cost."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.recipe.base import Share, Strict, Url
from distill.recipe.lengths import ANSWER_TOKENS, ROW_TOKENS


class Sampling(Strict):
    """How tokens are drawn. Defaults: DeepSeek-R1's evaluation protocol."""

    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.6
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Nucleus: the smallest set of tokens with this much probability. On CPU, 1.0 avoids sorting the vocabulary."""
    top_k: NonNegativeInt = 0
    """Sample from this many most probable tokens; 0: all."""
    max_tokens: PositiveInt = ROW_TOKENS
    """Longest completion, in tokens of the model that is sampled. Left out under `generate:`, it follows
    `sft.max_length` and the teacher's context where these are shorter."""


class EvalSampling(Sampling):
    """How tokens are drawn when measuring."""

    max_tokens: PositiveInt = ANSWER_TOKENS
    """Longest answer, in tokens of the model that is measured. Left out, it follows the student's context where that
    is shorter."""


class SamplingCompute(Strict):
    """Where and how an engine runs. It changes speed, never what a result means, and is not part of a fingerprint."""

    engine: Literal["auto", "vllm", "server", "transformers"] = "auto"
    """`auto`: the server where base_urls is set; else vLLM where it is installed, else transformers."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format that is computed in; auto: the model's own on a GPU, on CPU what it multiplies faster: bfloat16 or
    float32."""
    tensor_parallel: PositiveInt | None = None
    """GPUs that share each layer of one copy of the model; left out: as few as hold its weights and leave room for a
    KV cache (vllm)."""
    pipeline_parallel: PositiveInt = 1
    """Groups of GPUs that share the layers of one copy among them (vllm)."""
    replicas: PositiveInt = 1
    """Copies of the model, each a process on GPUs (or CPU cores) of its own; all share one queue."""
    max_num_seqs: PositiveInt | None = None
    """Most samples in flight in one copy; left out: the engine's own pick."""
    max_model_len: PositiveInt | None = None
    """Prompt and completion together, in tokens; left out: what the longest prompt needs, within the context."""
    kv_cache_gib: PositiveFloat | None = None
    """KV cache of one copy on CPU, in GiB; left out: picked from free memory."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of each GPU's memory for the engine (vllm)."""
    enforce_eager: bool | None = None
    """Skip compilation and CUDA graphs; left out: true on CPU, false on GPU (vllm)."""
    cpu_threads: PositiveInt | None = None
    """Threads that compute, of one copy; left out: as many as cores, divided among the replicas (no GPU)."""
    base_urls: list[Url] = []
    """OpenAI-compatible endpoints, e.g. `http://host:8000/v1`; requests go to whichever has room (server)."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server without keys needs none (server)."""
    max_in_flight: PositiveInt | None = None
    """Requests in flight over all base_urls together; left out: 256 for each (server)."""
    request_timeout_s: PositiveFloat = 3_600.0
    """A request that takes longer is cancelled and retried, in seconds (server)."""
    max_attempts: PositiveInt = 6
    """Attempts at one request while others succeed; then its sample is recorded as an error (server)."""
    give_up_after_s: PositiveFloat = 1_800.0
    """Stop if no server has answered anything for this time, in seconds (server)."""
    max_error_share: Share = 0.5
    """Stop with an error where more than this share of the samples ended in errors; the same command retries them."""
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
    """When a sample is stopped as a loop: its last tokens repeat one phrase."""

    min_repeats: Annotated[int, Field(ge=3)] = 8
    """Least number of repeats of the phrase."""
    min_tokens: Annotated[int, Field(ge=16)] = 256
    """Least length of all repeats together, in tokens."""
    max_period: PositiveInt = 512
    """Longest phrase that is looked for, in tokens."""


class Price(Strict):
    """Prices of the teacher's tokens."""

    input_per_million: Annotated[float, Field(ge=0.0)]
    """Money for a million prompt tokens."""
    output_per_million: Annotated[float, Field(ge=0.0)]
    """Money for a million completion tokens, those of the thinking included."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    """Currency, shown beside the amounts."""

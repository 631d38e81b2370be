"""Engine that runs transformers in this process, for machines without vLLM.

There are three ways of batching, reported in `settings["batching"]`. `continuous` is transformers' own continuous
batching: a request enters as soon as another one finishes. `static`, for models that it does not support, runs
`generate` on whole batches, whose answers arrive together with the longest one. `seeded` (`seeded_batches.py`) is for
rollouts: it has log-probabilities, and works on a trainer's own module. The first two support no seed per request:
continuous batching draws all requests from one stream, and a static batch uses one seed derived from its requests'
seeds. A sample is therefore reproducible only together with its batch (static) or not at all (continuous).

Temperature, top-p and top-k are settings of a whole batch, token limits those of a row. Requests with other settings
than those in the batch wait until it is empty.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Literal

from distill.core.records import FinishReason
from distill.engines.base import (
    STEP_S,
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
from distill.engines.batching import Batcher, PendingRequest, RowResult
from distill.engines.loops import CHECK_EVERY, is_looping, loop_period
from distill.engines.memory import CPU_BLOCK_SIZE, CPU_KV_SHARE, free_memory_gib, kv_gib_needed, pick_cpu_dtype
from distill.engines.padded_attention import PADDED, set_paged_attention
from distill.engines.weights import checked
from distill.errors import ModelError, StageError
from distill.execution.cpu_load import LoadFollower
from distill.models.chat_templates import TemplateError
from distill.models.tokenizers import encode, load_tokenizer, render_prompt
from distill.recipe.sampling import LoopStop, Sampling

Batching = Literal["continuous", "static", "seeded"]

DEFAULT_BATCH = 32
MAX_BATCH_TOKENS = 2_048
"""Most prompt and completion tokens in one forward pass on CPU, over all requests."""
STOP_WITHIN_S = 30.0
"""How long the generating thread may take to finish its step."""
PADDED_GPU_SHARE = 0.8
"""Share of the engine's GPU memory for the cache: `PaddedAttention` needs room to copy one layer's part of it."""


class TransformersEngine:
    """One model in this process. Implements `distill.engines.base.Engine`.

    Args:
        spec: what to start.
        batching: the way of batching; default: seeded for log-probabilities or a given model, else continuous if the
            model supports it.
        model: a module to sample as it is, such as the one in training: the engine has no weights of its own then, and
            leaves the module's settings and modes alone. Default: the model at `spec.model_path` is loaded.

    Raises:
        ModelError: `max_tokens` does not fit the model's context, or the KV cache does not fit into memory.
        ValueError: only seeded batching has log-probabilities or takes a given model.
    """

    def __init__(self, spec: EngineSpec, batching: Batching | None = None, model: Any = None) -> None:
        import torch
        import transformers

        if spec.compute.cpu_threads is not None:
            torch.set_num_threads(spec.compute.cpu_threads)
        on_gpu = torch.cuda.is_available()
        name: str = "bfloat16" if spec.compute.dtype == "auto" else spec.compute.dtype
        speed = None
        self._load: LoadFollower | None = None
        if not on_gpu:
            if model is None:
                name, speed = pick_cpu_dtype(spec.model_path, spec.compute.dtype, spec.memory_share)
            # Without a number of threads: it is a setting of the computing thread, which is not this one.
            self._load = LoadFollower()
        self._tokenizer = load_tokenizer(spec.model_path, spec.chat_format, key="")
        check_template(self._tokenizer, spec)
        self._is_shared = model is not None
        seeded = spec.logprobs or self._is_shared
        if seeded and batching not in (None, "seeded"):
            raise ValueError(f"{batching} batching has no log-probabilities, and takes no given model")
        if model is None:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                spec.model_path, dtype=getattr(torch, name), trust_remote_code=False
            )
            model.to("cuda" if on_gpu else "cpu").eval()
            # `generate` takes unset options from here; the model's own file may set a repetition penalty, for example.
            model.generation_config = self._generation_config(spec.sampling)
        self._model = model
        self._logprobs, self._updates = spec.logprobs, spec.updates
        self._context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 20))
        if spec.compute.max_model_len is not None:
            self._context = min(self._context, spec.compute.max_model_len)
        check_room(spec, self._context)
        self._sampling = spec.sampling
        self._method = _method(spec.sampling)
        """Settings by which the batcher draws."""
        self._held: deque[PendingRequest] = deque()
        """Requests with other settings, which wait until the batcher is empty."""
        self._num_in_flight = 0
        batching = batching or ("seeded" if seeded else "continuous" if _can_batch_continuously(model) else "static")
        self._batcher: Batcher
        if batching == "seeded":
            from distill.engines.seeded_batches import SeededBatcher

            self._batcher = SeededBatcher(
                model, self._tokenizer.eos_token_id, spec, spec.compute.max_num_seqs or DEFAULT_BATCH
            )
        elif batching == "continuous":
            longest = min(self._context, self._longest_prompt(spec) + spec.sampling.max_tokens)
            continuous = ContinuousBatcher(model, spec, longest)
            self._batcher = continuous
            self._context = min(self._context, continuous.cache_tokens or self._context)
        else:
            self._batcher = StaticBatcher(model, self._tokenizer, spec)
        self.max_in_flight = self._batcher.max_in_flight
        self.settings: dict[str, Any] = {
            "name": "transformers",
            "version": transformers.__version__,
            "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
            "dtype": str(model.dtype).removeprefix("torch."),
            "batching": batching,
            "attention": model.config.get_text_config()._attn_implementation,
            "max_num_seqs": spec.compute.max_num_seqs or DEFAULT_BATCH,
            **({} if on_gpu else {"threads": torch.get_num_threads()}),
            **({} if speed is None else {"gflops": speed.to_json()}),
        }

    @property
    def num_in_flight(self) -> int:
        return self._num_in_flight

    @property
    def num_tokens_in_flight(self) -> int:
        return self._batcher.num_tokens

    def submit(self, request: Request) -> Completion | None:
        try:
            ids, think_opened = read_prompt(self._tokenizer, request)
        except TemplateError as error:
            return refuse_prompt(request, error)
        sampling = request.sampling or self._sampling
        room = min(sampling.max_tokens, self._context - len(ids))
        if room < 1:
            return refuse_long_prompt(request, len(ids), self._context)
        asked = PendingRequest(request, ids, room, think_opened)
        if _method(sampling) == self._method:
            self._batcher.add(asked)
        else:
            self._held.append(asked)
        self._num_in_flight += 1
        return None

    def step(self) -> list[Completion]:
        if self._load is not None:
            self._load.follow()
        if self._held and self._num_in_flight == len(self._held):
            self._change_method()
        finished = [self._completion(drawn) for drawn in self._batcher.step()]
        self._num_in_flight -= len(finished)
        return finished

    def _change_method(self) -> None:
        """Draw by the settings of the first request that waits for others, and add all those that share them."""
        sampling = self._held[0].request.sampling or self._sampling
        self._method = _method(sampling)
        self._batcher.draw_by(self._generation_config(sampling))
        held, self._held = self._held, deque()
        for asked in held:
            same = _method(asked.request.sampling or self._sampling) == self._method
            (self._batcher.add if same else self._held.append)(asked)

    def update_weights(self, weights: Weights) -> None:
        if self._is_shared:
            return  # the module has them
        check_update(self._updates, self._num_in_flight)
        import torch

        # Tied weights once, by their first name, as a module's parameters are listed.
        own = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, tensor in checked(weights, set(own)):
                self._model.get_parameter(name).copy_(tensor)
        self._batcher.draw_by(
            self._generation_config(self._sampling)
        )  # continuous batching keeps the old ones' prefixes
        self._method = _method(self._sampling)

    def sleep(self, level: Literal[1, 2] = 1) -> None:
        """Do nothing: only vLLM gives back memory."""

    def wake(self) -> None:
        """Do nothing, like `sleep`."""

    def close(self) -> None:
        if self._load is not None:
            self._load.close()
        self._batcher.close()
        del self._batcher, self._model

    def _completion(self, drawn: RowResult) -> Completion:
        stopped = drawn.ids[-1:] == [self._tokenizer.eos_token_id]
        reason: FinishReason = "error" if drawn.error else "loop" if drawn.looped else "stop" if stopped else "length"
        # Only the stop token is dropped: in some models <think> is a special token too.
        text = self._tokenizer.decode(drawn.ids[:-1] if stopped else drawn.ids)
        asked = drawn.asked
        counts = len(asked.ids), len(drawn.ids)
        return Completion(
            asked.request.key,
            text,
            reason,
            *counts,
            think_opened=asked.think_opened,
            error=drawn.error,
            token_ids=tuple(drawn.ids) if self._logprobs else (),
            logprobs=tuple(drawn.logprobs) if self._logprobs else (),
        )

    def _longest_prompt(self, spec: EngineSpec) -> int:
        prompts = (render_prompt(self._tokenizer, messages) for messages in spec.longest_messages)
        return max((len(encode(self._tokenizer, text)) for text in prompts), default=0)

    def _generation_config(self, sampling: Sampling) -> Any:
        from transformers import GenerationConfig

        greedy = sampling.temperature == 0
        drawn = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p}
        return GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=not greedy,
            top_k=sampling.top_k,
            eos_token_id=self._tokenizer.eos_token_id,
            pad_token_id=self._tokenizer.pad_token_id,
            **drawn,
        )


def _method(sampling: Sampling) -> tuple[float, float, int]:
    """Return the settings that all requests in one batch share; those that a greedy draw ignores are left out."""
    greedy = sampling.temperature == 0
    return (0.0, 1.0, 0) if greedy else (sampling.temperature, sampling.top_p, sampling.top_k)


def _can_batch_continuously(model: Any) -> bool:
    """Return whether all layers are plain full or sliding-window attention, which a paged cache supports."""
    config = model.config.get_text_config()
    plain = set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}
    special = ("attn_logit_softcapping", "kv_lora_rank", "attention_chunk_size")
    return plain and model._supports_sdpa and all(getattr(config, name, None) is None for name in special)


class ContinuousBatcher:
    """Transformers' continuous batching. Implements `Batcher`."""

    def __init__(self, model: Any, spec: EngineSpec, longest: int) -> None:
        on_gpu = model.device.type == "cuda"
        batch = spec.compute.max_num_seqs or DEFAULT_BATCH
        attention = set_paged_attention(model)
        share = spec.compute.gpu_memory_share * (PADDED_GPU_SHARE if attention == PADDED else 1.0)
        self.cache_tokens = None if on_gpu else _cpu_cache_tokens(spec, model, batch, longest)
        """Size of the KV cache in tokens; `None`: chosen by transformers."""
        self._loops = spec.loops
        self._asked: dict[str, PendingRequest] = {}
        self.max_in_flight = batch * 2  # the surplus waits inside, ready to take a free slot
        config: dict[str, Any] = {"max_requests_per_batch": batch, "max_memory_percent": share}
        if self.cache_tokens is not None:
            config["num_blocks"] = math.ceil(self.cache_tokens / CPU_BLOCK_SIZE)
            config["max_batch_tokens"] = max(batch, MAX_BATCH_TOKENS)
        if attention == PADDED:
            config["block_size"] = CPU_BLOCK_SIZE
        if spec.loops is not None:
            # Asynchronous batching (transformers 5.17) looks up the blocks of requests that have since been cancelled.
            config["use_async_batching"] = False
        self._model, self._config = model, config
        self._engine: Any = self._started(model.generation_config)

    def _started(self, generation_config: Any) -> Any:
        from transformers import ContinuousBatchingConfig

        engine = self._model.init_continuous_batching(
            generation_config=generation_config, continuous_batching_config=ContinuousBatchingConfig(**self._config)
        )
        engine.start()
        return engine

    @property
    def num_tokens(self) -> int:
        if self._engine.batch_processor is None:  # its thread has not started
            return 0
        scheduler, num_tokens = self._engine.batch_processor.scheduler, 0
        for name, asked in self._asked.items():
            # Single lookups, because the generating thread changes both. An evicted request waits again, with its
            # tokens appended to the prompt.
            state = scheduler.active_requests.get(name) or scheduler.waiting_requests.get(name)
            if state is not None:
                num_tokens += len(state.initial_tokens) + len(state.generated_tokens) - len(asked.ids)
        return num_tokens

    def add(self, asked: PendingRequest) -> None:
        # Streaming returns the tokens so far at each step, which loop detection needs.
        name = self._engine.add_request(asked.ids, max_new_tokens=asked.room, streaming=self._loops is not None)
        if name is None:
            raise self._dead()
        self._asked[name] = asked

    def draw_by(self, config: Any) -> None:
        # Its processors per request cannot mix greedy with random draws, and sort the whole vocabulary (5.17).
        self._stop()
        self._engine = self._started(config)

    def step(self) -> list[RowResult]:
        finished: list[RowResult] = []
        deadline = time.monotonic() + STEP_S
        while self._asked and not finished and (left := deadline - time.monotonic()) > 0:
            output = self._engine.get_result(timeout=left)
            while output is not None:
                finished += self._taken(output)
                output = self._engine.get_result(timeout=0)
            if not self._engine.is_running():
                raise self._dead()
        return finished

    def _taken(self, output: Any) -> list[RowResult]:
        asked = self._asked.get(output.request_id)
        if asked is None:  # stopped in a loop; the cancellation took one step longer
            return []
        ids: list[int] = output.generated_tokens
        if not output.is_finished():
            if not is_looping(ids, self._loops):
                return []
            self._engine.cancel_request(output.request_id)
        elif output.error is not None and self._engine.background_thread_status.can_accept_new_requests() is not None:
            raise self._dead(output.error)  # the engine stopped and failed all requests
        del self._asked[output.request_id]
        error = f"transformers: {output.error}" if output.error is not None else ""
        return [RowResult(asked, ids, looped=not output.is_finished(), error=error)]

    def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._engine.is_running():
            self._engine.stop(block=True, timeout=STOP_WITHIN_S, hard_stop=True)
        self._engine.destroy()

    def _dead(self, why: str = "") -> StageError:
        why = why or str(self._engine.background_thread_status.fatal_error or "its thread ended")
        return StageError(
            f"transformers' continuous batching stopped: {why}. Finished work is kept, and the same command resumes "
            "it. If memory ran out, lower compute.max_num_seqs."
        )


class StaticBatcher:
    """`generate` on whole batches in a background thread. Implements `Batcher`."""

    def __init__(self, model: Any, tokenizer: Any, spec: EngineSpec) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._tokenizer.padding_side = "left"  # `generate` continues each row from its last column
        self._config = model.generation_config
        self._loops = spec.loops
        self._waiting: deque[PendingRequest] = deque()
        self._thread = ThreadPoolExecutor(1, "static-batches")
        self._batch: Future[list[RowResult]] | None = None
        self._ends: RowEnds | None = None
        """Row ends of the batch that is being drawn."""
        self._is_closed = False
        self.max_in_flight = spec.compute.max_num_seqs or DEFAULT_BATCH

    @property
    def num_tokens(self) -> int:
        ends = self._ends
        return 0 if ends is None else ends.num_tokens

    def add(self, asked: PendingRequest) -> None:
        self._waiting.append(asked)

    def draw_by(self, config: Any) -> None:
        self._config = config

    def close(self) -> None:
        self._is_closed = True
        self._thread.shutdown()
        del self._model

    def step(self) -> list[RowResult]:
        if self._batch is None and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self.max_in_flight, len(self._waiting)))]
            self._batch = self._thread.submit(self._draw, batch)
        if self._batch is None or not wait([self._batch], STEP_S).done:
            return []
        done, self._batch, self._ends = self._batch, None, None
        return done.result()

    def _draw(self, batch: list[PendingRequest]) -> list[RowResult]:
        import torch
        from transformers import StoppingCriteriaList

        # B = requests in the batch, P = longest prompt, T = completion tokens
        inputs_BP = self._tokenizer.pad({"input_ids": [asked.ids for asked in batch]}, return_tensors="pt")
        inputs_BP = inputs_BP.to(self._model.device)
        num_prompt = inputs_BP["input_ids"].shape[1]
        rooms = [asked.room for asked in batch]
        ends = self._ends = RowEnds(rooms, num_prompt, self._tokenizer.eos_token_id, self._loops)
        seeds = ",".join(str(asked.request.seed) for asked in batch)
        torch.manual_seed(int.from_bytes(hashlib.sha256(seeds.encode()).digest()[:7]))
        with torch.inference_mode():
            output_BT = self._model.generate(
                **inputs_BP,
                generation_config=self._config,
                max_new_tokens=max(rooms),
                stopping_criteria=StoppingCriteriaList([ends, self._break_off]),
            )[:, num_prompt:]
        return [
            RowResult(asked, ends.cut(row, output_T), looped=row in ends.looped)
            for row, (asked, output_T) in enumerate(zip(batch, output_BT.tolist(), strict=True))
        ]

    def _break_off(self, ids_BT: Any, scores: Any, **_: Any) -> Any:
        """Stopping criterion that ends all rows once the batcher is closed."""
        import torch

        return ids_BT.new_full(ids_BT.shape[:1], self._is_closed, dtype=torch.bool)


class RowEnds:
    """Stopping criterion that ends each row of a static batch on its own: at its token limit, or in a loop.

    Args:
        rooms: most completion tokens of each row.
        num_prompt: length of the padded prompts, P.
        eos: the stop token.
        loops: thresholds for a loop; `None`: never stop one.
    """

    def __init__(self, rooms: Sequence[int], num_prompt: int, eos: int, loops: LoopStop | None) -> None:
        self._rooms, self._num_prompt, self._eos, self._loops = rooms, num_prompt, eos, loops
        self.looped: dict[int, int] = {}
        """Row -> number of completion tokens when its loop was found."""
        self._ids_BT: Any = None

    @property
    def num_tokens(self) -> int:
        """Return the tokens of all rows so far, up to their ends."""
        if self._ids_BT is None:
            return 0
        return sum(len(self.cut(row, ids)) for row, ids in enumerate(self._ids_BT[:, self._num_prompt :].tolist()))

    def __call__(self, ids_BT: Any, scores: Any, **_: Any) -> Any:
        import torch

        self._ids_BT = ids_BT
        num_tokens = ids_BT.shape[1] - self._num_prompt
        if self._loops is not None and num_tokens % CHECK_EVERY == 0:
            for row, ids in enumerate(ids_BT[:, self._num_prompt :].tolist()):
                # A finished row is followed by padding, which would count as a loop.
                going = row not in self.looped and num_tokens < self._rooms[row] and self._eos not in ids
                if going and loop_period(ids, self._loops) is not None:
                    self.looped[row] = num_tokens
        done = [num_tokens >= room or row in self.looped for row, room in enumerate(self._rooms)]
        return torch.tensor(done, device=ids_BT.device)

    def cut(self, row: int, ids: list[int]) -> list[int]:
        """Return a row's tokens up to its end, including the stop token."""
        ids = ids[: self.looped.get(row, self._rooms[row])]
        return ids[: ids.index(self._eos) + 1] if self._eos in ids else ids


def _cpu_cache_tokens(spec: EngineSpec, model: Any, batch: int, longest: int) -> int:
    """Return the KV cache's tokens: those of a full batch, limited by the recipe or to a share of the free memory."""
    gib_per_token = kv_gib_needed(model.config.get_text_config(), 1, str(model.dtype).removeprefix("torch."))
    if spec.compute.kv_cache_gib is not None:
        most = int(spec.compute.kv_cache_gib / gib_per_token)
    else:
        free_gib = free_memory_gib()
        most = int(free_gib * CPU_KV_SHARE * spec.memory_share / gib_per_token)
    if most < longest:
        raise ModelError(
            f"{spec.model_name}: one sample of {longest} tokens needs {longest * gib_per_token:.1f} GiB of KV cache; "
            f"there are {most * gib_per_token:.1f}. Lower sampling.max_tokens or raise compute.kv_cache_gib."
        )
    # One extra block per request, because its last block may be partly empty.
    return min(most, batch * (longest + CPU_BLOCK_SIZE))

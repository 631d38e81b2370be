"""Plain transformers `generate` in batches: the engine for machines without vLLM.

Slower than vLLM by far: a batch ends with its longest member. A batch draws under one seed, made from its requests'
seeds, so a sample repeats only together with the same batch.
"""

import hashlib
from collections import deque
from typing import Any

from distill.engines import Completion, EngineSpec, Request, check_room, refuse_long_prompt
from distill.prompts import opens_thinking
from distill.records import FinishReason
from distill.tokenizers import encode, load_tokenizer, render_prompt

DEFAULT_BATCH = 32


class TransformersEngine:
    """One model in this process. Implements `distill.engines.Engine`.

    Raises:
        ModelError: `max_tokens` does not fit the model's context.
    """

    def __init__(self, spec: EngineSpec) -> None:
        import torch
        import transformers

        device = "cuda" if torch.cuda.is_available() else "cpu"
        default_dtype = torch.bfloat16
        dtype = default_dtype if spec.compute.dtype == "auto" else getattr(torch, spec.compute.dtype)
        self._tokenizer = load_tokenizer(spec.model_path, spec.chat_format)
        self._tokenizer.padding_side = "left"
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(spec.model_path, dtype=dtype)
        self._model.to(device).eval()
        self._context = int(getattr(self._model.config.get_text_config(), "max_position_embeddings", 1 << 20))
        if spec.compute.max_model_len is not None:
            self._context = min(self._context, spec.compute.max_model_len)
        check_room(spec, self._context)
        self._sampling = spec.sampling
        self._waiting: deque[tuple[Request, list[int], bool]] = deque()
        self._batch = spec.compute.max_num_seqs or DEFAULT_BATCH
        self.max_in_flight = self._batch
        self.settings: dict[str, Any] = {
            "name": "transformers",
            "version": transformers.__version__,
            "device": torch.cuda.get_device_name(0) if device == "cuda" else "cpu",
            "dtype": str(dtype).removeprefix("torch."),
            "max_num_seqs": self._batch,
        }

    @property
    def num_in_flight(self) -> int:
        return len(self._waiting)

    def submit(self, request: Request) -> Completion | None:
        text = render_prompt(self._tokenizer, request.messages)
        ids = encode(self._tokenizer, text)
        if len(ids) >= self._context:
            return refuse_long_prompt(request, len(ids), self._context)
        self._waiting.append((request, ids, opens_thinking(text)))
        return None

    def close(self) -> None:
        del self._model

    def step(self) -> list[Completion]:
        import torch
        from transformers import GenerationConfig

        batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        if not batch:
            return []
        eos = self._tokenizer.eos_token_id
        # B = requests in the batch, P = longest prompt, T = completion tokens
        inputs_BP = self._tokenizer.pad({"input_ids": [ids for _, ids, _ in batch]}, return_tensors="pt")
        inputs_BP = inputs_BP.to(self._model.device)
        num_prompt = inputs_BP["input_ids"].shape[1]
        greedy = self._sampling.temperature == 0
        drawn = {} if greedy else {"temperature": self._sampling.temperature, "top_p": self._sampling.top_p}
        config = GenerationConfig(
            max_new_tokens=min(self._sampling.max_tokens, self._context - num_prompt),
            do_sample=not greedy,
            top_k=self._sampling.top_k,
            eos_token_id=eos,
            pad_token_id=self._tokenizer.pad_token_id,
            **drawn,
        )
        seeds = ",".join(str(request.seed) for request, _, _ in batch)
        torch.manual_seed(int.from_bytes(hashlib.sha256(seeds.encode()).digest()[:7]))
        with torch.inference_mode():
            output_BT = self._model.generate(**inputs_BP, generation_config=config)[:, num_prompt:]
        return [
            self._completion(request, ids, opened, output_T)
            for (request, ids, opened), output_T in zip(batch, output_BT.tolist(), strict=True)
        ]

    def _completion(self, request: Request, ids: list[int], opened: bool, output: list[int]) -> Completion:
        eos = self._tokenizer.eos_token_id
        reason: FinishReason = "stop" if eos in output else "length"
        num_tokens = output.index(eos) + 1 if reason == "stop" else len(output)
        # The stop token left out, any other special token kept: some models' <think> is one.
        text = self._tokenizer.decode(output[: num_tokens - (reason == "stop")])
        return Completion(request.key, text, reason, len(ids), num_tokens, opened)

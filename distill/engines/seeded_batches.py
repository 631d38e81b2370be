"""Batches of a transformers model in which each row draws by its own request's seed, for rollouts of a policy.

The model may be the one that a trainer trains: nothing of it is changed, neither its settings nor its modes, and
torch's own random numbers are left alone. A batch starts with one forward pass over its different prompts and ends with
its longest row; rows that have ended leave it. With the same seeds, `engines/vllm.py` draws the same tokens on a CPU,
except where two probabilities are as close as rounding.

Letters in names: B = rows, N = different prompts among them, P = longest prompt, T = tokens so far, V = vocabulary.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from distill.engines.base import STEP_S, EngineSpec
from distill.engines.batching import PendingRequest, RowResult
from distill.engines.cpu_sampler import draw
from distill.engines.loops import is_looping
from distill.recipe.sampling import Sampling


@dataclass(slots=True)
class _Row:
    """A request in the batch."""

    asked: PendingRequest
    sampling: Sampling
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    looped: bool = False


class SeededBatcher:
    """Implements `distill.engines.batching.Batcher`.

    Args:
        model: a causal language model whose cache grows with each token; a PEFT model too.
        eos: the stop token.
        spec: how to sample; `compute.max_num_seqs` is the size of a batch.
        batch: its default.
    """

    def __init__(self, model: Any, eos: int, spec: EngineSpec, batch: int) -> None:
        self._model, self._eos = model, eos
        self._sampling, self._loops = spec.sampling, spec.loops
        self.max_in_flight = batch
        self._waiting: deque[PendingRequest] = deque()
        self._rows: list[_Row] = []
        self._cache: Any = None
        self._mask_BT = torch.empty(0)
        """0 where a row's prompt is padded, on its left."""
        self._logits_BV = torch.empty(0)

    @property
    def num_tokens(self) -> int:
        return sum(len(row.ids) for row in self._rows)

    def add(self, asked: PendingRequest) -> None:
        self._waiting.append(asked)

    def draw_by(self, config: Any) -> None:
        """Do nothing: each row is drawn by its own request's sampling."""

    def close(self) -> None:
        del self._model
        self._rows, self._cache = [], None

    def step(self) -> list[RowResult]:
        deadline = time.monotonic() + STEP_S
        with _sampling_mode(self._model):
            while self._waiting or self._rows:
                if self._rows:
                    self._extend()
                else:
                    self._start()
                finished = self._draw()
                if finished or time.monotonic() >= deadline:
                    return finished
        return []

    def _start(self) -> None:
        """Compute the prompts of a new batch, each once: in GRPO a prompt has many samples."""
        from transformers import DynamicCache

        asked = [self._waiting.popleft() for _ in range(min(self.max_in_flight, len(self._waiting)))]
        device = self._model.device
        place_of = {prompt: place for place, prompt in enumerate(dict.fromkeys(tuple(one.ids) for one in asked))}
        shape_NP = len(place_of), max(map(len, place_of))
        ids_NP, mask_NP = torch.zeros(shape_NP, dtype=torch.int64), torch.zeros(shape_NP, dtype=torch.int64)
        for prompt, place in place_of.items():
            ids_NP[place, -len(prompt) :] = torch.tensor(prompt)
            mask_NP[place, -len(prompt) :] = 1
        positions_NP = (mask_NP.cumsum(-1) - 1).clamp(min=0)
        self._cache = DynamicCache(config=self._model.config.get_text_config())
        logits_NV = self._forward(ids_NP.to(device), mask_NP.to(device), positions_NP.to(device))
        place_B = torch.tensor([place_of[tuple(one.ids)] for one in asked], device=device)
        self._cache.batch_select_indices(place_B)
        self._mask_BT, self._logits_BV = mask_NP.to(device)[place_B], logits_NV[place_B]
        self._rows = [
            _Row(one, one.request.sampling or self._sampling, torch.Generator().manual_seed(one.request.seed))
            for one in asked
        ]

    def _extend(self) -> None:
        """Compute the logits that follow each row's last token."""
        last_B1 = torch.tensor([[row.ids[-1]] for row in self._rows], device=self._mask_BT.device)
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(last_B1)], dim=1)
        self._logits_BV = self._forward(last_B1, self._mask_BT, self._mask_BT.sum(-1, keepdim=True) - 1)

    def _forward(self, ids: Any, mask: Any, positions: Any) -> torch.Tensor:
        """Return the logits that follow the last of `ids`, shape (rows, V), and add `ids` to the cache."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _draw(self) -> list[RowResult]:
        """Draw a token for each row, and take those out that have ended."""
        rows, device = self._rows, self._logits_BV.device
        heat_B = torch.tensor([row.sampling.temperature for row in rows], device=device)
        top_k_B = torch.tensor([row.sampling.top_k or self._logits_BV.shape[1] for row in rows], device=device)
        top_p_B = torch.tensor([row.sampling.top_p for row in rows], device=device)
        tokens_B, logprobs_B = draw(
            self._logits_BV / torch.where(heat_B > 0, heat_B, 1.0)[:, None],
            {i: row.generator for i, row in enumerate(rows)},
            top_k_B if any(row.sampling.top_k for row in rows) else None,
            top_p_B if any(row.sampling.top_p < 1 for row in rows) else None,
        )
        tokens_B = torch.where(heat_B > 0, tokens_B, self._logits_BV.argmax(-1))
        for row, token, logprob in zip(rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            row.ids.append(token)
            if row.sampling.temperature > 0:
                row.logprobs.append(logprob)
            row.looped = is_looping(row.ids, self._loops)
        kept = [i for i, row in enumerate(rows) if not self._has_ended(row)]
        if len(kept) == len(rows):
            return []
        kept_B = torch.tensor(kept, dtype=torch.int64, device=device)
        self._rows = [rows[i] for i in kept]
        self._mask_BT = self._mask_BT[kept_B]
        if kept:
            self._cache.batch_select_indices(kept_B)
        else:
            self._cache = None
        return [
            RowResult(row.asked, row.ids, row.looped, logprobs=row.logprobs) for row in rows if self._has_ended(row)
        ]

    def _has_ended(self, row: _Row) -> bool:
        return row.looped or row.ids[-1] == self._eos or len(row.ids) >= row.asked.room


@contextmanager
def _sampling_mode(model: Any) -> Iterator[None]:
    """Turn off dropout and gradients, and leave every module in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Not `inference_mode`: what a module makes and keeps in it, such as frequencies for longer positions, would be
        # of no use to autograd in the next training step.
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode

"""Faster training on CPU with the same results: packed rows instead of padding, and a cheaper loss.

TRL and transformers are written for GPUs. On a CPU, TRL computes logits for every position of a row, prompts and
padding included, and does so twice; transformers keeps packed rows apart with a mask over all pairs of tokens; and the
C library returns each large tensor to the system, which then clears its pages again for the next one.

Shapes: N = positions in the loss, H = hidden size, V = vocabulary size, T = tokens of all rows of a pass.
"""

import ctypes
import sys
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, TrainerCallback

from distill.execution.cpu_load import LoadFollower

ROW_BY_ROW = "distill_row_by_row"
"""Name under which `attend_row_by_row` is registered with transformers."""

TILE_NUMBERS = 1 << 24
"""Number of logits held at once: 64 MiB in float32, less than a batch's activations."""

LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Settings by which some models change their logits after the last projection; only TRL's own loss handles them."""


def keep_freed_memory() -> None:
    """Make the C library reuse the memory of freed tensors (glibc; does nothing elsewhere)."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, mmap_threshold, largest = -1, -3, 2**31 - 1
    libc.mallopt(mmap_threshold, largest)
    libc.mallopt(trim_threshold, largest)


def can_attend_row_by_row(model: Any) -> bool:
    """Return whether packed rows interact only in attention, so that attention alone can keep them apart."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return bool(model._supports_attention_backend) and kinds <= {"full_attention", "sliding_attention"}


def set_attention_row_by_row(model: Any) -> None:
    """Make the model compute attention for each packed row separately."""
    AttentionInterface.register(ROW_BY_ROW, attend_row_by_row)
    model.set_attn_implementation(ROW_BY_ROW)


def attend_row_by_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention within each row only; an attention function for transformers.

    Args:
        module: the attention layer.
        query: (1, heads, T, head size); `key` and `value` may have fewer heads.
        key: see `query`.
        value: see `query`.
        attention_mask: always `None`.
        scaling: factor for the products of queries and keys.
        dropout: share of attention weights to drop.
        sliding_window: how many tokens a token sees, itself included; `None`: all before it.
        cu_seq_lens_q: 0 and the end of each row; `None`: a single row (per batch entry).
        ignored: arguments for other kernels.

    Returns:
        The attention output (1, T, heads, head size), and `None` for the weights.
    """
    ends = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    rows = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    attended = []
    for row_query, row_key, row_value in rows:
        mask = _window_mask(row_query.shape[2], sliding_window)
        attended.append(
            scaled_dot_product_attention(
                row_query,
                row_key,
                row_value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _window_mask(length: int, window: int | None) -> torch.Tensor | None:
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)


def score_completions_once(trainer: Any) -> bool:
    """Replace TRL's loss with one that computes logits for completion tokens only, and only once.

    The loss, its metrics (entropy, accuracy) and its gradients equal those of TRL's `nll` up to rounding.

    Args:
        trainer: an SFTTrainer.

    Returns:
        Whether the loss was replaced. Other losses, and models that add to the loss or change their logits, keep TRL's.
    """
    base = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    config = base.config.get_text_config()
    if (
        trainer.args.loss_type != "nll"
        or trainer.args.label_smoothing_factor
        or trainer.compute_loss_func is not None
        or getattr(config, "output_router_logits", False)
        or any(getattr(config, name, None) is not None for name in LOGIT_CHANGES)
        or base.get_output_embeddings().bias is not None
    ):
        return False
    from trl.trainer.utils import FusedCausalLMOutput

    forward_of_trl = base.forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or "shift_labels" in kwargs:
            return forward_of_trl(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        mask = labels[:, 1:] != -100
        found = CompletionScores.apply(
            hidden[mask], self.get_output_embeddings().weight, labels[:, 1:][mask], torch.is_grad_enabled()
        )
        log_probs, entropy, is_top1 = (part.new_zeros(mask.shape).masked_scatter(mask, part) for part in found)
        return FusedCausalLMOutput(log_probs=log_probs, entropy=entropy, is_top1=is_top1, label_mask=mask)

    base.forward = MethodType(forward, base)
    return True


class CompletionScores(torch.autograd.Function):  # type: ignore[misc]
    """Log-probabilities of the target tokens, computed tile by tile together with their gradients.

    The forward pass has all that the gradient of the sum of log-probabilities needs, so the logits are computed once
    and no tile is kept. This requires all log-probabilities to have the same weight in the loss.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, target_N: torch.Tensor, training: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log-probability, entropy and whether the target is the most likely token, each (N,)."""
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else hidden_NH.dtype
        hidden, weight = hidden_NH.to(dtype), weight_VH.to(dtype)
        num, words = hidden.shape[0], weight.shape[0]
        log_probs, entropy = (torch.empty(num, dtype=torch.float32) for _ in range(2))
        is_top1 = torch.empty(num, dtype=torch.bool)
        grad_hidden = torch.empty_like(hidden) if training else None
        grad_weight = torch.zeros_like(weight_VH) if training and ctx.needs_input_grad[1] else None
        size = max(1, TILE_NUMBERS // words)
        for start in range(0, num, size):
            tile = slice(start, start + size)
            target = target_N[tile, None]
            # Logarithms, exponentials and sums are in float32 whatever the precision of the products.
            logits = torch.mm(hidden[tile], weight.t()).float()
            highest, likeliest = logits.max(-1, keepdim=True)
            logits -= highest
            probs = logits.exp()
            total = probs.sum(-1, keepdim=True)
            log_probs[tile] = (logits.gather(-1, target) - total.log()).squeeze(-1)
            probs /= total
            entropy[tile] = total.log().squeeze(-1) - torch.linalg.vecdot(probs, logits)
            is_top1[tile] = (likeliest == target).squeeze(-1)
            if grad_hidden is None:
                continue
            # The gradient of log p(target) with respect to the logits is one_hot(target) - probabilities.
            probs.neg_().scatter_add_(-1, target, torch.ones_like(total))
            slope = probs.to(dtype)
            torch.mm(slope, weight, out=grad_hidden[tile])
            if grad_weight is not None:
                grad_weight += slope.t() @ hidden[tile]
        if training:
            ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(entropy, is_top1)
        return log_probs, entropy, is_top1

    @staticmethod
    def backward(ctx: Any, grad_N: torch.Tensor, *unused: Any) -> tuple[Any, ...]:
        """Return the gradients from the forward pass times the weight of each log-probability in the loss."""
        grad_hidden, grad_weight = ctx.saved_tensors
        share = grad_N[:1]
        if not bool((grad_N == share).all()):
            raise RuntimeError("CompletionScores: the loss must weigh all log-probabilities alike")
        if share.numel() == 0:
            share = grad_N.new_zeros(1)
        return grad_hidden * share, None if grad_weight is None else grad_weight.mul_(share), None, None


class LoadFollowerCallback(TrainerCallback):  # type: ignore[misc]
    """Trainer callback that makes threads sleep instead of spin at barriers while other processes use the cores.

    The number of threads stays the same: another number changes the order of sums, so training would not be repeatable.
    """

    def __init__(self) -> None:
        self._load = LoadFollower()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._load.follow()

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self._load.follow()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._load.close()

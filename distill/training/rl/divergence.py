"""Divergence of a policy from its teachers over the whole vocabulary, on the answers that the policy wrote.

Logits are computed tile by tile, and their gradients with them, so that those of all tokens are never held at once.

Shapes: N = answer tokens, one answer after the other; H = hidden size of the policy, V = vocabulary size, K = tokens
that a server tells of, n = answer tokens in a tile.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch

from distill.training.cpu import LOGIT_CHANGES, TILE_NUMBERS

Toward = Literal["reverse", "forward"]
"""reverse: KL(policy || teacher); forward: KL(teacher || policy)."""
LEAST = 1e-6
"""Least probability of all tokens together that a server does not tell of; below, its rounded numbers decide."""


class Targets(Protocol):
    """What a teacher expects at each answer token."""

    num_words: int | None
    """Size of its vocabulary; `None`: no limit."""

    def divergence(self, log_probs_nV: torch.Tensor, tile: slice, toward: Toward) -> torch.Tensor:
        """Return the divergence at each token of a tile, in nats, (n,)."""


class WholeTargets:
    """Those of a model on this machine.

    Args:
        states: (N, hidden size of the teacher), that predict the answer tokens.
        weight: of its last projection, (V of the teacher, hidden size of the teacher).
    """

    def __init__(self, states: torch.Tensor, weight: torch.Tensor) -> None:
        self._states, self._weight = states, weight
        self.num_words: int | None = weight.shape[0]

    def divergence(self, log_probs_nV: torch.Tensor, tile: slice, toward: Toward) -> torch.Tensor:
        """Return the divergence at each token of a tile, in nats, (n,)."""
        with torch.no_grad():
            # A vocabulary may be padded beyond the other's; the tokens that both have are compared.
            weight = self._weight[: log_probs_nV.shape[1]]
            told = torch.mm(self._states[tile], weight.t()).float().log_softmax(-1)
        return _kl(log_probs_nV, told, toward)


class TopTargets:
    """Those of a server, which tells its likeliest tokens; all others count as one.

    The divergence of distributions that are made coarser is at most that of the distributions themselves.

    Args:
        ids: (N, K); -1 where it told of fewer.
        log_probs: (N, K), natural logarithms.
    """

    num_words: int | None = None

    def __init__(self, ids: torch.Tensor, log_probs: torch.Tensor) -> None:
        self._ids, self._log_probs = ids, log_probs

    def divergence(self, log_probs_nV: torch.Tensor, tile: slice, toward: Toward) -> torch.Tensor:
        """Return the divergence at each token of a tile, in nats, (n,)."""
        ids, told = self._ids[tile], self._log_probs[tile]
        is_told = (ids >= 0) & (ids < log_probs_nV.shape[1])
        told = told.masked_fill(~is_told, -torch.inf)
        rest = (1 - told.exp().sum(-1)).clamp(min=LEAST).log()
        own = log_probs_nV.gather(1, ids.where(is_told, 0))
        num, num_words = log_probs_nV.shape
        is_named = torch.zeros((num, num_words + 1), dtype=torch.bool, device=ids.device)
        is_named.scatter_(1, ids.where(is_told, num_words), value=True)
        own_rest = log_probs_nV.masked_fill(is_named[:, :num_words], -torch.inf).logsumexp(-1)
        # Where nothing was told, both sides are the same: it adds nothing.
        own, told = own.where(is_told, -100.0), told.where(is_told, -100.0)
        return _kl(torch.cat((own, own_rest[:, None]), 1), torch.cat((told, rest[:, None]), 1), toward)


def _kl(own: torch.Tensor, told: torch.Tensor, toward: Toward) -> torch.Tensor:
    """Return the divergence between rows of log-probabilities."""
    first, second = (own, told) if toward == "reverse" else (told, own)
    return (first.exp() * (first - second)).sum(-1)


def can_project(model: Any) -> bool:
    """Return whether a model's logits are its last hidden states times a matrix, and nothing else."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    changes = any(getattr(config, name, None) is not None for name in LOGIT_CHANGES)
    return not changes and getattr(base.get_output_embeddings(), "bias", None) is None


def divergence_loss(
    states_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    shares_N: torch.Tensor,
    targets: Sequence[Targets],
    toward: Toward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the sum of each token's divergence times its share, and the divergences and entropies, each (N,).

    The divergence is the mean over the teachers. Only the sum has a gradient.

    Args:
        states_NH: the policy's hidden states that predict the answer tokens.
        weight_VH: of its last projection.
        shares_N: weight of each token in the loss.
        targets: of each teacher.
        toward: direction of the divergence.
    """
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _Divergence.apply(
        states_NH, weight_VH, shares_N, targets, toward, torch.is_grad_enabled()
    )
    return found


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        states_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        shares_N: torch.Tensor,
        targets: Sequence[Targets],
        toward: Toward,
        train: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        num = states_NH.shape[0]
        num_words = min([weight_VH.shape[0], *(one.num_words for one in targets if one.num_words)])
        weight = weight_VH[:num_words].to(states_NH.dtype)
        divergence, entropy = (torch.zeros(num, dtype=torch.float32, device=weight.device) for _ in range(2))
        grad_states = torch.zeros_like(states_NH) if train else None
        grad_weight = torch.zeros_like(weight_VH) if train and ctx.needs_input_grad[1] else None
        size = max(1, TILE_NUMBERS // num_words)
        for start in range(0, num, size):
            tile = slice(start, min(start + size, num))
            logits = torch.mm(states_NH[tile], weight.t()).float().requires_grad_(train)
            with torch.set_grad_enabled(train):
                log_probs = logits.log_softmax(-1)
                each = torch.stack([one.divergence(log_probs, tile, toward) for one in targets]).mean(0)
            divergence[tile] = each.detach()
            told = log_probs.detach()
            entropy[tile] = -torch.linalg.vecdot(told.exp(), told)
            if grad_states is None:
                continue
            (slope,) = torch.autograd.grad(each, logits, shares_N[tile].float())
            slope = slope.to(weight.dtype)
            grad_states[tile] = torch.mm(slope, weight)
            if grad_weight is not None:
                grad_weight[:num_words] += torch.mm(slope.t(), states_NH[tile]).to(grad_weight.dtype)
        ctx.save_for_backward(grad_states, grad_weight)
        ctx.mark_non_differentiable(divergence, entropy)
        return divergence @ shares_N.float(), divergence, entropy

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *unused: Any) -> tuple[Any, ...]:
        states, weight = ctx.saved_tensors
        return states * grad.to(states.dtype), None if weight is None else weight * grad, None, None, None, None

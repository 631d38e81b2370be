"""Log-probabilities of answers on CPU, where each prompt is computed once for all answers of its group.

TRL pads every row of a batch to the longest prompt and the longest answer, repeats the prompt for each answer, and
scores prompts and padding too. Here the rows of a batch are one sequence, prompts once, each followed by its answers;
attention keeps the answers apart. The results and gradients are TRL's up to rounding.

Shapes: T = tokens of the sequence, N = answer tokens, H = hidden size, V = vocabulary size, B = rows, C = tokens of
the longest answer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from distill.training.cpu import LOGIT_CHANGES, TILE_NUMBERS, can_attend_row_by_row

SHARED_PROMPTS = "distill_shared_prompts"
"""Name under which `attend_with_shared_prompts` is registered with transformers."""
KEPT_NUMBERS = 1 << 27
"""Most numbers that the forward pass keeps for the backward pass: 512 MiB in float32. Beyond, logits are computed
twice."""


class Group(NamedTuple):
    """A prompt and its answers, by their places in the sequence."""

    start: int
    """First token of the prompt."""
    answers_start: int
    answer_lengths: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.answers_start + sum(self.answer_lengths)


class Packed(NamedTuple):
    """The rows of a batch as one sequence."""

    ids: torch.Tensor
    """(T,), as `positions`."""
    positions: torch.Tensor
    groups: tuple[Group, ...]
    sources: torch.Tensor
    """(N,): place whose hidden state predicts each answer token; the rest are (N,) too."""
    targets: torch.Tensor
    rows: torch.Tensor
    """Row of each answer token in the batch."""
    columns: torch.Tensor
    """Its number within the answer."""


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, num_columns: int) -> Packed:
    """Pack a padded batch.

    Args:
        input_ids: (B, P + C), prompts padded on the left and answers on the right.
        attention_mask: (B, P + C), 1 for tokens that are not padding.
        num_columns: C.
    """
    split = input_ids.shape[1] - num_columns
    mask = attention_mask.bool()
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for row in range(input_ids.shape[0]):
        by_prompt.setdefault(tuple(input_ids[row, :split][mask[row, :split]].tolist()), []).append(row)
    ids: list[int] = []
    positions: list[int] = []
    groups: list[Group] = []
    sources: list[int] = []
    rows: list[int] = []
    columns: list[int] = []
    for prompt, members in by_prompt.items():
        start = len(ids)
        ids += prompt
        positions += range(len(prompt))
        answers_start, lengths = len(ids), []
        for row in members:
            answer = input_ids[row, split:][mask[row, split:]].tolist()
            begin = len(ids)
            ids += answer
            positions += range(len(prompt), len(prompt) + len(answer))
            sources += [answers_start - 1, *range(begin, begin + len(answer) - 1)] if answer else []
            rows += [row] * len(answer)
            columns += range(len(answer))
            lengths.append(len(answer))
        groups.append(Group(start, answers_start, tuple(lengths)))
    rows_N, columns_N = torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long)
    return Packed(
        torch.tensor(ids, dtype=torch.long),
        torch.tensor(positions, dtype=torch.long),
        tuple(groups),
        torch.tensor(sources, dtype=torch.long),
        input_ids[rows_N, split + columns_N],
        rows_N,
        columns_N,
    )


def attend_with_shared_prompts(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prompts: Sequence[Group] | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention of prompts within themselves, and of each answer with its prompt; for transformers.

    Args:
        module: the attention layer.
        query: (1, heads, T, head size); `key` and `value` may have fewer heads.
        key: see `query`.
        value: see `query`.
        attention_mask: `None` for a packed sequence; else that of transformers' own attention, which is used then.
        scaling: factor for the products of queries and keys.
        dropout: share of attention weights to drop.
        shared_prompts: the groups of the sequence; `None`: it is not packed.
        ignored: arguments for other kernels.

    Returns:
        The attention output (1, T, heads, head size), and `None` for the weights.
    """
    if shared_prompts is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **ignored
        )
    parts: list[torch.Tensor] = []
    for group in shared_prompts:
        prompt = slice(group.start, group.answers_start)
        keys, values = key[:, :, prompt], value[:, :, prompt]
        parts.append(_attend(query[:, :, prompt], keys, values, None, scaling, dropout))
        begin = group.answers_start
        for length in group.answer_lengths:
            own = slice(begin, begin + length)
            begin += length
            if not length:
                continue
            num_keys = keys.shape[2] + length
            mask = torch.ones(length, num_keys, dtype=torch.bool).tril(keys.shape[2])
            joined = torch.cat((keys, key[:, :, own]), 2), torch.cat((values, value[:, :, own]), 2)
            parts.append(_attend(query[:, :, own], *joined, mask, scaling, dropout))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
    )


def can_pack(model: Any) -> bool:
    """Return whether a model's answers can be computed packed: only attention mixes tokens, and nothing changes its
    logits after the last projection."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        can_attend_row_by_row(base)
        and kinds == {"full_attention"}
        and not getattr(config, "output_router_logits", False)
        and all(getattr(config, name, None) is None for name in LOGIT_CHANGES)
        and base.get_output_embeddings().bias is None
    )


def set_shared_prompts(model: Any) -> None:
    """Make the model able to compute packed groups; other batches are computed as by transformers' `sdpa`."""
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(SHARED_PROMPTS, attend_with_shared_prompts)
    AttentionMaskInterface.register(SHARED_PROMPTS, sdpa_mask)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.set_attn_implementation(SHARED_PROMPTS)


def packed_states(
    base: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, num_columns: int
) -> tuple[Packed, torch.Tensor]:
    """Return the packed batch, and the hidden states that predict its answer tokens, (N, H).

    Args:
        base: the policy or its reference, without peft's wrapper.
        input_ids: see `pack`.
        attention_mask: see `pack`.
        num_columns: C.
    """
    packed = pack(input_ids, attention_mask, num_columns)
    hidden = base.base_model(
        input_ids=packed.ids[None],
        position_ids=packed.positions[None],
        attention_mask=None,
        use_cache=False,
        shared_prompts=packed.groups,
    ).last_hidden_state[0]
    return packed, hidden[packed.sources]


def packed_log_probs(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, num_columns: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probability and entropy (without gradient) of each answer token, each (B, C), 0 where there is none.

    Args:
        model: the policy or its reference, or peft's wrapper around one.
        input_ids: see `pack`.
        attention_mask: see `pack`.
        num_columns: C.
        temperature: that logits are divided by.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    packed, hidden_NH = packed_states(base, input_ids, attention_mask, num_columns)
    log_probs_N, entropy_N = PolicyScores.apply(
        hidden_NH,
        base.get_output_embeddings().weight,
        packed.targets,
        temperature,
        torch.is_grad_enabled(),
    )
    shape = input_ids.shape[0], num_columns
    places = packed.rows, packed.columns
    log_probs = log_probs_N.new_zeros(shape).index_put(places, log_probs_N)
    return log_probs, entropy_N.new_zeros(shape).index_put(places, entropy_N)


class PolicyScores(torch.autograd.Function):  # type: ignore[misc]
    """Log-probabilities and entropies of tokens, computed tile by tile."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        target_N: torch.Tensor,
        temperature: float,
        train: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probability and entropy, each (N,)."""
        num, words = hidden_NH.shape[0], weight_VH.shape[0]
        log_probs, entropy = (torch.empty(num, dtype=torch.float32) for _ in range(2))
        keeps = train and num * words <= KEPT_NUMBERS
        kept: list[torch.Tensor] = []
        for tile in _tiles(num, words):
            probs, shifted, log_total = _softmax(hidden_NH[tile], weight_VH, temperature)
            log_probs[tile] = shifted.gather(-1, target_N[tile, None]).squeeze(-1) - log_total
            entropy[tile] = log_total - torch.linalg.vecdot(probs, shifted)
            if keeps:
                kept.append(probs)
        ctx.save_for_backward(hidden_NH, weight_VH, target_N, *kept)
        ctx.temperature, ctx.keeps = temperature, keeps
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx: Any, grad_N: torch.Tensor, *unused: Any) -> tuple[Any, ...]:
        """Return the gradients with respect to hidden states and weight."""
        hidden, weight, target, *kept = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for number, tile in enumerate(_tiles(hidden.shape[0], weight.shape[0])):
            # d log p(target) / d logits = (one_hot(target) - p) / temperature
            slope = kept[number] if ctx.keeps else _softmax(hidden[tile], weight, ctx.temperature)[0]
            scale = (grad_N[tile, None] / ctx.temperature).float()
            slope.mul_(-scale).scatter_add_(-1, target[tile, None], scale)
            slope = slope.to(weight.dtype)
            torch.mm(slope, weight, out=grad_hidden[tile])
            if grad_weight is not None:
                grad_weight.addmm_(slope.t(), hidden[tile])
        return grad_hidden, grad_weight, None, None, None


def _tiles(num: int, words: int) -> list[slice]:
    size = max(1, TILE_NUMBERS // words)
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]


def _softmax(
    hidden: torch.Tensor, weight: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return probabilities, logits less their largest, and the log of the sum of their exponentials."""
    shifted = torch.mm(hidden, weight.t()).float()
    if temperature != 1.0:
        shifted /= temperature
    shifted -= shifted.amax(-1, keepdim=True)
    probs = shifted.exp()
    total = probs.sum(-1, keepdim=True)
    probs /= total
    return probs, shifted, total.log().squeeze(-1)

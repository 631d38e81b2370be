"""Attention for transformers' continuous batching without flash attention.

The interface is that of transformers' `integrations/sdpa_paged.py` (5.17): the new tokens of all requests in one row,
and the paged KV cache.
"""

from typing import Any

PADDED = "paged|distill_padded"
"""Name under which `PaddedAttention` is registered with transformers."""


def set_paged_attention(model: Any) -> str:
    """Set an attention that reads a paged cache: flash attention on GPU if installed, else `PaddedAttention`.

    Returns:
        Its name in transformers.
    """
    from transformers import AttentionInterface
    from transformers.utils import is_flash_attn_2_available

    name = PADDED
    if model.device.type == "cuda" and is_flash_attn_2_available():
        name = "paged|flash_attention_2"
    AttentionInterface.register(PADDED, PaddedAttention())
    model.set_attn_implementation(name)
    return name


class PaddedAttention:
    """Paged attention without a custom kernel, in which each request attends only to its own keys.

    Transformers' `paged|sdpa` multiplies every request's queries with every request's keys and masks most of the
    result, so its work grows with the square of the batch. Here, requests with one new token are padded to a batch, and
    those with more (a prompt) run one by one.

    Shapes: Q = new tokens of all requests, K = all their tokens, N = requests with one new token, L = longest of
    them, H = heads, G = heads of keys and values, D = size of a head.
    """

    def __init__(self) -> None:
        self._layouts: dict[bool, tuple[Any, _Layout]] = {}

    def __call__(
        self, module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None, **paged: Any
    ) -> tuple[Any, None]:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        indices = {name: paged[name] for name in ("read_index", "write_index")}
        key_KGD, value_KGD = paged["cache"].update(key, value, module.layer_idx, **indices)
        query_QHD = query[0].transpose(0, 1)
        window = getattr(module, "sliding_window", None) or 0
        layout = self._layout(paged["cu_seq_lens_q"], paged["cu_seq_lens_k"], window)
        out_QHD = torch.empty_like(query_QHD)
        for new, seen, mask in layout.prompts:
            query, key, value = (x.transpose(0, 1)[None] for x in (query_QHD[new], key_KGD[seen], value_KGD[seen]))
            attended = scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
            )
            out_QHD[new] = attended[0].transpose(0, 1)
        if layout.singles is not None:
            new_N, seen_NL, mask_NL = layout.singles
            keys_NGLD, values_NGLD = (
                part_KGD.index_select(0, seen_NL.flatten()).view(*seen_NL.shape, *part_KGD.shape[1:]).transpose(1, 2)
                for part_KGD in (key_KGD, value_KGD)
            )
            attended = scaled_dot_product_attention(
                query_QHD[new_N].unsqueeze(2),
                keys_NGLD,
                values_NGLD,
                attn_mask=mask_NL[:, None, None],
                scale=scaling,
                enable_gqa=True,
            )
            out_QHD[new_N] = attended.squeeze(2)
        return out_QHD[None], None

    def _layout(self, ends_q: Any, ends_k: Any, window: int) -> "_Layout":
        """Return this step's layout, shared by all layers of a kind, which get the same tensor objects."""
        if isinstance(ends_k, dict):
            ends_k = ends_k["sliding_attention" if window else "full_attention"]
        known = self._layouts.get(window > 0)
        if known is None or known[0] is not ends_k:
            known = self._layouts[window > 0] = (
                ends_k,
                _Layout(ends_q.tolist(), ends_k.tolist(), window, ends_k.device),
            )
        return known[1]


class _Layout:
    """Positions of each request's queries and keys in a step.

    Args:
        ends_q: where each request's new tokens end, after a leading 0.
        ends_k: the same for all its tokens.
        window: how many tokens a token sees, including itself; 0: all before it.
        device: the model's device.
    """

    def __init__(self, ends_q: list[int], ends_k: list[int], window: int, device: Any) -> None:
        import torch

        self.prompts: list[tuple[slice, slice, Any]] = []
        self.singles: tuple[Any, Any, Any] | None = None
        new, starts, lengths = [], [], []
        for i in range(len(ends_q) - 1):
            num_new, num_seen = ends_q[i + 1] - ends_q[i], ends_k[i + 1] - ends_k[i]
            if num_new == 1:
                new.append(ends_q[i])
                starts.append(ends_k[i])
                lengths.append(num_seen)
                continue
            mask = None  # plainly causal: allows kernels that do not store the scores
            if num_new < num_seen or 0 < window < num_seen:
                # A new token sees the tokens before it, cached ones included, within the window.
                mask = torch.ones(num_new, num_seen, dtype=torch.bool, device=device).tril(num_seen - num_new)
                if window:
                    mask = mask.triu(num_seen - num_new - window + 1)
            self.prompts.append((slice(ends_q[i], ends_q[i + 1]), slice(ends_k[i], ends_k[i + 1]), mask))
        if new:
            columns_L = torch.arange(max(lengths), device=device)
            mask_NL = columns_L < torch.tensor(lengths, device=device)[:, None]
            seen_NL = torch.where(mask_NL, torch.tensor(starts, device=device)[:, None] + columns_L, 0)
            self.singles = (torch.tensor(new, device=device), seen_NL, mask_NL)

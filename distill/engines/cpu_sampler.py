"""Drawing tokens on CPU from one uniform number a row, in place of vLLM's one exponential number a vocabulary entry.

vLLM 0.31 draws a whole row of exponential noise with each request's own generator, one request after the other, and
sorts the whole vocabulary for top-p: on two cores that takes longer than a small model's forward pass. Inverting the
cumulative distribution draws from the same distribution and leaves each request its own seed.

Enters: logits, each request's generator, top-k and top-p. Leaves: token ids.
Letters in names: B = requests in the batch, V = vocabulary, R = some of the B rows, K = likeliest tokens.
"""

from collections.abc import Mapping

import torch


def draw(
    logits_BV: torch.Tensor,
    generators: Mapping[int, torch.Generator],
    top_k_B: torch.Tensor | None,
    top_p_B: torch.Tensor | None,
) -> torch.Tensor:
    """One token a row, shape (B,), int64.

    Args:
        logits_BV: already divided by the temperature; -inf where a token is forbidden. Shape (B, V).
        generators: row -> the generator of a request with a seed of its own; other rows draw from torch's.
        top_k_B: most tokens to choose among, V where a row has no limit; `None`: no row has one. Shape (B,).
        top_p_B: the nucleus's probability, 1 where a row has no limit; `None`: no row has one. Shape (B,).
    """
    weights_BV = logits_BV.softmax(dim=-1, dtype=torch.float32)
    num_rows, num_tokens = weights_BV.shape
    p_B = torch.ones(num_rows) if top_p_B is None else top_p_B.float()
    rows_B = torch.arange(num_rows)
    if top_k_B is None:
        return _draw_rows(weights_BV, rows_B, p_B, generators)
    tokens_B = torch.empty(num_rows, dtype=torch.int64)
    is_limited_B = top_k_B < num_tokens
    limited_R, free_R = rows_B[is_limited_B], rows_B[~is_limited_B]
    if len(free_R):
        tokens_B[free_R] = _draw_rows(weights_BV[free_R], free_R, p_B[free_R], generators)
    if len(limited_R):
        k_R1 = top_k_B[limited_R, None]
        likeliest_RK, tokens_RK = weights_BV[limited_R].topk(int(k_R1.max()), dim=-1)
        likeliest_RK.masked_fill_(torch.arange(likeliest_RK.shape[1]) >= k_R1, 0.0)
        drawn_R = _draw_rows(likeliest_RK, limited_R, p_B[limited_R], generators)
        tokens_B[limited_R] = tokens_RK.gather(1, drawn_R[:, None])[:, 0]
    return tokens_B


def _draw_rows(
    weights_RV: torch.Tensor, rows_R: torch.Tensor, p_R: torch.Tensor, generators: Mapping[int, torch.Generator]
) -> torch.Tensor:
    """A token for each of `rows_R`, from those of its weights that reach p of their sum together, shape (R,).

    No sorting: a token is in the nucleus if those likelier than it fall short of p. One that is not shows that the
    tokens no likelier than it are not either, so they are left out of the next draw, as in FlashInfer's sampler.
    """
    if bool((p_R >= 1).all()):
        return _invert(weights_RV, _uniform(rows_R, generators))
    tokens_R = torch.empty(len(rows_R), dtype=torch.int64)
    mass_R = p_R * weights_RV.sum(dim=-1)
    open_R = torch.arange(len(rows_R))
    while len(open_R):
        drawn_R = _invert(weights_RV, _uniform(rows_R[open_R], generators))
        weights_RV = torch.where(weights_RV > weights_RV.gather(1, drawn_R[:, None]), weights_RV, 0.0)
        likelier_R = weights_RV.sum(dim=-1)
        # The likeliest token is in every nucleus, however small its mass is asked to be.
        is_in_R = (likelier_R < mass_R[open_R]) | (likelier_R == 0)
        tokens_R[open_R[is_in_R]] = drawn_R[is_in_R]
        open_R, weights_RV = open_R[~is_in_R], weights_RV[~is_in_R]
    return tokens_R


def _uniform(rows_R: torch.Tensor, generators: Mapping[int, torch.Generator]) -> torch.Tensor:
    """A number in [0, 1) for each of the rows, from its request's own generator where it has one."""
    return torch.stack([torch.rand((), generator=generators.get(row)) for row in rows_R.tolist()])


def _invert(weights_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """The token at which the cumulated weights exceed the drawn share of their sum, shape (B,)."""
    cumulated_BV = weights_BV.cumsum(dim=-1)
    total_B1 = cumulated_BV[:, -1:].contiguous()
    token_B1 = torch.searchsorted(cumulated_BV, uniform_B[:, None] * total_B1, right=True)
    # Rounding may put the share on the sum itself: then the last token whose weight is not 0 is meant.
    return torch.minimum(token_B1, torch.searchsorted(cumulated_BV, total_B1))[:, 0]

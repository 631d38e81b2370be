"""Token sampling on CPU from one uniform number per row, replacing vLLM's sampler.

vLLM 0.31 draws exponential noise for the whole vocabulary with each request's own generator, one request after another,
and sorts the whole vocabulary for top-p: on two cores that takes longer than a small model's forward pass. Inverting
the cumulative distribution draws from the same distribution and keeps each request's own seed.

Letters in names: B = requests in the batch, V = vocabulary, R = some of the B rows, K = likeliest tokens.
"""

from collections.abc import Mapping

import torch


def draw(
    logits_BV: torch.Tensor,
    generators: Mapping[int, torch.Generator],
    top_k_B: torch.Tensor | None,
    top_p_B: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token per row.

    Args:
        logits_BV: already divided by the temperature; -inf for forbidden tokens. Shape (B, V).
        generators: row -> the generator of a request with its own seed; other rows use torch's default generator.
        top_k_B: number of tokens to choose from, V for a row without a limit; `None`: no row has one. Shape (B,).
        top_p_B: nucleus probability, 1 for a row without a limit; `None`: no row has one. Shape (B,).

    Returns:
        The tokens, int64, and the natural logs of their probabilities without the two limits, float32. Shapes (B,).
    """
    weights_BV = logits_BV.softmax(dim=-1, dtype=torch.float32)
    num_rows, num_tokens = weights_BV.shape
    p_B = torch.ones(num_rows, device=logits_BV.device) if top_p_B is None else top_p_B.float()
    rows_B = torch.arange(num_rows, device=logits_BV.device)
    if top_k_B is None:
        tokens_B = _draw_rows(weights_BV, rows_B, p_B, generators)
        return tokens_B, _logs(weights_BV, tokens_B)
    tokens_B = torch.empty_like(rows_B)
    is_limited_B = top_k_B < num_tokens
    limited_R, free_R = rows_B[is_limited_B], rows_B[~is_limited_B]
    if len(free_R):
        tokens_B[free_R] = _draw_rows(weights_BV[free_R], free_R, p_B[free_R], generators)
    if len(limited_R):
        k_R1 = top_k_B[limited_R, None]
        likeliest_RK, tokens_RK = weights_BV[limited_R].topk(int(k_R1.max()), dim=-1)
        likeliest_RK.masked_fill_(torch.arange(likeliest_RK.shape[1], device=k_R1.device) >= k_R1, 0.0)
        drawn_R = _draw_rows(likeliest_RK, limited_R, p_B[limited_R], generators)
        tokens_B[limited_R] = tokens_RK.gather(1, drawn_R[:, None])[:, 0]
    return tokens_B, _logs(weights_BV, tokens_B)


def _logs(weights_BV: torch.Tensor, tokens_B: torch.Tensor) -> torch.Tensor:
    """Return the natural log of each row's weight of its token, shape (B,)."""
    # A drawn token's weight is never 0, so that a log-softmax over the vocabulary would add nothing but time.
    return weights_BV.gather(1, tokens_B[:, None])[:, 0].log()


def _draw_rows(
    weights_RV: torch.Tensor, rows_R: torch.Tensor, p_R: torch.Tensor, generators: Mapping[int, torch.Generator]
) -> torch.Tensor:
    """Draw a token for each of `rows_R` from the nucleus of probability p, shape (R,).

    Nothing is sorted: a token is in the nucleus if the likelier tokens together fall short of p. If a drawn token is
    not, neither are the tokens that are no likelier, so the next draw excludes them, as in FlashInfer's sampler.
    """
    if bool((p_R >= 1).all()):
        return _invert(weights_RV, _uniform(rows_R, generators))
    tokens_R = torch.empty_like(rows_R)
    mass_R = p_R * weights_RV.sum(dim=-1)
    open_R = torch.arange(len(rows_R), device=rows_R.device)
    while len(open_R):
        drawn_R = _invert(weights_RV, _uniform(rows_R[open_R], generators))
        weights_RV = torch.where(weights_RV > weights_RV.gather(1, drawn_R[:, None]), weights_RV, 0.0)
        likelier_R = weights_RV.sum(dim=-1)
        # The likeliest token is in every nucleus, however small p is.
        is_in_R = (likelier_R < mass_R[open_R]) | (likelier_R == 0)
        tokens_R[open_R[is_in_R]] = drawn_R[is_in_R]
        open_R, weights_RV = open_R[~is_in_R], weights_RV[~is_in_R]
    return tokens_R


def _uniform(rows_R: torch.Tensor, generators: Mapping[int, torch.Generator]) -> torch.Tensor:
    """Return a number in [0, 1) per row, from the request's own generator on the CPU if it has one."""
    drawn = [torch.rand((), generator=generators.get(row)) for row in rows_R.tolist()]
    return torch.stack(drawn).to(rows_R.device)


def _invert(weights_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Return the token at which the cumulative weights exceed the drawn share of their sum, shape (B,)."""
    cumulated_BV = weights_BV.cumsum(dim=-1)
    total_B1 = cumulated_BV[:, -1:].contiguous()
    token_B1 = torch.searchsorted(cumulated_BV, uniform_B[:, None] * total_B1, right=True)
    # Rounding may make the share equal the sum; then use the last token with a non-zero weight.
    return torch.minimum(token_B1, torch.searchsorted(cumulated_BV, total_B1))[:, 0]

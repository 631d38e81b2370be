import pytest
import torch

from distill.engines.cpu_sampler import draw

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, float("-inf"), -2.0])
NUM_DRAWS = 20_000


def reference(top_k, top_p):
    """The distribution that is to be drawn from: top-k first, then the nucleus of what it leaves."""
    probs = LOGITS.softmax(-1)
    order = probs.argsort(descending=True)
    kept = torch.zeros_like(probs)
    kept[order[:top_k]] = probs[order[:top_k]]
    ranked = kept[order] / kept.sum()
    before = ranked.cumsum(0) - ranked
    kept[order[before >= top_p]] = 0
    return kept / kept.sum()


@pytest.mark.parametrize(("top_k", "top_p"), [(7, 1.0), (3, 1.0), (7, 0.8), (7, 0.3), (4, 0.9), (1, 1.0), (7, 1e-6)])
def test_tokens_follow_the_distribution(top_k, top_p):
    torch.manual_seed(0)
    k = torch.full((NUM_DRAWS,), top_k) if top_k < 7 else None
    p = torch.full((NUM_DRAWS,), top_p) if top_p < 1 else None
    tokens, logprobs = draw(LOGITS.expand(NUM_DRAWS, -1).clone(), {}, k, p)
    assert torch.allclose(logprobs, LOGITS.log_softmax(-1)[tokens], atol=1e-6)
    found = torch.bincount(tokens, minlength=7) / NUM_DRAWS
    expected = reference(top_k, top_p)
    assert torch.all(found[expected == 0] == 0)
    # Four standard errors of a binomial share.
    assert torch.all((found - expected).abs() <= 4 * (expected * (1 - expected) / NUM_DRAWS).sqrt() + 1e-9)


def test_a_large_vocabulary_has_the_right_nucleus():
    torch.manual_seed(1)
    logits = torch.randn(1, 5_000).expand(4_000, -1).clone()
    tokens, _ = draw(logits, {}, None, torch.full((4_000,), 0.5))
    probs = logits[0].softmax(-1)
    ranked, order = probs.sort(descending=True)
    nucleus = set(order[ranked.cumsum(0) - ranked < 0.5].tolist())
    assert set(tokens.tolist()) <= nucleus
    assert len(set(tokens.tolist())) > len(nucleus) / 2


@pytest.mark.parametrize("top_p", [None, 0.7])
def test_a_row_draws_by_its_own_seed_whatever_its_neighbours_are(top_p):
    def drawn(rows, position):
        generators = {position: torch.Generator().manual_seed(42)}
        p = None if top_p is None else torch.full((rows,), top_p)
        return [int(draw(LOGITS.expand(rows, -1).clone(), generators, None, p)[0][position]) for _ in range(20)]

    alone = drawn(1, 0)
    assert drawn(5, 3) == alone
    assert len(set(alone)) > 1


def test_rows_may_differ_in_their_limits():
    torch.manual_seed(0)
    k, p = torch.tensor([1, 7, 2, 7]), torch.tensor([1.0, 1e-6, 1.0, 1.0])
    rows = [draw(LOGITS.expand(4, -1).clone(), {}, k, p)[0].tolist() for _ in range(200)]
    first, second, third, fourth = (set(column) for column in zip(*rows, strict=True))
    assert (first, second, third) == ({0}, {0}, {0, 1})
    assert len(fourth) > 3

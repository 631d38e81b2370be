"""The divergence from teachers, and its gradients, against the definition on whole rows of logits."""

import pytest
import torch

from distill.training.rl import divergence
from distill.training.rl.divergence import TopTargets, WholeTargets, divergence_loss

NUM, HIDDEN, WORDS, PADDED = 11, 6, 40, 48


def kl(first, second):
    return (first.exp() * (first - second)).sum(-1)


def made(seed=3):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=random) for shape in ((NUM, HIDDEN), (WORDS, HIDDEN), (NUM, 9), (PADDED, 9))]


@pytest.mark.parametrize("toward", ["reverse", "forward"])
@pytest.mark.parametrize("tile", [WORDS, 3 * WORDS, 1 << 20])
def test_value_and_gradients_are_those_of_the_definition(toward, tile, monkeypatch):
    monkeypatch.setattr(divergence, "TILE_NUMBERS", tile)
    states, weight, of_teacher, of_other = made()
    other_states, _, _, _ = made(5)
    shares = torch.rand(NUM)
    for one in (states, weight):
        one.requires_grad_()
    # The teacher's vocabulary is padded beyond the student's; the second teacher's is not.
    targets = [WholeTargets(of_teacher, of_other), WholeTargets(other_states, weight.detach() + 1)]
    loss, each, entropy = divergence_loss(states, weight, shares, targets, toward)
    (3 * loss).backward()
    found = states.grad.clone(), weight.grad.clone()
    states.grad = weight.grad = None

    own = (states @ weight.t()).log_softmax(-1)
    told = [
        (of_teacher @ of_other[:WORDS].t()).log_softmax(-1),
        (other_states @ (weight.detach() + 1).t()).log_softmax(-1),
    ]
    expected = sum(kl(own, one) if toward == "reverse" else kl(one, own) for one in told) / 2
    torch.testing.assert_close(each, expected.detach())
    torch.testing.assert_close(entropy, -(own.exp() * own).sum(-1).detach())
    torch.testing.assert_close(loss, (expected * shares).sum())
    (3 * (expected * shares).sum()).backward()
    torch.testing.assert_close(found, (states.grad, weight.grad))


@pytest.mark.parametrize(("toward", "beta"), [("reverse", 1.0), ("forward", 0.0)])
def test_the_divergence_is_that_of_trl(toward, beta):
    from trl.experimental.gkd import GKDTrainer

    states, weight, of_teacher, of_other = made()
    of_other = of_other[:WORDS]
    targets = [WholeTargets(of_teacher, of_other)]
    found, _, _ = divergence_loss(states, weight, torch.full((NUM,), 1 / NUM), targets, toward)
    logits = (states @ weight.t())[None], (of_teacher @ of_other.t())[None]
    expected = GKDTrainer.generalized_jsd_loss(*logits, labels=torch.zeros(1, NUM, dtype=torch.long), beta=beta)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("toward", ["reverse", "forward"])
def test_a_student_padded_beyond_its_teacher_is_compared_on_the_tokens_of_both(toward):
    states, weight, of_teacher, of_other = made()
    targets = [WholeTargets(of_teacher, of_other[: WORDS - 5])]
    states.requires_grad_()
    weight.requires_grad_()
    loss, _, _ = divergence_loss(states, weight, torch.ones(NUM), targets, toward)
    loss.backward()
    own, told = (
        (states @ weight[: WORDS - 5].t()).log_softmax(-1),
        (of_teacher @ of_other[: WORDS - 5].t()).log_softmax(-1),
    )
    torch.testing.assert_close(loss, (kl(own, told) if toward == "reverse" else kl(told, own)).sum())
    assert not weight.grad[WORDS - 5 :].any()
    assert weight.grad[: WORDS - 5].any()


def coarse(log_probs, ids):
    """Log-probabilities of some tokens, and of all others together."""
    others = torch.ones_like(log_probs, dtype=torch.bool).scatter(1, ids, value=False)
    rest = torch.stack([row[keep].logsumexp(0) for row, keep in zip(log_probs, others, strict=True)])
    return torch.cat((log_probs.gather(1, ids), rest[:, None]), 1)


@pytest.mark.parametrize("toward", ["reverse", "forward"])
def test_tokens_that_a_server_does_not_tell_of_count_as_one(toward):
    states, weight, of_teacher, of_other = made()
    told = (of_teacher @ of_other[:WORDS].t()).log_softmax(-1)
    log_probs, ids = told.topk(5, -1)
    states.requires_grad_()
    loss, each, _ = divergence_loss(states, weight, torch.ones(NUM), [TopTargets(ids, log_probs)], toward)
    loss.backward()
    found = states.grad.clone()
    states.grad = None
    own = (states @ weight.t()).log_softmax(-1)
    pair = (coarse(own, ids), coarse(told, ids))
    expected = kl(*pair) if toward == "reverse" else kl(*reversed(pair))
    torch.testing.assert_close(each, expected.detach())
    expected.sum().backward()
    torch.testing.assert_close(found, states.grad)
    whole = kl(own, told) if toward == "reverse" else kl(told, own)
    assert bool((each <= whole + 1e-6).all())


def test_places_with_fewer_told_tokens_and_tokens_that_the_student_lacks_are_left_out():
    states, weight, _, _ = made()
    ids = torch.tensor([[1, 2, -1]] * (NUM - 1) + [[1, WORDS + 3, 2]])
    log_probs = torch.tensor([[-1.0, -2.0, 0.0]] * (NUM - 1) + [[-1.0, -9.0, -2.0]])
    _, each, _ = divergence_loss(states, weight, torch.ones(NUM), [TopTargets(ids, log_probs)], "forward")
    own = coarse((states @ weight.t()).log_softmax(-1), torch.tensor([[1, 2]] * NUM))
    rest = (1 - torch.tensor([-1.0, -2.0]).exp().sum()).log()
    told = torch.tensor([[-1.0, -2.0, rest]] * NUM)
    torch.testing.assert_close(each, kl(told, own), rtol=1e-4, atol=1e-4)


def test_no_tokens_are_no_loss():
    states, weight, _, _ = made()
    states = states[:0].requires_grad_()
    loss, _, _ = divergence_loss(states, weight.requires_grad_(), torch.ones(0), [], "reverse")
    loss.backward()
    assert loss == 0
    assert not weight.grad.any()

"""Log-probabilities with shared prompts equal those of a padded batch, and so do their gradients."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from distill.training.rl import packed
from distill.training.rl.packed import can_pack, pack, packed_log_probs, set_shared_prompts

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50,
}  # fmt: skip


def model_of(kind):
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False))


def batch(rows, num_columns):
    """Rows of (prompt, answer) as TRL pads them."""
    longest = max(len(prompt) for prompt, _ in rows)
    ids, mask = [], []
    for prompt, answer in rows:
        left, right = longest - len(prompt), num_columns - len(answer)
        ids.append([0] * left + prompt + answer + [0] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(answer)) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask)


def plain(model, ids, mask, num_columns, temperature):
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, :-1] / temperature
    log_probs = logits.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    chosen = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1)
    keep = mask[:, -num_columns:].bool()
    return chosen[:, -num_columns:].where(keep, 0.0), entropy[:, -num_columns:].where(keep, 0.0)


ROWS = [
    ([5, 6, 7], [9, 8, 7, 6]),
    ([5, 6, 7], [9, 8]),
    ([11, 12, 13, 14, 15], [3]),
    ([5, 6, 7], [4, 4, 4]),
    ([11, 12, 13, 14, 15], [6, 7, 8, 9]),
]


@pytest.mark.parametrize("kind", ["llama", "qwen"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("keeps", [True, False])
def test_values_and_gradients_are_those_of_a_padded_batch(kind, temperature, keeps, monkeypatch):
    if not keeps:
        monkeypatch.setattr(packed, "KEPT_NUMBERS", 0)
    monkeypatch.setattr(packed, "TILE_NUMBERS", 150)  # three tokens a tile
    ids, mask = batch(ROWS, 4)
    weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    expected_model, model = model_of(kind), model_of(kind)
    expected, expected_entropy = plain(expected_model, ids, mask, 4, temperature)
    (expected * weights).sum().backward()
    assert can_pack(model)
    set_shared_prompts(model)
    found, entropy = packed_log_probs(model, ids, mask, 4, temperature)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, rtol=0, atol=1e-5)
    for (name, one), (_, two) in zip(model.named_parameters(), expected_model.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_padded_batch_is_computed_as_before():
    """Sampling runs through the same module."""
    ids, mask = batch(ROWS, 4)
    model = model_of("llama").eval()
    expected = model(input_ids=ids, attention_mask=mask).logits
    set_shared_prompts(model)
    found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-5)


def test_prompts_are_there_once():
    ids, mask = batch(ROWS, 4)
    made = pack(ids, mask, 4)
    assert len(made.ids) == 3 + 5 + 4 + 2 + 1 + 3 + 4
    assert [group.answer_lengths for group in made.groups] == [(4, 2, 3), (1, 4)]
    assert made.rows.tolist() == [0, 0, 0, 0, 1, 1, 3, 3, 3, 2, 4, 4, 4, 4]


def test_an_answer_without_tokens():
    ids, mask = batch([([5, 6], []), ([5, 6], [7, 8])], 2)
    model = model_of("llama")
    set_shared_prompts(model)
    found, _ = packed_log_probs(model, ids, mask, 2, 1.0)
    assert found[0].tolist() == [0.0, 0.0]
    torch.testing.assert_close(found, plain(model_of("llama"), ids, mask, 2, 1.0)[0], rtol=0, atol=1e-5)

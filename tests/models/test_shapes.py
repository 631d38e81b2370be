"""Architectures in numbers: parameters as published, and as transformers counts them."""

import pytest

from distill.errors import ModelError
from distill.models.shapes import ModelShape, shape_from_config
from distill.models.students import STUDENTS

# Billions, in all and without embeddings, from the models' cards
PUBLISHED = {
    "qwen-1.5b": (1.54, 1.31),
    "qwen-7b": (7.62, 6.53),
    "qwen-14b": (14.8, 13.2),
    "qwen-32b": (32.8, 31.2),
    "llama-8b": (8.03, None),
    "llama-70b": (70.6, None),
    "qwen3-0.6b": (0.6, 0.44),
    "qwen3-1.7b": (1.7, 1.4),
    "qwen3-4b": (4.0, 3.6),
    "qwen3-8b": (8.2, 6.95),
    "llama3.2-1b": (1.24, None),
    "llama3.2-3b": (3.21, None),
    "smollm2-135m": (0.135, None),
}

TINY = ModelShape(hidden=8, layers=2, heads=4, kv_heads=2, head_dim=4, intermediate=10, vocab=20)


@pytest.mark.parametrize("alias", STUDENTS)
def test_parameters_are_those_of_the_model_cards(alias):
    shape = STUDENTS[alias].shape
    in_all, without_embeddings = PUBLISHED[alias]
    assert shape.num_parameters / 1e9 == pytest.approx(in_all, rel=0.015)
    if without_embeddings:
        ends = shape.embedding_parameters * (1 if shape.tied else 2)
        assert (shape.num_parameters - ends) / 1e9 == pytest.approx(without_embeddings, rel=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("alias", STUDENTS)
def test_parameters_are_those_that_transformers_makes(alias):
    import torch
    from transformers import AutoModelForCausalLM

    student = STUDENTS[alias]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(student.shape))
    assert sum(p.numel() for p in model.parameters()) == student.shape.num_parameters
    of_layers = sum(m.weight.numel() for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear))
    assert of_layers == student.shape.linear_parameters


def config_of(shape):
    """A transformers configuration of a shape."""
    from transformers import LlamaConfig, Qwen2Config, Qwen3Config

    kind = Qwen2Config if shape.qkv_bias else Qwen3Config if shape.qk_norm else LlamaConfig
    return kind(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )


@pytest.mark.parametrize("alias", ["qwen-7b", "llama-8b", "qwen3-4b", "smollm2-135m"])
def test_a_saved_configuration_gives_the_same_shape(alias, tmp_path):
    import json

    shape = STUDENTS[alias].shape
    config_of(shape).save_pretrained(tmp_path)
    assert shape_from_config(json.loads((tmp_path / "config.json").read_text()), alias) == shape


def test_the_table_has_the_shape_of_the_model_in_the_cache(smollm2):
    import json

    config = json.loads((smollm2.path / "config.json").read_text())
    assert shape_from_config(config, "smollm2-135m") == STUDENTS["smollm2-135m"].shape


def test_a_head_is_as_wide_as_its_part_of_the_hidden_state_where_nothing_is_said():
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
    shape = shape_from_config({**config, "intermediate_size": 8, "vocab_size": 10}, "small")
    assert (shape.head_dim, shape.kv_heads, shape.tied) == (16, 4, False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mixtral"}, "memory use cannot be estimated for model_type 'mixtral'. Known: llama"),
        ({}, "model_type ''"),
        ({"model_type": "llama", "hidden_size": 8}, "config.json has no 'num_attention_heads'"),
    ],
)
def test_what_cannot_be_worked_out_is_said(config, words):
    with pytest.raises(ModelError, match=words):
        shape_from_config(config, "mine")


def test_parameters_of_an_adapter():
    # rank x (in + out) for each projection of each layer
    assert TINY.lora_parameters(2) == 2 * 2 * sum(a + b for a, b in TINY.linears.values())
    assert TINY.lora_parameters(2, ["q_proj"]) == 2 * 2 * (8 + 16)
    with pytest.raises(ModelError, match=r"knows q_proj, .* and not w_pack"):
        TINY.lora_parameters(2, ["w_pack"])


def test_operations_of_a_token_are_twice_the_weights_and_grow_with_what_it_attends_to():
    weights = TINY.linear_parameters + TINY.embedding_parameters
    assert TINY.flops_per_token(0) == 2 * weights
    assert TINY.flops_per_token(100) - TINY.flops_per_token(0) == 4 * TINY.layers * TINY.query_width * 100

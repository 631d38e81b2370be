"""The rotary base for rows longer than the base's context: when, which, and that the model really has it."""

import json

import pytest

from distill.errors import ModelError
from distill.models.rope import Rope, RopePatch, apply_rope, rope_of, rope_patch
from distill.models.students import Student, find_student

QWEN_MATH = {"model_type": "qwen2", "max_position_embeddings": 4_096, "rope_theta": 10_000}
LLAMA = {
    "model_type": "llama",
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8_192},
}
QWEN, MINE = find_student("qwen-1.5b"), Student("org/mine", "org/mine", 1e-5)


@pytest.mark.parametrize(
    ("config", "rope"),
    [
        (QWEN_MATH, Rope(4_096, 10_000, "default")),
        (LLAMA, Rope(131_072, 500_000.0, "llama3")),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 7.0}}, Rope(None, 7.0, "yarn")),
        ({"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 5}, Rope(None, 5, "linear")),
        ({"text_config": QWEN_MATH}, Rope(4_096, 10_000, "default")),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1}}}, Rope(None, None, "mixed")),
        ({"n_positions": 1_024}, Rope(None, None, "default")),
    ],
)
def test_the_models_own(config, rope):
    assert rope_of(config) == rope


@pytest.mark.parametrize("max_length", [100, 4_096])
def test_rows_within_the_context_need_no_patch(max_length):
    assert rope_patch(max_length, QWEN_MATH, QWEN) is None


@pytest.mark.parametrize("max_length", [4_097, 16_384, 32_768])
def test_longer_rows_get_the_tables_theta_and_context(max_length):
    assert rope_patch(max_length, QWEN_MATH, QWEN) == RopePatch(300_000.0, 32_768)


def test_a_theta_that_is_asked_for_is_applied():
    assert rope_patch(8_192, QWEN_MATH, QWEN, 500_000.0) == RopePatch(500_000.0, 8_192)
    assert rope_patch(100, QWEN_MATH, QWEN, 500_000.0) == RopePatch(500_000.0, 4_096)
    assert rope_patch(9_000, QWEN_MATH, MINE, 40_000.0) == RopePatch(40_000.0, 9_000)
    assert rope_patch(100, QWEN_MATH, QWEN, 10_000.0) is None


def test_a_scaled_embedding_is_patched_only_if_asked_for():
    assert rope_patch(131_072, LLAMA, MINE) is None
    with pytest.raises(ModelError, match=r"exceeds the context of org/mine \(131072 tokens\)"):
        rope_patch(200_000, LLAMA, MINE)
    scaled = {**QWEN_MATH, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    with pytest.raises(ModelError, match=r"scaled already \(yarn\), so the table's theta \(300,000\) is not"):
        rope_patch(8_192, scaled, QWEN)
    assert rope_patch(200_000, LLAMA, MINE, 4e6) == RopePatch(4e6, 200_000)


def test_a_model_whose_context_is_not_told_is_left_alone():
    assert rope_patch(10**6, {}, MINE) is None


@pytest.mark.parametrize(
    ("max_length", "config", "student", "theta", "words"),
    [
        (4_097, QWEN_MATH, MINE, None, r"Lower sft.max_length to 4096 or less, or set sft.rope_theta .* is 10,000\)"),
        (32_769, QWEN_MATH, QWEN, None, "Lower sft.max_length to 32768 or less, or set sft.rope_theta"),
        (10, {"rope_parameters": {"full_attention": {}}}, MINE, 1e5, "not use one rotary embedding for all layers"),
        (10, {"n_positions": 1_024}, MINE, 1e5, "Leave sft.rope_theta out"),
    ],
)
def test_what_cannot_be_reached_is_refused_with_the_way_out(max_length, config, student, theta, words):
    with pytest.raises(ModelError, match=words):
        rope_patch(max_length, config, student, theta)


# --- applied


def tiny(**changes):
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        **changes,
    )


def logits(model):
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(48)[None] % 64).logits


def test_a_patched_model_is_one_built_with_that_theta(tmp_path):
    """Its logits, and those of the saved student loaded again, are the same bit for bit."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    before = AutoModelForCausalLM.from_config(tiny())
    before.save_pretrained(tmp_path / "base")
    patch = rope_patch(48, json.loads((tmp_path / "base" / "config.json").read_text()), MINE, 300_000.0)
    config = AutoConfig.from_pretrained(tmp_path / "base")
    apply_rope(config, patch)
    patched = AutoModelForCausalLM.from_pretrained(tmp_path / "base", config=config)

    built = AutoModelForCausalLM.from_config(tiny(rope_parameters={"rope_type": "default", "rope_theta": 300_000.0}))
    built.load_state_dict(before.state_dict())
    assert torch.equal(logits(patched), logits(built))
    assert not torch.allclose(logits(patched), logits(before), atol=1e-4)

    patched.save_pretrained(tmp_path / "student")
    saved = json.loads((tmp_path / "student" / "config.json").read_text())
    assert rope_of(saved) == Rope(48, 300_000.0, "default")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert torch.equal(logits(again), logits(patched))


def test_a_scaled_embedding_keeps_its_type():
    from transformers import LlamaConfig

    config = LlamaConfig(
        max_position_embeddings=131_072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8_192,
        },
    )
    apply_rope(config, RopePatch(4e6, 200_000))
    assert config.rope_parameters["rope_type"] == "llama3"
    assert config.rope_parameters["factor"] == 8.0
    assert config.rope_parameters["original_max_position_embeddings"] == 8_192
    assert (config.rope_parameters["rope_theta"], config.max_position_embeddings) == (4e6, 200_000)

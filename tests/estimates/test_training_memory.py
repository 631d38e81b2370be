"""Memory of a training step: what autograd saves, to the byte, and how the parts go with the setting."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from distill.estimates.training_memory import (
    ADAMW,
    FP32,
    GIB,
    PARTS,
    Setting,
    plan,
    saved_per_layer,
    trained_parameters,
)
from distill.models.shapes import ModelShape
from distill.models.students import STUDENTS

QWEN = STUDENTS["qwen-7b"].shape
SMALL = {"hidden": 48, "layers": 2, "heads": 6, "kv_heads": 2, "head_dim": 20, "intermediate": 100, "vocab": 256}


def on_gpus(**changes):
    return Setting(**{"method": "full", "row_tokens": 4_096, "num_processes": 8, "sharding": "fsdp", **changes})


# --- what is saved for the backward pass


@pytest.mark.parametrize(
    ("kind", "method", "bf16", "padded", "attention"),
    [
        ("llama", "full", False, False, "sdpa"),
        ("qwen3", "full", False, True, "sdpa"),
        ("llama", "full", True, False, "sdpa"),
        ("qwen3", "full", True, False, "sdpa"),
        ("llama", "lora", False, False, "sdpa"),
        ("qwen2", "lora", True, True, "sdpa"),
        ("qwen3", "lora", True, False, "sdpa"),
        ("llama", "full", False, False, "rows"),
        ("qwen2", "lora", False, False, "rows"),
    ],
)
def test_what_autograd_saves_in_a_layer(kind, method, bf16, padded, attention):
    shape = ModelShape(**SMALL, tied=True, qkv_bias=kind == "qwen2", qk_norm=kind == "qwen3")
    rows, row_tokens = 3, 32
    setting = Setting(
        method=method,
        rows=rows,
        row_tokens=row_tokens,
        lora_r=4,
        device="cpu",
        gradient_checkpointing=False,
        bf16=bf16,
        attention=attention,
        padded=padded,
    )
    measured = saved_in_second_layer(shape, setting)
    assert measured == saved_per_layer(shape, setting) * rows * row_tokens


def saved_in_second_layer(shape, setting):
    """Bytes of distinct tensors that autograd saves in a layer, its weights and casts of them left out."""
    import torch

    model = model_of(shape, setting)
    layer = model.get_base_model().model.layers[1] if setting.method == "lora" else model.model.layers[1]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved, counts = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        is_cast_weight = tensor.grad_fn is not None and tensor.grad_fn.name() == "TBackward0"
        if storage.data_ptr() not in weights and not is_cast_weight:
            saved.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    layer.register_forward_pre_hook(lambda *_: counts.append(len(saved)))
    layer.register_forward_hook(lambda *_: counts.append(len(saved)))
    ids = torch.randint(0, shape.vocab, (setting.rows, setting.row_tokens))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if setting.padded:
        inputs["attention_mask"][0, -5:] = 0
    if setting.attention == "rows":
        from distill.training.cpu import set_attention_row_by_row

        set_attention_row_by_row(model)
        ends = torch.arange(0, ids.numel() + 1, setting.row_tokens)
        inputs = {
            "input_ids": ids.reshape(1, -1),
            "position_ids": torch.arange(setting.row_tokens).repeat(1, setting.rows),
            "cu_seq_lens_q": ends,
        }
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if setting.bf16 else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model(**inputs, use_cache=False)
    return sum(size for size, _ in list(saved.values())[slice(*counts)])


def model_of(shape, setting):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    kind = Qwen2Config if shape.qkv_bias else Qwen3Config if shape.qk_norm else LlamaConfig
    config = kind(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )
    dtype = torch.bfloat16 if setting.stored_bytes == 2 else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").train()
    if setting.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=setting.lora_r, target_modules="all-linear", task_type="CAUSAL_LM"))


# --- weights, gradients, moments


def test_full_training_takes_sixteen_bytes_a_parameter_shared_out():
    estimate = plan(QWEN, on_gpus())
    share = QWEN.num_parameters / 8 / GIB
    assert estimate.weights == pytest.approx(4 * share)
    assert estimate.gradients == pytest.approx(4 * share) or estimate.moment != "update"
    assert estimate.optimiser == pytest.approx(8 * share)


def test_an_adapter_has_gradients_and_moments_of_its_own_parameters_alone():
    setting = on_gpus(method="lora", sharding="none", lora_r=16, accumulation=2)
    estimate = plan(QWEN, setting)
    adapter = QWEN.lora_parameters(16)
    assert trained_parameters(QWEN, setting) == adapter
    assert estimate.weights == pytest.approx((2 * QWEN.num_parameters + FP32 * adapter) / GIB)
    assert estimate.optimiser == pytest.approx(ADAMW * adapter / GIB)
    assert estimate.gradients == pytest.approx(FP32 * adapter / GIB)


def test_qlora_quantises_the_projections_and_not_the_embeddings():
    saved = plan(QWEN, on_gpus(method="lora")).weights - plan(QWEN, on_gpus(method="qlora")).weights
    assert saved * 8 == pytest.approx((2 - 0.516) * QWEN.linear_parameters / GIB, rel=0.001)


def test_zero3_keeps_bfloat16_weights_beside_the_float32_ones():
    fsdp, zero3 = plan(QWEN, on_gpus()), plan(QWEN, on_gpus(sharding="zero3"))
    assert zero3.weights == pytest.approx(1.5 * fsdp.weights)
    assert zero3.optimiser == fsdp.optimiser


def test_what_is_offloaded_is_in_the_machines_memory():
    there, away = plan(QWEN, on_gpus()), plan(QWEN, on_gpus(cpu_offload=True))
    assert (away.weights, away.optimiser) == (0.0, 0.0)
    assert away.total_gib < there.total_gib
    assert away.host_gib == pytest.approx(16 * QWEN.num_parameters / 8 / GIB)
    assert there.host_gib == 0.0


def test_processes_that_each_hold_the_model_hold_buckets_of_its_gradients_too():
    alone = plan(QWEN, on_gpus(sharding="none", num_processes=1))
    several = plan(QWEN, on_gpus(sharding="none"))
    assert several.total_gib - alone.total_gib > FP32 * QWEN.num_parameters / GIB


# --- how the parts go with the setting


def test_the_parts_are_the_whole():
    estimate = plan(QWEN, on_gpus())
    assert tuple(estimate.parts) == PARTS
    assert estimate.total_gib == pytest.approx(sum(estimate.parts.values()))
    assert all(gib >= 0 for gib in estimate.parts.values())


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("sharding", ["none", "fsdp", "zero3"])
def test_more_needs_more_and_sharing_needs_less(method, sharding):
    setting = on_gpus(method=method, sharding=sharding)
    base = plan(QWEN, setting).total_gib
    assert plan(QWEN, replace(setting, row_tokens=8_192)).total_gib > base
    assert plan(QWEN, replace(setting, rows=2)).total_gib > base
    assert plan(QWEN, replace(setting, gradient_checkpointing=False)).total_gib > base
    assert plan(QWEN, replace(setting, attention="eager")).total_gib >= base
    assert plan(QWEN, replace(setting, bf16=False)).total_gib > base or method == "full"
    if sharding != "none":
        assert plan(QWEN, replace(setting, num_processes=16)).total_gib < base
        assert plan(QWEN, replace(setting, sequence_parallel=2)).total_gib < base


def test_the_loss_never_holds_all_logits():
    long = plan(QWEN, on_gpus(row_tokens=131_072, method="lora"))
    logits = 131_072 * QWEN.vocab * 2 / GIB
    assert logits > 30
    assert long.logits < 3


def test_gradients_of_earlier_passes_lie_there_while_the_next_one_runs():
    one, several = (plan(QWEN, on_gpus(num_processes=1, sharding="none", accumulation=n)) for n in (1, 4))
    assert several.total_gib > one.total_gib


def test_a_mask_costs_memory_with_the_square_of_the_row():
    def extra(row_tokens):
        setting = Setting(row_tokens=row_tokens, rows=1, attention="sdpa", gradient_checkpointing=False)
        masked = saved_per_layer(QWEN, replace(setting, padded=True))
        return (masked - saved_per_layer(QWEN, setting)) * row_tokens

    repeated = 2 * 2 * (QWEN.query_width - QWEN.kv_width)
    assert extra(2_048) - repeated * 2_048 == 4 * (extra(1_024) - repeated * 1_024)


def test_the_mask_that_layers_share_is_a_byte_for_each_pair_of_tokens():
    def step(padded):
        return plan(
            QWEN, Setting(row_tokens=8_192, rows=2, attention="sdpa", padded=padded, gradient_checkpointing=False)
        )

    in_layers = saved_per_layer(QWEN, Setting(row_tokens=8_192, rows=2, attention="sdpa", padded=True))
    in_layers -= saved_per_layer(QWEN, Setting(row_tokens=8_192, rows=2, attention="sdpa"))
    extra = (step(True).activations - step(False).activations) * GIB / (2 * 8_192)
    assert extra == pytest.approx(QWEN.layers * in_layers + 8_192)

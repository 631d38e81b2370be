"""Sharding: the settings as accelerate and DeepSpeed read them, what is shared out, and checkpoints made whole."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distill.errors import ModelError
from distill.recipe.sft import SftConfig
from distill.training.layout import Layout
from distill.training.sharding import (
    consolidate,
    decoder_layers,
    deepspeed_config,
    environment,
    fsdp_config,
    layer_names,
    parallelism,
    row_multiple,
    sharding_arguments,
    sharding_plan,
    tied_names,
    wrap_policy,
)

FSDP = Layout(8, 1, 1, "fsdp")


def sft(method="full", lora=None, **compute):
    return SftConfig.model_validate({"method": method, "lora": lora, "compute": compute})


def llama(vocab_size=1_000, tied=False, **shape):
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=tied, num_key_value_heads=1, **(small | shape))
    )


ARCHITECTURES = {
    "qwen-1.5b": ("Qwen2", (1536, 8960, 28, 12, 2, 151_936, True), 1_543_714_304),
    "qwen-7b": ("Qwen2", (3584, 18944, 28, 28, 4, 152_064, False), 7_615_616_512),
    "qwen-14b": ("Qwen2", (5120, 13824, 48, 40, 8, 152_064, False), 14_770_033_664),
    "qwen-32b": ("Qwen2", (5120, 27648, 64, 40, 8, 152_064, False), 32_763_876_352),
    "llama-8b": ("Llama", (4096, 14336, 32, 32, 8, 128_256, False), 8_030_261_248),
    "llama-70b": ("Llama", (8192, 28672, 80, 64, 8, 128_256, False), 70_553_706_496),
}
"""Alias -> architecture, (hidden, intermediate, layers, heads, kv heads, vocabulary, tied), published parameters."""


def on_meta(alias):
    import transformers

    family, (hidden, intermediate, layers, heads, kv_heads, vocabulary, tied), _ = ARCHITECTURES[alias]
    config = getattr(transformers, f"{family}Config")(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        return getattr(transformers, f"{family}ForCausalLM")(config)


def plugin(config):
    """accelerate's FSDP plugin, made from the settings as the Trainer makes it."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        "unused",
        use_cpu=True,
        report_to="none",
        fsdp=True,
        fsdp_config=fsdp_config(config, ["LlamaDecoderLayer"], True),
    )
    return FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """transformers and accelerate leave settings in the environment."""
    for name in ("FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_USE_FSDP"):
        monkeypatch.setenv(name, "false")


def test_accelerate_reads_the_fsdp_settings_as_they_are_meant():
    found = plugin(sft())
    assert found.fsdp_version == 2
    assert found.reshard_after_forward is True
    assert found.activation_checkpointing is True
    assert found.cpu_ram_efficient_loading is True
    assert found.transformer_cls_names_to_wrap == ["LlamaDecoderLayer"]
    assert found.state_dict_type.name == "SHARDED_STATE_DICT"
    assert type(found.cpu_offload).__name__ == "OffloadPolicy"
    assert type(plugin(sft(sharding="fsdp", cpu_offload=True)).cpu_offload).__name__ == "CPUOffloadPolicy"
    assert plugin(sft("qlora")).cpu_ram_efficient_loading is False


def test_layers_are_recomputed_by_one_of_both_and_never_with_another_dropout():
    plain = sharding_arguments(FSDP, sft(), ["X"], recompute=True)
    assert (plain["fsdp_config"]["activation_checkpointing"], plain["gradient_checkpointing"]) == (True, False)
    dropout = sharding_arguments(FSDP, sft("lora", {"dropout": 0.1}), ["X"], recompute=True)
    assert (dropout["fsdp_config"]["activation_checkpointing"], dropout["gradient_checkpointing"]) == (False, True)
    assert sharding_arguments(Layout(2, 1, 1), sft(), [], recompute=True) == {"gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("layout", "sizes", "multiple"),
    [
        (Layout(8, 1, 1, "fsdp", 4), {"dp_shard_size": 2, "cp_size": 4}, 8),
        (Layout(8, 1, 1, "zero3", 4), {"dp_shard_size": 2, "sp_size": 4}, 4),
        (FSDP, {"dp_shard_size": 8, "cp_size": 1}, 1),
    ],
)
def test_rows_are_shared_as_accelerate_wants_it(layout, sizes, multiple):
    from accelerate import ParallelismConfig

    assert parallelism(layout) == sizes
    made = ParallelismConfig(**sizes)
    assert made.total_size == layout.num_processes
    assert made.data_parallel_size == layout.data_parallel
    assert row_multiple(layout) == multiple


def test_the_environment_is_what_accelerate_launch_would_set():
    assert environment(FSDP, sft(), on_gpu=True)["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"
    assert environment(FSDP, sft(sharding="fsdp", cpu_offload=True), on_gpu=True)["FSDP_OFFLOAD_PARAMS"] == "true"
    assert environment(Layout(2, 1, 1), sft(), on_gpu=True) == {}
    assert environment(Layout(1, 1, 1), sft(), on_gpu=False) == {}
    assert environment(Layout(2, 1, 1), sft(), on_gpu=False) == {"ACCELERATE_TORCH_DEVICE": "cpu"}


def test_zero3_is_plain_json_and_shares_weights_gradients_and_optimiser():
    config = deepspeed_config(sft(sharding="zero3", cpu_offload=True))
    assert json.loads(json.dumps(config)) == config
    zero = config["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"], zero["offload_optimizer"]["device"]) == (3, "cpu", "cpu")
    assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    assert "offload_param" not in deepspeed_config(sft())["zero_optimization"]


def test_deepspeed_takes_the_settings():
    runtime = pytest.importorskip("deepspeed.runtime.config")
    numbers = {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 1}
    config = deepspeed_config(sft()) | numbers | {"gradient_clipping": 1.0}
    config |= {"bf16": {"enabled": True}, "fp16": {"enabled": False}}
    sizes = {"reduce_bucket_size": 1, "stage3_prefetch_bucket_size": 1, "stage3_param_persistence_threshold": 1}
    config["zero_optimization"] |= sizes
    made = runtime.DeepSpeedConfig(config)
    assert made.zero_optimization_stage == 3
    assert made.zero_config.gather_16bit_weights_on_model_save


def test_what_a_sharding_cannot_do_is_refused(monkeypatch):
    zero3 = Layout(2, 1, 1, "zero3")
    monkeypatch.setattr("distill.training.sharding.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs DeepSpeed"):
        sharding_arguments(zero3, sft(), [], recompute=True)
    monkeypatch.setattr("distill.training.sharding.find_spec", lambda name: name)
    with pytest.raises(ModelError, match="4-bit"):
        sharding_arguments(zero3, sft("qlora"), [], recompute=True)
    with pytest.raises(ModelError, match="Linear does not declare"):
        decoder_layers(nn.Linear(2, 2))


def test_layers_are_known_before_the_weights_are_read(tiny_llama):
    assert layer_names(tiny_llama) == ["LlamaDecoderLayer"]


@pytest.mark.parametrize("tied", [True, False])
def test_each_parameter_is_in_one_unit_below_the_root(tied):
    model = llama(tied=tied)
    units = wrap_policy(model)
    names = [name for name, _ in units]
    first = ["model.layers.0", "model.layers.1"]
    assert names == [*first, *([] if tied else ["embedding"]), "tail", "root"]
    owned = [id(p) for _, modules in units[:-1] for p in {id(p): p for m in modules for p in m.parameters()}.values()]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("alias", ARCHITECTURES)
def test_every_students_architecture_can_be_shared_by_8_and_64_gpus(alias):
    """On the meta device: shapes without numbers."""
    model = on_meta(alias)
    for num_shares in (8, 64):
        plan = sharding_plan(model, num_shares)
        assert plan["num_parameters"] == ARCHITECTURES[alias][2]
        assert plan["num_parameters"] / num_shares <= plan["per_gpu"] < 1.01 * plan["num_parameters"] / num_shares
        # What is gathered at once is a layer or an embedding, never the model.
        assert plan["largest_unit"] < 0.2 * plan["num_parameters"]


@pytest.fixture
def pretended_group():
    """A process group of 64 of which only rank 0 exists: collectives do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=64)
    yield
    torch.distributed.destroy_process_group()


def test_torch_shares_the_70b_student_out_as_planned(pretended_group):
    """FSDP2 itself, applied with our units to the meta model, for 64 GPUs."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = on_meta("llama-70b")
    plan = sharding_plan(model, 64)
    mesh = init_device_mesh("cpu", (64,))
    for _, modules in wrap_policy(model):
        fully_shard(modules if len(modules) > 1 else modules[0], mesh=mesh)
    assert sum(p.to_local().numel() for p in model.parameters()) == plan["per_gpu"]
    assert plan["num_units"] == 80 + 3


def saved_checkpoint(folder, weights):
    """A checkpoint as accelerate nests it."""
    from torch.distributed import checkpoint as dcp

    dcp.save({"model": weights}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("max_file_bytes", "num_files"), [(10**9, 1), (100_000, 3)])
def test_a_sharded_checkpoint_becomes_safetensors_bit_for_bit(tmp_path, max_file_bytes, num_files):
    from transformers import AutoModelForCausalLM

    model = llama()
    weights = dict(model.state_dict())
    student = tmp_path / "student"
    names = consolidate(saved_checkpoint(tmp_path / "shares", weights), student, max_file_bytes=max_file_bytes)
    assert names == sorted(weights)
    files = sorted(student.glob("*.safetensors"))
    assert len(files) == num_files
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert {p.suffix for p in student.iterdir()} <= {".safetensors", ".json"}
    model.config.save_pretrained(student)
    loaded = AutoModelForCausalLM.from_pretrained(student)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tied_weights_are_left_out_and_numbers_take_the_bases_format(tmp_path):
    model = llama(tied=True)
    weights = dict(model.state_dict())
    assert tied_names(model) == {"lm_head.weight"}
    assert tied_names(llama(tied=False)) == set()
    shares = saved_checkpoint(tmp_path / "shares", weights)
    names = consolidate(shares, tmp_path / "student", torch.bfloat16, skip=tied_names(model))
    assert names == sorted(weights.keys() - {"lm_head.weight"})
    found = load_file(tmp_path / "student" / "model.safetensors")
    assert all(torch.equal(tensor, weights[name].bfloat16()) for name, tensor in found.items())

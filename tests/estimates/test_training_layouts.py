"""Layouts that fit: the fastest on given GPUs, the fewest GPUs, what `auto` picks; hours."""

import pytest

from distill.estimates.training_layouts import (
    CPU_CORE_TFLOPS,
    auto_sharding,
    best_layout,
    fits,
    peak_tflops,
    rows_that_fit,
    setting_of,
    smallest_layout,
    training_hours,
)
from distill.estimates.training_memory import Setting, plan
from distill.models.students import STUDENTS
from distill.recipe.sft import Lora, SftConfig, TrainCompute
from distill.training.layout import Layout

R1_ROWS = 32_768


def full(**changes):
    return Setting(**{"method": "full", "row_tokens": R1_ROWS, **changes})


@pytest.mark.parametrize("alias", STUDENTS)
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("num_gpus", [1, 8, 64])
def test_a_layout_has_all_rows_of_a_step_on_all_gpus(alias, method, num_gpus):
    choice = best_layout(STUDENTS[alias].shape, full(method=method), 64, num_gpus, 80)
    setting = choice.setting
    assert setting.rows * setting.accumulation * num_gpus // setting.sequence_parallel == 64
    assert setting.num_processes == num_gpus
    assert choice.fits
    assert choice.fits == fits(plan(STUDENTS[alias].shape, setting), 80)


def test_what_fits_on_each_gpu_is_not_shared_out():
    choice = best_layout(STUDENTS["qwen-1.5b"].shape, full(row_tokens=4_096), 64, 8, 80)
    assert choice.setting.sharding == "none"
    assert choice.describe() == "8 rows x 1 pass"


def test_what_does_not_is_shared_out_then_its_rows_then_offloaded():
    seventy = STUDENTS["llama-70b"].shape
    assert best_layout(seventy, full(row_tokens=4_096), 64, 64, 80).setting.sharding == "fsdp"
    shared_rows = best_layout(seventy, full(), 64, 64, 80).setting
    assert (shared_rows.sharding, shared_rows.sequence_parallel, shared_rows.cpu_offload) == ("fsdp", 2, False)
    assert best_layout(seventy, full(), 64, 8, 80).setting.cpu_offload


def test_what_fits_nowhere_is_said_with_what_it_would_take():
    choice = best_layout(STUDENTS["llama-70b"].shape, full(row_tokens=131_072), 64, 1, 16)
    assert not choice.fits
    assert choice.estimate.total_gib > 16


def test_one_way_of_sharing_out_can_be_asked_for():
    choice = best_layout(STUDENTS["qwen-7b"].shape, full(), 64, 8, 80, sharding="zero3")
    assert choice.setting.sharding == "zero3"


def test_the_smallest_layout_fits_and_half_its_gpus_do_not():
    for alias in ("qwen-7b", "qwen-32b", "llama-70b"):
        shape = STUDENTS[alias].shape
        smallest = smallest_layout(shape, full(), 64, 80)
        assert smallest.fits
        assert not smallest.setting.cpu_offload
        half = best_layout(shape, full(), 64, smallest.num_gpus // 2, 80)
        assert half.setting.cpu_offload or not half.fits


def test_no_layout_on_gpus_that_are_too_few():
    assert smallest_layout(STUDENTS["llama-70b"].shape, full(), 64, 80, max_gpus=8) is None


def test_ulysses_shares_rows_by_heads():
    # 28 heads: among 2 or 4 GPUs, not among 8
    shape = STUDENTS["qwen-7b"].shape
    shares = {best_layout(shape, full(), 8, n, 21, "zero3").setting.sequence_parallel for n in (8, 16, 32)}
    assert shares <= {1, 2, 4}


def test_auto_shares_out_what_one_gpu_cannot_hold():
    small, large = STUDENTS["qwen3-0.6b"].shape, STUDENTS["qwen-14b"].shape
    eight = Setting(row_tokens=4_096, num_processes=8)
    assert auto_sharding(small, eight, 80) == "none"
    assert auto_sharding(large, eight, 80) == "fsdp"
    assert auto_sharding(large, Setting(method="lora", row_tokens=4_096, num_processes=8), 80) == "none"
    assert auto_sharding(None, eight, 80) == "fsdp"
    assert auto_sharding(None, Setting(num_processes=1), 80) == "none"


def test_the_setting_of_a_recipe():
    config = SftConfig(
        method="lora",
        lora=Lora(r=8, target_modules=["q_proj"]),
        max_length=1_000,
        batch_size=32,
        compute=TrainCompute(sharding="zero3", sequence_parallel=2, per_device_batch_size=4, attention="sdpa"),
    )
    setting = setting_of(config, num_processes=8)
    assert (setting.method, setting.lora_r, setting.lora_targets) == ("lora", 8, ["q_proj"])
    assert (setting.rows, setting.row_tokens, setting.num_processes) == (4, 1_000, 8)
    assert (setting.sharding, setting.sequence_parallel) == ("zero3", 2)
    assert (setting.attention, setting.padded) == ("sdpa", True)
    assert setting_of(SftConfig(), row_tokens=77).row_tokens == 77
    assert setting_of(SftConfig()).sharding == "none"


def test_passes_of_a_step_follow_from_its_rows():
    config = SftConfig(batch_size=64, compute=TrainCompute(per_device_batch_size=4))
    assert setting_of(config, num_processes=8).accumulation == 2


def test_hours_go_with_tokens_and_gpus():
    shape = STUDENTS["qwen-1.5b"].shape
    hours = training_hours(shape, 10**9, 8, 989.0, mfu=0.4)
    # six operations a weight and token, and attention's
    weights = shape.linear_parameters + shape.embedding_parameters
    assert hours > 6 * weights * 1e9 / (8 * 989e12 * 0.4) / 3_600
    assert training_hours(shape, 2 * 10**9, 8, 989.0, mfu=0.4) == pytest.approx(2 * hours)
    assert training_hours(shape, 10**9, 16, 989.0, mfu=0.4) == pytest.approx(hours / 2)
    assert training_hours(shape, 10**9, 8, 989.0, method="lora", mfu=0.4) == pytest.approx(hours * 2 / 3)
    assert training_hours(shape, 10**9, 8, 989.0, row_tokens=32_768, mfu=0.4) > hours


def test_hours_on_cpu_are_of_the_size_seen():
    # SmolLM2-135M in float32 on two cores: somewhat over a hundred tokens a second
    hours = training_hours(STUDENTS["smollm2-135m"].shape, 100_000, 2, CPU_CORE_TFLOPS, row_tokens=200)
    assert 50 < 100_000 / (hours * 3_600) < 250


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("NVIDIA RTX A6000", 155.0),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_name(name, tflops):
    assert peak_tflops(name) == tflops


@pytest.mark.parametrize(
    ("alias", "gpu_gib", "rows"), [("qwen-1.5b", 80, 8), ("qwen-1.5b", 40, 2), ("qwen-7b", 80, 1), (None, 80, 1)]
)
def test_as_many_rows_go_through_together_as_fit(alias, gpu_gib, rows):
    config = SftConfig(max_length=16_384, batch_size=64)
    shape = STUDENTS[alias].shape if alias else None
    layout = rows_that_fit(Layout(1, 8, 8), config, shape, gpu_gib)
    assert (layout.per_device_batch_size, layout.batch_size) == (rows, 64)


def test_without_flash_attention_rows_are_padded_and_fewer_fit():
    config = SftConfig(max_length=16_384, batch_size=64)
    setting = setting_of(config, has_flash=False)
    assert (setting.attention, setting.padded) == ("sdpa", True)
    shape = STUDENTS["qwen-1.5b"].shape
    assert rows_that_fit(Layout(1, 8, 8), config, shape, 80, has_flash=False).per_device_batch_size == 4


@pytest.mark.parametrize(
    ("compute", "attention"), [({}, "flash"), ({"dtype": "float32"}, "sdpa"), ({"attention": "eager"}, "eager")]
)
def test_flash_attention_is_reckoned_with_where_training_would_pick_it(compute, attention):
    assert setting_of(SftConfig(compute=compute)).attention == attention


def test_rows_that_the_recipe_names_are_kept():
    config = SftConfig(max_length=16_384, batch_size=64, compute={"per_device_batch_size": 8})
    assert rows_that_fit(Layout(1, 8, 8), config, STUDENTS["llama-70b"].shape, 80).per_device_batch_size == 8

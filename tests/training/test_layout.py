"""Sharing out a step's rows: what holds for every layout, and what is refused with the way out."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distill.errors import ModelError
from distill.recipe.sft import SftConfig
from distill.training.layout import Layout, plan_layout


def sft(batch_size=64, **compute):
    return SftConfig.model_validate({"batch_size": batch_size, "compute": compute})


@pytest.mark.parametrize(
    ("config", "num_gpus", "expected"),
    [
        (sft(), 0, Layout(1, 8, 8)),
        (sft(), 1, Layout(1, 8, 8)),
        (sft(), 8, Layout(8, 8, 1)),
        (sft(num_processes=2), 0, Layout(2, 8, 4)),
        (sft(batch_size=6, num_processes=2), 0, Layout(2, 3, 1)),
        (sft(batch_size=14), 0, Layout(1, 7, 2)),
        (sft(per_device_batch_size=1), 8, Layout(8, 1, 8)),
        (sft(sharding="fsdp"), 8, Layout(8, 8, 1, "fsdp")),
        (sft(sharding="zero3", cpu_offload=True), 1, Layout(1, 8, 8, "zero3")),
        (sft(sequence_parallel=4), 8, Layout(8, 8, 4, "fsdp", 4)),
        (sft(cpu_offload=True), 1, Layout(1, 8, 8, "fsdp")),
    ],
)
def test_the_rows_of_a_step_are_shared_out(config, num_gpus, expected):
    layout = plan_layout(config, num_gpus)
    assert layout == expected
    assert layout.batch_size == config.batch_size


def test_a_launcher_outside_says_how_many_processes_there_are():
    assert plan_layout(sft(), 8, world_size=16) == Layout(16, 4, 1)
    with pytest.raises(ModelError, match="num_processes is 8, but 16 processes were started"):
        plan_layout(sft(num_processes=8), 8, world_size=16)


def test_auto_sharding_is_asked_with_the_number_of_processes():
    asked = []
    layout = plan_layout(sft(), 4, auto_sharding=lambda num: asked.append(num) or "fsdp")
    assert (layout.sharding, asked) == ("fsdp", [4])


def test_a_group_is_made_where_there_are_several_processes_or_shares():
    assert not plan_layout(sft(), 1).needs_group
    assert plan_layout(sft(), 2).needs_group
    assert plan_layout(sft(sharding="zero3"), 1).needs_group


@pytest.mark.parametrize(
    ("config", "num_gpus", "message"),
    [
        (sft(batch_size=60), 8, r"not a multiple of the 8 .* Set it to 56 or 64, or change"),
        (sft(batch_size=4), 8, r"not a multiple of the 8 .* Set it to 8, or change"),
        (sft(per_device_batch_size=3), 8, r"Set it to 2 or 4, or sft.batch_size to 48 or 72"),
        (sft(per_device_batch_size=16), 8, r"Set it to 8, or sft.batch_size to 128"),
        (sft(sequence_parallel=3), 8, r"does not divide the 8 processes. Set it to 2 or 4"),
        (sft(num_processes=4), 2, "has 2 usable GPUs"),
        (sft(sharding="fsdp", num_processes=2), 0, "none was found"),
        (sft(cpu_offload=True), 0, "none was found"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused_with_the_nearest_that_do(config, num_gpus, message):
    with pytest.raises(ModelError, match=message):
        plan_layout(config, num_gpus)


@given(
    st.integers(1, 512), st.integers(0, 64), st.sampled_from([1, 2, 4]), st.none() | st.integers(1, 16), st.booleans()
)
def test_every_layout_covers_the_step_exactly(batch_size, num_gpus, sequence_parallel, per_device, outside):
    assume(num_gpus or sequence_parallel == 1)
    config = sft(batch_size=batch_size, sequence_parallel=sequence_parallel, per_device_batch_size=per_device)
    try:
        layout = plan_layout(config, num_gpus, world_size=max(num_gpus, 1) if outside else None)
    except ModelError:
        return
    assert layout.batch_size == batch_size
    assert layout.num_processes == max(num_gpus, 1)
    assert per_device in (None, layout.per_device_batch_size)

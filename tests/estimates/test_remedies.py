"""What would make a stage fit, in a sentence."""

from types import SimpleNamespace

import pytest

from distill.estimates import remedies
from distill.estimates.machine import chosen_machine
from distill.estimates.prices import load_prices
from distill.estimates.stage import StageEstimate
from distill.recipe.loading import load_recipe
from distill.runs.plan import plan_recipe
from distill.stages import contexts_of


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        (["sft.max_length: 1024"], "sft.max_length: 1024 would do."),
        (["a: 1", "b: 2"], "Any of these would do: a: 1, b: 2."),
    ],
)
def test_one_way_out_is_not_called_several(monkeypatch, ways, says):
    monkeypatch.setattr(remedies, "_ways_to_train", lambda seen: iter(ways))
    trains = StageEstimate("sft", {}, trains=True)
    assert remedies.ways_to_fit(SimpleNamespace(machine=SimpleNamespace(num_gpus=0)), trains) == says


def limits_of_rl(tmp_path, name, overrides=(), machine=(1, "h100")):
    """What a plan on GPUs says of the memory and the layout of `rl`."""
    (run,) = contexts_of(load_recipe(name, overrides), tmp_path / name, needs_weights=False)
    plan = plan_recipe(run.recipe, tmp_path, chosen_machine(*machine, None), load_prices(), run)
    return [one for one in plan.limits if one.kind in ("memory", "layout") and "rl" in one.message]


def test_rl_that_does_not_fit_is_told_which_of_its_keys_make_it_fit(tmp_path):
    (tight,) = limits_of_rl(tmp_path, "r1-zero")
    assert tight.stops
    assert "it does not fit. Any of these would do: rl.method: lora, 4 such GPUs." in tight.message
    assert limits_of_rl(tmp_path, "r1-zero", ["rl.method=lora"]) == []
    (tight,) = limits_of_rl(tmp_path, "r1-zero", machine=(4, "h100"))
    assert not tight.stops
    assert (
        "rl.compute.training.per_device_batch_size: 1, rl.kl: 0, rl.method: lora, rl.max_tokens: 1536" in tight.message
    )
    (tight,) = limits_of_rl(tmp_path, "r1-zero", ["rl.method=lora", "rl.kl=0"], (1, "4090"))
    assert "No setting makes it fit: it takes larger GPUs, or a smaller student." in tight.message


@pytest.mark.parametrize("name", ["r1-zero", "on-policy"])  # without sft:, and after it
def test_rl_that_no_layout_divides_stops_the_plan(tmp_path, name):
    keys = ["rl.compute.training.num_processes=7"]
    (tight,) = limits_of_rl(tmp_path, name, keys, (8, "h100"))
    assert (tight.kind, tight.stops) == ("layout", True)
    assert "is not a multiple of the 7 data-parallel processes" in tight.message


def test_a_teacher_on_this_machine_takes_memory_and_a_served_one_none(tmp_path):
    def basis(teacher):
        (run,) = contexts_of(load_recipe("on-policy", [f"rl.teachers=[{teacher}]"]), tmp_path, needs_weights=False)
        plan = plan_recipe(run.recipe, tmp_path, chosen_machine(2, "h100", None), load_prices(), run)
        return next(one for one in plan.stages if one.stage == "rl").quantities["memory_gib"]

    here, served = basis("Qwen/Qwen3-8B"), basis("http://localhost:8000/v1#Qwen/Qwen3-8B")
    assert here.low - served.low == pytest.approx(15.3, abs=0.5)  # 8.2 billion weights of 2 bytes
    assert "training, engine, teacher together" in here.basis

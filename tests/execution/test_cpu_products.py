"""The format that is computed in follows what this CPU multiplies faster, by measuring."""

import json
import subprocess
import sys

import pytest
import torch

from distill.engines import memory
from distill.engines.memory import kv_gib_needed, pick_cpu_dtype
from distill.execution.cpu_products import UNKNOWN, ProductSpeed, measure, measured_in_child, shapes_of

SLOW_BF16, FAST_BF16 = ProductSpeed(4.5, 27.0), ProductSpeed(300.0, 90.0)


@pytest.mark.parametrize(
    ("speed", "picked"),
    [(SLOW_BF16, "float32"), (FAST_BF16, "bfloat16"), (ProductSpeed(100.0, 110.0), "bfloat16")],
)
def test_the_faster_format_is_picked_and_bfloat16_where_they_are_close(speed, picked):
    assert speed.faster == picked


def test_shapes_are_the_models_own():
    assert shapes_of({"hidden_size": 576, "intermediate_size": 1536}) == ((576, 576), (1536, 576), (576, 1536))
    assert shapes_of({"text_config": {"hidden_size": 8, "intermediate_size": 16}}) == ((8, 8), (16, 8), (8, 16))
    for odd in ({}, {"hidden_size": 64}, {"hidden_size": "64", "intermediate_size": 1}, {"hidden_size": 0}):
        assert shapes_of(odd) == UNKNOWN


def test_measuring_gives_both_speeds_and_leaves_the_threads_alone():
    before = torch.get_num_threads()
    speed = measure(((64, 64), (128, 64)))
    assert speed.bfloat16 > 0
    assert speed.float32 > 0
    assert torch.get_num_threads() == before


def test_a_slow_format_is_found_by_measuring(monkeypatch):
    """Without AVX-512 torch multiplies bfloat16 in a plain loop; the same limits in a process of its own."""
    script = (
        "import json, torch\n"
        "from distill.execution.cpu_products import measure\n"
        "print(json.dumps([torch.backends.cpu.get_cpu_capability(), measure(((576, 576), (1536, 576))).faster]))"
    )
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    capability, faster = json.loads(done.stdout)
    if capability != "AVX2":
        pytest.skip(f"torch's CPU capability is {capability}")
    assert faster == "float32"


def test_the_child_measures_without_torch_in_this_process():
    module = "distill.execution.cpu_products"
    script = f"import sys; from {module} import measured_in_child as measure; print(measure(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ProductSpeed(")
    assert done.stdout.split()[-1] == "False"


def test_without_torch_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert measured_in_child(((7, 7),)) is None


class TestPick:
    @pytest.fixture(autouse=True)
    def _slow_bfloat16(self, monkeypatch):
        monkeypatch.setattr(memory, "measure", lambda shapes: SLOW_BF16)
        monkeypatch.setattr(memory, "weights_gib", lambda folder, dtype: 4.0 if dtype == "float32" else 2.0)
        monkeypatch.setattr(memory, "free_memory_gib", lambda: 16.0)

    def test_auto_takes_the_faster_one_with_its_figures(self, tmp_path):
        assert pick_cpu_dtype(tmp_path, "auto") == ("float32", SLOW_BF16)

    def test_the_recipe_decides_where_it_says_something(self, tmp_path):
        assert pick_cpu_dtype(tmp_path, "bfloat16") == ("bfloat16", None)

    def test_weights_that_would_not_fit_stay_in_bfloat16(self, tmp_path):
        assert pick_cpu_dtype(tmp_path, "auto", memory_share=0.25) == ("bfloat16", SLOW_BF16)

    def test_quantised_weights_keep_their_format(self, tmp_path):
        (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
        assert pick_cpu_dtype(tmp_path, "auto") == ("bfloat16", None)


def test_a_kv_cache_in_float32_takes_twice_the_memory():
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3)
    assert kv_gib_needed(config, 100, "float32") == 2 * kv_gib_needed(config, 100, "bfloat16")

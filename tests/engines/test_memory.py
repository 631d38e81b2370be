import json
import math
import os
import struct

import pytest

from distill.engines import memory
from distill.engines.memory import (
    check_memory,
    free_memory_gib,
    pick_tensor_parallel,
    visible_gpus,
    weights_gib,
    with_tensor_parallel,
)
from distill.errors import ModelError
from distill.models.hub import Model
from distill.recipe.sampling import SamplingCompute


def model_of(folder, num_weights, **config):
    """A model folder whose safetensors header claims so many weights."""
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "BF16", "shape": [num_weights], "data_offsets": [0, 0]}})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    (folder / "config.json").write_text(json.dumps(config))
    return Model("org/teacher", folder, "r")


def test_weights_are_counted_from_the_headers(tmp_path):
    model_of(tmp_path, 2**30)
    assert weights_gib(tmp_path, "auto") == 2.0
    assert weights_gib(tmp_path, "float32") == 4.0


def test_quantised_weights_take_what_their_files_take(tmp_path):
    model_of(tmp_path, 2**30, quantization_config={"bits": 4})
    assert weights_gib(tmp_path, "auto") == pytest.approx((tmp_path / "model.safetensors").stat().st_size / 2**30)


def test_a_teacher_that_does_not_fit_is_refused_with_what_would(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "visible_gpus", dict)
    model = model_of(tmp_path, int(free_memory_gib() * 2**30))
    with pytest.raises(ModelError, match=r"of up to \d+\.\dB parameters fits here.*compute.base_urls"):
        check_memory(model, SamplingCompute())
    check_memory(model_of(tmp_path, 1_000), SamplingCompute())


def test_on_gpus_it_says_how_many_would_do(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "visible_gpus", lambda: {"0": 80.0, "1": 80.0})
    model = model_of(tmp_path, 70 * 10**9)
    with pytest.raises(ModelError, match=r"2 such GPUs would hold this one \(compute.tensor_parallel: 2\)"):
        check_memory(model, SamplingCompute(tensor_parallel=1))
    check_memory(model, SamplingCompute(tensor_parallel=2))


@pytest.mark.parametrize(
    ("billions", "gpu_gib", "num_gpus", "compute", "heads", "picked"),
    [
        (7, 80, 8, {}, 28, 1),
        (32, 80, 1, {}, 40, 1),  # holds its weights and little more: there is no other GPU
        (32, 80, 8, {}, 40, 2),
        (70, 80, 8, {}, 64, 4),
        (70, 80, 2, {}, 64, 2),
        (70, 80, 8, {"replicas": 4}, 64, 2),
        (70, 80, 8, {"pipeline_parallel": 2}, 64, 2),
        (70, 24, 8, {}, 64, 8),
        (670, 80, 8, {}, 128, 8),  # check_memory refuses it
        (7, 24, 8, {}, 28, 1),
        (14, 24, 8, {}, 40, 2),
        (14, 24, 8, {}, 41, 1),  # of 41 heads no two GPUs have as many
        (70, 80, 7, {}, 64, 4),
        (70, 80, 8, {}, None, 4),
        (70, math.inf, 8, {}, 64, 1),
    ],
)
def test_as_few_gpus_share_a_layer_as_leave_room_for_a_cache(billions, gpu_gib, num_gpus, compute, heads, picked):
    weights = billions * 2e9 / 2**30
    assert pick_tensor_parallel(SamplingCompute(**compute), weights, gpu_gib, num_gpus, heads) == picked


def test_a_model_too_large_for_one_gpu_is_shared_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "visible_gpus", lambda: {str(number): 80.0 for number in range(8)})
    model = model_of(tmp_path, 70 * 10**9, num_attention_heads=64)
    check_memory(model, SamplingCompute())
    assert with_tensor_parallel(SamplingCompute(), tmp_path).tensor_parallel == 4
    assert with_tensor_parallel(SamplingCompute(tensor_parallel=1), tmp_path).tensor_parallel == 1
    monkeypatch.setattr(memory, "visible_gpus", dict)
    assert with_tensor_parallel(SamplingCompute(), tmp_path).tensor_parallel == 1


def test_a_file_cut_short_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\x01")
    with pytest.raises(ModelError, match=r"model\.safetensors: not a safetensors file"):
        check_memory(Model("m", tmp_path, "r"), SamplingCompute())


def test_free_memory_is_known():
    assert 0 < free_memory_gib() < math.inf


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, {"0": 80.0, "1": 40.0}),
        ("1", {"1": 40.0}),
        ("GPU-bb", {"GPU-bb": 40.0}),
        ("MIG-7", {"MIG-7": math.inf}),
        ("", {}),
        ("-1", {}),
    ],
)
def test_only_the_gpus_that_a_process_may_use_count(tmp_path, monkeypatch, named, expected):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaaa-11, 81920'\necho '1, GPU-bbbb-22, 40960'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == expected

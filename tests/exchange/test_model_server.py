"""How a model is served to other tools: what vLLM is told, and the real thing with a real task of Inspect."""

from pathlib import Path

import pytest

from distill.exchange.inspect_task import InspectRun, run_inspect_task
from distill.exchange.model_server import serve_model, server_command
from distill.models.hub import Model
from distill.recipe.sampling import SamplingCompute


def option(command, name):
    return command[command.index(f"--{name}") + 1]


@pytest.fixture
def served(model, monkeypatch):
    monkeypatch.setattr("distill.exchange.model_server.visible_gpus", dict)
    return Model("org/student", model, "r")


def test_the_server_is_on_loopback_and_uses_our_tokenizer(served, tmp_path):
    compute = SamplingCompute(max_model_len=512, dtype="float32", kv_cache_gib=1.0)
    command, environment = server_command(served, "student", tmp_path, 8123, compute, opens_thought=False)
    assert (option(command, "host"), option(command, "port")) == ("127.0.0.1", "8123")
    assert option(command, "tokenizer") == str(tmp_path)
    assert option(command, "served-model-name") == "student"
    assert option(command, "generation-config") == "vllm"
    assert option(command, "max-num-batched-tokens") == "4096"
    assert "--reasoning-parser" not in command
    assert "--no-enable-chunked-prefill" in command
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_a_thought_that_the_prompt_opens_is_split_off(served, tmp_path):
    compute = SamplingCompute(dtype="float32")
    command, _ = server_command(served, "student", tmp_path, 8123, compute, opens_thought=True)
    assert option(command, "reasoning-parser") == "deepseek_r1"


def test_a_gpu_gets_its_share_and_no_settings_of_a_cpu(served, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.exchange.model_server.visible_gpus", lambda: {"0": 80.0})
    compute = SamplingCompute(gpu_memory_share=0.5, tensor_parallel=1)
    command, environment = server_command(served, "student", tmp_path, 8123, compute, opens_thought=False)
    assert option(command, "gpu-memory-utilization") == "0.5"
    assert "--no-enable-chunked-prefill" not in command
    assert "--enforce-eager" not in command
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment


@pytest.mark.slow
@pytest.mark.long
def test_a_real_model_does_a_real_task(smollm2, inspect_python, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    compute = SamplingCompute(max_model_len=512, kv_cache_gib=1.0, max_num_seqs=8)
    task = f"{Path(__file__).parent / 'inspect_tasks.py'}@sums"
    run = InspectRun(task, inspect_python, samples_per_problem=1, temperature=0.6, max_tokens=32)
    log = run_inspect_task(run, serve_model(smollm2, "smollm2", None, compute, tmp_path), tmp_path)
    assert (log.model, log.why_incomplete, log.num_wanted) == ("openai-api/distill/smollm2", "", 2)
    assert all(one.correct is not None for one in log.verdicts)
    assert all(0 < one.num_completion_tokens <= 32 for one in log.traces)
    assert "<|im_end|>" not in "".join(one.text for one in log.traces)
    assert {one.num_prompt_tokens for one in log.traces} == {38}  # with the chat template's own system prompt

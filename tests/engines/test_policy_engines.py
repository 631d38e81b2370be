"""Engines that sample a policy in training: log-probabilities, new weights, a trainer's own module, repeatability."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.engines.base import EngineSpec, Request
from distill.errors import ModelError
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute

CLOSE, FAR = 1e-4, 1e-2
"""Gaps in nats per token: that of rounding in float32 is below the one, that of an update missed above the other."""
QWEN = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
MESSAGES = [{"role": "user", "content": "What is 1 + 1?"}]


def rollouts(kind, folder):
    if kind == "vllm":
        pytest.importorskip("vllm")
    script = Path(__file__).with_name("updated_rollouts.py")
    done = subprocess.run([sys.executable, "-W", "ignore", script, kind, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kind", ["vllm", "copy", "module"])
def test_new_weights_are_sampled_and_a_fresh_process_repeats_every_bit(kind, smollm2):
    """A tied head, Llama."""
    found = rollouts(kind, smollm2.path)
    assert max(found["before"], *found["updated"], found.get("lora", 0)) < CLOSE
    if kind != "module":  # it has no weights of its own
        assert min(found["stale"], found["stale_lora"]) > FAR
    assert len(set(found["digests"])) == len(found["digests"])
    assert found["same_again"]
    if kind != "copy":  # whose computing is the module's
        assert rollouts(kind, smollm2.path)["digests"] == found["digests"]


@pytest.mark.slow
@pytest.mark.long
def test_new_weights_with_biases_are_sampled():
    """Qwen2's layers for queries, keys and values have biases, which are never packed."""
    from distill.models.hub import resolve_model

    try:
        folder = resolve_model(QWEN).path
    except ModelError:
        pytest.skip(f"{QWEN} is not on this machine")
    found = rollouts("vllm", folder)
    assert max(found["before"], *found["updated"], found["lora"]) < CLOSE
    assert min(found["stale"], found["stale_lora"]) > FAR


@pytest.fixture
def module(tiny_llama):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, attention_dropout=0.5)


@pytest.fixture
def start(tiny_llama):
    from distill.engines.transformers import TransformersEngine

    engines = []

    def make(model=None, batching=None, temperature=1.0, top_k=0, **options):
        sampling = Sampling(temperature=temperature, top_p=1.0, top_k=top_k, max_tokens=12)
        compute = SamplingCompute(engine="transformers", dtype="float32", max_num_seqs=4)
        spec = EngineSpec(tiny_llama, "tiny", sampling, compute, None, [MESSAGES], **{"logprobs": True} | options)
        engines.append(TransformersEngine(spec, batching, model))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def sample(engine, requests):
    waiting, found = list(requests), {}
    while waiting or engine.num_in_flight:
        while waiting and engine.num_in_flight < engine.max_in_flight:
            assert engine.submit(waiting.pop(0)) is None
        found |= {completion.key[1]: completion for completion in engine.step()}
    return found


def requests_for(num, **options):
    return [Request(("p", i), [], i, prompt_ids=tuple(range(5, 8 + i % 3)), **options) for i in range(num)]


@pytest.mark.slow
def test_a_given_module_is_left_as_it_was(module, start):
    import torch

    module.train()
    module.model.layers[0].eval()
    weights = {name: weight.clone() for name, weight in module.state_dict().items()}
    settings, state = module.config.to_dict(), torch.random.get_rng_state()
    sampling, modes = module.generation_config.to_dict(), [part.training for part in module.modules()]
    completions = sample(start(module), requests_for(6))
    assert len(completions) == 6
    assert [part.training for part in module.modules()] == modes
    assert (module.config.to_dict(), module.generation_config.to_dict()) == (settings, sampling)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(weight, weights[name]) for name, weight in module.state_dict().items())
    module(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert all(weight.grad is not None for weight in module.parameters())


@pytest.mark.slow
def test_a_given_module_in_training_mode_is_sampled_without_dropout(module, start):
    module.train()
    trained = sample(start(module), requests_for(4))
    assert trained == sample(start(module.eval()), requests_for(4))


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [0, 3])
def test_log_probabilities_are_those_of_the_whole_vocabulary_at_the_temperature(module, start, top_k):
    import torch

    completions = sample(start(module, temperature=1.7, top_k=top_k), requests_for(6))
    for i, completion in completions.items():
        prompt, ids = list(range(5, 8 + i % 3)), list(completion.token_ids)
        with torch.no_grad():
            logits = module.eval()(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / 1.7
        expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-5)
        if top_k:
            assert bool((logits >= logits.topk(top_k).values[:, -1:]).gather(1, torch.tensor(ids)[:, None]).all())


@pytest.mark.slow
def test_a_greedy_request_has_tokens_but_no_log_probabilities(module, start):
    import torch

    [completion] = sample(start(module), requests_for(1, sampling=Sampling(temperature=0.0, max_tokens=5))).values()
    expected = module.eval().generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5, do_sample=False, eos_token_id=2)
    assert list(completion.token_ids) == expected[0, 3:].tolist()
    assert completion.logprobs == ()


@pytest.mark.slow
def test_the_stop_token_and_loops_end_a_row_and_count(start, module):
    import torch

    with torch.no_grad():
        module.lm_head.weight[2] *= 40  # the stop token is drawn now and then
    loops = LoopStop(min_repeats=3, min_tokens=16)
    completions = sample(start(module, loops=loops), requests_for(40)).values()
    stopped = [one for one in completions if one.finish_reason == "stop"]
    assert stopped
    assert all(one.token_ids[-1] == 2 and len(one.logprobs) == one.num_completion_tokens for one in stopped)


@pytest.mark.slow
def test_the_same_tokens_are_drawn_whatever_is_in_the_batch(start, module):
    together, alone = sample(start(module), requests_for(6)), {}
    for request in requests_for(6):
        alone |= sample(start(module), [request])
    assert {i: one.token_ids for i, one in together.items()} == {i: one.token_ids for i, one in alone.items()}


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["seeded", "continuous", "static"])
def test_each_way_of_batching_samples_new_weights(module, start, batching):
    import torch

    from distill.engines.weights import policy_weights

    engine = start(batching=batching, logprobs=batching == "seeded", temperature=0.0, updates=True)
    before = sample(engine, requests_for(2))
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight))
    engine.update_weights(policy_weights(module))
    after = sample(engine, requests_for(2))
    expected = module.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=12, do_sample=False, eos_token_id=2)
    assert after[0].text == engine._tokenizer.decode(expected[0, 3:]).removesuffix(engine._tokenizer.eos_token)
    assert after[0].text != before[0].text


@pytest.mark.slow
def test_an_update_needs_all_weights_and_an_idle_engine(module, start):
    engine = start(updates=True)
    with pytest.raises(ModelError, match=r"lack 1 of 20, model\.norm\.weight among them"):
        engine.update_weights((name, w) for name, w in module.named_parameters() if name != "model.norm.weight")
    engine.submit(requests_for(1)[0])
    with pytest.raises(ValueError, match="1 requests are in flight"):
        engine.update_weights(module.named_parameters())
    with pytest.raises(ValueError, match=r"without EngineSpec\.updates"):
        start().update_weights(module.named_parameters())


@pytest.mark.slow
def test_only_seeded_batching_has_log_probabilities(start, module):
    with pytest.raises(ValueError, match="static batching has no log-probabilities"):
        start(batching="static")
    with pytest.raises(ValueError, match="takes no given model"):
        start(module, batching="continuous", logprobs=False)


@pytest.mark.slow
def test_adapters_are_merged_on_the_way_and_the_module_keeps_its_bits(module):
    import torch
    from peft import LoraConfig, get_peft_model

    from distill.engines.weights import file_names, policy_weights

    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], modules_to_save=["norm"])
    peft = get_peft_model(module, config)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight))
    before = {name: weight.clone() for name, weight in peft.state_dict().items()}
    found = dict(policy_weights(peft))
    assert all(torch.equal(weight, before[name]) for name, weight in peft.state_dict().items())
    merged = dict(peft.merge_and_unload().named_parameters())
    assert found.keys() >= file_names(Path(module.config._name_or_path))
    assert found.keys() == merged.keys()
    assert all(torch.allclose(found[name], weight, atol=1e-6) for name, weight in merged.items())


@pytest.mark.slow
def test_an_adapter_of_embeddings_that_the_head_shares_is_refused(module):
    from peft import LoraConfig, get_peft_model

    from distill.engines.weights import policy_weights

    peft = get_peft_model(module, LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]))
    with pytest.raises(ModelError, match=r"model\.embed_tokens: .* shares its weight with the head"):
        list(policy_weights(peft))

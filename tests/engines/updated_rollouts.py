"""Rollouts of a policy before and after updates of its weights, in a process of its own. Prints one JSON object.

    python tests/engines/updated_rollouts.py {vllm,copy,module} FOLDER

The gap is the mean difference, in nats, between an engine's log-probabilities and those of a plain float32 forward pass
of the policy over the same tokens. The digest is of all tokens and log-probabilities.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from distill.engines.base import EngineSpec, Request
from distill.engines.weights import policy_weights
from distill.models.tokenizers import encode, load_tokenizer, render_prompt
from distill.recipe.sampling import Sampling, SamplingCompute

NUM_REQUESTS, GROUP, TEMPERATURE, MAX_TOKENS = 12, 4, 0.8, 20


def start(kind, folder, model):
    questions = [f"Write a short sentence about {what}." for what in ("the sea", "a very old and rusty bicycle", "7")]
    spec = EngineSpec(
        folder,
        "policy",
        Sampling(temperature=TEMPERATURE, top_p=0.95, max_tokens=MAX_TOKENS),
        SamplingCompute(dtype="float32", cpu_threads=2, kv_cache_gib=1, max_num_seqs=NUM_REQUESTS),
        None,
        [[{"role": "user", "content": question}] for question in questions],
        logprobs=True,
        updates=True,
    )
    tokenizer = load_tokenizer(folder, None)
    prompts = [encode(tokenizer, render_prompt(tokenizer, messages)) for messages in spec.longest_messages]
    if kind == "vllm":
        from distill.engines.vllm import VllmEngine

        engine = VllmEngine(spec)
    else:
        from distill.engines.transformers import TransformersEngine

        engine = TransformersEngine(spec, model=model if kind == "module" else None)
    return SimpleNamespace(engine=engine, prompts=prompts, model=model)


def sample(run):
    """Completions of all requests, in their order."""
    for i in range(NUM_REQUESTS):
        assert run.engine.submit(Request(("p", i), [], seed=i, prompt_ids=tuple(run.prompts[i // GROUP]))) is None
    found = {}
    while run.engine.num_in_flight:
        found |= {completion.key[1]: completion for completion in run.engine.step()}
    return [found[i] for i in range(NUM_REQUESTS)]


def gap(run, completions):
    gaps = []
    for i, completion in enumerate(completions):
        prompt, ids = run.prompts[i // GROUP], list(completion.token_ids)
        assert len(ids) == len(completion.logprobs) == completion.num_completion_tokens
        with torch.no_grad():
            logits = run.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / TEMPERATURE).log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        gaps.append((expected - torch.tensor(completion.logprobs)).abs().mean().item())
    return sum(gaps) / len(gaps)


def digest(completions):
    told = repr([(completion.token_ids, completion.logprobs) for completion in completions])
    return hashlib.sha256(told.encode()).hexdigest()


def perturb(model, adapters=False):
    """Change all weights, or those of the adapters, by a part of their own size."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not adapters:
                weight.add_(torch.randn_like(weight) * weight.std() * 0.03)
            elif "lora_" in name:
                weight.add_(torch.randn_like(weight) * 0.05)


def main():
    kind, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    run = start(kind, folder, model)
    found = {"before": gap(run, before := sample(run)), "digests": [digest(before)], "updated": []}
    for _ in range(2):
        perturb(model)
        if "stale" not in found:
            found["stale"] = gap(run, sample(run))
        run.engine.update_weights(policy_weights(model))
        after = sample(run)
        found["updated"].append(gap(run, after))
        found["digests"].append(digest(after))
    run.engine.update_weights(policy_weights(model))
    found["same_again"] = digest(sample(run)) == found["digests"][-1]
    if kind != "module":
        run.model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
        perturb(run.model, adapters=True)
        found["stale_lora"] = gap(run, sample(run))
        run.engine.update_weights(policy_weights(run.model))
        found["lora"] = gap(run, after := sample(run))
        found["digests"].append(digest(after))
    run.engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

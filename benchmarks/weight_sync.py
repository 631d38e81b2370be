"""Seconds to bring new weights of a policy into an engine that samples it on a CPU, over those to restart the engine.

Each way is one process, taking turns: it changes all weights a little, brings them into the engine, and samples 64
completions of up to 64 tokens, 8 of each prompt. Ways:

- `vllm`: `VllmEngine.update_weights`, into the running engine.
- `module`: the transformers engine on the module itself, which has nothing to bring.
- `restart` (the named peer): the weights saved in memory (/dev/shm), and a new process with a vLLM engine on them.
- `reload`: vLLM's own `reload_weights` in the running engine, which leaves a tied head as it was.
- `trl`: what TRL 1.16 does with vLLM in its process (`vllm_generation.py`, `sync_weights`): `load_weights`, one by one.

The gap is the mean difference between the engine's log-probabilities and those of a forward pass with the new weights,
in nats per token: above 0.01, old weights were sampled.

    python benchmarks/weight_sync.py [--rounds 3] [--model Qwen/Qwen2.5-Coder-0.5B-Instruct]

The last line is JSON: the ratio of the peer's seconds to ours, the medians, and every round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distill.core.provenance import hardware

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
WAYS = ("vllm", "module", "restart", "reload", "trl")
NUM_PROMPTS, GROUP, MAX_TOKENS = 8, 8, 64
MESSAGES = [
    [{"role": "user", "content": f"Write one short sentence about the number {i}."}] for i in range(NUM_PROMPTS)
]


def main() -> None:
    """Take turns, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (the median counts)")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--engine-on", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine_on:
        _engine("vllm", options.engine_on, None)
        print("ready", flush=True)
        os._exit(0)
    if options.child:
        print(json.dumps(measure(options.child, options.model)))
        return
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    for turn in range(options.rounds):
        for way in options.ways if turn % 2 == 0 else reversed(options.ways):
            rounds[way].append(_in_a_child(way, options.model))
            print(f"{way:>8}: {json.dumps(rounds[way][-1])}", flush=True)
    medians = {
        way: {key: statistics.median(one[key] for one in found) for key in found[0] if key != "error"}
        for way, found in rounds.items()
    }
    there = {"vllm", "restart"} <= medians.keys()
    ratio = medians["restart"]["sync_s"] / medians["vllm"]["sync_s"] if there else None
    print(json.dumps({"ratio": ratio, "cpu": hardware()["cpu"], "medians": medians, "rounds": rounds}))


def measure(way: str, name: str) -> dict[str, Any]:
    """Return the seconds of bringing weights and of sampling, tokens a second of both together, and the gap."""
    import torch
    from transformers import AutoModelForCausalLM

    from distill.models.hub import resolve_model

    folder = resolve_model(name).path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    if way == "restart":
        _perturb(model)
        return {"sync_s": _restart(model, folder)}
    engine = _engine(way, folder, model)
    _sample(engine)  # the first requests warm up
    for _ in range(2):  # the first update does too
        _perturb(model)
        started = time.monotonic()
        try:
            _bring(way, engine, model)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:200]}
        sync_s = time.monotonic() - started
    started = time.monotonic()
    completions = _sample(engine)
    sample_s = time.monotonic() - started
    num_tokens = sum(one.num_completion_tokens for one in completions)
    return {
        "sync_s": sync_s,
        "sample_s": sample_s,
        "mean_tokens": num_tokens / len(completions),
        "tokens_per_second": num_tokens / (sync_s + sample_s),
        "gap": _gap(engine, model, completions),
    }


def _engine(way: str, folder: Path, model: Any) -> Any:
    from distill.engines.base import EngineSpec
    from distill.recipe.sampling import Sampling, SamplingCompute

    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS)
    compute = SamplingCompute(dtype="float32", kv_cache_gib=1, max_num_seqs=NUM_PROMPTS * GROUP)
    updates = way in ("vllm", "module")
    spec = EngineSpec(folder, "policy", sampling, compute, None, MESSAGES, logprobs=True, updates=updates)
    if way == "module":
        from distill.engines.transformers import TransformersEngine

        return TransformersEngine(spec, model=model)
    from distill.engines.vllm import VllmEngine

    return VllmEngine(spec)


def _bring(way: str, engine: Any, model: Any) -> None:
    from distill.engines.weights import policy_weights

    if way in ("vllm", "module"):
        engine.update_weights(policy_weights(model))
        return
    if way == "reload":
        engine.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": policy_weights(model)})
    else:
        for named in policy_weights(model):
            engine.llm.apply_model(lambda inner, named=named: inner.load_weights([named]))
    engine.llm.reset_prefix_cache()


def _restart(model: Any, folder: Path) -> float:
    """Return the seconds until an engine with the model's weights is ready in a new process."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as saved:
        model.save_pretrained(saved)
        for file in folder.iterdir():  # tokenizer and template
            if not (Path(saved) / file.name).exists() and not file.name.endswith(".safetensors"):
                (Path(saved) / file.name).symlink_to(file.resolve())
        command = [sys.executable, "-W", "ignore", __file__, "--engine-on", saved]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if not any(line.startswith("ready") for line in child.stdout):
                sys.exit("the engine did not start")
            return time.monotonic() - started


def _perturb(model: Any) -> None:
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.03)


def _sample(engine: Any) -> list[Any]:
    from distill.engines.base import Request

    for i in range(NUM_PROMPTS * GROUP):
        engine.submit(Request(("p", i), MESSAGES[i // GROUP], seed=i))
    found: list[Any] = []
    while engine.num_in_flight:
        found += engine.step()
    return found


def _gap(engine: Any, model: Any, completions: list[Any]) -> float:
    import torch

    from distill.models.tokenizers import encode, render_prompt

    gaps = []
    for one in completions[::GROUP]:
        prompt = encode(engine._tokenizer, render_prompt(engine._tokenizer, MESSAGES[one.key[1] // GROUP]))
        ids = torch.tensor([*prompt, *one.token_ids])
        with torch.no_grad():
            logits = model(ids[None]).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, ids[len(prompt) :, None])[:, 0]
        gaps.append((expected - torch.tensor(one.logprobs)).abs().mean().item())
    return float(statistics.mean(gaps))


def _in_a_child(way: str, model: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", way, "--model", model]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "CRITICAL", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

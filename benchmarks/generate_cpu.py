"""Tokens per second of distill's own CPU settings for vLLM, over vLLM's defaults, on a machine without GPU.

All draw the same requests, each with its own seed, from SmolLM2-135M-Instruct in processes of their own, taking turns;
loading is left out. Peer: vLLM with `LLM(model, max_model_len, dtype)`, and nothing else set that concerns speed: the
faster of bfloat16 and float32. After the first round, a format that draws less than half of the other's is left out.

    python benchmarks/generate_cpu.py [--rounds 3] [--requests 64]

The last line is JSON: the ratio to the better peer, the medians and every round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from distill.recipe import Sampling, SamplingCompute

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_TOKENS = 64
WAYS = ("ours", "bfloat16", "float32")
"""Ours, and vLLM's defaults in either format."""


def main() -> None:
    """Alternate the two, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (the median counts)")
    parser.add_argument(
        "--requests",
        type=int,
        default=64,
        help="requests a round; many more make the peer cut a prefill in two, "
        "which its CPU backend cannot do with seeds",
    )
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.requests)))
        return
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    ways: tuple[str, ...] = WAYS
    for turn in range(options.rounds):
        for which in ways if turn % 2 == 0 else reversed(ways):
            rates[which].append(_in_a_child(which, options.requests))
            print(f"{which:>8}: {rates[which][-1]:.0f} tokens/s", flush=True)
        peers = {way: rates[way][0] for way in WAYS[1:]}
        ways = tuple(way for way in WAYS if way not in peers or peers[way] > max(peers.values()) / 2)
    medians = {which: statistics.median(found) for which, found in rates.items()}
    ratio = medians["ours"] / max(medians["bfloat16"], medians["float32"])
    print(json.dumps({"ratio": ratio, "tokens_per_second": medians, "rounds": rates}))


def measure(which: str, num_requests: int) -> float:
    """Tokens per second of one engine over all requests, each with its own seed."""
    prompts = [f"Tell me a story about the number {i}." for i in range(num_requests)]
    return _ours(prompts) if which == "ours" else _defaults(prompts, which)


def _ours(prompts: list[str]) -> float:
    from distill.engines import EngineSpec, Request
    from distill.engines.vllm import VllmEngine
    from distill.hub import resolve_model

    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    model = resolve_model(MODEL)
    sampling = Sampling(temperature=0.8, top_p=1.0, max_tokens=MAX_TOKENS)
    engine = VllmEngine(EngineSpec(model.path, MODEL, sampling, SamplingCompute(), None, messages))
    started, num_tokens = time.monotonic(), 0
    for i, conversation in enumerate(messages):
        engine.submit(Request((str(i), 0), conversation, seed=i))
    while engine.num_in_flight:
        num_tokens += sum(completion.num_completion_tokens for completion in engine.step())
    return num_tokens / (time.monotonic() - started)


def _defaults(prompts: list[str], dtype: str) -> float:
    import vllm

    from distill.hub import resolve_model

    # Not about speed: with its default of 0.92 vLLM refuses to start where the page cache holds some of the memory.
    path = str(resolve_model(MODEL).path)
    llm: Any = vllm.LLM(path, max_model_len=512, dtype=dtype, gpu_memory_utilization=0.5)
    params = [vllm.SamplingParams(temperature=0.8, max_tokens=MAX_TOKENS, seed=i) for i in range(len(prompts))]
    started = time.monotonic()
    outputs = llm.chat([[{"role": "user", "content": p}] for p in prompts], params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.monotonic() - started)


def _in_a_child(which: str, num_requests: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--child", which, "--requests", str(num_requests)]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{which} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()

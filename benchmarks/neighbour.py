"""Tokens per second of sampling and training on CPU beside busy processes, over the libraries' own way of waiting.

One process loads the model and goes through all loads, taking turns: threads that follow the load (what distill does,
`distill.execution.cpu_load`), and threads left as libgomp and torch have them (all of them, waiting awake). A busy
neighbour is a process that only counts. Sampling: vLLM with distill's settings, SmolLM2-135M-Instruct; training:
forward and backward passes of the same model in float32, as `distill sft` runs them.

    python benchmarks/neighbour.py [--rounds 2] [--only sampling]

The last line is JSON: for each load the medians of both and their ratio, and the share of the quiet speed that is kept.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from distill.core.provenance import hardware

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
NEIGHBOURS = (0, 1, 3)
WAYS = ("follow", "plain")
NUM_REQUESTS, MAX_TOKENS = 128, 48
ROWS, ROW_TOKENS, NUM_PASSES = 4, 96, 6
SETTLE_S = 2.0
"""How long a load lasts before it is measured under."""

Work = Callable[[Any], float]
"""Does its work, calling the given load follower's `follow` between steps; tokens a second."""


def main() -> None:
    """Measure each job in a process of its own, then print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each way under each load")
    parser.add_argument("--only", choices=tuple(JOBS), help="one of the two")
    parser.add_argument("--child", choices=tuple(JOBS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(JOBS[options.child](), options.rounds)))
        return
    found = {job: _in_a_child(job, options.rounds) for job in JOBS if options.only in (None, job)}
    print(json.dumps({"cpu": hardware()["cpu"], **{job: summary(rates) for job, rates in found.items()}}))


def summary(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, ratios to the plain way, and shares of the quiet speed."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "ratio": {str(n): medians[f"follow {n}"] / medians[f"plain {n}"] for n in NEIGHBOURS},
        "share_of_quiet": {str(n): medians[f"follow {n}"] / medians["follow 0"] for n in NEIGHBOURS},
        "tokens_per_second": medians,
        "rounds": rates,
    }


def measure(work: tuple[Work, Any], rounds: int) -> dict[str, list[float]]:
    """Tokens a second of both ways under each load."""
    run, load = work
    rates: dict[str, list[float]] = {f"{way} {n}": [] for n in NEIGHBOURS for way in WAYS}
    for turn in range(rounds):
        for num in NEIGHBOURS:
            for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                with _neighbours(num):
                    _let_settle(load, way)
                    rates[f"{way} {num}"].append(run(load if way == "follow" else None))
                print(f"{num} neighbours, {way}: {rates[f'{way} {num}'][-1]:.0f} tokens/s", file=sys.stderr, flush=True)
    return rates


def _let_settle(load: Any, way: str) -> None:
    """Let the follower see the load, or undo what it has done."""
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        time.sleep(0.6)
        if way == "follow":
            load.follow()
    if way == "plain":
        load.close()


@contextlib.contextmanager
def _neighbours(num: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(num)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def sampling() -> tuple[Work, Any]:
    """Requests of our vLLM engine, whose own follower is the one that is switched on and off."""
    from distill.engines.base import EngineSpec, Request
    from distill.engines.vllm import VllmEngine
    from distill.models.hub import resolve_model
    from distill.recipe.sampling import Sampling, SamplingCompute

    messages = [[{"role": "user", "content": f"Tell me a story about the number {i}."}] for i in range(NUM_REQUESTS)]
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=MAX_TOKENS)
    spec = EngineSpec(resolve_model(MODEL).path, MODEL, sampling, SamplingCompute(), None, messages)
    engine = VllmEngine(spec)
    load, engine._load = engine._load, None
    num_done = 0

    def run(follower: Any) -> float:
        nonlocal num_done
        started, num_tokens = time.monotonic(), 0
        for conversation in messages:
            num_done += 1
            engine.submit(Request((str(num_done), 0), conversation, seed=num_done))
        while engine.num_in_flight:
            if follower is not None:
                follower.follow()
            num_tokens += sum(completion.num_completion_tokens for completion in engine.step())
        return num_tokens / (time.monotonic() - started)

    run(None)  # the first requests warm up
    return run, load


def training() -> tuple[Work, Any]:
    """Forward and backward passes in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    from distill.execution.cpu_load import LoadFollower
    from distill.models.hub import resolve_model

    model = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).path, dtype=torch.float32)
    ids = torch.randint(0, 40_000, (ROWS, ROW_TOKENS), generator=torch.Generator().manual_seed(0))

    def run(follower: Any) -> float:
        started = time.monotonic()
        for _ in range(NUM_PASSES):
            if follower is not None:
                follower.follow()
            model(input_ids=ids, labels=ids).loss.backward()
            model.zero_grad()
        return float(NUM_PASSES * ids.numel()) / (time.monotonic() - started)

    run(None)
    return run, LoadFollower()


JOBS = {"sampling": sampling, "training": training}


def _in_a_child(job: str, rounds: int) -> dict[str, list[float]]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", job, "--rounds", str(rounds)]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{job} failed")
    found: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

"""Durable tokens per second of distill's sampling over raw vLLM, on the same heavy-tailed requests.

Three ways to draw the same samples, each in a process of its own, taking turns (ABCCBA, …), loading left out:

- ours: `run_sampling`, the loop behind `distill generate`: each finished sample is in the ledger, synced, and replaced;
- raw: one blocking `LLM.generate` over everything, its texts held in memory until the last is done;
- chunks: blocking `LLM.generate` over 64 requests at a time, each chunk's texts written and synced before the next.

All use distill's engine settings and sampler, so that only the way of driving the engine differs. Lengths are set
beforehand (`ignore_eos`, `max_tokens` from a log-normal distribution cut at the limit), the same for all three.

    python benchmarks/generate_overhead.py [--rounds 5] [--requests 256] [--max-tokens 256]

The last line is JSON: ours over raw, ours over chunks, the medians and every round.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distill.core.records import Problem
from distill.engines.base import EngineSpec, Request
from distill.engines.vllm import VllmEngine
from distill.models.hub import resolve_model
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute
from distill.sampling.job import SamplingJob, sample_seed
from distill.sampling.loop import run_sampling
from distill.storage.files import write_jsonl
from distill.storage.ledger import read_ledger

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CHUNK = 64
WAYS = ("ours", "raw", "chunks")


def main() -> None:
    """Take turns, print each round, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (the median counts)")
    parser.add_argument("--requests", type=int, default=256, help="requests a round")
    parser.add_argument("--max-tokens", type=int, default=256, help="longest completion, in tokens")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    lengths = heavy_tailed(options.requests, options.max_tokens)
    if options.child:
        print(json.dumps(measure(options.child, lengths, options.max_tokens)))
        return
    print(
        f"{len(lengths)} requests, {sum(lengths)} tokens, median {statistics.median(lengths):.0f}, max {max(lengths)}"
    )
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            rates[way].append(_in_a_child(way, options.requests, options.max_tokens))
            print(f"{way:>6}: {rates[way][-1]:.0f} tokens/s", flush=True)
    medians = {way: statistics.median(found) for way, found in rates.items()}
    ratio, over_chunks = medians["ours"] / medians["raw"], medians["ours"] / medians["chunks"]
    print(json.dumps({"ratio": ratio, "over_chunks": over_chunks, "tokens_per_second": medians, "rounds": rates}))


def heavy_tailed(num: int, most: int) -> list[int]:
    """Completion lengths as reasoning traces have them: many short ones, some cut off at the limit."""
    dice = random.Random(0)
    return [min(most, max(8, round(dice.lognormvariate(math.log(most / 6), 1.0)))) for _ in range(num)]


def measure(way: str, lengths: list[int], max_tokens: int) -> float:
    """Tokens per second of one way, from the first request to the last durable (or, for raw, returned) sample."""
    names = [f"p{i:04d}" for i in range(len(lengths))]
    problems = [
        Problem(
            name, [{"role": "user", "content": f"Tell me a story about the number {i}."}], None, "math", "benchmark"
        )
        for i, name in enumerate(names)
    ]
    model = resolve_model(MODEL)
    sampling = Sampling(temperature=0.8, top_p=1.0, max_tokens=max_tokens)
    # Longest completion and shortest loop are both 256 tokens, so that no sample is stopped early.
    spec = EngineSpec(model.path, MODEL, sampling, SamplingCompute(), None, [problems[0].prompt], loops=LoopStop())
    engine = PresetEngine(spec, dict(zip(names, lengths, strict=True)))
    # A first request leaves out what happens once: threads starting, kernels being picked.
    engine.submit(Request((names[0], 0), problems[0].prompt, seed=0))
    while engine.num_in_flight:
        engine.step()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".overhead-benchmark-") as scratch:
        if way == "ours":
            seconds = _ours(engine, problems, Path(scratch), sampling)
        else:
            seconds = _blocking(engine, problems, len(problems) if way == "raw" else CHUNK, Path(scratch))
    return sum(lengths) / seconds


class PresetEngine(VllmEngine):
    """distill's engine, with a length of its own for each request."""

    def __init__(self, spec: EngineSpec, length_of: dict[str, int]) -> None:
        super().__init__(spec)
        self._length_of = length_of

    def sampling_params(self, request: Request, room: int) -> Any:
        params = super().sampling_params(request, room)
        params.max_tokens, params.ignore_eos, params.stop_token_ids = self._length_of[request.key[0]], True, []
        return params


def _ours(engine: PresetEngine, problems: list[Problem], folder: Path, sampling: Sampling) -> float:
    write_jsonl(folder / "problems.jsonl", (problem.to_json() for problem in problems))
    job = SamplingJob(
        title="benchmark",
        model_name=MODEL,
        model_path="",
        model_revision="",
        chat_format=None,
        problems=str(folder / "problems.jsonl"),
        ledger=str(folder / "ledger.jsonl"),
        samples_per_problem=1,
        seed=0,
        sampling=sampling.model_dump(),
        compute={},
        grade_timeout_s=10.0,
    )
    started = time.monotonic()
    run_sampling(job, engine)
    seconds = time.monotonic() - started
    assert len(list(read_ledger(folder / "ledger.jsonl"))) == len(problems)
    return seconds


def _blocking(engine: PresetEngine, problems: list[Problem], size: int, folder: Path) -> float:
    from vllm.inputs import TokensPrompt

    tokenizer = engine.llm.get_tokenizer()
    started = time.monotonic()
    with (folder / "texts.jsonl").open("w") as stream:
        for start in range(0, len(problems), size):
            chunk = problems[start : start + size]
            prompts, params = [], []
            for problem in chunk:
                text = tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True)
                prompts.append(TokensPrompt(prompt_token_ids=tokenizer(text, add_special_tokens=False)["input_ids"]))
                request = Request((problem.id, 0), problem.prompt, seed=sample_seed(0, (problem.id, 0)))
                params.append(engine.sampling_params(request, 1 << 20))
            outputs = engine.llm.generate(prompts, params, use_tqdm=False)
            if size < len(problems):
                stream.writelines(json.dumps(output.outputs[0].text) + "\n" for output in outputs)
                stream.flush()
                os.fsync(stream.fileno())
    return time.monotonic() - started


def _in_a_child(way: str, num_requests: int, max_tokens: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--child", way]
    command += ["--requests", str(num_requests), "--max-tokens", str(max_tokens)]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DISTILL_QUIET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()

"""Wall time of an evaluation's sampling with grading beside it, over raw vLLM on the same requests, graded afterwards.

Three suites, each with its own k and longest answer, measured on one model in three ways. Each runs in a process of its
own, and they take turns (ABCCBA, …). Loading the model is left out, for all three:

- ours: `run_sampling` with a set for each suite, then `grade_traces`, as `distill eval` calls them: one queue, each
  finished sample durable in the ledger, its answer graded beside the engine;
- raw: one blocking `LLM.generate` over the requests of all suites, in the same order, then `grade_all`;
- suites: one blocking `LLM.generate` a suite, one after another, as an evaluation harness goes through its tasks, then
  `grade_all`.

Prompts, seeds, temperature and top-p are the same, and so are distill's engine settings and sampler. Lengths are set
beforehand for each request (`ignore_eos`, log-normal, cut at the suite's limit): a sampled length would follow from the
batch that a request happens to be in, and the ways would not do the same work. All answers count as finished, so that
their whole text is graded.

    python benchmarks/eval_overhead.py [--rounds 3] [--scale 1.0]

The last line is JSON: the time of ours over raw and over suites (medians), and every round in seconds.
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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.core.records import Problem
from distill.engines.base import Completion, EngineSpec, Request
from distill.engines.vllm import VllmEngine
from distill.grading import grade_all
from distill.grading.cached import grade_traces
from distill.grading.pool import GradingPool
from distill.models.hub import resolve_model
from distill.recipe.problems import ProblemSource
from distill.recipe.sampling import Sampling, SamplingCompute
from distill.sampling.job import SamplingJob, sample_seed
from distill.sampling.loop import run_sampling
from distill.sources.problems import load_problems
from distill.storage.files import write_jsonl
from distill.storage.ledger import read_ledger

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
WORDS = Path(__file__).parents[1] / "data" / "word_problems.jsonl"
WAYS = ("ours", "raw", "suites")
GRADE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Suite:
    """A suite of the benchmark."""

    source: str
    num_problems: int
    samples_per_problem: int
    sampling: Sampling


SUITES = (
    Suite("gym:chain_sum", 40, 1, Sampling(temperature=0.0, max_tokens=48)),
    Suite(f"file:{WORDS}", 12, 8, Sampling(temperature=0.6, top_p=0.95, max_tokens=256)),
    Suite("gym:basic_arithmetic", 24, 4, Sampling(temperature=0.6, top_p=0.95, max_tokens=96)),
)


def main() -> None:
    """Take turns, print each round, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (the median counts)")
    parser.add_argument("--scale", type=float, default=1.0, help="problems of each suite, times this")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.scale)))
        return
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            found = _in_a_child(way, options.scale)
            seconds[way].append(found["sampling_s"] + found["grading_s"])
            print(
                f"{way:>6}: {seconds[way][-1]:.1f} s, {found['grading_s']:.2f} s of it grading afterwards; "
                f"{found['num_requests']} requests, {found['num_tokens']} tokens, {found['num_right']} right",
                flush=True,
            )
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    ratio, over_suites = medians["ours"] / medians["raw"], medians["ours"] / medians["suites"]
    print(json.dumps({"ratio": ratio, "over_suites": over_suites, "seconds": medians, "rounds": seconds}))


def measure(way: str, scale: float) -> dict[str, float]:
    """Seconds of one way from the first request to the last grade, and what was done in them."""
    suites = {suite: _problems(suite, scale) for suite in SUITES}
    ordered = sorted(suites, key=lambda suite: -suite.sampling.max_tokens)
    lengths = {key: length for suite in ordered for key, length in _lengths(suite, suites[suite]).items()}
    everything = [problem for problems in suites.values() for problem in problems]
    longest = sorted((problem.prompt for problem in everything), key=lambda prompt: -len(prompt[0]["content"]))
    model = resolve_model(MODEL)
    spec = EngineSpec(model.path, MODEL, ordered[0].sampling, SamplingCompute(), None, longest[:8])
    engine = PresetEngine(spec, lengths)
    # A first request leaves out what happens once: threads starting, kernels being picked.
    engine.submit(Request(next(iter(lengths)), everything[0].prompt, seed=0))
    while engine.num_in_flight:
        engine.step()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".eval-benchmark-") as scratch:
        if way == "ours":
            found = _ours(engine, suites, Path(scratch))
        else:
            found = _blocking(engine, [ordered] if way == "raw" else [[suite] for suite in ordered], suites)
    return {**found, "num_requests": len(lengths), "num_tokens": sum(lengths.values())}


def _problems(suite: Suite, scale: float) -> list[Problem]:
    num = max(1, round(suite.num_problems * scale))
    source = ProblemSource.model_validate({"source": suite.source, "limit": num})
    return load_problems(source, seed=0)[:num]


def _lengths(suite: Suite, problems: Sequence[Problem]) -> dict[tuple[str, int], int]:
    """Completion lengths by sample: many short ones, some cut off at the suite's limit."""
    dice, most = random.Random(suite.source.rpartition("/")[2]), suite.sampling.max_tokens
    keys = [(problem.id, index) for problem in problems for index in range(suite.samples_per_problem)]
    return {key: min(most, max(8, round(dice.lognormvariate(math.log(most / 3), 0.8)))) for key in keys}


class PresetEngine(VllmEngine):
    """distill's engine, with a length of its own for each request, at which the model is said to have stopped."""

    def __init__(self, spec: EngineSpec, length_of: dict[tuple[str, int], int]) -> None:
        super().__init__(spec)
        self._length_of = length_of

    def sampling_params(self, request: Request, room: int) -> Any:
        params = super().sampling_params(request, room)
        params.max_tokens, params.ignore_eos, params.stop_token_ids = self._length_of[request.key], True, []
        return params

    def step(self) -> list[Completion]:
        return [replace(completion, finish_reason="stop") for completion in super().step()]


def _ours(engine: PresetEngine, suites: dict[Suite, list[Problem]], folder: Path) -> dict[str, float]:
    by_id = {problem.id: problem for problems in suites.values() for problem in problems}
    write_jsonl(folder / "problems.jsonl", (problem.to_json() for problem in by_id.values()))
    sets = [
        {
            "problems": [problem.id for problem in problems],
            "samples_per_problem": suite.samples_per_problem,
            "sampling": suite.sampling.model_dump(mode="json"),
        }
        for suite, problems in suites.items()
    ]
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
        sampling={},
        compute={},
        grade_timeout_s=GRADE_TIMEOUT_S,
        facts=str(folder / "facts.sqlite"),
        last_number=True,
        sets=tuple(sets),
    )
    started = time.monotonic()
    run_sampling(job, engine)
    sampled = time.monotonic()
    answers = [(by_id[trace.problem_id], trace) for trace in read_ledger(folder / "ledger.jsonl")]
    grades = list(grade_traces(answers, folder / "facts.sqlite", GRADE_TIMEOUT_S, last_number=True))
    ended = time.monotonic()
    num_right = sum(grade.correct is True for grade in grades)
    return {"sampling_s": sampled - started, "grading_s": ended - sampled, "num_right": num_right}


def _blocking(
    engine: PresetEngine, calls: Sequence[Sequence[Suite]], suites: dict[Suite, list[Problem]]
) -> dict[str, float]:
    from vllm.inputs import TokensPrompt

    tokenizer = engine.llm.get_tokenizer()
    started, answers = time.monotonic(), []
    for call in calls:
        asked, prompts, params = [], [], []
        for suite in call:
            for problem in suites[suite]:
                text = tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True)
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                for index in range(suite.samples_per_problem):
                    key = (problem.id, index)
                    request = Request(key, problem.prompt, sample_seed(0, key), suite.sampling)
                    asked.append(problem)
                    prompts.append(TokensPrompt(prompt_token_ids=ids))
                    params.append(engine.sampling_params(request, 1 << 20))
        outputs = engine.llm.generate(prompts, params, use_tqdm=False)
        answers += [(problem, output.outputs[0].text) for problem, output in zip(asked, outputs, strict=True)]
    sampled = time.monotonic()
    with GradingPool(timeout_s=GRADE_TIMEOUT_S) as pool:
        grades = list(grade_all(answers, pool, last_number=True))
    ended = time.monotonic()
    num_right = sum(grade.correct is True for grade in grades)
    return {"sampling_s": sampled - started, "grading_s": ended - sampled, "num_right": num_right}


def _in_a_child(way: str, scale: float) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", way, "--scale", str(scale)]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DISTILL_QUIET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()

"""Requests in, ledger out: the loop that samples a model, shared by generate and eval.

Enters: a `SamplingJob` (as JSON, in a process of its own). Leaves: one durable ledger record for each sample.
"""

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.engines import Completion, Engine, EngineSpec, Request, start_engine
from distill.ledger import Ledger
from distill.progress import ProgressBar
from distill.prompts import split_reasoning, teacher_messages
from distill.recipe import Sampling, SamplingCompute
from distill.records import Problem, SampleKey, Trace
from distill.store import read_json, read_jsonl, write_json

ENGINE = "engine.json"
"""The settings of the engine that drew last, beside the ledger."""

NUM_LONGEST = 8
"""How many of the longest prompts by characters are tokenised to find the longest by tokens."""


@dataclass(frozen=True, slots=True)
class SamplingJob:
    """What is sampled: k answers of one model to each problem."""

    title: str
    """Shown beside the progress bar."""
    model_name: str
    model_path: str
    model_revision: str
    chat_format: str | None
    problems: str
    """Path of a JSONL file of problems."""
    ledger: str
    """Path of the ledger that is filled."""
    samples_per_problem: int
    seed: int
    sampling: dict[str, Any]
    compute: dict[str, Any]
    system: str | None = None
    examples: tuple[tuple[str, str, str], ...] = ()
    """(question, reasoning, answer) of each worked example."""


def sample_seed(seed: int, key: SampleKey) -> int:
    """A sample's own seed (31 bits), from the recipe's seed and the sample's identity."""
    digest = hashlib.sha256(f"{seed}/{key[0]}/{key[1]}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


def missing_requests(job: SamplingJob, problems: Sequence[Problem], done: set[SampleKey]) -> list[Request]:
    """The requests that are not in the ledger yet, a problem's samples side by side so that they share its prefix."""
    requests = []
    for problem in problems:
        messages = teacher_messages(problem.prompt, job.system, job.examples)
        for index in range(job.samples_per_problem):
            key = (problem.id, index)
            if key not in done:
                requests.append(Request(key, messages, sample_seed(job.seed, key)))
    return requests


def run_sampling(job: SamplingJob, engine: Engine | None = None) -> dict[str, Any]:
    """Sample what is missing and store it.

    Args:
        job: what to sample.
        engine: the engine to use; left out: the one that `job.compute` asks for, loaded only if anything is missing.

    Returns:
        The engine's settings, the samples and tokens drawn by this call, and the seconds that drawing took.

    Raises:
        ModelError, StoreError: see the engines and the ledger.
    """
    problems = [Problem.from_json(row) for row in read_jsonl(Path(job.problems))]
    with Ledger(Path(job.ledger)) as ledger:
        requests = missing_requests(job, problems, ledger.done)
        settings_file = Path(job.ledger).with_name(ENGINE)
        if not requests:
            return {"engine": read_json(settings_file), "num_sampled": 0, "num_tokens": 0, "seconds": 0.0}
        engine = engine or start_engine(_spec(job, requests))
        write_json(settings_file, engine.settings)
        try:
            started = time.monotonic()
            num_tokens = _drain(job, requests, engine, ledger, len(problems) * job.samples_per_problem)
            seconds = time.monotonic() - started
        finally:
            engine.close()
    return {"engine": engine.settings, "num_sampled": len(requests), "num_tokens": num_tokens, "seconds": seconds}


def _drain(job: SamplingJob, requests: Sequence[Request], engine: Engine, ledger: Ledger, total: int) -> int:
    """Keep the engine full until every request is in the ledger; the number of tokens drawn."""
    waiting = deque(requests)
    seeds = {request.key: request.seed for request in requests}
    num_tokens = num_truncated = 0
    started = time.monotonic()
    with ProgressBar(job.title, total, "samples", done=total - len(requests)) as progress:
        while waiting or engine.num_in_flight:
            finished = []
            while waiting and engine.num_in_flight < engine.max_in_flight:
                refused = engine.submit(waiting.popleft())
                if refused is not None:
                    finished.append(refused)
            finished += engine.step()
            ledger.append(_trace(job, completion, seeds[completion.key]) for completion in finished)
            num_tokens += sum(c.num_completion_tokens for c in finished)
            num_truncated += sum(c.finish_reason == "length" for c in finished)
            rate = num_tokens / max(time.monotonic() - started, 1e-9)
            progress.advance(len(finished), f"{rate:.0f} tokens/s, {num_truncated} truncated")
    return num_tokens


def _trace(job: SamplingJob, completion: Completion, seed: int) -> Trace:
    split = split_reasoning(completion.text, completion.think_opened)
    return Trace(
        problem_id=completion.key[0],
        sample_index=completion.key[1],
        teacher=job.model_name,
        teacher_revision=job.model_revision,
        text=completion.text,
        reasoning=split.reasoning,
        content=split.content,
        finish_reason=completion.finish_reason,
        num_prompt_tokens=completion.num_prompt_tokens,
        num_completion_tokens=completion.num_completion_tokens,
        seed=seed,
        sampling=job.sampling,
        error=completion.error,
    )


def _spec(job: SamplingJob, requests: Sequence[Request]) -> EngineSpec:
    by_length = sorted(requests, key=lambda r: sum(len(m["content"]) for m in r.messages), reverse=True)
    return EngineSpec(
        model_path=Path(job.model_path),
        model_name=job.model_name,
        sampling=Sampling.model_validate(job.sampling),
        compute=SamplingCompute.model_validate(job.compute),
        chat_format=job.chat_format,
        longest_messages=[r.messages for r in by_length[:NUM_LONGEST]],
    )

"""The pure part of sampling: which samples are missing, requests for them, and traces from completions."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.records import Problem, SampleKey
from distill.core.thinking import teacher_messages
from distill.engines.base import EngineSpec, Request
from distill.grading.gym import FULL_SCORE
from distill.grading.pool import MEMORY_GIB
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute
from distill.sampling.sets import SampleSet, in_order
from distill.storage.case_files import at_home

SAMPLE_BYTES = 16 << 20
NUM_LONGEST = 8
"""Longest prompts by characters that are tokenised to find the longest by tokens."""


@dataclass(frozen=True, slots=True)
class SamplingJob:
    """Parameters of a sampling job: answers of one model to each problem."""

    title: str
    """Shown beside the progress bar."""
    model_name: str
    model_path: str
    model_revision: str
    chat_format: str | None
    problems: str
    """Path of a JSONL file of problems."""
    ledger: str
    """Path of the ledger to fill. Shards of earlier traces are looked for next to it."""
    samples_per_problem: int
    seed: int
    sampling: dict[str, Any]
    """How each sample is drawn, unless `sets` says otherwise."""
    compute: dict[str, Any]
    system: str | None = None
    examples: tuple[tuple[str, str, str], ...] = ()
    """(question, reasoning, answer) of each worked example."""
    loops: dict[str, Any] | None = None
    """Thresholds for stopping samples that only repeat themselves; `None`: never."""
    extra_body: dict[str, Any] | None = None
    stop_after_correct: int | None = None
    """Request no more samples of a problem once this many are graded as correct."""
    grade_timeout_s: float | None = None
    """Grade while sampling, with this time limit per grading; `None`: no grading."""
    grade_memory_gib: float = MEMORY_GIB
    gym_min_score: float = FULL_SCORE
    facts: str | None = None
    """Path of the fact cache that grades are read from and written to; `None`: they are forgotten."""
    sandbox: dict[str, Any] | None = None
    """Where programs in answers run, as in a recipe; `None`: on this machine."""
    price: dict[str, Any] | None = None
    retry_errors: bool = False
    """Retry samples that are stored as errors."""
    sets: tuple[dict[str, Any], ...] = ()
    """Sets of problems with their own k and sampling (see `distill.sampling.sets`), in place of the job's; problems in
    none of them are not sampled. Empty: every problem is sampled alike."""
    last_number: bool = False
    """Grade as an evaluation does (see `distill.grading.cached.gradable`): a last number counts as an answer."""


def sample_seed(seed: int, key: SampleKey) -> int:
    """Return a sample's own seed (31 bits), from the recipe's seed and the sample's identity."""
    digest = hashlib.sha256(f"{seed}/{key[0]}/{key[1]}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


def make_request(job: SamplingJob, problem: Problem, key: SampleKey, sampling: Sampling | None = None) -> Request:
    """Return the request for one sample; `sampling` is its own, if it is not the engine's."""
    messages = teacher_messages(problem.prompt, job.system, job.examples)
    return Request(key, messages, sample_seed(job.seed, key), sampling)


def sample_sets(job: SamplingJob, names: Iterable[str]) -> list[SampleSet]:
    """Return the sets of a job in the order of their requests; without `job.sets` a single one.

    Args:
        job: the sampling job.
        names: ids of the problems in the job's file.

    Raises:
        UserError: two sets sample one problem differently.
        ValueError: a set names a problem that is not there, or asks for what the rest of the job rules out.
    """
    if not job.sets:
        return [SampleSet(tuple(names), job.samples_per_problem, Sampling.model_validate(job.sampling))]
    sets = in_order(map(SampleSet.from_json, job.sets))
    if lost := {name for one in sets for name in one.problems} - set(names):
        raise ValueError(f"{job.title}: problems of a set are not in {job.problems}: {sorted(lost)[:3]}")
    if job.stop_after_correct is not None:
        raise ValueError(f"{job.title}: stop_after_correct is for jobs without sets")
    if job.grade_timeout_s is None and any(one.adaptive for one in sets):
        raise ValueError(f"{job.title}: an adaptive set needs grades: set grade_timeout_s")
    return sets


def missing_keys(
    names: Sequence[str], samples_per_problem: int, done: set[SampleKey], stop_after_correct: int | None = None
) -> list[SampleKey]:
    """Return the identities that are not done yet, in the order of their requests.

    A problem's samples are adjacent, so that they share its prefix in the engine's cache. With `stop_after_correct`,
    that many samples of every problem come before any further ones, which may be unnecessary once those are graded.
    """
    wave = stop_after_correct or samples_per_problem
    return [
        (name, index)
        for start in range(0, samples_per_problem, wave)
        for name in names
        for index in range(start, min(start + wave, samples_per_problem))
        if (name, index) not in done
    ]


def num_lines(path: Path) -> int:
    """Return the number of lines of a file."""
    num, last = 0, b"\n"
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):  # a line may be as long as the file
            num, last = num + block.count(b"\n"), block[-1:]
    return num + (last != b"\n")


def num_lines_by_size(path: Path) -> int:
    """Estimate the number of lines of a large file from its size and its first megabytes."""
    with path.open("rb") as stream:
        first = stream.read(SAMPLE_BYTES)
    return max(1, round(path.stat().st_size / max(1, len(first)) * first.count(b"\n")))


def read_problems(path: Path) -> dict[str, Problem]:
    """Load the problems of a JSONL file by id, in the file's order."""
    with path.open() as stream:
        problems = (at_home(Problem.from_json(json.loads(line)), path.parent) for line in stream)
        return {problem.id: problem for problem in problems}


def engine_spec(job: SamplingJob, problems: dict[str, Problem], keys: Iterable[SampleKey]) -> EngineSpec:
    """Return the spec to start an engine with.

    Args:
        job: the sampling job.
        problems: problems by id; at least those in `keys`.
        keys: the samples to request; their longest prompts determine the context.
    """
    asked = {name: problems[name] for name, _ in keys}
    # Of the sets to draw, the first has the largest max_tokens.
    first = next(one for one in sample_sets(job, problems) if not asked.keys().isdisjoint(one.problems))
    by_length = sorted(asked.values(), key=lambda p: sum(len(m["content"]) for m in p.prompt), reverse=True)
    return EngineSpec(
        model_path=Path(job.model_path),
        model_name=job.model_name,
        sampling=first.sampling,
        compute=SamplingCompute.model_validate(job.compute),
        chat_format=job.chat_format,
        longest_messages=[teacher_messages(p.prompt, job.system, job.examples) for p in by_length[:NUM_LONGEST]],
        loops=None if job.loops is None else LoopStop.model_validate(job.loops),
        extra_body=job.extra_body or {},
    )

"""Grading of answers by a judge model. Cached verdicts are reused."""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from distill.core.progress import ProgressBar
from distill.core.records import Message, Problem, SampleKey
from distill.engines.base import Completion, Engine, EngineSpec, Request
from distill.engines.start import start_engine
from distill.grading.judge import JUDGE_VERSION, is_master_key, judge_messages, read_verdict
from distill.recipe.filter import Judge
from distill.sampling.errors import ErrorWatch
from distill.storage.fact_cache import FactCache, fact_key
from distill.storage.ledger import Tally

NUM_LOOKED_UP = 256


class Question(NamedTuple):
    """One answer for the judge."""

    key: SampleKey
    problem: Problem
    answer: str
    """The model's text after its thinking."""


def ask_judge(
    questions: Iterable[Question],
    judge: Judge,
    cache: FactCache,
    engine: Engine | None = None,
    progress: ProgressBar | None = None,
) -> Iterator[tuple[SampleKey, bool | None]]:
    """Yield the judge's verdicts (`None`: no verdict) in the order in which they arrive.

    Args:
        questions: the answers to judge.
        judge: the model, its rubric and servers.
        cache: earlier verdicts; new ones are added.
        engine: engine to use; default: the judge's servers, connected on the first new question.
        progress: shows the messages of a judge that does not answer.

    Raises:
        ModelError, StageError: see the server engine; or too many of several answers were errors
            (`compute.max_error_share`). Verdicts so far are in the cache.
    """
    waiting = iter(questions)
    open_keys: dict[SampleKey, bytes] = {}
    ready: deque[tuple[Request, bytes]] = deque()
    is_ours = engine is None
    tally = Tally()
    watch = ErrorWatch(f"judge {judge.model}", judge.compute.max_error_share, tally)
    try:
        while True:
            while not ready and (some := list(islice(waiting, NUM_LOOKED_UP))):
                known, fresh = _look_up(some, judge, cache)
                yield from known
                ready.extend(fresh)
            if not ready and not open_keys:
                if tally.num_samples > 1:  # a single one may be refused for its content
                    watch.refuse()
                return
            engine = engine or start_engine(_spec(judge))
            refused: list[Completion] = []
            while ready and engine.num_in_flight < engine.max_in_flight:
                request, key = ready.popleft()
                open_keys[request.key] = key
                if (completion := engine.submit(request)) is not None:
                    refused.append(completion)
            for completion in refused + engine.step():
                tally.add(completion.finish_reason, completion.num_prompt_tokens, completion.num_completion_tokens)
                watch.add(completion.finish_reason, completion.error)
                yield completion.key, _keep(completion, open_keys.pop(completion.key), cache)
            if progress is not None:
                watch.show(engine, progress)
            watch.refuse_early()
    finally:
        if is_ours and engine is not None:
            engine.close()


def _look_up(
    some: list[Question], judge: Judge, cache: FactCache
) -> tuple[list[tuple[SampleKey, bool | None]], list[tuple[Request, bytes]]]:
    """Return the known verdicts, and requests for the rest with their cache keys."""
    known: list[tuple[SampleKey, bool | None]] = []
    requests = []
    for question in some:
        if is_master_key(question.answer):
            known.append((question.key, False))
            continue
        messages = judge_messages(question.problem, question.answer, judge)
        requests.append((Request(question.key, messages, seed=0), _cache_key(judge, messages)))
    found = cache.get([key for _, key in requests])
    known += [(request.key, found[key]) for request, key in requests if key in found]
    return known, [(request, key) for request, key in requests if key not in found]


def _keep(completion: Completion, key: bytes, cache: FactCache) -> bool | None:
    if completion.finish_reason == "error":
        return None  # a server failure is not cached, so another run retries
    verdict = read_verdict(completion.text)
    cache.put({key: verdict})
    return verdict


def _cache_key(judge: Judge, messages: list[Message]) -> bytes:
    asked = [judge.model, judge.sampling.model_dump(mode="json"), messages]
    return fact_key("judge", str(JUDGE_VERSION), json.dumps(asked, sort_keys=True))


def _spec(judge: Judge) -> EngineSpec:
    return EngineSpec(
        model_path=Path(),
        model_name=judge.model,
        sampling=judge.sampling,
        compute=judge.compute,
        chat_format=None,
        longest_messages=[],
        loops=None,
        extra_body={},
    )

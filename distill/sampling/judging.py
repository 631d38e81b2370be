"""Questions to a judge model, with its verdicts kept on disk so that none is asked twice.

Enters `Asked(("p1", 0), [{"role": "user", "content": "…"}])`; leaves `(("p1", 0), Answer("correct"))`, or
`(("p1", 0), Answer(None, "nonsense"))` for a judge that gave no verdict.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from distill.core.progress import ProgressBar
from distill.core.records import Message, Problem, SampleKey
from distill.engines.base import Completion, Engine, EngineSpec, Request
from distill.engines.start import start_engine
from distill.filters.form import refuses
from distill.grading.comparisons import (
    COMPARISON_VERSION,
    Kind,
    Preference,
    ShortAnswer,
    read_arena,
    read_preference,
    read_short_answer,
)
from distill.grading.judge import JUDGE_VERSION, is_master_key, judge_messages, read_verdict
from distill.recipe.filter import Judge
from distill.sampling.errors import ErrorWatch
from distill.storage.fact_cache import FactCache, fact_key
from distill.storage.ledger import Tally

NUM_LOOKED_UP = 256

T = TypeVar("T", bool, str)

Missing = Literal["nonsense", "refused", "error"]
"""Why there is no verdict: what the judge wrote has none, it declined, or its server failed or timed out."""

_REFUSED = {"missing": "refused"}
"""Cached instead of a verdict for a text that declines; verdicts are never objects."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """One question for the judge."""

    key: SampleKey
    """Unique among the questions of one call."""
    messages: list[Message]
    known: T | None = None
    """A verdict that needs no judge; the question is then not asked."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The judge's verdict, or why there is none."""

    verdict: T | None
    missing: Missing | None = None
    """`None` if there is a verdict."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """How a judge's texts become verdicts."""

    name: str
    version: str
    """Of everything that decides the verdict of a text; verdicts of other names and versions are not reused."""
    verdict_of: Callable[[str], T | None]
    """Verdict of a text; `None`: it has none."""
    declines: Callable[[str], bool] | None = None
    """Whether a text without a verdict is a refusal; default: all of them count as nonsense."""


def comparison_reading(
    kind: Kind, labels: Mapping[str, ShortAnswer] | Mapping[str, Preference] | None = None
) -> Reading[str]:
    """Return how a judge's text on a short answer or a game becomes a label.

    Args:
        kind: the kind of question.
        labels: the words that a template of the user's asks for; default: those of our own prompt.
    """
    read: Any = {"short_answer": read_short_answer, "preference": read_preference, "arena": read_arena}[kind]
    version = json.dumps([COMPARISON_VERSION, labels and sorted(labels.items())])
    return Reading(f"judge {kind}", version, partial(read, labels=labels) if labels else read, refuses)


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
    """Yield whether each answer is right (`None`: no verdict) in the order in which the verdicts arrive.

    Args:
        questions: the answers to judge.
        judge: the model, its rubric and servers.
        cache: earlier verdicts; new ones are added.
        engine: engine to use; default: the judge's servers, connected on the first new question.
        progress: shows the messages of a judge that does not answer.

    Raises:
        ModelError, StageError: see `ask`.
    """
    asked = (_asked(question, judge) for question in questions)
    reading = Reading("judge", str(JUDGE_VERSION), read_verdict)
    for key, answer in ask(asked, judge, cache, reading, engine, progress):
        yield key, answer.verdict


def ask(
    questions: Iterable[Asked[T]],
    judge: Judge,
    cache: FactCache,
    reading: Reading[T],
    engine: Engine | None = None,
    progress: ProgressBar | None = None,
    retry_errors: bool = False,
) -> Iterator[tuple[SampleKey, Answer[T]]]:
    """Yield the judge's answers to any chat messages in the order in which they arrive.

    Verdicts and texts without one are cached. Failures and refusals of a server are not, so another run retries them.

    Args:
        questions: what to ask; read as far as needed to keep the engine full.
        judge: the model, its sampling parameters and servers.
        cache: earlier verdicts; new ones are added.
        reading: how a text becomes a verdict.
        engine: engine to use; default: the judge's servers, connected on the first new question.
        progress: shows the messages of a judge that does not answer.
        retry_errors: ask again where a cached text has no verdict.

    Raises:
        ModelError, StageError: see the server engine; or too many of several answers were errors or refusals of a
            server (`compute.max_error_share`). Verdicts so far are in the cache.
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
                known, fresh = _look_up(some, judge, cache, reading, retry_errors)
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
                yield completion.key, _keep(completion, open_keys.pop(completion.key), cache, reading)
            if progress is not None:
                watch.show(engine, progress)
            watch.refuse_early()
    finally:
        if is_ours and engine is not None:
            engine.close()


def _asked(question: Question, judge: Judge) -> Asked[bool]:
    if is_master_key(question.answer):
        return Asked(question.key, [], known=False)
    return Asked(question.key, judge_messages(question.problem, question.answer, judge))


def _look_up(
    some: list[Asked[T]], judge: Judge, cache: FactCache, reading: Reading[T], retry_errors: bool
) -> tuple[list[tuple[SampleKey, Answer[T]]], list[tuple[Request, bytes]]]:
    """Return the known answers, and requests for the rest with their cache keys."""
    known: list[tuple[SampleKey, Answer[T]]] = []
    requests = []
    for question in some:
        if question.known is not None:
            known.append((question.key, Answer(question.known)))
            continue
        key = _cache_key(judge, question.messages, reading)
        requests.append((Request(question.key, question.messages, seed=0), key))
    found = {key: _answer(fact) for key, fact in cache.get([key for _, key in requests]).items()}
    kept = {key: answer for key, answer in found.items() if answer.missing is None or not retry_errors}
    known += [(request.key, kept[key]) for request, key in requests if key in kept]
    return known, [(request, key) for request, key in requests if key not in kept]


def _keep(completion: Completion, key: bytes, cache: FactCache, reading: Reading[T]) -> Answer[T]:
    if completion.finish_reason == "error":  # not cached, so another run retries
        return Answer(None, "refused" if completion.is_refusal else "error")
    fact: Any = reading.verdict_of(completion.text)
    if fact is None and reading.declines is not None and reading.declines(completion.text):
        fact = _REFUSED
    cache.put({key: fact})
    return _answer(fact)


def _answer(fact: Any) -> Answer[Any]:
    if fact == _REFUSED:
        return Answer(None, "refused")
    return Answer(fact, "nonsense" if fact is None else None)


def _cache_key(judge: Judge, messages: list[Message], reading: Reading[Any]) -> bytes:
    asked = [judge.model, judge.sampling.model_dump(mode="json"), messages]
    return fact_key(reading.name, reading.version, json.dumps(asked, sort_keys=True))


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

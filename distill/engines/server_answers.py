"""What servers answer, read: completions, errors, and what their words mean.

Enters: a chat completion or an error of the OpenAI API as JSON. Leaves: a `Completion`, or one of three errors that say
whether to ask again.
"""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from distill.engines import Completion
from distill.prompts import THINK_OPEN, join_reasoning, whole_characters
from distill.recipe import LoopStop
from distill.records import FinishReason, SampleKey

MAX_ERROR_CHARS = 300
MAX_PATTERN_TOKENS = 64
"""Longest piece that vLLM looks for to stop a loop: it tries every size at every token."""
FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "loop"}
BROKEN_OFF = frozenset({"abort", "error", "insufficient_system_resource"})
"""Reasons to finish that are the server's trouble, not the sample's (vLLM, SGLang; DeepSeek)."""


class TroubleError(Exception):
    """The request was not answered, or not with an answer; it may well be another time."""

    def __init__(self, why: str, of_answer: bool = False) -> None:
        super().__init__(why)
        self.of_answer = of_answer
        """The server answered, with something that is no completion."""


class ThrottledError(Exception):
    """The server is asked too much; it wants to be left alone for `wait_s`, or does not say."""

    def __init__(self, why: str, wait_s: float | None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class RefusedError(Exception):
    """The server will not answer this request, however often it is asked."""


class RedirectedError(Exception):
    """A server wants the request to be sent to another one, which the recipe does not name."""


def refuse_other_server(asked: Any, target: Any) -> None:
    """Stop a redirect that would take prompts to another server than the recipe names.

    Args:
        asked: URL of the request (scheme, host, port).
        target: URL that the server names. The same host is fine, also by https in place of http.

    Raises:
        RedirectedError: it is another host, port or scheme.
    """
    ports = {"http": 80, "https": 443}
    was, now = ((url.scheme, url.host, url.port or ports.get(url.scheme)) for url in (asked, target))
    if now not in (was, ("https", was[1], 443) if was[2] == ports["http"] else was):
        raise RedirectedError(f"{now[0]}://{now[1]}" + ("" if now[2] == ports.get(now[0]) else f":{now[2]}"))


def read_answer(key: SampleKey, payload: Any) -> Completion:
    """A chat completion as a completion of ours: the thinking in the text, whichever field it came in.

    Raises:
        TroubleError: it is no chat completion, or the server broke it off.
    """
    try:
        choice = payload["choices"][0]
        message, finish = choice["message"], choice["finish_reason"]
        content = message.get("content") or ""
        reasoning = message.get("reasoning") or message.get("reasoning_content") or ""
        usage = payload.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not isinstance(content, str) or not isinstance(reasoning, str) or not isinstance(finish, str):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise TroubleError("the answer is no chat completion", of_answer=True) from None
    if finish in BROKEN_OFF:
        raise TroubleError(f"the server broke the answer off ({finish})", of_answer=True)
    reason = FINISH_REASONS.get(finish)
    if reason is None:
        return error_completion(key, f"finish_reason is {finish}"[:MAX_ERROR_CHARS], counts)
    text = content
    if reasoning.strip() and not content.lstrip().startswith(THINK_OPEN):
        if reason != "stop" and not content.strip():
            text = f"{THINK_OPEN}\n{reasoning.strip()}"  # cut off inside the thought
        else:
            text = join_reasoning(reasoning.strip(), content.strip())
    return Completion(key, whole_characters(text), reason, *counts)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            wait_s = float(value) * unit_s
        except ValueError:
            try:
                wait_s = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if math.isfinite(wait_s):
            return max(0.0, wait_s)
    return None


def repetition_detection(loops: LoopStop) -> dict[str, int]:
    """vLLM's own parameters that stop what `loops` calls a loop, up to pieces of `MAX_PATTERN_TOKENS`.

    vLLM has one count for all sizes, with which small pieces would be stopped far below `min_tokens`: sixteen dashes
    in a table. But a piece that repeats is also a larger piece that repeats, and each size up to the largest has a
    multiple in the upper half of the sizes. Looking for those alone finds every loop, at `min_tokens` or more.
    """
    largest = min(loops.max_period, MAX_PATTERN_TOKENS)
    smallest = (largest + 1) // 2
    count = max(loops.min_repeats, math.ceil(loops.min_tokens / smallest))
    return {"max_pattern_size": largest, "min_pattern_size": smallest, "min_count": count}


def error_completion(key: SampleKey, why: str, counts: tuple[int, int] = (0, 0)) -> Completion:
    return Completion(key, "", "error", *counts, error=why)


def error_text(error: openai.APIStatusError) -> str:
    """The server's own words: OpenAI's `message`, FastAPI's `detail`, or the body as it is."""
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return str(body or error.response.reason_phrase)


def wants_other_key(why: str) -> bool:
    # "Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead." vLLM names both keys, too, where they
    # are too large.
    return "max_completion_tokens" in why and "support" in why.lower()


def names_no_model(why: str) -> bool:
    why = why.lower()
    return "model" in why and ("not exist" in why or "not found" in why)


def first_cause(error: BaseException) -> BaseException:
    """What an error began with: the layers above say "Connection error." for everything."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def root_cause(error: BaseException) -> str:
    """The first cause in words."""
    error = first_cause(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

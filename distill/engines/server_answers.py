"""Parsing of server answers in the OpenAI API: completions, errors, and the meaning of error messages.

An answer becomes a `Completion`, or one of three errors that determine whether to retry.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from distill.core.chat_messages import ChatError, text_of
from distill.core.finish_reasons import ending_of, finish_word
from distill.core.records import SampleKey
from distill.engines.base import Completion
from distill.recipe.sampling import LoopStop

MAX_ERROR_CHARS = 300
MAX_PATTERN_TOKENS = 64
"""Longest piece that vLLM checks for loops: it tries every size at every token."""
_FINISH_KEYS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "native_finish_reason")
_USAGE_KEYS = ("usage", "usageMetadata")
_PROMPT_KEYS = ("prompt_tokens", "input_tokens", "inputTokens", "promptTokenCount")
_COMPLETION_KEYS = ("completion_tokens", "output_tokens", "outputTokens", "candidatesTokenCount")
_ERROR_KEYS = ("error", "errors", "detail", "error_message", "message", "msg", "base_resp")
_WORD_KEYS = ("message", "detail", "msg", "error", "status_msg", "error_message", "reason", "description", "code")
_CODE_KEYS = ("status", "status_code", "http_code", "code")
_HIDDEN = re.compile(r"<(script|style|head)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_ABOUT_KEY = re.compile(
    r"\b(?:api[ _-]?)?keys?\b|\btoken\b|auth|permission|credential|forbidden|denied|log ?in\b", re.IGNORECASE
)
_PAGE = re.compile(r"\s*+<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.DOTALL | re.IGNORECASE)


class TroubleError(Exception):
    """The request got no usable answer, but may succeed later."""

    def __init__(self, why: str, of_answer: bool = False) -> None:
        super().__init__(why)
        self.of_answer = of_answer
        """The server answered, but not with a completion."""


class ThrottledError(Exception):
    """The server is overloaded and asks for a pause of `wait_s` seconds (`None`: unspecified)."""

    def __init__(self, why: str, wait_s: float | None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class RefusedError(Exception):
    """The server will not answer this request, however often it is retried."""


class RedirectedError(Exception):
    """The server redirects the request to one that the recipe does not name."""


def refuse_other_server(asked: Any, target: Any) -> None:
    """Refuse a redirect that would send prompts to a server that the recipe does not name.

    Args:
        asked: URL of the request (scheme, host, port).
        target: URL of the redirect. The same host is allowed, also with https instead of http.

    Raises:
        RedirectedError: the host, port or scheme differs.
    """
    ports = {"http": 80, "https": 443}
    was, now = ((url.scheme, url.host, url.port or ports.get(url.scheme)) for url in (asked, target))
    if now not in (was, ("https", was[1], 443) if was[2] == ports["http"] else was):
        raise RedirectedError(f"{now[0]}://{now[1]}" + ("" if now[2] == ports.get(now[0]) else f":{now[2]}"))


def read_answer(key: SampleKey, payload: Any, max_tokens: int | None = None) -> Completion:
    """Convert a chat completion, with the thinking inside the text, wherever the server put it.

    Args:
        key: the sample's identity.
        payload: the server's answer, as JSON.
        max_tokens: the requested limit; determines the meaning of an unknown finish reason.

    Raises:
        TroubleError: it is not a chat completion, or the server aborted it.
    """
    choice, message = _choice(payload)
    counts = _num_tokens(payload)
    told = _finish_reason(choice)
    is_full = max_tokens is not None and counts[1] >= max_tokens
    ending = ending_of(told, is_full)
    words = error_words(choice.get("error")) or error_words(message.get("refusal"))
    if ending.is_trouble:
        why = f"the server aborted the answer ({told}{': ' + words if words else ''})"
        raise TroubleError(why[:MAX_ERROR_CHARS], of_answer=True)
    if choice.get("error"):
        raise TroubleError(f"the server answers with an error: {words}"[:MAX_ERROR_CHARS], of_answer=True)
    if ending.reason == "error":
        why = f"finish_reason is {told}{': ' + words if words else ''}"
        return replace(error_completion(key, why[:MAX_ERROR_CHARS], counts), is_refusal=True)
    try:
        text = text_of(message, is_cut=ending.reason != "stop")
    except ChatError as error:
        return error_completion(key, f"the answer {error}"[:MAX_ERROR_CHARS], counts)
    if not text and not finish_word(told):
        raise TroubleError("the answer is empty and has no finish_reason", of_answer=True)
    return Completion(key, text, ending.reason, *counts)


def _choice(payload: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the first choice and its message.

    Raises:
        TroubleError: there is none; quotes the error that the server sent instead, if any.
    """
    choice = _first_choice(payload)
    message = next((choice[key] for key in ("message", "content") if isinstance(choice.get(key), dict)), None)
    if message is None and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if message is None and isinstance(choice.get("content"), list):
        message = choice
    if message is None and (choice.get("error") or finish_word(_finish_reason(choice))):
        message = {}  # an empty answer with a reason
    if message is not None:
        return choice, message
    words = told_error(payload)
    why = f"the server answers with an error: {words}" if words else "the answer is not a chat completion"
    raise TroubleError(why[:MAX_ERROR_CHARS], of_answer=True)


def _first_choice(payload: Any) -> Mapping[str, Any]:
    """Return the first of OpenAI's `choices` or Google's `candidates`, or the answer itself (Anthropic, Ollama)."""
    if not isinstance(payload, dict):
        return {}
    for key in ("choices", "candidates"):
        if key in payload:
            several = payload[key]
            return several[0] if isinstance(several, list) and several and isinstance(several[0], dict) else {}
    return {} if payload.get("error") else payload


def _finish_reason(choice: Mapping[str, Any]) -> Any:
    return next((choice[key] for key in _FINISH_KEYS if finish_word(choice.get(key))), None)


def unknown_finish_reason(payload: Any) -> str:
    """Return the finish reason if it is an unknown one; else an empty string."""
    told = _finish_reason(_first_choice(payload))
    return "" if ending_of(told).is_known else finish_word(told)[:MAX_ERROR_CHARS]


def _num_tokens(payload: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens of prompt and answer; 0 if the server does not count them."""
    usage: Mapping[str, Any] = next((payload[key] for key in _USAGE_KEYS if isinstance(payload.get(key), dict)), {})

    def count(keys: tuple[str, ...]) -> int:
        value = next((usage[key] for key in keys if usage.get(key) is not None), 0)
        is_count = isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1 << 63
        return int(value) if is_count else 0

    return count(_PROMPT_KEYS), count(_COMPLETION_KEYS)


def told_error(payload: Any) -> str:
    """Return the server's message if it sent an error instead of an answer; else an empty string."""
    if not isinstance(payload, dict):
        return ""
    return next((words for key in _ERROR_KEYS if (words := error_words(payload.get(key)))), "")


def told_status(payload: Any) -> int | None:
    """Return the HTTP status named by an error in the body (OpenRouter sends it with status 200)."""
    error = payload.get("error") if isinstance(payload, dict) and not payload.get("choices") else None
    for holder in (error, payload):
        codes = [holder.get(key) for key in _CODE_KEYS] if isinstance(holder, dict) and error else []
        for code in codes:
            if isinstance(code, int | str) and str(code).isdecimal() and 400 <= int(code) < 600:
                return int(code)
    return None


def error_words(error: Any) -> str:
    """Return the message of an error, whatever its shape."""
    if isinstance(error, str):
        return error.strip()
    if isinstance(error, dict):
        found = (error_words(error.get(key)) for key in _WORD_KEYS)
        return next((words for words in found if words), "") or (str(error) if error else "")
    if isinstance(error, list):
        return "; ".join(filter(None, map(error_words, error[:3])))
    return str(error) if isinstance(error, int) and not isinstance(error, bool) else ""


def page_words(content: bytes) -> str:
    """Return the message of a body that is not JSON, on one line: a page's title, or its text."""
    text = content[: 20 * MAX_ERROR_CHARS].decode("utf-8", "replace")
    title = _TITLE.search(text)
    words = title[1] if title and title[1].strip() else text
    if _PAGE.match(text):
        words = _HIDDEN.sub(" ", words)
    return " ".join(words.split())[:MAX_ERROR_CHARS]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date; `None` if not given."""
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
    """Return vLLM's parameters for stopping loops as defined by `loops`, for pieces of up to `MAX_PATTERN_TOKENS`.

    vLLM has one repeat count for all sizes, which would stop small pieces far below `min_tokens`, such as sixteen
    dashes in a table. But several repeats of a piece form a larger piece that repeats, and each size has a multiple in
    the upper half of the sizes. Checking only those finds every loop, at `min_tokens` or more.
    """
    largest = min(loops.max_period, MAX_PATTERN_TOKENS)
    smallest = (largest + 1) // 2
    count = max(loops.min_repeats, math.ceil(loops.min_tokens / smallest))
    return {"max_pattern_size": largest, "min_pattern_size": smallest, "min_count": count}


def error_completion(key: SampleKey, why: str, counts: tuple[int, int] = (0, 0)) -> Completion:
    return Completion(key, "", "error", *counts, error=why)


def error_text(error: openai.APIStatusError) -> str:
    """Return the server's message: OpenAI's `message`, FastAPI's `detail`, a page's title, or the body itself."""
    body = error.body
    words = page_words(body.encode(errors="replace")) if isinstance(body, str) else error_words(body)
    return words or str(error.response.reason_phrase)


def wants_other_key(why: str) -> bool:
    # OpenAI: "Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead." "support" is required too,
    # because vLLM names both keys if their value is too large.
    return "max_completion_tokens" in why and "support" in why.lower()


def is_about_key(words: str) -> bool:
    """Return whether a 403 concerns the key; others concern the content (moderation) or the account."""
    return not words.strip() or _ABOUT_KEY.search(words) is not None


def names_no_model(why: str) -> bool:
    why = why.lower()
    return "model" in why and ("not exist" in why or "not found" in why)


def first_cause(error: BaseException) -> BaseException:
    """Return the original cause of an error: the layers above it say "Connection error." for everything."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def root_cause(error: BaseException) -> str:
    """Return the original cause of an error as text."""
    error = first_cause(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

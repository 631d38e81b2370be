"""What servers answer, read: completions, errors, and what their words mean.

Enters: a chat completion or an error of the OpenAI API as JSON. Leaves: a `Completion`, or one of three errors that say
whether to ask again.
"""

import math
import re
import time
from collections.abc import Mapping
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
"""Longest piece that vLLM looks for to stop a loop: it tries every size at every token."""
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


def read_answer(key: SampleKey, payload: Any, max_tokens: int | None = None) -> Completion:
    """A chat completion as a completion of ours: the thinking in the text, wherever the server put it.

    Args:
        key: the sample's identity.
        payload: what the server sent, as JSON.
        max_tokens: longest answer that was asked for; it tells what an unknown finish reason means.

    Raises:
        TroubleError: it is no chat completion, or the server broke it off.
    """
    choice, message = _choice(payload)
    counts = _num_tokens(payload)
    told = _finish_reason(choice)
    is_full = max_tokens is not None and counts[1] >= max_tokens
    ending = ending_of(told, is_full)
    words = error_words(choice.get("error")) or error_words(message.get("refusal"))
    if ending.is_trouble:
        why = f"the server broke the answer off ({told}{': ' + words if words else ''})"
        raise TroubleError(why[:MAX_ERROR_CHARS], of_answer=True)
    if choice.get("error"):
        raise TroubleError(f"the server answers with an error: {words}"[:MAX_ERROR_CHARS], of_answer=True)
    if ending.reason == "error":
        why = f"finish_reason is {told}{': ' + words if words else ''}"
        return error_completion(key, why[:MAX_ERROR_CHARS], counts)
    try:
        text = text_of(message, is_cut=ending.reason != "stop")
    except ChatError as error:
        return error_completion(key, f"the answer {error}"[:MAX_ERROR_CHARS], counts)
    if not text and not finish_word(told):
        raise TroubleError("the answer is empty and has no finish_reason", of_answer=True)
    return Completion(key, text, ending.reason, *counts)


def _choice(payload: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice and its message.

    Raises:
        TroubleError: there is none; with the server's words where it sent an error instead.
    """
    choice = _first_choice(payload)
    message = next((choice[key] for key in ("message", "content") if isinstance(choice.get(key), dict)), None)
    if message is None and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if message is None and isinstance(choice.get("content"), list):
        message = choice
    if message is None and (choice.get("error") or finish_word(_finish_reason(choice))):
        message = {}  # nothing was written, and why is told
    if message is not None:
        return choice, message
    words = told_error(payload)
    why = f"the server answers with an error: {words}" if words else "the answer is no chat completion"
    raise TroubleError(why[:MAX_ERROR_CHARS], of_answer=True)


def _first_choice(payload: Any) -> Mapping[str, Any]:
    """OpenAI's `choices`, Google's `candidates`, or the answer itself (Anthropic's, Ollama's); empty where none."""
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
    """The finish reason that was sent, where nobody knows the word; else nothing."""
    told = _finish_reason(_first_choice(payload))
    return "" if ending_of(told).is_known else finish_word(told)[:MAX_ERROR_CHARS]


def _num_tokens(payload: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of prompt and answer; 0 where the server does not count them."""
    usage: Mapping[str, Any] = next((payload[key] for key in _USAGE_KEYS if isinstance(payload.get(key), dict)), {})

    def count(keys: tuple[str, ...]) -> int:
        value = next((usage[key] for key in keys if usage.get(key) is not None), 0)
        is_count = isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1 << 63
        return int(value) if is_count else 0

    return count(_PROMPT_KEYS), count(_COMPLETION_KEYS)


def told_error(payload: Any) -> str:
    """The server's words where it sent an error in place of an answer; nothing where it did not."""
    if not isinstance(payload, dict):
        return ""
    return next((words for key in _ERROR_KEYS if (words := error_words(payload.get(key)))), "")


def told_status(payload: Any) -> int | None:
    """The HTTP status that an error in the body names (OpenRouter sends it with status 200)."""
    error = payload.get("error") if isinstance(payload, dict) and not payload.get("choices") else None
    for holder in (error, payload):
        codes = [holder.get(key) for key in _CODE_KEYS] if isinstance(holder, dict) and error else []
        for code in codes:
            if isinstance(code, int | str) and str(code).isdecimal() and 400 <= int(code) < 600:
                return int(code)
    return None


def error_words(error: Any) -> str:
    """What an error says, whatever its shape."""
    if isinstance(error, str):
        return error.strip()
    if isinstance(error, dict):
        found = (error_words(error.get(key)) for key in _WORD_KEYS)
        return next((words for words in found if words), "") or (str(error) if error else "")
    if isinstance(error, list):
        return "; ".join(filter(None, map(error_words, error[:3])))
    return str(error) if isinstance(error, int) and not isinstance(error, bool) else ""


def page_words(content: bytes) -> str:
    """What a body that is no JSON says, in a line: a page's title, or its text."""
    text = content[: 20 * MAX_ERROR_CHARS].decode("utf-8", "replace")
    title = _TITLE.search(text)
    words = title[1] if title and title[1].strip() else text
    if _PAGE.match(text):
        words = _HIDDEN.sub(" ", words)
    return " ".join(words.split())[:MAX_ERROR_CHARS]


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
    """The server's own words: OpenAI's `message`, FastAPI's `detail`, a page's title, or the body as it is."""
    body = error.body
    words = page_words(body.encode(errors="replace")) if isinstance(body, str) else error_words(body)
    return words or str(error.response.reason_phrase)


def wants_other_key(why: str) -> bool:
    # "Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead." vLLM names both keys, too, where they
    # are too large.
    return "max_completion_tokens" in why and "support" in why.lower()


def is_about_key(words: str) -> bool:
    """Whether a 403 is about who asks; others are about what is asked (moderation) or about the account."""
    return not words.strip() or _ABOUT_KEY.search(words) is not None


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

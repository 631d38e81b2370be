"""Map the finish reasons of servers and data sets to `stop`, `length`, `loop` or `error`.

Covers vLLM, SGLang, TGI, llama.cpp, Ollama, OpenAI, Anthropic, Google, Cohere, Mistral, DeepSeek and Bedrock, in any
letter case. Example: `ending_of("MAX_TOKENS") == Ending("length")`.
"""

from typing import Any, NamedTuple

from distill.core.records import FinishReason


class Ending(NamedTuple):
    """A finish reason in distill's terms."""

    reason: FinishReason
    """`error`: the text is not an answer."""
    is_trouble: bool = False
    """Whether the server broke off the answer, so that a retry may succeed."""
    is_known: bool = True
    """Whether the word is known; otherwise `reason` is a guess."""


_STOP = (
    "stop", "stopped", "stop_sequence", "stop_token", "stop_word", "word", "eos", "eos_token", "eos_token_id",
    "end", "end_turn", "end_of_turn", "end_of_text", "complete", "completed", "finish", "finished", "done",
)  # fmt: skip
_LENGTH = (
    "length", "max_tokens", "max_new_tokens", "max_length", "max_output_tokens", "max_completion_tokens",
    "model_length", "limit", "token_limit", "error_limit", "context_length", "context_length_exceeded",
    "model_context_window_exceeded", "incomplete",
)  # fmt: skip
_LOOP = ("loop", "repetition")
_TROUBLE = (
    "abort", "aborted", "error", "failed", "cancel", "cancelled", "canceled", "user_cancel", "timeout", "unload",
    "overloaded", "insufficient_system_resource", "server_error", "internal_error",
)  # fmt: skip
_REFUSED = (
    "content_filter", "content_filtered", "filtered", "safety", "refusal", "refused", "sensitive", "blocked",
    "blocklist", "prohibited_content", "spii", "recitation", "language", "image_safety", "error_toxic", "moderation",
    "guardrail_intervened", "other", "tool_calls", "tool_call", "tool_use", "function_call",
    "malformed_function_call", "unexpected_tool_call", "too_many_tool_calls", "malformed_response", "pause_turn",
)  # fmt: skip
_KNOWN = {
    **dict.fromkeys(_STOP, Ending("stop")),
    **dict.fromkeys(_LENGTH, Ending("length")),
    **dict.fromkeys(_LOOP, Ending("loop")),
    **dict.fromkeys(_TROUBLE, Ending("error", is_trouble=True)),
    **dict.fromkeys(_REFUSED, Ending("error")),
}
_PREFIXES = ("finish_reason_", "finishreason.", "stop_reason_", "stopreason.", "reason_")
_STEMS = (
    (("length", "max_", "limit", "truncat"), Ending("length", is_known=False)),
    (("filter", "safe", "block", "prohibit", "moderat", "refus", "tool", "function"), Ending("error", is_known=False)),
    (("abort", "cancel", "fail", "timeout", "error"), Ending("error", is_trouble=True, is_known=False)),
)
_UNSAID = ("", "none", "null", "unspecified", "unknown")


def ending_of(told: Any, is_full: bool = False) -> Ending:
    """Return the ending that a finish reason stands for.

    Args:
        told: the reason as given. A missing one counts as `stop`. SGLang gives `{"type": "stop", …}`.
        is_full: whether the answer has the maximum number of tokens. A missing or unknown one then counts as `length`.
    """
    word = finish_word(told)
    unsaid: FinishReason = "length" if is_full else "stop"
    if word in _UNSAID:
        return Ending(unsaid)
    if word in _KNOWN:
        return _KNOWN[word]
    by_stem = next((ending for stems, ending in _STEMS if any(stem in word for stem in stems)), None)
    return by_stem or Ending(unsaid, is_known=False)


def finish_word(told: Any) -> str:
    """Return a finish reason in normalised spelling: `FinishReason.MAX_TOKENS` becomes `max_tokens`."""
    if isinstance(told, dict):
        told = told.get("type")
    if told is None or isinstance(told, bool | list | dict):
        return ""
    word = "_".join(str(told).replace("-", " ").split()).casefold()
    for prefix in _PREFIXES:
        word = word.removeprefix(prefix)
    return word

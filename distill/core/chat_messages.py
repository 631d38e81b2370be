"""Messages as chat APIs and chat data sets write them: text, or parts, with the thought in any of the usual places.

Enters: a message as JSON. Leaves: one text, the thought between `<think>` and `</think>`:

    {"role": "assistant", "content": [{"type": "thinking", "thinking": "2 + 2 = 4"}, {"type": "text", "text": "4"}]}
    {"role": "assistant", "reasoning_content": "2 + 2 = 4", "content": "4"}

are both `"<think>\\n2 + 2 = 4\\n</think>\\n\\n4"`.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

from distill.core.records import Message
from distill.core.thinking import THINK_OPEN, join_reasoning, split_reasoning, whole_characters

THOUGHT_KEYS = (
    "reasoning", "reasoning_content", "thinking", "reasoning_details", "thinking_blocks", "reasoningContent", "thought",
)  # fmt: skip
"""Where a message has its thought beside its content (vLLM, OpenRouter; DeepSeek; Ollama; LiteLLM; Bedrock)."""
_ROLES = {
    "human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "prompter": "user", "developer": "system",
}  # fmt: skip
_TEXT_TYPES = ("text", "output_text", "input_text", "refusal")
_THOUGHT_TYPES = (
    "thinking", "reasoning", "reasoning_content", "thought", "reasoning.text", "reasoning.summary", "summary_text",
    "reasoning_text",
)  # fmt: skip
_HIDDEN_TYPES = ("redacted_thinking", "reasoning.encrypted")
"""Thoughts that are there and cannot be read."""
_TEXT_KEYS = ("text", "thinking", "reasoning", "reasoningText", "reasoning_text", "summary", "content", "refusal")

_Segment = tuple[bool, str]
"""Whether it is a thought, and its text."""


class ChatError(ValueError):
    """Why a message cannot be read, as a sentence's end: `holds a part of type 'image_url'`."""


def text_of(message: Mapping[str, Any], is_cut: bool = False) -> str:
    """A message's text with its thought in it, wherever the thought was.

    Args:
        message: `{"content": …}`, `{"value": …}` or `{"parts": …}`.
        is_cut: the answer was cut off: a thought without content has no end.

    Raises:
        ChatError: the content is neither text nor parts of text.
    """
    value = next((message[key] for key in ("content", "value", "parts", "text") if message.get(key) is not None), None)
    if value is None or value == "":
        value = message.get("refusal")
    segments = list(_merged(_segments(value, False)))
    beside = next((text for key in THOUGHT_KEYS if (text := _thought(message.get(key)))), "")
    if beside and not any(is_thought for is_thought, _ in segments):
        return with_thought(beside, "".join(text for _, text in segments), is_cut)
    return whole_characters(_joined(segments, is_cut))


def with_thought(thought: str, text: str, is_cut: bool = False) -> str:
    """A text with a thought that was given apart from it; both, one behind the other, where the text has another one.

    Args:
        thought: without marks.
        text: the answer, which may repeat the thought between its marks.
        is_cut: the answer was cut off: a thought without content has no end.
    """
    thought, text = whole_characters(thought).strip(), whole_characters(text)
    own = split_reasoning(text)
    if own.state != "none" and own.reasoning == thought:
        return text
    if is_cut and not text.strip():
        return f"{THINK_OPEN}\n{thought}"
    return join_reasoning(thought, own.content if own.state == "closed" and not own.reasoning else text.strip())


def chat_of(value: Any) -> list[Message] | None:
    """Chat messages of any usual form, as {role, content}; `None` where it is no chat.

    Raises:
        ChatError: a message of it cannot be read.
    """
    if not isinstance(value, list) or not value or not all(_is_message(message) for message in value):
        return None
    messages = []
    for number, message in enumerate(value, start=1):
        role = message.get("role") or message.get("from")
        role = _ROLES.get(role.casefold(), role.casefold())
        try:
            messages.append({"role": whole_characters(role), "content": _content_of(message, role == "assistant")})
        except ChatError as error:
            raise ChatError(f"message {number} ({role}) {error}") from None
    return messages


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role") or value.get("from"), str)


def _content_of(message: Mapping[str, Any], is_answer: bool) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        raise ChatError("calls a tool, which distill does not train on")
    text = text_of(message)
    keys = [key for key in ("content", "value", "parts", "text") if key in message]
    if not text and not any(isinstance(message[key], str | list) for key in keys):
        also = " and no thought" if is_answer else ""
        raise ChatError(f"has {keys[0]}: null{also}" if keys else "has no content")
    return text


def _thought(value: Any) -> str:
    """The text of a thought that stands beside the content."""
    try:
        return "\n\n".join(text.strip() for _, text in _segments(value, True)).strip()
    except ChatError:
        return ""


def _segments(value: Any, is_thought: bool) -> Iterator[_Segment]:
    """A content's pieces, in order.

    Raises:
        ChatError: a part that is no text.
    """
    if value is None:
        return
    if isinstance(value, str):
        if value:
            yield is_thought, value
    elif isinstance(value, list):
        for part in value:
            yield from _segments(part, is_thought)
    elif isinstance(value, dict):
        yield from _part(value, is_thought)
    else:
        raise ChatError(f"holds a {type(value).__name__} where text is expected")


def _part(part: Mapping[str, Any], is_thought: bool) -> Iterator[_Segment]:
    kind = part.get("type")
    if kind in _HIDDEN_TYPES:
        return
    if "parts" in part and kind is None:  # Google
        yield from _segments(part["parts"], is_thought)
        return
    inner = part.get("reasoningContent")
    if isinstance(inner, dict):  # Bedrock
        yield from _segments(inner.get("reasoningText"), True)
        return
    if kind is not None and kind not in (*_TEXT_TYPES, *_THOUGHT_TYPES):
        raise ChatError(f"holds a part of type {kind!r}, which is no text")
    is_thought = is_thought or kind in _THOUGHT_TYPES or part.get("thought") is True
    key = next((key for key in _TEXT_KEYS if part.get(key) is not None), None)
    if key is None and kind is None and not any(name in part for name in _TEXT_KEYS):
        raise ChatError(f"holds a part without text ({', '.join(map(str, part))})")
    if key is not None:
        yield from _segments(part[key], is_thought or key in ("thinking", "reasoning"))


def _merged(segments: Iterator[_Segment]) -> Iterator[_Segment]:
    """Neighbours of a kind in one: thoughts as paragraphs, texts end to end."""
    for is_thought, group in groupby(segments, key=itemgetter(0)):
        texts = [text for _, text in group]
        merged = "\n\n".join(text.strip() for text in texts).strip() if is_thought else "".join(texts)
        if merged.strip():
            yield is_thought, merged


def _joined(segments: list[_Segment], is_cut: bool) -> str:
    """One text. A thought that comes after the answer has begun has marks of its own there."""
    if len(segments) == 1 and not segments[0][0]:
        return segments[0][1]
    parts = []
    for place, (is_thought, text) in enumerate(segments):
        if not is_thought:
            parts.append(text.strip())
        elif is_cut and place == len(segments) - 1:
            parts.append(f"{THINK_OPEN}\n{text}")
        else:
            parts.append(join_reasoning(text, "").rstrip())
    return "\n\n".join(parts)

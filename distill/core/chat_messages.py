"""Convert messages of chat APIs and chat data sets to plain text.

A message holds text or parts, and its thought in one of several places. In the resulting text, the thought is between
`<think>` and `</think>`:

    {"role": "assistant", "content": [{"type": "thinking", "thinking": "2 + 2 = 4"}, {"type": "text", "text": "4"}]}
    {"role": "assistant", "reasoning_content": "2 + 2 = 4", "content": "4"}

both become `"<think>\\n2 + 2 = 4\\n</think>\\n\\n4"`.
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
"""Keys for a thought stored beside the content (vLLM, OpenRouter; DeepSeek; Ollama; LiteLLM; Bedrock)."""
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
"""Types of thoughts that are redacted or encrypted and cannot be read."""
_TEXT_KEYS = ("text", "thinking", "reasoning", "reasoningText", "reasoning_text", "summary", "content", "refusal")

_Segment = tuple[bool, str]
"""(is_thought, text)."""


class ChatError(ValueError):
    """A message that cannot be read. The text completes a sentence: `holds a part of type 'image_url'`."""


def text_of(message: Mapping[str, Any], is_cut: bool = False) -> str:
    """Return a message's text, including its thought.

    Args:
        message: `{"content": …}`, `{"value": …}` or `{"parts": …}`.
        is_cut: whether the answer was cut off. A thought without content is then left unclosed.

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
    """Return a text combined with a thought that was stored separately, keeping any other thought in the text.

    Args:
        thought: without marks.
        text: the answer, which may repeat the thought between its marks.
        is_cut: as for `text_of`.
    """
    thought, text = whole_characters(thought).strip(), whole_characters(text)
    own = split_reasoning(text)
    if own.state != "none" and own.reasoning == thought:
        return text
    if is_cut and not text.strip():
        return f"{THINK_OPEN}\n{thought}"
    return join_reasoning(thought, own.content if own.state == "closed" and not own.reasoning else text.strip())


def chat_of(value: Any) -> list[Message] | None:
    """Return a chat in any common format as {role, content} messages, or `None` if the value is not a chat.

    Raises:
        ChatError: one of its messages cannot be read.
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
    """Return the text of a thought stored beside the content; empty if it cannot be read."""
    try:
        return "\n\n".join(text.strip() for _, text in _segments(value, True)).strip()
    except ChatError:
        return ""


def _segments(value: Any, is_thought: bool) -> Iterator[_Segment]:
    """Yield the segments of a content, in order.

    Raises:
        ChatError: a part is not text.
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
        raise ChatError(f"holds a part of type {kind!r}, which is not text")
    is_thought = is_thought or kind in _THOUGHT_TYPES or part.get("thought") is True
    key = next((key for key in _TEXT_KEYS if part.get(key) is not None), None)
    if key is None and kind is None and not any(name in part for name in _TEXT_KEYS):
        raise ChatError(f"holds a part without text ({', '.join(map(str, part))})")
    if key is not None:
        yield from _segments(part[key], is_thought or key in ("thinking", "reasoning"))


def _merged(segments: Iterator[_Segment]) -> Iterator[_Segment]:
    """Merge neighbouring segments of the same kind: thoughts as paragraphs, texts end to end."""
    for is_thought, group in groupby(segments, key=itemgetter(0)):
        texts = [text for _, text in group]
        merged = "\n\n".join(text.strip() for text in texts).strip() if is_thought else "".join(texts)
        if merged.strip():
            yield is_thought, merged


def _joined(segments: list[_Segment], is_cut: bool) -> str:
    """Join segments into one text. Each thought gets its own marks, even after the start of the answer."""
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

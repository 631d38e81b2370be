"""Render chat templates in a confined process with limits: they are programs that come from models and recipes.

The texts are those of the tokenizer's `apply_chat_template`:

    render_all(tokenizer, [[{"role": "user", "content": "2 + 2?"}]], add_generation_prompt=True)
    -> ["<|im_start|>user\\n2 + 2?<|im_end|>\\n<|im_start|>assistant\\n"]

One confined process (`distill.isolation`) renders many conversations at a time, so that a row costs little more than
without confinement (`benchmarks/training_rows.py`).
"""

import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from distill.core.records import Message
from distill.errors import ModelError
from distill.isolation import CrashError, FunctionError, IsolationError, MemoryLimitError, TimeLimitError
from distill.isolation.kept_worker import KeptWorker

PRELOAD = ("transformers.utils.chat_template_utils",)
TIMEOUT_S = 10.0
"""Time limit for a conversation or a batch, in seconds. Rendering takes milliseconds."""
MEMORY_GIB = 1.0
"""Address space for rendering, in GiB. A conversation of 8 MB takes 0.05 of it."""
BATCH_CONVERSATIONS = 64
BATCH_CHARS = 2 << 20
MAX_TEXT_CHARS = 32 << 20
"""Limit for a batch's texts together."""
MAX_GROWTH, FREE_CHARS = 8, 1 << 20
"""Limit for a conversation's text: its messages' length times this, plus `FREE_CHARS`. Tokenising 30 million characters
takes minutes."""
MAX_SAID_CHARS = 200
DATES = ("2001-02-03T04:05:06", "2032-11-29T22:33:44")
"""A template that writes today's date gives different texts for these two."""

Conversation = Sequence[Message]


class TemplateError(ModelError):
    """A chat template that cannot render a conversation.

    Args:
        why: a short reason, the template's own if it gives one.
        index: position of the conversation among those given.
    """

    def __init__(self, why: str, index: int = 0) -> None:
        super().__init__(f"the chat template cannot render the messages ({why})")
        self.why, self.index = why, index


def render_all(
    tokenizer: Any, conversations: Sequence[Conversation], add_generation_prompt: bool, today: str | None = None
) -> list[str]:
    """Render conversations with the tokenizer's chat template.

    Args:
        tokenizer: from transformers.
        conversations: chat messages.
        add_generation_prompt: whether each text ends where the assistant is to speak.
        today: ISO date and time for the template. Default: the current time.

    Raises:
        TemplateError: the template raises, or takes too much time or memory.
    """
    told = {
        "template": tokenizer.get_chat_template(),
        "variables": dict(tokenizer.special_tokens_map),
        "add_generation_prompt": add_generation_prompt,
        "today": today,
    }
    texts: list[str] = []
    for batch in _batches(conversations):
        try:
            texts += _rendered(told, batch)
        except TemplateError as error:
            error.index += len(texts)
            raise
    return texts


def lost_message(tokenizer: Any, roles: Sequence[str], add_generation_prompt: bool) -> int | None:
    """Find a message that the chat template drops or alters, by rendering a marked conversation with these roles.

    Returns:
        Its position among the roles; `None` if all are rendered unchanged.

    Raises:
        TemplateError: as `render_all`.
    """
    (text,) = render_all(tokenizer, [_marked(roles)], add_generation_prompt)
    return next((place for place, message in enumerate(_marked(roles)) if message["content"] not in text), None)


def writes_date(tokenizer: Any, roles: Sequence[str]) -> bool:
    """Return whether the chat template writes today's date into a conversation with these roles.

    Raises:
        TemplateError: as `render_all`.
    """
    if "strftime" not in tokenizer.get_chat_template():
        return False
    first, second = (render_all(tokenizer, [_marked(roles)], False, today) for today in DATES)
    return first != second


def _marked(roles: Sequence[str]) -> list[Message]:
    """Return a conversation of unique messages with characters that Jinja filters would alter."""
    return [{"role": role, "content": f"Mark {place}: “É” <b> & 'q' {place}"} for place, role in enumerate(roles)]


def _batches(conversations: Sequence[Conversation]) -> Iterator[list[Conversation]]:
    batch: list[Conversation] = []
    num_chars = 0
    for conversation in conversations:
        size = sum(len(message["content"]) for message in conversation)
        if batch and (len(batch) == BATCH_CONVERSATIONS or num_chars + size > BATCH_CHARS):
            yield batch
            batch, num_chars = [], 0
        batch.append(conversation)
        num_chars += size
    if batch:
        yield batch


def _rendered(told: dict[str, Any], batch: list[Conversation]) -> list[str]:
    """Render a batch. If it breaks a limit, find the conversation that does by rendering them one by one."""
    try:
        return _render(told, batch, TIMEOUT_S)
    except (TimeLimitError, MemoryLimitError, CrashError) as error:
        if len(batch) == 1:
            raise TemplateError(_limit_in_words(error)) from None
    deadline = time.monotonic() + TIMEOUT_S
    texts: list[str] = []
    for place, conversation in enumerate(batch):
        try:
            texts += _render(told, [conversation], max(0.1, deadline - time.monotonic()))
        except (TimeLimitError, MemoryLimitError, CrashError) as error:
            raise TemplateError(_limit_in_words(error), place) from None
    return texts


def _render(told: dict[str, Any], batch: list[Conversation], timeout_s: float) -> list[str]:
    try:
        found = _worker.call(render_confined, {**told, "conversations": batch}, timeout_s)
    except FunctionError as error:
        raise TemplateError(_words(error.name, error.said)) from None
    if isinstance(found, dict) and isinstance(found.get("failed"), int):
        raise TemplateError(_words(str(found.get("name")), str(found.get("said"))), found["failed"])
    if not isinstance(found, list) or len(found) != len(batch) or not all(isinstance(text, str) for text in found):
        raise TemplateError("the process that renders it did not return texts")
    return found


def _words(name: str, said: str) -> str:
    """Return the template's own message (`raise_exception`), or what is wrong with it."""
    said = " ".join(said.split())[:MAX_SAID_CHARS]
    return said if name in ("", "TemplateError") and said else f"{name}: {said}" if said else name


def _limit_in_words(error: IsolationError) -> str:
    return {
        TimeLimitError: f"it takes longer than {TIMEOUT_S:g} s",
        MemoryLimitError: f"it takes more than {MEMORY_GIB:g} GiB of memory",
    }.get(type(error), "the process that renders it ended")


def render_confined(told: dict[str, Any]) -> Any:
    """Render a batch. Runs in the confined process.

    Returns:
        The texts, or `{"failed": position, "name": class of the exception, "said": its message}`.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    variables = dict(told["variables"])
    if told["today"] is not None:
        # A variable passed to the template shadows the environment's function of that name.
        variables["strftime_now"] = datetime.fromisoformat(told["today"]).strftime
    texts = []
    for place, conversation in enumerate(told["conversations"]):
        try:
            rendered, _ = render_jinja_template(
                conversations=[list(conversation)],
                chat_template=told["template"],
                add_generation_prompt=told["add_generation_prompt"],
                **variables,
            )
        except MemoryError:
            raise
        except Exception as error:  # a template can raise any exception
            return {"failed": place, "name": type(error).__name__, "said": str(error)}
        texts += rendered
        most = FREE_CHARS + MAX_GROWTH * sum(len(message["content"]) for message in conversation)
        if len(texts[-1]) > most:
            said = f"it writes more than {most:,} characters for these messages"
            return {"failed": place, "name": "", "said": said}
        if sum(map(len, texts)) > MAX_TEXT_CHARS:
            return {"failed": place, "name": "", "said": f"it writes more than {MAX_TEXT_CHARS:,} characters"}
    return texts


_worker = KeptWorker(PRELOAD, MEMORY_GIB)
os.register_at_fork(after_in_child=lambda: _worker.forget())

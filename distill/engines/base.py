"""The interface of all engines, and the checks that they share.

Requests go in with `submit` and completions come out with `step`, so that a finished request is replaced at once and no
batch waits for its slowest member.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distill.core.progress import note
from distill.core.records import FinishReason, Message, SampleKey
from distill.errors import ModelError
from distill.models.chat_templates import TemplateError, lost_message, writes_date
from distill.models.tokenizers import Tokenizer, render_prompt
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute

STEP_S = 0.5
"""Longest time in seconds that `step` waits for a server or other processes if nothing finishes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw. Its seed is derived from its identity, never from its position."""

    key: SampleKey
    messages: list[Message]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """Result of one request; `error` gives the cause if `finish_reason` is `error`."""

    key: SampleKey
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_completion_tokens: int
    think_opened: bool = False
    """The rendered prompt ended in `<think>`, so the text starts inside the reasoning."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything an engine needs to start."""

    model_path: Path
    model_name: str
    sampling: Sampling
    compute: SamplingCompute
    chat_format: str | None
    """Template in `distill/models/templates/` for a model without its own."""
    longest_messages: list[list[Message]]
    """The longest conversations by characters, at least one; they determine the required context."""
    loops: LoopStop | None = None
    """When to stop a sample that only repeats itself; `None`: never."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Additional fields for each request to a server."""
    memory_share: float = 1.0
    """Share of the free memory that this engine may use: engines that start together see the same free memory."""


class Engine(Protocol):
    """Interface that sampling needs from an engine."""

    settings: dict[str, Any]
    """Settings in effect (name, version, batch, threads, …), for the manifest."""
    max_in_flight: int
    """Submitting more requests than this at once has no benefit."""

    @property
    def num_in_flight(self) -> int:
        """Return the number of requests submitted and not yet returned by `step`."""

    @property
    def num_tokens_in_flight(self) -> int | None:
        """Return their completion tokens so far, or `None` if unknown. Inspects each one: not for every step."""

    def submit(self, request: Request) -> Completion | None:
        """Queue a request. One that can never be answered is returned at once as an `error` completion."""

    def step(self) -> list[Completion]:
        """Work briefly, at most `STEP_S` if nothing finishes; return the finished requests."""

    def close(self) -> None:
        """Release memory and end the engine's processes."""


def refuse_long_prompt(request: Request, num_prompt_tokens: int, context: int) -> Completion:
    """Return the completion for a prompt that leaves no room in the context."""
    why = f"the prompt has {num_prompt_tokens} tokens; the context has {context}"
    return Completion(request.key, "", "error", num_prompt_tokens, 0, error=why)


def refuse_prompt(request: Request, error: TemplateError) -> Completion:
    """Return the completion for a prompt that the chat template cannot render."""
    return Completion(request.key, "", "error", 0, 0, error=str(error))


def check_room(spec: EngineSpec, context: int) -> None:
    """Check that `max_tokens` leaves room for a prompt.

    Raises:
        ModelError: `max_tokens` fills the whole context.
    """
    if spec.sampling.max_tokens >= context:
        raise ModelError(
            f"sampling.max_tokens ({spec.sampling.max_tokens}) leaves no room for a prompt in the context of "
            f"{spec.model_name} ({context} tokens). Lower sampling.max_tokens."
        )


def check_template(tokenizer: Tokenizer, spec: EngineSpec) -> None:
    """Check that the chat template renders everything that the teacher should see.

    Raises:
        ModelError: it fails on the messages, drops or alters one, or leaves out part of its thinking.
    """
    messages = spec.longest_messages[0]
    roles = [message["role"] for message in messages]
    try:
        text = render_prompt(tokenizer, messages)
        lost, is_dated = lost_message(tokenizer, roles, True), writes_date(tokenizer, roles)
    except TemplateError as error:
        raise ModelError(
            f"{spec.model_name}: its chat template cannot render the messages ({', '.join(dict.fromkeys(roles))}): "
            f"{error.why}. Leave out generate.system or generate.examples, or use another teacher."
        ) from None
    if is_dated:
        note(
            f"{spec.model_name}: its chat template writes today's date into each prompt, so runs on different days "
            "use different prompts."
        )
    if lost is not None:
        raise ModelError(
            f"{spec.model_name}: its chat template drops or alters the {roles[lost]} message (message {lost + 1} of "
            f"{len(roles)}), so that the teacher would not see it as it is. Leave out generate.system or "
            "generate.examples, or use another teacher."
        )
    for message in messages:
        for part in filter(None, (part.strip() for part in re.split(r"</?think>", message["content"]))):
            if part not in text:
                raise ModelError(
                    f"{spec.model_name}: its chat template leaves out part of the {message['role']} message: "
                    f"{part[:80]!r}. The teacher would not see it. Templates of reasoning models drop the thinking of "
                    "earlier turns: leave out the reasoning of generate.examples then; otherwise use another teacher."
                )

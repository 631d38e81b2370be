"""What every engine takes, gives and refuses.

An engine is fed with `submit` and drained with `step`, so that a finished request is replaced at once and no batch
waits for its slowest member. Tests use a fake one with the same methods.
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
"""An engine that only waits (for a server, for other processes) returns from `step` after so long, in seconds."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw. Its seed follows from its identity, never from its position."""

    key: SampleKey
    messages: list[Message]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine made of one request; `error` says why where `finish_reason` is `error`."""

    key: SampleKey
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_completion_tokens: int
    think_opened: bool = False
    """The rendered prompt ended in `<think>`, so the text starts inside the thought."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything an engine needs to start."""

    model_path: Path
    model_name: str
    sampling: Sampling
    compute: SamplingCompute
    chat_format: str | None
    """Template in `distill/models/templates/` for a model that has none of its own."""
    longest_messages: list[list[Message]]
    """The longest conversations by characters, at least one: they decide how much context is set up."""
    loops: LoopStop | None = None
    """When to stop a sample that only repeats itself; `None`: never."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields for each request to a server."""
    memory_share: float = 1.0
    """Share of the machine's free memory that this engine may count on: engines that start at once see the same."""


class Engine(Protocol):
    """What sampling needs from an engine."""

    settings: dict[str, Any]
    """What was picked (name, version, batch, threads, …), for the manifest."""
    max_in_flight: int
    """More requests than this are not worth submitting at once."""

    @property
    def num_in_flight(self) -> int:
        """Requests submitted and not yet returned by `step`."""

    @property
    def num_tokens_in_flight(self) -> int | None:
        """Completion tokens that those have so far, `None` where it cannot tell. A look at each: not for every step."""

    def submit(self, request: Request) -> Completion | None:
        """Queue a request. One that can never be answered comes back at once as an `error` completion."""

    def step(self) -> list[Completion]:
        """Work for a moment, at most `STEP_S` where nothing finishes; the requests that finished."""

    def close(self) -> None:
        """Give back memory and end processes of its own."""


def refuse_long_prompt(request: Request, num_prompt_tokens: int, context: int) -> Completion:
    """The answer to a prompt that leaves no token of the context for a completion."""
    why = f"the prompt has {num_prompt_tokens} tokens; the context has {context}"
    return Completion(request.key, "", "error", num_prompt_tokens, 0, error=why)


def refuse_prompt(request: Request, error: TemplateError) -> Completion:
    """The answer to a prompt that the chat template cannot render."""
    return Completion(request.key, "", "error", 0, 0, error=str(error))


def check_room(spec: EngineSpec, context: int) -> None:
    """Refuse completions so long that no prompt fits before them.

    Raises:
        ModelError: `max_tokens` fills the whole context.
    """
    if spec.sampling.max_tokens >= context:
        raise ModelError(
            f"sampling.max_tokens ({spec.sampling.max_tokens}) leaves no room for a prompt in the context of "
            f"{spec.model_name} ({context} tokens). Lower sampling.max_tokens."
        )


def check_template(tokenizer: Tokenizer, spec: EngineSpec) -> None:
    """Refuse a chat template that leaves out part of what the teacher is to be shown.

    Raises:
        ModelError: it fails on these messages, or renders them without one of them or without the thinking in it.
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
            f"{spec.model_name}: its chat template writes today's date into each prompt, so that a run on another day "
            "asks something else."
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

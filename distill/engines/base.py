"""The interface of all engines, and the checks that they share.

Requests go in with `submit` and completions come out with `step`, so that a finished request is replaced at once and no
batch waits for its slowest member.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from distill.core.progress import note
from distill.core.records import FinishReason, Message, SampleKey
from distill.core.thinking import opens_thinking
from distill.errors import ModelError
from distill.models.chat_templates import TemplateError, lost_message, writes_date
from distill.models.tokenizers import Tokenizer, encode, render_prompt
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute

STEP_S = 0.5
"""Longest time in seconds that `step` waits for a server or other processes if nothing finishes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw. Its seed is derived from its identity, never from its position."""

    key: SampleKey
    messages: list[Message]
    seed: int
    sampling: Sampling | None = None
    """How this sample is drawn; `None`: as the engine's spec says."""
    prompt_ids: tuple[int, ...] | None = None
    """The prompt's tokens, which replace `messages`: a trainer needs exactly those that it trains on."""


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
    is_refusal: bool = False
    """The server answered, but declined to complete this request (a content filter, …)."""
    token_ids: tuple[int, ...] = ()
    """The completion's tokens, including the stop token; empty unless `EngineSpec.logprobs`."""
    logprobs: tuple[float, ...] = ()
    """Natural log of each token's probability; empty unless `EngineSpec.logprobs`, and for a greedy draw."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything an engine needs to start."""

    model_path: Path
    model_name: str
    sampling: Sampling
    """How requests without a sampling of their own are drawn. Its `max_tokens` is the largest of all requests."""
    compute: SamplingCompute
    chat_format: str | None
    """Template in `distill/models/templates/` for a model without its own."""
    longest_messages: list[list[Message]]
    """The longest conversations by characters, at least one; they determine the required context."""
    loops: LoopStop | None = None
    """When to stop a sample that only repeats itself; `None`: never."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Additional fields for each request to a server."""
    logprobs: bool = False
    """Return each completion's tokens, with their log-probabilities under softmax(logits / temperature) over the whole
    vocabulary: top-p and top-k limit the draw, not these. TRL's GRPO computes the same (1.16,
    `GRPOTrainer._get_per_token_logps_and_entropies`)."""
    updates: bool = False
    """Allow `update_weights`. On a CPU, vLLM then keeps the weights as they are beside those packed for its kernels."""
    sleeps: bool = False
    """On a GPU, allow `sleep`: training and sampling take turns with the same memory (vllm)."""
    memory_share: float = 1.0
    """Share of the free memory that this engine may use: engines that start together see the same free memory."""


Weights = Iterable[tuple[str, Any]]
"""A model's weights: pairs of a weight's name in the model's files and its tensor."""


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


class PolicyEngine(Engine, Protocol):
    """Interface of an engine that samples a policy in training: vLLM's and transformers'."""

    def update_weights(self, weights: Weights) -> None:
        """Sample with new weights from now on, in full: nothing that was computed with the old ones is used again.

        Args:
            weights: all weights of the model, floating point on any device; a tied head may be left out.
                `distill.engines.weights.policy_weights` gives those of a module in training.

        Raises:
            ModelError: a weight is missing. The engine can only be closed then.
            ValueError: requests are in flight, which would go on half with old and half with new weights, or the engine
                was not started with `EngineSpec.updates`.
        """

    def sleep(self, level: Literal[1, 2] = 1) -> None:
        """Give a GPU's memory back until `wake`. On a CPU nothing happens.

        Args:
            level: 1 keeps the weights in the computer's memory; 2 drops them, and `update_weights` has to bring new
                ones after `wake`.

        Raises:
            ValueError: requests are in flight, or the engine was not started with `EngineSpec.sleeps`.
        """

    def wake(self) -> None:
        """Take the memory again that `sleep` gave back."""


def read_prompt(tokenizer: Tokenizer, request: Request) -> tuple[list[int], bool]:
    """Return the tokens of a request's prompt, and whether it ends in `<think>`.

    Raises:
        TemplateError: the chat template cannot render its messages.
    """
    if request.prompt_ids is not None:
        ids = list(request.prompt_ids)
        return ids, opens_thinking(tokenizer.decode(ids))
    text = render_prompt(tokenizer, request.messages)
    return encode(tokenizer, text), opens_thinking(text)


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


def check_update(updates: bool, num_in_flight: int) -> None:
    """Check that an engine's weights may be updated now.

    Raises:
        ValueError: they may not.
    """
    if not updates:
        raise ValueError("the engine was started without EngineSpec.updates")
    if num_in_flight:
        raise ValueError(f"{num_in_flight} requests are in flight: step until they have finished")


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

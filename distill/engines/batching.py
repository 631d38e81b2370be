"""What passes between the transformers engine and its ways of batching."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distill.engines.base import Request


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request in flight."""

    request: Request
    ids: list[int]
    """The prompt's tokens."""
    room: int
    """Most tokens that its completion may have."""
    think_opened: bool


@dataclass(frozen=True, slots=True)
class RowResult:
    """Result of a request: its tokens, including the stop token; `error` gives the cause if it failed."""

    asked: PendingRequest
    ids: list[int]
    looped: bool = False
    error: str = ""
    logprobs: Sequence[float] = ()
    """Natural logs of the tokens' probabilities; empty if the batcher has none."""


class Batcher(Protocol):
    """Interface that turns prompts into tokens."""

    max_in_flight: int

    @property
    def num_tokens(self) -> int:
        """Return the tokens drawn so far for unfinished requests."""

    def add(self, asked: PendingRequest) -> None:
        """Queue a request."""

    def draw_by(self, config: Any) -> None:
        """Draw by another `GenerationConfig` from now on. Call it only while nothing is queued or unfinished."""

    def step(self) -> list[RowResult]:
        """Work on queued requests, at most `STEP_S` if nothing finishes; return the finished ones."""

    def close(self) -> None:
        """End the batcher's threads."""

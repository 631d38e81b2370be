"""Choose the rotary base (theta) for rows longer than a base model's context.

A `RopePatch` is applied to a transformers configuration and saved with the student, where transformers and vLLM find
it:

    {"rope_parameters": {"rope_type": "default", "rope_theta": 300000.0}, "max_position_embeddings": 32768}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import ModelError
from distill.models.students import Student

DEFAULT = "default"
"""The `rope_type` of rotary embeddings that are not scaled."""


@dataclass(frozen=True, slots=True)
class RopePatch:
    """A replacement for a model's own rotary embedding."""

    theta: float
    """Base of the rotary embedding: the larger, the slower it turns, and the further positions can be told apart."""
    context: int
    """The new longest sequence, in tokens."""


@dataclass(frozen=True, slots=True)
class Rope:
    """A model's own rotary embedding."""

    context: int | None
    """Longest sequence, in tokens; `None` if the configuration does not say."""
    theta: float | None
    kind: str
    """Its `rope_type`: `default`, or how it is scaled (`llama3`, `yarn`, …); `mixed` if it differs between layers."""


def rope_of(config: Mapping[str, Any]) -> Rope:
    """Return the rotary embedding in a `config.json`, as transformers 5 (`rope_parameters`) or 4 writes it."""
    text = config.get("text_config") or config
    parameters: Mapping[str, Any] = text.get("rope_parameters") or text.get("rope_scaling") or {}
    by_layer = [value for value in parameters.values() if isinstance(value, Mapping)]
    kind = "mixed" if by_layer else str(parameters.get("rope_type") or parameters.get("type") or DEFAULT)
    theta = parameters.get("rope_theta", text.get("rope_theta"))
    return Rope(text.get("max_position_embeddings"), theta, kind)


def rope_patch(
    max_length: int, config: Mapping[str, Any], student: Student, theta: float | None = None
) -> RopePatch | None:
    """Return the patch for rows of up to `max_length` tokens; `None` if none is needed.

    Args:
        max_length: `sft.max_length`, in tokens.
        config: the model's `config.json`.
        student: its row in the student table.
        theta: `sft.rope_theta`, which is applied even if the rows do not need it.

    Raises:
        ModelError: the rows exceed the model's context and no theta is known; or its rotary embedding is scaled, and
            the table's theta is not applied automatically.
    """
    rope = rope_of(config)
    reaches = rope.context is None or max_length <= rope.context
    if theta is not None:
        return _asked_for(max_length, rope, student, theta)
    if reaches or rope.context is None:
        return None
    too_long = (
        f"sft.max_length ({max_length}) exceeds the context of {student.alias} ({rope.context} tokens). Lower "
        f"sft.max_length to {{}} or less, or set sft.rope_theta to train it on longer rows"
    )
    if student.rope_theta is None or student.long_context is None:
        raise ModelError(f"{too_long.format(rope.context)}{_own_theta(rope)}.")
    if rope.kind != DEFAULT:
        raise ModelError(
            f"{too_long.format(rope.context)}: its rotary embedding is scaled already ({rope.kind}), so the table's "
            f"theta ({student.rope_theta:,.0f}) is not applied automatically."
        )
    if max_length > student.long_context:
        raise ModelError(
            f"{too_long.format(student.long_context)}: the table's theta ({student.rope_theta:,.0f}) is for rows of "
            f"up to {student.long_context} tokens."
        )
    return RopePatch(student.rope_theta, student.long_context)


def _asked_for(max_length: int, rope: Rope, student: Student, theta: float) -> RopePatch | None:
    if rope.kind == "mixed" or (rope.theta is None and rope.context is None):
        raise ModelError(
            f"sft.rope_theta: {student.alias} does not use one rotary embedding for all layers, so theta cannot be "
            "set. Leave sft.rope_theta out."
        )
    context = max(max_length, rope.context or max_length)
    if theta == rope.theta and context == rope.context:
        return None
    return RopePatch(theta, context)


def _own_theta(rope: Rope) -> str:
    return f" (its own is {rope.theta:,.0f})" if rope.theta else ""


def apply_rope(config: Any, patch: RopePatch) -> None:
    """Apply a patch to a transformers configuration before the model is created. Its scaling (`rope_type`) is kept.

    Args:
        config: a `PretrainedConfig`, which is modified.
        patch: from `rope_patch`.
    """
    text = config.get_text_config()
    text.rope_parameters = {**text.rope_parameters, "rope_theta": patch.theta}
    text.max_position_embeddings = patch.context

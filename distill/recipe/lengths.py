"""Default lengths, in tokens, derived from the lengths that a recipe sets and from the student's context.

Example:

    {"student": "smollm2-135m", "traces": [...]}  ->  sft.max_length 8192, filter.max_tokens 7168

The numbers become part of the recipe, so that fingerprints and locks contain them.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from distill.errors import ModelError
from distill.models.students import Student, find_student, known_student

ROW_TOKENS = 16_384
"""Default of `sft.max_length` and `generate.sampling.max_tokens`, if the context allows it."""
ANSWER_TOKENS = 32_768
"""Default of `eval.sampling.max_tokens`, if the context allows it."""
PROMPT_TOKENS = 1_024
"""Tokens reserved for a prompt; a quarter of the limit if that is less."""


def with_lengths(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recipe's keys and values with missing lengths filled in.

    Args:
        tree: as in a file, not validated yet; not modified. Malformed parts are left for the validation to report.
    """
    student = _student(tree.get("student"))
    sft, eval_, generate, filter_ = (_section(tree.get(key, {})) for key in ("sft", "eval", "generate", "filter"))
    if student is None or sft is None or filter_ is None:
        return tree
    if "max_length" not in sft:
        longest = None if sft.get("rope_theta") is not None else student.longest_context
        sft["max_length"] = min(ROW_TOKENS, longest or ROW_TOKENS)
    row = _number(sft["max_length"])
    if row is None:
        return tree
    found = {**tree, "sft": sft}
    if tree.get("traces") and "max_tokens" not in filter_:
        found["filter"] = {**filter_, "max_tokens": without_prompt(row)}
    if tree.get("generate") is not None and generate is not None:
        kept = _number(filter_.get("max_tokens"))
        found["generate"] = _with_max_tokens(generate, _teacher_tokens(generate, None if kept else row))
    has_rows = tree.get("generate") is not None or bool(tree.get("traces") or tree.get("rounds"))
    # Reinforcement learning alone changes no context.
    reach = reach_of(student, row, sft.get("rope_theta") is not None) if has_rows else student.context
    if tree.get("eval") is not None and eval_ is not None:
        reaches = [reach] if has_rows or tree.get("rl") is not None else []
        reaches += [one.context for one in map(_student, _models(eval_)) if one is not None]
        least = min((reach for reach in reaches if reach is not None), default=None)
        fits = least is None or least > ANSWER_TOKENS
        found["eval"] = _with_max_tokens(eval_, ANSWER_TOKENS if fits or least is None else without_prompt(least))
    return found


def _models(section: Mapping[str, Any]) -> list[Any]:
    models = section.get("models")
    return models if isinstance(models, list) else []


def without_prompt(num_tokens: int) -> int:
    """Return the tokens that a prompt leaves of a row or a context."""
    return max(1, num_tokens - min(PROMPT_TOKENS, num_tokens // 4))


def reach_of(student: Student, row: int, has_theta: bool) -> int | None:
    """Return the longest sequence that the trained student handles, in tokens, or `None` if unknown.

    Args:
        student: entry of the student table.
        row: `sft.max_length`, in tokens.
        has_theta: whether the recipe sets `sft.rope_theta`.
    """
    if student.context is None or student.longest_context is None:
        return None
    if has_theta:
        return max(row, student.context)
    if student.context < row <= student.longest_context:
        return max(row, student.longest_context)
    return student.context


def _student(name: Any) -> Student | None:
    try:
        return find_student(name) if isinstance(name, str) else None
    except (ModelError, ValueError, OSError):
        return None


def _section(value: Any) -> dict[str, Any] | None:
    """Return the keys that are set in a section, or `None` if it is malformed or null."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    return dict(value) if isinstance(value, Mapping) else None


def _number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _teacher_tokens(generate: Mapping[str, Any], row: int | None) -> int:
    """Return the teacher's longest completion, limited by `row` if nothing else keeps longer traces out of training."""
    most = ROW_TOKENS if row is None or row >= ROW_TOKENS else without_prompt(row)
    teacher = generate.get("teacher")
    known = known_student(teacher) if isinstance(teacher, str) else None
    if known is not None and known.context is not None and known.context <= most:
        most = min(most, without_prompt(known.context))
    return most


def _with_max_tokens(section: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    sampling = _section(section.get("sampling", {}))
    if sampling is None or "max_tokens" in sampling:
        return section
    return {**section, "sampling": {**sampling, "max_tokens": max_tokens}}

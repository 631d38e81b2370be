"""Lengths that a recipe leaves out, taken from those that it gives and from the student's context.

Enters: the keys and values of a recipe. Leaves: the same with the missing lengths filled in, all in tokens:

    {"student": "smollm2-135m", "traces": [...]}  ->  sft.max_length 8192, filter.max_tokens 7168

The resolved numbers are part of the recipe from then on, so that fingerprints and locks hold them.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from distill.errors import ModelError
from distill.models.students import STUDENTS, Student, find_student

ROW_TOKENS = 16_384
"""`sft.max_length` and `generate.sampling.max_tokens`, where the context allows it."""
ANSWER_TOKENS = 32_768
"""`eval.sampling.max_tokens`, where the context allows it."""
PROMPT_TOKENS = 1_024
"""Room that is left for a prompt; of a short limit a quarter."""


def with_lengths(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe's keys and values with the lengths that it leaves out.

    Args:
        tree: as in a file, not validated yet; stays as it is. What is malformed is left for the validation to report.
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
    if tree.get("eval") is not None and eval_ is not None:
        reach = reach_of(student, row, sft.get("rope_theta") is not None)
        fits = reach is None or reach > ANSWER_TOKENS
        found["eval"] = _with_max_tokens(eval_, ANSWER_TOKENS if fits or reach is None else without_prompt(reach))
    return found


def without_prompt(num_tokens: int) -> int:
    """What is left of a row or a context beside a prompt, in tokens."""
    return max(1, num_tokens - min(PROMPT_TOKENS, num_tokens // 4))


def reach_of(student: Student, row: int, has_theta: bool) -> int | None:
    """Tokens of the longest sequence that the trained student handles; `None`: not known.

    Args:
        student: as the table has it.
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
    """A section's keys that are set; `None` where it is malformed or null."""
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
    """The teacher's longest completion; `row` where nothing else keeps longer traces out of training."""
    most = ROW_TOKENS if row is None or row >= ROW_TOKENS else without_prompt(row)
    teacher = generate.get("teacher")
    known = STUDENTS.get(teacher) if isinstance(teacher, str) else None
    known = known or next((one for one in STUDENTS.values() if one.hub_id == teacher), None)
    if known is not None and known.context is not None and known.context <= most:
        most = min(most, without_prompt(known.context))
    return most


def _with_max_tokens(section: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    sampling = _section(section.get("sampling", {}))
    if sampling is None or "max_tokens" in sampling:
        return section
    return {**section, "sampling": {**sampling, "max_tokens": max_tokens}}

"""Check that the JSON files of a run, above all the manifests, have the shape that their readers rely on.

A key whose name here ends in `?` may be missing. Keys that are not named here may hold anything.
"""

import math
from collections.abc import Mapping
from typing import Any

Shape = Any
"""A kind of value (`TEXT`, …), a tuple of alternative shapes, a list with the shape of its items, or a dict of shapes
by key, where `*` stands for every other key."""

TEXT, COUNT, NUMBER, FLAG, NOTHING, OBJECT, ANY = (
    "text",
    "whole number",
    "number",
    "true or false",
    "null",
    "object",
    "",
)
MAX_COUNT = 1 << 63

PROBLEM: Shape = {
    "id": TEXT,
    "prompt": [{"role": TEXT, "content": TEXT}],
    "answer": (TEXT, NOTHING),
    "task": TEXT,
    "source": TEXT,
    "metadata?": OBJECT,
    "tests?": {
        "sha256": TEXT,
        "num": COUNT,
        "language?": TEXT,
        "time_s?": NUMBER,
        "memory_mib?": COUNT,
        "entry_point?": TEXT,
        "prompt?": TEXT,
        "checker?": TEXT,
        "cases?": ([OBJECT], NOTHING),
        "file?": TEXT,
    },
}
VERDICT: Shape = {
    "problem_id": TEXT,
    "sample_index": COUNT,
    "correct": (FLAG, NOTHING),
    "extracted_answer": (TEXT, NOTHING),
    "reasons?": [TEXT],
    "graded_by?": TEXT,
    "details?": {"*": TEXT},
    "num_student_tokens?": (COUNT, NOTHING),
}
"""Shapes of the rows of `problems.jsonl` and `verdicts.jsonl`."""

MANIFEST: Shape = {
    "stage": TEXT,
    "fingerprint": TEXT,
    "identity": OBJECT,
    "config?": ANY,
    "outputs": {"*": {"sha256": TEXT, "num_rows?": COUNT, "num_bytes?": COUNT, "files?": {"*": TEXT}}},
    "metrics": OBJECT,
    "versions?": {"*": TEXT},
    "hardware?": OBJECT,
    "git_commit?": (TEXT, NOTHING),
    "seconds": NUMBER,
    "peak_memory_gib": NUMBER,
    "finished_at": TEXT,
    "recipe?": (OBJECT, NOTHING),
    "files?": {"*": TEXT},
}
"""The shape of what all manifests have in common."""


def fault(value: Any, shape: Shape, at: str = "") -> str:
    """Return where and how a value does not match a shape, in words; empty if it matches."""
    if isinstance(shape, tuple):
        faults = [fault(value, one, at) for one in shape]
        return "" if "" in faults else faults[0] if value is not None else faults[-1]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{at} is {_short(value)}, not a list"
        return next(filter(None, (fault(one, shape[0], f"{at}.{i}") for i, one in enumerate(value))), "")
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            return f"{at or 'it'} is {_short(value)}, not an object"
        return _fault_of_keys(value, shape, f"{at}." if at else "")
    return "" if _fits(value, shape) else f"{at} is {_short(value)}, not a {shape}"


def _fault_of_keys(value: Mapping[str, Any], shape: Mapping[str, Shape], start: str) -> str:
    known = {key.removesuffix("?"): one for key, one in shape.items() if key != "*"}
    for key in shape:
        if key != "*" and not key.endswith("?") and key not in value:
            return f"{start}{key} is missing"
    for key, one in value.items():
        inner = known.get(key, shape.get("*", ANY))
        if found := fault(one, inner, f"{start}{key}"):
            return found
    return ""


def _fits(value: Any, kind: str) -> bool:
    if kind == ANY:
        return True
    if kind in (COUNT, NUMBER):
        if isinstance(value, bool) or not isinstance(value, int if kind == COUNT else int | float):
            return False
        return abs(value) < MAX_COUNT if isinstance(value, int) else math.isfinite(value)
    kinds: dict[str, type | tuple[type, ...]] = {TEXT: str, FLAG: bool, NOTHING: type(None), OBJECT: Mapping}
    return isinstance(value, kinds[kind])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"

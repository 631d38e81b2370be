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

_COUNTS = {"*": COUNT}
_YIELD = {"num_problems": COUNT, "num_traces": COUNT, "num_correct": COUNT, "num_kept": COUNT}
_SCORE = {
    "model?": TEXT,
    "num_problems": COUNT,
    "samples_per_problem": COUNT,
    "pass_at_1": NUMBER,
    "interval_95": [NUMBER],
    "truncated_share": NUMBER,
    "num_ungraded?": COUNT,
    "mean_completion_tokens": (NUMBER, NOTHING),
}
_GAIN = {"pass_at_1": NUMBER, "interval_95": [NUMBER], "num_gained": COUNT, "num_lost": COUNT}
_SCORES = {"base": _SCORE, "student": _SCORE, "difference": _GAIN}
_SAMPLES = {
    "num_samples": COUNT,
    "num_problems": COUNT,
    "num_problems_by_source": _COUNTS,
    "finish_reasons": _COUNTS,
    "num_prompt_tokens?": (COUNT, NOTHING),
    "num_completion_tokens?": (COUNT, NOTHING),
}
METRICS: dict[str, Shape] = {
    "generate": {
        **_SAMPLES,
        "teacher": TEXT,
        "teacher_revision?": (TEXT, NOTHING),
        "samples_per_problem?": COUNT,
        "num_examples?": COUNT,
        "num_not_needed?": COUNT,
        "num_damaged_records?": COUNT,
        "num_problems_excluded?": COUNT,
        "tokens_per_second?": (NUMBER, NOTHING),
        "sampling?": OBJECT,
        "cost?": {"amount": NUMBER, "currency": TEXT},
    },
    "import": {**_SAMPLES, "num_skipped": COUNT, "skipped?": _COUNTS},
    "filter": {
        "num_traces": COUNT,
        "num_kept": COUNT,
        "num_problems?": COUNT,
        "num_problems_kept?": COUNT,
        "num_ungraded?": COUNT,
        "num_well_formed?": COUNT,
        "num_kept_tokens?": (COUNT, NOTHING),
        "tokens_counted_by?": (TEXT, NOTHING),
        "correct_share?": (NUMBER, NOTHING),
        "dropped": _COUNTS,
        "reasons?": _COUNTS,
        "graded_by?": _COUNTS,
        "by_source?": {"*": _YIELD},
        "by_pass_rate?": {"*": _YIELD},
    },
    "sft": {
        "student": TEXT,
        "student_revision?": (TEXT, NOTHING),
        "method?": TEXT,
        "num_rows": COUNT,
        "num_steps": COUNT,
        "final_loss": NUMBER,
        "epochs?": NUMBER,
        "batch_size?": COUNT,
        "learning_rate?": NUMBER,
        "num_tokens?": COUNT,
        "num_trained_tokens?": COUNT,
        "tokens_per_second?": (NUMBER, NOTHING),
        "gpu_peak_gib?": (NUMBER, NOTHING),
        "history?": [OBJECT],
        "closing_check?": (
            NOTHING,
            {
                "num_prompts": COUNT,
                "thinks": COUNT,
                "closes": COUNT,
                "answers": COUNT,
                "stops": COUNT,
                "warning": (TEXT, NOTHING),
            },
        ),
    },
    "eval": {**_SCORES, "benchmarks": [{"name": TEXT, **_SCORES}], "protocol": OBJECT},
    "push": {
        "url": TEXT,
        "repo?": TEXT,
        "already_there": FLAG,
        "num_files": COUNT,
        "num_files_changed": COUNT,
        "pushed": [{"repo": TEXT, "branch": TEXT, "*": ANY}],
    },
}
"""The shape of each stage's metrics."""

PROBLEM: Shape = {
    "id": TEXT,
    "prompt": [{"role": TEXT, "content": TEXT}],
    "answer": (TEXT, NOTHING),
    "task": TEXT,
    "source": TEXT,
    "metadata?": OBJECT,
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

_MANIFEST: dict[str, Shape] = {
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
_INPUTS: dict[str, Shape] = {
    "generate": {"problems?": TEXT},
    "import": {"traces?": [OBJECT], "measured?": TEXT},
    "filter": {"traces?": TEXT, "problems?": TEXT},
    "sft": {"student?": TEXT, "student_revision?": (TEXT, NOTHING), "rows?": (TEXT, {"*": TEXT}), "seed?": COUNT},
    "eval": {"student?": TEXT},
}
"""The parts of each stage's identity that other stages read."""


def fault_of(manifest: Mapping[str, Any], stage: str) -> str:
    """Return what is wrong with a manifest, in words; empty if nothing is.

    Args:
        manifest: the content of the file.
        stage: the stage it belongs to. For an unknown one, only what all manifests have in common is checked.
    """
    if stage in METRICS and manifest.get("stage") != stage:
        return f"stage is {_short(manifest.get('stage'))}, not {stage}"
    whole = {**_MANIFEST, "metrics": METRICS.get(stage, OBJECT), "identity": _INPUTS.get(stage, OBJECT)}
    return fault(manifest, whole)


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

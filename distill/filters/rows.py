"""Rows for training: TRL's, and the tables of kept and dropped ones, whose columns also make schema and card."""

import json
from typing import TYPE_CHECKING, Any

from distill.core.records import Problem, Trace, Verdict
from distill.core.thinking import join_reasoning

if TYPE_CHECKING:
    import pyarrow

TEXT, COUNT, FLAG, TEXTS, MESSAGES = "text", "count", "flag", "texts", "messages"
Columns = dict[str, tuple[str, str]]
"""Name -> kind and description, in the order of the table."""

_IDENTITY: Columns = {
    "problem_id": (TEXT, "the problem's id; a hash of its content where its source has none"),
    "sample_index": (COUNT, "number of the sample among those of its problem"),
}
_LENGTHS: Columns = {
    "num_completion_tokens": (COUNT, "length in the teacher's tokens; null where not known"),
    "num_student_tokens": (COUNT, "length in the student's tokens; null where not counted"),
}
KEPT_COLUMNS: Columns = {
    "prompt": (MESSAGES, "the question as chat messages, as the student sees it"),
    "completion": (MESSAGES, "the answer as a chat message: `<think>` … `</think>`, then the final answer"),
    "problem_id": _IDENTITY["problem_id"],
    "task": (TEXT, "how the answer was graded"),
    "source": (TEXT, "where the problem comes from"),
    "answer": (TEXT, "the expected answer"),
    "extracted_answer": (TEXT, "the final answer that was found in the completion"),
    "graded_by": (TEXT, "what decided the grade: `rule`, `majority` or `judge`"),
    "teacher": (TEXT, "the model that wrote the trace"),
    "teacher_revision": (TEXT, "its revision"),
    "sample_index": _IDENTITY["sample_index"],
    **_LENGTHS,
}
DROPPED_COLUMNS: Columns = {
    "prompt": (MESSAGES, "the question as chat messages"),
    "reasons": (TEXTS, "every reason for the drop, from the list below"),
    "correct": (FLAG, "whether the answer is right; null where it could not be graded"),
    "problem_id": _IDENTITY["problem_id"],
    "details": (TEXT, "more on some reasons, as JSON"),
    "graded_by": (TEXT, "what decided the grade"),
    "answer": (TEXT, "the expected answer"),
    "extracted_answer": (TEXT, "the final answer that was found"),
    "finish_reason": (TEXT, "`stop`, `length`, `loop` or `error`"),
    "error": (TEXT, "what went wrong, for `error`"),
    "text": (TEXT, "the trace, word for word"),
    "source": (TEXT, "where the problem comes from"),
    "sample_index": _IDENTITY["sample_index"],
    **_LENGTHS,
}


def sft_row(problem: Problem, trace: Trace) -> dict[str, Any]:
    """Return a row in TRL's conversational prompt/completion format. The loss is computed on the completion alone.

    Source: https://huggingface.co/docs/trl/dataset_formats#prompt-completion
    """
    completion = join_reasoning(trace.reasoning, trace.content)
    return {"prompt": problem.prompt, "completion": [{"role": "assistant", "content": completion}]}


def rl_row(problem: Problem) -> dict[str, Any]:
    """Return a row for TRL's GRPOTrainer: the prompt, and what a reward function needs."""
    return {"prompt": problem.prompt, "solution": problem.answer, "task": problem.task}


def kept_row(problem: Problem, trace: Trace, verdict: Verdict) -> dict[str, Any]:
    """Return the row of a kept trace: TRL's columns, and what is known of it."""
    return {**sft_row(problem, trace), **_told(KEPT_COLUMNS, problem, trace, verdict)}


def dropped_row(problem: Problem, trace: Trace, verdict: Verdict) -> dict[str, Any]:
    """Return the row of a dropped trace, with every reason."""
    return {"prompt": problem.prompt, **_told(DROPPED_COLUMNS, problem, trace, verdict)}


def _told(columns: Columns, problem: Problem, trace: Trace, verdict: Verdict) -> dict[str, Any]:
    known = {
        "problem_id": problem.id,
        "sample_index": trace.sample_index,
        "task": problem.task,
        "source": problem.source,
        "answer": problem.answer,
        "extracted_answer": verdict.extracted_answer,
        "graded_by": verdict.graded_by,
        "teacher": trace.teacher,
        "teacher_revision": trace.teacher_revision,
        "reasons": list(verdict.reasons),
        "details": json.dumps(verdict.details) if verdict.details else None,
        "correct": verdict.correct,
        "finish_reason": trace.finish_reason,
        "error": trace.error,
        "text": trace.text,
        "num_completion_tokens": trace.told_tokens,
        "num_student_tokens": verdict.num_student_tokens,
    }
    return {name: value for name, value in known.items() if name in columns}


def schema_of(columns: Columns) -> "pyarrow.Schema":
    """Return the schema of a table. It is declared rather than inferred, so that an empty table has its columns too."""
    import pyarrow as pa

    kinds = {
        TEXT: pa.string(),
        COUNT: pa.int64(),
        FLAG: pa.bool_(),
        TEXTS: pa.list_(pa.string()),
        MESSAGES: pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    }
    return pa.schema([(name, kinds[kind]) for name, (kind, _) in columns.items()])

"""Convert problems and traces to rows for TRL."""

from typing import Any

from distill.core.records import Problem, Trace
from distill.core.thinking import join_reasoning


def sft_row(problem: Problem, trace: Trace) -> dict[str, Any]:
    """Return a row in TRL's conversational prompt/completion format. The loss is computed on the completion alone.

    Source: https://huggingface.co/docs/trl/dataset_formats#prompt-completion
    """
    completion = join_reasoning(trace.reasoning, trace.content)
    return {"prompt": problem.prompt, "completion": [{"role": "assistant", "content": completion}]}


def rl_row(problem: Problem) -> dict[str, Any]:
    """Return a row for TRL's GRPOTrainer: the prompt, and what a reward function needs."""
    return {"prompt": problem.prompt, "solution": problem.answer, "task": problem.task}

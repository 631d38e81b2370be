"""Problems and traces as the rows that TRL trains on.

Enters: a `Problem` and a `Trace`.
Leaves: `{"prompt": [{"role": "user", …}], "completion": [{"role": "assistant", …}]}`.
"""

from typing import Any

from distill.core.records import Problem, Trace
from distill.core.thinking import join_reasoning


def sft_row(problem: Problem, trace: Trace) -> dict[str, Any]:
    """A row of TRL's conversational prompt/completion format: the loss falls on the completion alone.

    Source: https://huggingface.co/docs/trl/dataset_formats#prompt-completion
    """
    completion = join_reasoning(trace.reasoning, trace.content)
    return {"prompt": problem.prompt, "completion": [{"role": "assistant", "content": completion}]}


def rl_row(problem: Problem) -> dict[str, Any]:
    """A row for TRL's GRPOTrainer: the prompt alone, with what a reward function needs."""
    return {"prompt": problem.prompt, "solution": problem.answer, "task": problem.task}

"""The student table: alias -> Hub id, published hyper-parameters, context, chat format and stop token.

Learning rates and scores: DeepSeek-R1 (arXiv:2501.12948, table 5) and, for the rates, the supplement of its Nature
version. `distill sft --student qwen-1.5b` looks a name up here; any other Hub id or local folder works as well.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from distill.errors import ModelError

CHATML = "chatml"
LLAMA3 = "llama3"


@dataclass(frozen=True, slots=True)
class Student:
    """What is known of a student before it is loaded."""

    alias: str
    hub_id: str
    learning_rate: float
    """Peak learning rate of full fine-tuning."""
    chat_format: str | None = None
    """The template in `distill/templates/` given to a base model that has none of its own."""
    stop_token: str | None = None
    """The token that ends an answer; `None`: what the chat template ends an assistant's turn with."""
    context: int | None = None
    """Longest sequence that the published model handles, in tokens."""
    aime24_pass_at_1: float | None = None
    """What R1's student of this base scored on AIME 2024, in percent."""
    math500_pass_at_1: float | None = None
    """What R1's student of this base scored on MATH-500, in percent."""


STUDENTS = {
    student.alias: student
    for student in (
        Student("qwen-1.5b", "Qwen/Qwen2.5-Math-1.5B", 1e-4, CHATML, "<|im_end|>", 4_096, 28.9, 83.9),
        Student("qwen-7b", "Qwen/Qwen2.5-Math-7B", 8e-5, CHATML, "<|im_end|>", 4_096, 55.5, 92.8),
        Student("qwen-14b", "Qwen/Qwen2.5-14B", 7e-5, CHATML, "<|im_end|>", 131_072, 69.7, 93.9),
        Student("qwen-32b", "Qwen/Qwen2.5-32B", 6e-5, CHATML, "<|im_end|>", 131_072, 72.6, 94.3),
        Student("llama-8b", "meta-llama/Llama-3.1-8B", 5e-5, LLAMA3, "<|eot_id|>", 131_072, 50.4, 89.1),
        Student("llama-70b", "meta-llama/Llama-3.3-70B-Instruct", 2e-5, LLAMA3, "<|eot_id|>", 131_072, 70.0, 94.5),
        Student("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", 1e-4, CHATML, "<|im_end|>", 8_192),
    )
}

DEFAULT_LEARNING_RATE = 5e-5
"""For a model that is not in the table: R1's rate for an 8B student."""

LORA_LEARNING_RATE = 2e-4
"""Peak rate of LoRA: about ten times that of full fine-tuning (Thinking Machines, "LoRA Without Regret", 2025)."""


def find_student(name: str) -> Student:
    """The student called `name`: an alias, a Hub id (`org/model`) or a local folder.

    Raises:
        ModelError: neither an alias nor anything that could be a Hub id or a folder.
    """
    if name in STUDENTS:
        return STUDENTS[name]
    by_id = {student.hub_id: student for student in STUDENTS.values()}
    if name in by_id:
        return by_id[name]
    if "/" in name or (0 < len(name) < 256 and Path(name).is_dir()):
        return Student(name, name, DEFAULT_LEARNING_RATE)
    near = difflib.get_close_matches(name, STUDENTS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ModelError(
        f"student: unknown student {name!r}.{hint} Known: {', '.join(STUDENTS)}; "
        "or give a Hub id (org/model) or a local folder."
    )

"""The student table: alias -> Hub id, architecture, licence, published hyper-parameters, chat format and stop token.

Learning rates and scores: DeepSeek-R1 (arXiv:2501.12948, table 5) and, for the rates, the supplement of its Nature
version. `distill sft --student qwen-1.5b` looks up a name here; any other Hub id or local folder works as well.
"""

import difflib
from dataclasses import dataclass

from distill.errors import ModelError
from distill.models.hub_names import names_folder
from distill.models.shapes import ModelShape

CHATML = "chatml"
LLAMA3 = "llama3"

R1_CONTEXT = 32_768
"""Longest row that R1's students were trained on, in tokens."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of R1's student of a base: percentages, and a rating for Codeforces."""

    aime24_pass_at_1: float
    aime24_cons_at_64: float
    """Majority vote over 64 samples."""
    math500_pass_at_1: float
    gpqa_diamond_pass_at_1: float
    livecodebench_pass_at_1: float
    """Problems from August 2024 to January 2025."""
    codeforces_rating: int


@dataclass(frozen=True, slots=True)
class Student:
    """What is known about a student before it is loaded."""

    alias: str
    hub_id: str
    learning_rate: float
    """Peak learning rate of full fine-tuning."""
    chat_format: str | None = None
    """The template in `distill/models/templates/` for a base model that has none of its own."""
    stop_token: str | None = None
    """The token that ends an answer; `None` for the one that ends an assistant's turn in the chat template."""
    context: int | None = None
    """Longest sequence that the published model supports, in tokens."""
    license: str | None = None
    """The base's licence, by its Hub identifier."""
    shape: ModelShape | None = None
    """The architecture in the base's config.json."""
    replace_template: bool = False
    """Train with `chat_format` even if the model has a template, because its own would alter what is trained."""
    rope_theta: float | None = None
    """Base of the rotary embedding for training on rows longer than `context`."""
    long_context: int | None = None
    """Longest sequence once trained with `rope_theta`, in tokens."""
    r1_scores: Scores | None = None
    """Scores of R1's student of this base."""

    @property
    def template_override(self) -> str | None:
        """Return the template that replaces the model's own if the recipe names none; `None` to keep the model's."""
        return self.chat_format if self.replace_template else None

    @property
    def longest_context(self) -> int | None:
        """Return the longest sequence that can be trained, with the rotary patch if there is one."""
        return self.long_context or self.context


STUDENTS = {
    student.alias: student
    for student in (
        # The 4,096 tokens of Qwen2.5-Math are too few for a chain of thought. Others who trained on R1's traces raised
        # the rotary base from 10,000 to 300,000-500,000. The low end changes short distances least.
        Student(
            "qwen-1.5b", "Qwen/Qwen2.5-Math-1.5B", 1e-4, CHATML, "<|im_end|>", 4_096, "apache-2.0",
            ModelShape(1_536, 28, 12, 2, 128, 8_960, 151_936, tied=True, qkv_bias=True),
            rope_theta=300_000.0, long_context=R1_CONTEXT,
            r1_scores=Scores(28.9, 52.7, 83.9, 33.8, 16.9, 954),
        ),
        Student(
            "qwen-7b", "Qwen/Qwen2.5-Math-7B", 8e-5, CHATML, "<|im_end|>", 4_096, "apache-2.0",
            ModelShape(3_584, 28, 28, 4, 128, 18_944, 152_064, qkv_bias=True),
            rope_theta=300_000.0, long_context=R1_CONTEXT,
            r1_scores=Scores(55.5, 83.3, 92.8, 49.1, 37.6, 1189),
        ),
        Student(
            "qwen-14b", "Qwen/Qwen2.5-14B", 7e-5, CHATML, "<|im_end|>", 131_072, "apache-2.0",
            ModelShape(5_120, 48, 40, 8, 128, 13_824, 152_064, qkv_bias=True),
            r1_scores=Scores(69.7, 80.0, 93.9, 59.1, 53.1, 1481),
        ),
        Student(
            "qwen-32b", "Qwen/Qwen2.5-32B", 6e-5, CHATML, "<|im_end|>", 131_072, "apache-2.0",
            ModelShape(5_120, 64, 40, 8, 128, 27_648, 152_064, qkv_bias=True),
            r1_scores=Scores(72.6, 83.3, 94.3, 62.1, 57.2, 1691),
        ),
        Student(
            "llama-8b", "meta-llama/Llama-3.1-8B", 5e-5, LLAMA3, "<|eot_id|>", 131_072, "llama3.1",
            ModelShape(4_096, 32, 32, 8, 128, 14_336, 128_256),
            r1_scores=Scores(50.4, 80.0, 89.1, 49.0, 39.6, 1205),
        ),
        # The Instruct templates of Llama 3.2 and 3.3 put a knowledge cutoff and a date (3.2: the day of rendering) in
        # front of every prompt. Rows would change from day to day, and the student would always expect that line.
        Student(
            "llama-70b", "meta-llama/Llama-3.3-70B-Instruct", 2e-5, LLAMA3, "<|eot_id|>", 131_072, "llama3.3",
            ModelShape(8_192, 80, 64, 8, 128, 28_672, 128_256),
            replace_template=True,
            r1_scores=Scores(70.0, 86.7, 94.5, 65.2, 57.5, 1633),
        ),
        # Newer small bases. No rates are published for them: each uses that of R1's student nearest in size.
        # Qwen3's template removes the thinking from earlier turns and changes its line breaks in the last one.
        Student(
            "qwen3-0.6b", "Qwen/Qwen3-0.6B-Base", 1e-4, CHATML, "<|im_end|>", 32_768, "apache-2.0",
            ModelShape(1_024, 28, 16, 8, 128, 3_072, 151_936, tied=True, qk_norm=True), replace_template=True,
        ),
        Student(
            "qwen3-1.7b", "Qwen/Qwen3-1.7B-Base", 1e-4, CHATML, "<|im_end|>", 32_768, "apache-2.0",
            ModelShape(2_048, 28, 16, 8, 128, 6_144, 151_936, tied=True, qk_norm=True), replace_template=True,
        ),
        Student(
            "qwen3-4b", "Qwen/Qwen3-4B-Base", 8e-5, CHATML, "<|im_end|>", 32_768, "apache-2.0",
            ModelShape(2_560, 36, 32, 8, 128, 9_728, 151_936, tied=True, qk_norm=True), replace_template=True,
        ),
        Student(
            "qwen3-8b", "Qwen/Qwen3-8B-Base", 8e-5, CHATML, "<|im_end|>", 32_768, "apache-2.0",
            ModelShape(4_096, 36, 32, 8, 128, 12_288, 151_936, qk_norm=True), replace_template=True,
        ),
        # The Instruct models, not the bases: in Llama's bases the embeddings of the header and <|eot_id|> tokens were
        # never trained. LoRA does not train embeddings, so a student could not learn to stop.
        Student(
            "llama3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", 1e-4, LLAMA3, "<|eot_id|>", 131_072, "llama3.2",
            ModelShape(2_048, 16, 32, 8, 64, 8_192, 128_256, tied=True), replace_template=True,
        ),
        Student(
            "llama3.2-3b", "meta-llama/Llama-3.2-3B-Instruct", 1e-4, LLAMA3, "<|eot_id|>", 131_072, "llama3.2",
            ModelShape(3_072, 28, 24, 8, 128, 8_192, 128_256, tied=True), replace_template=True,
        ),
        Student(
            "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", 1e-4, CHATML, "<|im_end|>", 8_192, "apache-2.0",
            ModelShape(576, 30, 9, 3, 64, 1_536, 49_152, tied=True),
        ),
    )
}  # fmt: skip

DEFAULT_LEARNING_RATE = 5e-5
"""For models that are not in the table: R1's rate for an 8B student."""

LORA_LEARNING_RATE = 2e-4
"""Peak rate of LoRA: about ten times that of full fine-tuning (Thinking Machines, "LoRA Without Regret", 2025)."""


def hub_id_of(name: str) -> str:
    """Return the Hub id that an alias stands for. Return any other name unchanged."""
    return STUDENTS[name].hub_id if name in STUDENTS else name


def known_student(name: str) -> Student | None:
    """Return the row of the student table with this alias or Hub id, if there is one."""
    hub_id = hub_id_of(name)
    return next((student for student in STUDENTS.values() if student.hub_id == hub_id), None)


def find_student(name: str) -> Student:
    """Return the student called `name`: an alias, a Hub id (`org/model`) or a local folder.

    Raises:
        ModelError: neither an alias nor anything that could be a Hub id or a folder.
    """
    if known := known_student(name):
        return known
    if "/" in name or names_folder(name):
        return Student(name, name, DEFAULT_LEARNING_RATE)
    near = difflib.get_close_matches(name, STUDENTS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ModelError(
        f"student: unknown student {name!r}.{hint} Known: {', '.join(STUDENTS)}; "
        "or give a Hub id (org/model) or a local folder."
    )

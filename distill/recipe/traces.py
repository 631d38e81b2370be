"""`traces:`: traces made elsewhere, and how their rows are read."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from distill.models.hub_names import Config, Revision, TableSource
from distill.recipe.base import Strict
from distill.recipe.problems import Task


class TraceColumns(Strict):
    """Which column of the source holds what; left out: found by the usual names."""

    problem: str | None = None
    """Column with the question, or with the prompt as chat messages."""
    answer: str | None = None
    """Column with the expected answer."""
    text: str | None = None
    """Column with the trace, or with a list of them."""
    messages: str | None = None
    """Column with the whole chat, question and trace; read where no text column is there."""
    reasoning: str | None = None
    """Column with the thought alone; read where neither text nor messages are there."""
    content: str | None = None
    """Column with what follows the thought."""
    finish_reason: str | None = None
    """Column with the finish reason, or with a list of them."""
    id: str | None = None
    """Column with an id of the problem."""
    model: str | None = None
    """Column with the teacher's name."""
    system: str | None = None
    """Column with the system prompt; it is put before chats that have none."""


class TraceSource(Strict):
    """Where traces come from and how their rows are read."""

    source: TableSource
    """`hf:org/dataset` or `file:path` (JSONL, JSON, Parquet; relative to the recipe)."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset; left out: its main branch."""
    limit: PositiveInt | None = None
    """Most traces to use: the first ones."""
    problems: Annotated[str, Field(pattern=r"^file:.+")] | None = None
    """`file:path` of the problems that rows name by `problem_id`, as a run's problems.jsonl."""
    columns: TraceColumns = TraceColumns()
    """Which columns hold what."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: what follows its last occurrence is the expected answer."""
    template: str = "{problem}"
    """The student's prompt, with `{problem}` where the question goes; chat messages are taken as they are."""
    task: Task | None = None
    """How answers are graded; left out: `math`. `gym`, beside `problems`: some of these are reasoning-gym's, and their
    tasks' own scorers may be run with the options that the file names."""
    teacher: str | None = None
    """Who wrote the traces, where no column tells; left out: the source's name."""
    think_marks: list[Annotated[str, Field(min_length=1)]] = []
    """Marks around the thought, e.g. `["<a>", "</a>"]`; two more: those around the answer. Usual ones are known."""
    system: Literal["keep", "drop"] = "keep"
    """`drop`: leave system messages and the system column out of the student's prompt."""

    @model_validator(mode="after")
    def _fits_its_rows(self) -> Self:
        if "{problem}" not in self.template:
            raise ValueError("template must hold {problem}, which is where the question goes")
        if self.task == "gym" and self.problems is None:
            raise ValueError("task: gym needs problems:, which say how their entries are made. Use task: math")
        if len(self.think_marks) not in (0, 2, 4) or len(set(self.think_marks)) != len(self.think_marks):
            raise ValueError(
                "think_marks takes two different marks, before and after the thought, or four: two more for the answer"
            )
        return self

"""The `traces:` section: existing traces, and how their rows are read."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from distill.models.hub_names import Config, Revision, TraceOrigin
from distill.recipe.base import Strict
from distill.recipe.problems import CodeSettings, Task

ROUND = "round:"
"""Prefix of a name that refers to an earlier round."""


class TraceColumns(Strict):
    """Column names of a source of traces. Default: the usual names."""

    problem: str | None = None
    """Column with the question, or with the prompt as chat messages."""
    answer: str | None = None
    """Column with the expected answer."""
    text: str | None = None
    """Column with the trace, or with a list of them."""
    messages: str | None = None
    """Column with the whole chat, question and trace; read if there is no text column."""
    reasoning: str | None = None
    """Column with the reasoning alone; read if there is neither a text nor a messages column."""
    content: str | None = None
    """Column with the text after the reasoning."""
    finish_reason: str | None = None
    """Column with the finish reason, or with a list of them."""
    id: str | None = None
    """Column with the problem's id."""
    tests: str | None = None
    """Column with the tests of `task: code`. Default: the columns of the usual data sets (docs/code.md)."""
    model: str | None = None
    """Column with the teacher's name."""
    system: str | None = None
    """Column with the system prompt; it is prepended to chats that have none."""


class TraceSource(Strict):
    """A source of traces, and how its rows are read."""

    source: TraceOrigin
    """`hf:org/dataset`, `file:path` (JSONL, JSON, CSV, Parquet; relative to the recipe) or `round:NAME`: the rollouts
    of an earlier round's `rl:`."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset. Default: the main branch."""
    limit: PositiveInt | None = None
    """Maximum number of traces; the first ones are used."""
    problems: Annotated[str, Field(pattern=r"^file:.+")] | None = None
    """`file:path` of the problems that rows refer to by `problem_id`, such as a run's problems.jsonl."""
    columns: TraceColumns = TraceColumns()
    """Column names of the source."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: the text after its last occurrence is the expected answer; `\\boxed`: what is in the
    last box of a solution."""
    template: str = "{problem}"
    """The student's prompt: `{problem}` becomes the question. Chat messages are used unchanged."""
    task: Task | None = None
    """How answers are graded. Default: `math`. `gym`, with `problems`: reasoning-gym scorers may be run for the
    problems that ask for it, with the options given in that file."""
    tests: CodeSettings = CodeSettings()
    """`task: code`: how programs are tested."""
    teacher: str | None = None
    """Name of the teacher if no column has it. Default: the source's name."""
    think_marks: list[Annotated[str, Field(min_length=1)]] = []
    """Marks around the reasoning, e.g. `["<a>", "</a>"]`, and optionally two more around the answer. The usual marks
    are recognised by default."""
    system: Literal["keep", "drop"] = "keep"
    """`drop`: leave system messages and the system column out of the student's prompt."""

    @property
    def round(self) -> str | None:
        """Return the round whose rollouts these are, or `None`."""
        return self.source.removeprefix(ROUND) if self.source.startswith(ROUND) else None

    @model_validator(mode="after")
    def _round_tells_the_rest(self) -> Self:
        told = self.model_dump(exclude_defaults=True).keys() - {"source", "limit"}
        if self.round is not None and told:
            raise ValueError(
                f"{self.source} brings its own problems and columns, so that only limit applies. "
                f"Remove {', '.join(sorted(told))}"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_rows(self) -> Self:
        if "{problem}" not in self.template:
            raise ValueError("template must hold {problem}, which is where the question goes")
        if self.task == "gym" and self.problems is None:
            raise ValueError("task: gym needs problems:, a file that says how its problems were made. Use task: math")
        if self.task != "code" and (self.columns.tests is not None or self.tests != CodeSettings()):
            raise ValueError("tests and columns.tests are for task: code only: they say how programs are tested")
        if len(self.think_marks) not in (0, 2, 4) or len(set(self.think_marks)) != len(self.think_marks):
            raise ValueError(
                "think_marks takes two different marks, around the reasoning, or four: two more around the answer"
            )
        return self

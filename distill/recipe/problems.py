"""Problem sources, for `problems:` and `eval.benchmarks`: where problems come from and how their rows are read."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from distill.models.hub_names import Config, Revision, Source
from distill.recipe.base import Strict

# The operators / and //, or up to 200 characters without brackets, quotes, paths, `..` and `__`: reasoning-gym
# evaluates some option texts as Python and opens others as files.
_SAFE_TEXT = re.compile(r"/{1,2}|(?!.*(?:__|\.\.))[^()\[\]{}/\\\\'\"`#@]{0,200}")


def unsafe_texts(value: Any) -> Iterator[str]:
    """Yield the texts in a task's options that the task could evaluate, or open as a file."""
    if isinstance(value, str) and not _SAFE_TEXT.fullmatch(value):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unsafe_texts(str(key))
            yield from unsafe_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from unsafe_texts(inner)


Task = Literal["math", "choice", "exact", "numeric", "regex", "judge", "gym"]
"""`math`: mathematically equal; `choice`: the letter or text of an option; `exact`: the same text; `numeric`: the same
number, up to a relative error of 1e-6; `regex`: the expected answer is a pattern; `judge`: a model decides; `gym`: the
reasoning-gym task's own scorer."""


class Columns(Strict):
    """Column names of a source."""

    problem: str | None = None
    """Column with the question. Default: the first of problem, question, prompt, instruction."""
    answer: str | None = None
    """Column with the expected answer. Default: the first of answer, expected_answer, gtruth_answer, solution."""
    options: str | None = None
    """Column with a list of options, lettered in the prompt. Default for `task: choice`: options or choices."""
    id: str | None = None
    """Column with the problem's id. Default: the id is a hash of the content."""


class ProblemSource(Strict):
    """A source of problems, and how its rows are read."""

    source: Source
    """`hf:org/dataset`, `file:path` (JSONL, JSON, Parquet; relative to the recipe), or `gym:task` (reasoning-gym)."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset. Default: the main branch."""
    columns: Columns = Columns()
    """Columns with the question, the answer, the options and the id."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: the text after its last occurrence is the expected answer (`####` for GSM8K)."""
    answer_index: Literal[0, 1] | None = None
    """Index of the first option if answers of `task: choice` are numbers. Default: inferred from all rows."""
    template: str = "{problem}"
    """The student's prompt: `{problem}` becomes the question, `{options}` the options (if absent, they are
    appended)."""
    task: Task | None = None
    """How answers are graded (`distill.grading`). Default: `gym` for a gym source, otherwise `math`."""
    limit: PositiveInt | None = None
    """Maximum number of problems, drawn at random with the seed. For a gym source, how many to make (default: 500)."""
    seed: int | None = None
    """Seed of the draw. Default: the recipe's seed."""
    options: dict[str, Any] = {}
    """Options of the reasoning-gym task, e.g. `{min_terms: 3, max_terms: 3}`."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if "{problem}" not in self.template:
            raise ValueError("template must hold {problem}, which is where the question goes")
        if self.options and not self.source.startswith("gym:"):
            raise ValueError("options are for gym: sources only")
        if (text := next(unsafe_texts(self.options), None)) is not None:
            raise ValueError(
                f"options may not hold the text {text[:40]!r}: reasoning-gym evaluates some texts as Python and reads "
                "files named by others. Use words, numbers and operators, without brackets, quotes and paths"
            )
        if self.answer_index is not None and self.task != "choice":
            raise ValueError("answer_index is for task: choice only: it says which number the first option has")
        if self.task == "gym" and not self.source.startswith("gym:"):
            raise ValueError("task: gym needs a gym: source, whose own scorer it uses. Use task: math")
        return self

"""`problems:` and the benchmarks of `eval:`: where problems come from and how their rows are read."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from distill.models.hub_names import Config, Revision, Source
from distill.recipe.base import Strict

_SAFE_TEXT = re.compile(r"/{1,2}|(?!.*(?:__|\.\.))[^()\[\]{}/\\\\'\"`#@]{0,200}")


def unsafe_texts(value: Any) -> Iterator[str]:
    """Texts of a task's options that it could evaluate, or open as a file."""
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
"""`math`: equal as mathematics; `choice`: the letter or text of an option; `exact`: the same text; `numeric`: the same
number, within 1e-6 of it; `regex`: the expected answer is a pattern; `judge`: a model decides; `gym`: the scorer of the
reasoning-gym task."""


class Columns(Strict):
    """Which column of the source holds what."""

    problem: str | None = None
    """Column with the question; left out: the first of problem, question, prompt, instruction."""
    answer: str | None = None
    """Column with the expected answer; left out: the first of answer, expected_answer, gtruth_answer, solution."""
    options: str | None = None
    """Column with a list of options, lettered in the prompt; left out, for `task: choice`: options, choices."""
    id: str | None = None
    """Column with an id of its own; left out: the id is a hash of the content."""


class ProblemSource(Strict):
    """Where problems come from and how their rows are read."""

    source: Source
    """`hf:org/dataset`, `file:path` (JSONL, JSON, Parquet; relative to the recipe), or `gym:task` (reasoning-gym)."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset; left out: its main branch."""
    columns: Columns = Columns()
    """Which columns hold the question, the answer and the id."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: what follows its last occurrence is the expected answer (`####` for GSM8K)."""
    answer_index: Literal[0, 1] | None = None
    """What the first option counts as where answers of `task: choice` are numbers; left out: all rows tell it."""
    template: str = "{problem}"
    """The student's prompt, with `{problem}` where the question goes and `{options}` where options go (else after)."""
    task: Task | None = None
    """How answers are graded (`distill.grading`); left out: `gym` for a gym source, `math` otherwise."""
    limit: PositiveInt | None = None
    """Most problems to use (drawn at random under the seed); for a gym source, problems to make: 500 where left out."""
    seed: int | None = None
    """Seed of the draw; left out: the recipe's seed."""
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
                "files by others, so they are words, numbers and operators without brackets, quotes and paths"
            )
        if self.answer_index is not None and self.task != "choice":
            raise ValueError("answer_index is for task: choice only: it tells how the numbers of options count")
        if self.task == "gym" and not self.source.startswith("gym:"):
            raise ValueError("task: gym needs a gym: source, whose own scorer it uses. Use task: math")
        return self

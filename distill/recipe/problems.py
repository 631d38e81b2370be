"""Problem sources, for `problems:` and `eval.benchmarks`: where problems come from and how their rows are read."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from distill.models.hub_names import Config, RepoFile, Revision, Source
from distill.recipe.base import Name, Strict

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


Task = Literal["math", "choice", "exact", "numeric", "regex", "judge", "gym", "instructions", "code"]
"""`math`: mathematically equal; `choice`: the letter or text of an option; `exact`: the same text; `numeric`: the same
number, up to a relative error of 1e-6; `regex`: the expected answer is a pattern; `judge`: a model decides; `gym`: the
reasoning-gym task's own scorer; `instructions`: all of IFEval's verifiable instructions are followed; `code`: the
program in the answer passes the problem's tests."""


class CodeSettings(Strict):
    """How programs that answer `task: code` are tested: before a row's columns, after what its tests say."""

    language: Literal["python", "cpp"] | None = None
    """Language of the programs. Default: the row's column `language`, else `python`."""
    time_s: Annotated[float, Field(gt=0.0, le=600.0)] | None = None
    """CPU time of one test, in seconds. Default: the row's column `time_limit`, else 6."""
    memory_mib: Annotated[int, Field(ge=16, le=65_536)] | None = None
    """Memory of a program, in MiB. Default: the row's column `memory_limit`, else 1,024."""
    hard: bool = False
    """Use MBPP's `challenge_test_list` as well as its `test_list`."""


class Columns(Strict):
    """Column names of a source."""

    problem: str | None = None
    """Column with the question. Default: the first of problem, question, prompt, instruction."""
    answer: str | None = None
    """Column with the expected answer. Default: the first of answer, expected_answer, gtruth_answer, solution."""
    options: str | Annotated[list[str], Field(min_length=2)] | None = None
    """Column with a list of options, lettered in the prompt, or a list of columns with one option each. Default for
    `task: choice`: options or choices."""
    id: str | None = None
    """Column with the problem's id. Default: the id is a hash of the content."""
    tests: str | None = None
    """Column with the tests of `task: code`. Default: the columns of the usual data sets (docs/code.md)."""
    metadata: dict[str, str] = {}
    """Further columns to keep with each problem, by the name under which they are kept, e.g. `{group: subject}`."""


class Window(Strict):
    """The rows of a span of time: for problems that are newer than a model's training data."""

    column: str
    """Column with a date, or a date and time, in ISO 8601."""
    first: date | None = None
    """First day. Default: the beginning."""
    last: date | None = None
    """Last day. Default: the end."""


class ProblemSource(Strict):
    """A source of problems, and how its rows are read."""

    source: Source
    """`hf:org/dataset`, `file:path` (JSONL, JSON, CSV, Parquet; relative to the recipe) or `gym:task`."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset. Default: the main branch."""
    file: RepoFile | Annotated[list[RepoFile], Field(min_length=1)] | None = None
    """Path of one file (JSONL, JSON, CSV, Parquet) in the repository of a Hub dataset, or a list of several. Default:
    the dataset's split."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the questions, answers, options and metadata as read, whatever the kind of file (`distill suites
    show`); other content is refused. Default: not checked."""
    columns: Columns = Columns()
    """Columns with the question, the answer, the options and the id."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: the text after its last occurrence is the expected answer (`####` for GSM8K);
    `\\boxed`: what is in the last box of a solution."""
    answer_index: Literal[0, 1] | None = None
    """Index of the first option if answers of `task: choice` are numbers. Default: inferred from all rows."""
    shuffle_options: bool = False
    """Put each problem's options into an order drawn with the seed and the question; the order is recorded."""
    template: str = "{problem}"
    """The student's prompt: `{problem}` becomes the question, `{options}` the options (if absent, they are
    appended), `{letters}` their letters (A, B, C or D), `{tests}` the first assertions of the tests."""
    task: Task | None = None
    """How answers are graded (`distill.grading`). Default: `gym` for a gym source, otherwise `math`."""
    tests: CodeSettings = CodeSettings()
    """`task: code`: how programs are tested."""
    window: Window | None = None
    """Only rows of these days. Default: all rows."""
    limit: PositiveInt | None = None
    """Maximum number of problems, drawn at random with the seed. For a gym source, how many to make (default: 500)."""
    seed: int | None = None
    """Seed of the draw. Default: the recipe's seed."""
    options: dict[str, Any] = {}
    """Options of the reasoning-gym task, e.g. `{min_terms: 3, max_terms: 3}`."""
    rounds: list[Name] = []
    """In a recipe with `rounds:`, the rounds that use this source of `problems:`. Default: all of them. Held-out
    problems are drawn from the sources that all rounds use."""

    @property
    def files(self) -> list[str]:
        """Return the paths in `file`; empty if the dataset's split is read."""
        return [self.file] if isinstance(self.file, str) else self.file or []

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
        if self.file is not None and not self.source.startswith("hf:"):
            raise ValueError("file names a file of a Hub dataset: it needs an hf: source. Use source: file:path")
        if self.shuffle_options and self.task != "choice":
            raise ValueError("shuffle_options is for task: choice only")
        if self.answer_index is not None and self.task != "choice":
            raise ValueError("answer_index is for task: choice only: it says which number the first option has")
        if self.task == "gym" and not self.source.startswith("gym:"):
            raise ValueError("task: gym needs a gym: source, whose own scorer it uses. Use task: math")
        if self.task == "code" and self.source.startswith("gym:"):
            raise ValueError("task: code needs problems with tests, which a gym: source has not. Use task: gym")
        if self.task != "code" and (self.columns.tests is not None or self.tests != CodeSettings()):
            raise ValueError("tests and columns.tests are for task: code only: they say how programs are tested")
        return self

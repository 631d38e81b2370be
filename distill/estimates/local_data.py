"""Count problems and traces in the recipe's local files, with the functions and the errors of the run.

Only the first rows of a file are read if it is large or unpacks to much text: a recipe from outside is planned before
it is accepted, so its files are not trusted.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.file_kinds import FILE, kind_of
from distill.errors import DistillError, ProblemError
from distill.estimates.quantities import Range
from distill.estimates.text_tokens import TokenRate
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.traces import TraceSource
from distill.sampling.job import num_lines, num_lines_by_size
from distill.sources.evaluation_sets import load_pack
from distill.sources.imported_traces import Skipped, foreign_traces
from distill.sources.problems import DEFAULT_GYM_SIZE, bare_question, load_problems, may_lack_answers
from distill.sources.tables import Row, file_rows

MAX_FILE_BYTES = 64 << 20
"""Only the first rows of larger files are read."""
QUICK_FILE_BYTES = 8 << 20
"""The same in quick mode."""
FIRST_ROWS = 2_000
MAX_CHARS = 128 << 20
"""Most text of one file to read, in characters."""
MAX_GYM = 5_000
KEPT_CHARS = 1_000_000
"""Text kept to count its tokens, in characters."""
SAMPLED_SHARE = 0.1
"""Assumed: share by which the first rows differ from the whole file."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """Counts of a file of problems or traces, from the rows that were read."""

    num: Range
    """Number of problems or traces."""
    num_problems: Range
    prompt_chars: float
    """Mean characters per prompt."""
    longest_prompt_chars: int
    is_whole: bool
    num_read: int
    """Rows read."""
    trace_tokens: Range | None = None
    """Student tokens per trace, on average; `None` for problems."""
    longest_trace_tokens: float = 0.0
    """Upper bound for the longest trace that was read."""


class FirstRows:
    """The first rows of a file, limited in number and text; `is_whole` tells whether these are all."""

    def __init__(
        self, path: Path, on_bad: Callable[[str, str], None] | None = None, max_rows: float = math.inf
    ) -> None:
        """Create the iterable; rows are read when it is iterated over.

        Args:
            path: the file.
            on_bad: as for `file_rows`.
            max_rows: most rows to read.
        """
        self._path, self._on_bad, self._max_rows = path, on_bad, max_rows
        self.num = 0
        self.is_whole = True
        self._num_chars = 0

    def __iter__(self) -> Iterator[Row]:
        for place, row in file_rows(self._path, self._on_bad) if self._on_bad else file_rows(self._path):
            if self.num >= self._max_rows or self._num_chars > MAX_CHARS:
                self.is_whole = False
                return
            self.num += 1
            self._num_chars += _chars(row)
            yield place, row


def is_small(source: ProblemSource | TraceSource, max_bytes: int = MAX_FILE_BYTES) -> bool:
    """Return whether a source is local and quick to read whole."""
    kind, _, name = source.source.partition(":")
    if kind == "gym":
        return (source.limit or DEFAULT_GYM_SIZE) <= MAX_GYM
    return kind == "file" and _is_small_file(Path(name), max_bytes)


def is_small_and_local(recipe: Recipe) -> bool:
    """Return whether all problems are local and quick to load."""
    return all(is_small(source) for source in [*recipe.problems, *(recipe.eval.benchmarks if recipe.eval else [])])


def read_problems(source: ProblemSource, recipe: Recipe, is_measured: bool, quick: bool = False) -> LocalFile | None:
    """Count the problems of a file; return `None` if it is too large to read.

    Args:
        source: a `file:` source.
        recipe: the source's recipe.
        is_measured: whether it is an evaluation set.
        quick: read less.

    Raises:
        ProblemError: as in the run.
    """
    path = Path(source.source.removeprefix("file:"))
    rows = _first_rows(path, None, quick)
    if rows is None:
        return None
    whole = source.model_copy(update={"limit": None})
    problems = load_problems(whole, recipe.seed, may_lack_answers(source, recipe, is_measured), rows)
    lengths = [sum(len(message["content"]) for message in problem.prompt) for problem in problems]
    num = _extended(len({problem.id for problem in problems}), rows, path, source.limit)
    return LocalFile(num, num, sum(lengths) / len(lengths), max(lengths), rows.is_whole, rows.num)


def read_traces(
    source: TraceSource, rate: TokenRate, measured: Collection[str] = (), quick: bool = False
) -> LocalFile | None:
    """Count the traces of a file; return `None` if it is too large to read.

    Args:
        source: a `file:` source.
        rate: counts tokens.
        measured: questions of the evaluation, whose traces the run skips.
        quick: read less.

    Raises:
        ProblemError: as in the run.
    """
    path = Path(source.source.removeprefix("file:"))
    problems_file = Path(source.problems.removeprefix("file:")) if source.problems else path
    if problems_file != path and problems_file.is_file() and not _is_small_file(problems_file, MAX_FILE_BYTES):
        return None  # it would be held in memory whole
    skipped = Skipped()
    rows = _first_rows(path, skipped.add, quick)
    if rows is None:
        return None
    names: set[str] = set()
    texts: list[str] = []
    num = num_chars = num_kept_chars = num_prompt_chars = longest = 0
    longest_text = ""
    try:
        for problem, trace in foreign_traces(source, skipped, rows=rows):
            if measured and bare_question(problem.question, source.template) in measured:
                continue
            prompt = sum(len(message["content"]) for message in problem.prompt)
            names.add(problem.id)
            num += 1
            num_chars += len(trace.text)
            num_prompt_chars += prompt
            longest = max(longest, prompt)
            longest_text = max(longest_text, trace.text, key=len)
            if num_kept_chars < KEPT_CHARS:
                texts.append(trace.text)
                num_kept_chars += len(trace.text)
    except ProblemError:
        if rows.is_whole or skipped.counts.total() < rows.num:
            raise
        return None  # none of the first rows is usable; a later one may be
    tokens = rate.of(texts).times(num_chars / max(1, num))
    said = f"traces of {num_chars / max(1, num):,.0f} characters on average{_where(rows, path)}"
    traces = _extended(num, rows, path, source.limit)
    # The rest of the file may have other problems, or more samples of the same ones.
    problems = Range(len(names), max(len(names), len(names) * traces.high / max(1, num)))
    mean_prompt = num_prompt_chars / max(1, num)
    return LocalFile(
        traces,
        problems,
        mean_prompt,
        longest,
        rows.is_whole,
        rows.num,
        tokens.because(said),
        rate.of([longest_text]).high * len(longest_text),
    )


def faults_of_packs(recipe: Recipe) -> list[str]:
    """Return the errors of local files of `filter.decontaminate`, as the run would report them."""
    found = []
    for entry in recipe.filter.decontaminate:
        path = Path(entry.removeprefix("file:"))
        if entry.startswith("file:") and (not path.is_file() or _is_small_file(path, MAX_FILE_BYTES)):
            try:
                load_pack(entry)
            except DistillError as error:
                found.append(str(error))
    return found


def num_rows(path: Path) -> int | None:
    """Return the number of rows of a file, or `None` if they cannot be counted quickly."""
    try:
        if kind_of(path) != FILE:
            return None
        if path.suffix == ".jsonl":
            return num_lines(path) if path.stat().st_size <= 8 * MAX_FILE_BYTES else num_lines_by_size(path)
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        if path.suffix == ".json" and path.stat().st_size <= MAX_FILE_BYTES:
            return sum(1 for _ in file_rows(path))
    except Exception:  # pyarrow has errors of its own; the run will report an unreadable file
        return None
    return None


def _first_rows(path: Path, on_bad: Callable[[str, str], None] | None, quick: bool) -> FirstRows | None:
    """Return the rows of a small file or the first of a large one; `None` for large JSON, which must be read whole."""
    limit = QUICK_FILE_BYTES if quick else MAX_FILE_BYTES
    is_large = path.is_file() and path.stat().st_size > limit
    if is_large and path.suffix.lower() == ".json":
        return None
    return FirstRows(path, on_bad, FIRST_ROWS if is_large else math.inf)


def _is_small_file(path: Path, max_bytes: int) -> bool:
    if not path.is_file() or path.stat().st_size > max_bytes:
        return False
    if path.suffix.lower() != ".parquet":
        return True
    rows = FirstRows(path, lambda *_: None)
    try:
        for _ in rows:
            pass
    except DistillError:
        return True  # loading it reports the error
    return rows.is_whole


def _extended(num: int, rows: FirstRows, path: Path, limit: int | None) -> Range:
    """Extrapolate a count from the rows that were read to the whole file."""
    where = _where(rows, path)
    if rows.is_whole:
        num = min(num, limit or num)
        return Range.exact(num, f"{num:,} of {path.name}{where}")
    each = num / max(1, rows.num)
    there = num_rows(path) or rows.num
    least, most = (max(1, round(each * there * (1 + by))) for by in (-SAMPLED_SHARE, SAMPLED_SHARE))
    least, most = (min(least, limit), min(most, limit)) if limit else (least, most)
    return Range(least, most, f"{each:.3g} a row{where}")


def _where(rows: FirstRows, path: Path) -> str:
    return "" if rows.is_whole else f" in the first {rows.num:,} rows of {path.name}"


def _chars(value: Any) -> int:
    """Return the characters of all texts in a value; 8 for a number or the like."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_chars, value.values()))
    return sum(map(_chars, value)) if isinstance(value, list) else 8

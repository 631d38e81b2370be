"""What the recipe's own files hold, read by the functions with which the run reads them.

Enters: a source that is a file. Leaves: what was counted, or the run's own error. Of a large file the first rows are
read: a small one may hold as much when it is unpacked, and a recipe from outside is planned before it is accepted.
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
from distill.sources.problems import DEFAULT_GYM_SIZE, bare_question, has_stand_in, load_problems
from distill.sources.tables import Row, file_rows

MAX_FILE_BYTES = 64 << 20
"""Of larger files the first rows are read."""
QUICK_FILE_BYTES = 8 << 20
"""The same where no time may be lost."""
FIRST_ROWS = 2_000
MAX_CHARS = 128 << 20
"""Text of one file in memory or gone through, at most, in characters."""
MAX_GYM = 5_000
KEPT_CHARS = 1_000_000
"""Text that is kept to count its tokens, in characters."""
SAMPLED_SHARE = 0.1
"""Assumed: share by which the first rows differ from all."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of problems or traces, as far as it was read."""

    num: Range
    """Problems, or traces."""
    num_problems: Range
    prompt_chars: float
    """Mean."""
    longest_prompt_chars: int
    is_whole: bool
    num_read: int
    """Rows that were read."""
    trace_tokens: Range | None = None
    """Student tokens of a trace, on average; `None` for problems."""
    longest_trace_tokens: float = 0.0
    """Of the longest trace that was read, at most."""


class FirstRows:
    """Rows of a file, at most so many and so much text, as an iterable that remembers where it stopped."""

    def __init__(
        self, path: Path, on_bad: Callable[[str, str], None] | None = None, max_rows: float = math.inf
    ) -> None:
        """
        Args:
            path: the file.
            on_bad: as for `file_rows`.
            max_rows: read no more.
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
    """Whether a source is here, and is read whole in a moment."""
    kind, _, name = source.source.partition(":")
    if kind == "gym":
        return (source.limit or DEFAULT_GYM_SIZE) <= MAX_GYM
    return kind == "file" and _is_small_file(Path(name), max_bytes)


def is_small_and_local(recipe: Recipe) -> bool:
    """Whether all problems are here, and few enough to be loaded in a moment."""
    return all(is_small(source) for source in [*recipe.problems, *(recipe.eval.benchmarks if recipe.eval else [])])


def read_problems(source: ProblemSource, recipe: Recipe, is_measured: bool, quick: bool = False) -> LocalFile | None:
    """The problems of a file; `None` where it is too large to look into.

    Args:
        source: a `file:` source.
        recipe: whose it is.
        is_measured: whether it is an evaluation set, of which each problem needs an answer.
        quick: read less.

    Raises:
        ProblemError: as the run would raise it.
    """
    path = Path(source.source.removeprefix("file:"))
    rows = _first_rows(path, None, quick)
    if rows is None:
        return None
    whole = source.model_copy(update={"limit": None})
    problems = load_problems(whole, recipe.seed, not is_measured and has_stand_in(recipe), rows)
    lengths = [sum(len(message["content"]) for message in problem.prompt) for problem in problems]
    num = _extended(len({problem.id for problem in problems}), rows, path, source.limit)
    return LocalFile(num, num, sum(lengths) / len(lengths), max(lengths), rows.is_whole, rows.num)


def read_traces(
    source: TraceSource, rate: TokenRate, measured: Collection[str] = (), quick: bool = False
) -> LocalFile | None:
    """The traces of a file; `None` where it is too large to look into.

    Args:
        source: a `file:` source.
        rate: counts tokens.
        measured: questions of the evaluation, whose traces the run leaves out.
        quick: read less.

    Raises:
        ProblemError: as the run would raise it.
    """
    path = Path(source.source.removeprefix("file:"))
    problems_file = Path(source.problems.removeprefix("file:")) if source.problems else path
    if problems_file != path and problems_file.is_file() and not _is_small_file(problems_file, MAX_FILE_BYTES):
        return None  # all of it would be held in memory
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
    # In the rest of the file there may be as many problems again, or samples of the same ones.
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
    """Why local files of `filter.decontaminate` cannot be used, as the run would say it."""
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
    """Rows of a file; `None` where they cannot be counted quickly."""
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
    except Exception:  # pyarrow has errors of its own; the run will name a file that cannot be read
        return None
    return None


def _first_rows(path: Path, on_bad: Callable[[str, str], None] | None, quick: bool) -> FirstRows | None:
    """All rows of a small file, the first ones of a large one; a large JSON file can only be read whole."""
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
        return True  # loading it says why
    return rows.is_whole


def _extended(num: int, rows: FirstRows, path: Path, limit: int | None) -> Range:
    """What the whole file holds, from what the rows that were read hold."""
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
    """Characters of all texts in a row."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_chars, value.values()))
    return sum(map(_chars, value)) if isinstance(value, list) else 8

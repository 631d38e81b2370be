"""Facts about each trace that do not depend on a recipe's thresholds: grade, measures, length, signature.

Worker processes read the shards themselves, so that texts are not sent between processes. Cached facts are reused. An
answer that a string comparison cannot grade becomes a task of its own, which can hang without delaying others.
"""

import functools
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.records import FinishReason, Problem, Record, SampleKey, Trace
from distill.core.thinking import join_reasoning, split_reasoning
from distill.core.thought_marks import stray_mark
from distill.errors import StageError
from distill.filters.dedup import SIGNATURE_VERSION, content_key, signatures
from distill.filters.language import prompt_language
from distill.filters.readability import MEASURES_VERSION, Measures, measure
from distill.grading import Grade, grade_from, grade_slowly, quick_grade
from distill.grading.cached import Versions, cache_entry, gradable, grade_from_cache, grade_key
from distill.grading.code.grader import CODE
from distill.grading.pool import CRASHED, FIRST_LIMIT_S, TIMED_OUT, GradingPool, Outcome, PoolTask
from distill.isolation import wire
from distill.storage.case_files import without_cases
from distill.storage.fact_cache import FactCache, fact_key
from distill.storage.problem_file import ProblemFile

PIECE_ROWS = 256
"""Traces per task: enough to make its overhead negligible, few enough to keep all cores busy to the end."""
PIECE_TIMEOUT_S = 300.0
"""Measuring time is proportional to text length; a piece that takes longer is split, down to single traces."""
BARE, GRADED, FULL = range(3)
MAX_FAILED_ALIKE = 16
"""If this many single traces cannot be examined and none can, the cause is not in the traces."""
MAX_SLOW = 256
"""Most gradings that may wait for a second try, because their pieces stay in memory."""
COLUMNS = [
    "problem_id",
    "sample_index",
    "text",
    "reasoning",
    "content",
    "finish_reason",
    "num_completion_tokens",
    "error",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything besides the trace that determines its facts. Paths are absolute: workers run in another folder."""

    cache: str
    """The `FactCache` file."""
    language: str | None
    """ISO 639-1 code; `prompt`: the language of the prompt; `None`: language is not measured."""
    leaks: tuple[str, ...]
    """The system prompt and the worked examples shown to the teacher."""
    tokenizer: str | None
    """The student's `tokenizer.json`; `None`: lengths in its tokens are not needed."""
    student: str
    """Name and revision of the tokenizer's model."""
    graders: Versions
    """Of what grades."""
    gym_min_score: float
    timeout_s: float
    memory_gib: float

    @property
    def fingerprint(self) -> str:
        """Return what determines the facts about a text, as a part of their cache key."""
        return json.dumps([SIGNATURE_VERSION, MEASURES_VERSION, self.leaks, self.student])


@wire.result
@dataclass(frozen=True, slots=True)
class Facts(Record):
    """What is known about one trace."""

    problem_id: str
    sample_index: int
    finish_reason: FinishReason
    error: str
    num_completion_tokens: int
    think: str
    """`closed`, `unclosed` or `none`; see `distill.core.thinking.split_reasoning`."""
    has_reasoning: bool
    has_content: bool
    text_hash: bytes
    num_tokens: int | None = None
    """Reasoning and answer, in student tokens."""
    measures: Measures | None = None
    """`None` if the trace ended in an error or could not be measured."""
    signature: bytes | None = None
    grade: Grade | None = None
    stray_mark: str = ""
    """A thinking mark that is out of place inside thought or answer; empty if there is none."""

    @property
    def key(self) -> SampleKey:
        return (self.problem_id, self.sample_index)


@dataclass(frozen=True, slots=True)
class RowRange:
    """A range of rows in one row group of a shard."""

    number: int
    """Its position among all pieces, in the traces' order."""
    path: str
    group: int
    start: int
    stop: int
    problems: Mapping[str, Problem]
    settings: Settings
    effort: int = FULL
    """`FULL`; `GRADED`: without measures; `BARE`: without grades either."""


@wire.result
@dataclass(frozen=True, slots=True)
class Examined:
    """Result of examining a piece."""

    facts: list[Facts]
    fresh: list[tuple[bytes, Any]]
    """New entries for the cache."""
    ungraded: list[tuple[int, bytes, str]]
    """Row, cache key and extracted answer of each grade that needs a task of its own."""


def examine_piece(piece: RowRange) -> Examined:
    """Find the facts of a piece that are not cached. Runs in a worker."""
    traces = [
        Trace(teacher="", teacher_revision="", num_prompt_tokens=0, seed=0, **row)
        for row in _rows(piece.path, piece.group)[piece.start : piece.stop]
    ]
    facts = [bare_facts(trace) for trace in traces]
    if piece.effort == BARE:
        return Examined(facts, [], [])
    answered = [row for row, trace in enumerate(traces) if trace.finish_reason != "error"]
    keys = {row: _keys(piece.problems[traces[row].problem_id], traces[row], piece.settings) for row in answered}
    known = _known(piece.settings, list({key for pair in keys.values() for key in pair}))
    unknown = {keys[row][0]: row for row in answered if keys[row][0] not in known}
    fresh = _about_texts(piece, traces, unknown) if piece.effort == FULL else {}
    ungraded: list[tuple[int, bytes, str]] = []
    limits = piece.settings.timeout_s, piece.settings.memory_gib
    for row in answered:
        problem = piece.problems[traces[row].problem_id]
        text_key, key_of_grade = keys[row]
        if (about := known.get(text_key) or fresh.get(text_key)) is not None:
            facts[row] = _with_text(facts[row], about)
        grade = grade_from_cache(known.get(key_of_grade) or fresh.get(key_of_grade), *limits)
        if grade is None:
            quick = quick_grade(problem, gradable(problem, traces[row], last_number=False), last_number=False)
            if problem.task == CODE and not isinstance(quick, Grade):
                # Programs are graded before, where sandboxes can be started; this one could not be.
                facts[row] = replace(facts[row], grade=grade_from("ungraded_sandbox", quick.extracted_answer))
                continue
            if not isinstance(quick, Grade):
                ungraded.append((row, key_of_grade, quick.extracted_answer))
                continue
            grade = quick
            fresh[key_of_grade] = asdict(quick)
        facts[row] = replace(facts[row], grade=grade)
    return Examined(facts, list(fresh.items()), ungraded)


def _known(settings: Settings, keys: list[bytes]) -> dict[bytes, Any]:
    """Return the cached values of the keys."""
    try:
        with FactCache(Path(settings.cache)) as cache:
            return cache.get(keys)
    except sqlite3.DatabaseError:  # damaged; everything in it can be computed again
        return {}


@functools.lru_cache(maxsize=1)
def _rows(path: str, group: int) -> list[dict[str, Any]]:
    """Read a row group, cached for the pieces that follow in it."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.ParquetFile(path).read_row_group(group, columns=COLUMNS).to_pylist()
    return rows


def _keys(problem: Problem, trace: Trace, settings: Settings) -> tuple[bytes, bytes]:
    """Return the cache keys of the facts about a trace's text and of its grade."""
    language = _language(problem, settings) or ""
    text = fact_key("text", settings.fingerprint, language, problem.question, trace.reasoning, trace.content)
    content = gradable(problem, trace, last_number=False)
    return text, grade_key(problem, content, settings.graders, settings.gym_min_score)


def _language(problem: Problem, settings: Settings) -> str | None:
    return prompt_language(problem.question) if settings.language == "prompt" else settings.language


def bare_facts(trace: Trace) -> Facts:
    """Return the facts that need neither measuring nor grading."""
    split = split_reasoning(trace.text, opened=bool(trace.reasoning))
    return Facts(
        problem_id=trace.problem_id,
        sample_index=trace.sample_index,
        finish_reason=trace.finish_reason,
        error=trace.error,
        num_completion_tokens=trace.num_completion_tokens,
        think=split.state,
        has_reasoning=bool(trace.reasoning),
        has_content=bool(trace.content),
        text_hash=content_key(trace.reasoning, trace.content),
        stray_mark=stray_mark(trace.reasoning, trace.content),
    )


def _about_texts(piece: RowRange, traces: Sequence[Trace], rows: Mapping[bytes, int]) -> dict[bytes, Any]:
    """Examine the texts of some rows; return the results by key, JSON-ready for the cache."""
    settings = piece.settings
    texts = [join_reasoning(traces[row].reasoning, traces[row].content) for row in rows.values()]
    about = {}
    for key, row, text, signature in zip(rows, rows.values(), texts, signatures(texts), strict=True):
        trace, problem = traces[row], piece.problems[traces[row].problem_id]
        language = _language(problem, settings)
        measures = measure(trace.reasoning, trace.content, language, settings.leaks, problem.question)
        about[key] = {
            "measures": asdict(measures),
            "num_tokens": None if settings.tokenizer is None else _num_tokens(settings.tokenizer, text),
            "signature": signature.tobytes().hex(),
        }
    return about


def _with_text(facts: Facts, about: Mapping[str, Any]) -> Facts:
    return replace(
        facts,
        measures=Measures(**about["measures"]),
        num_tokens=about["num_tokens"],
        signature=bytes.fromhex(about["signature"]),
    )


def _num_tokens(file: str, text: str) -> int:
    return len(_tokenizer(file).encode(text, add_special_tokens=False))


@functools.lru_cache(maxsize=1)
def _tokenizer(file: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(file)


def pieces(files: Iterable[Path], problems: ProblemFile, settings: Settings) -> Iterator[RowRange]:
    """Split the shards into pieces, in the traces' order."""
    import pyarrow.parquet as pq

    number = 0
    for file in files:
        shard = pq.ParquetFile(file)
        for group in range(shard.num_row_groups):
            names = shard.read_row_group(group, columns=["problem_id"])["problem_id"].to_pylist()
            for start in range(0, len(names), PIECE_ROWS):
                stop = min(start + PIECE_ROWS, len(names))
                asked = {name: without_cases(problems[name]) for name in names[start:stop]}
                yield RowRange(number, str(file.absolute()), group, start, stop, asked, settings)
                number += 1


def examine(
    pieces: Iterable[RowRange],
    pool: GradingPool,
    cache: FactCache,
    folder: Path,
    advance: Callable[[list[Facts]], None],
) -> int:
    """Examine pieces, in whatever order the workers finish.

    Args:
        pieces: what to examine.
        pool: the workers.
        cache: stores new facts.
        folder: an empty folder; gets one file of facts per piece.
        advance: called with the facts of each finished piece.

    Returns:
        The number of pieces.
    """
    return _Examination(iter(pieces), cache, folder, advance).run(pool)


def read_facts(folder: Path, num_pieces: int) -> Iterator[Facts]:
    """Yield the facts that `examine` wrote, in the traces' order."""
    for number in range(num_pieces):
        with _facts_file(folder, number).open() as stream:
            for line in stream:
                yield _facts_from_json(json.loads(line))


@dataclass(slots=True)
class _Open:
    """A piece that is being worked on."""

    piece: RowRange
    facts: list[Facts | None]
    num_missing: int
    """Facts and grades still outstanding."""


class _PendingGrade(NamedTuple):
    """A grade that needs a task of its own."""

    number: int
    """The piece's number."""
    row: int
    key: bytes
    extracted: str
    is_last_try: bool


class _Examination:
    """The state of `examine`: hands out tasks and handles their results."""

    def __init__(
        self, pieces: Iterator[RowRange], cache: FactCache, folder: Path, advance: Callable[[list[Facts]], None]
    ) -> None:
        self._pieces, self._cache, self._folder, self._advance = pieces, cache, folder, advance
        self._open: dict[int, _Open] = {}
        self._urgent: deque[PoolTask] = deque()
        """Tasks of pieces that are already open."""
        self._slow: deque[PoolTask] = deque()
        """Gradings that exceeded the first, short limit."""
        self._num_pieces = self._num_examined = self._num_given_up = 0

    def run(self, pool: GradingPool) -> int:
        for tag, outcome in pool.run(self._next_task):
            if isinstance(tag, RowRange):
                self._take_piece(tag, outcome)
            else:
                self._take_grade(tag, outcome)
        return self._num_pieces

    def _next_task(self) -> PoolTask | None:
        if self._urgent:
            return self._urgent.popleft()
        piece = next(self._pieces, None) if len(self._slow) < MAX_SLOW else None
        if piece is None:
            return self._slow.popleft() if self._slow else None
        num_rows = piece.stop - piece.start
        self._open[piece.number] = _Open(piece, [None] * num_rows, num_rows)
        self._num_pieces += 1
        return _piece_task(piece)

    def _take_piece(self, piece: RowRange, outcome: object) -> None:
        if not isinstance(outcome, Outcome | Examined) or (
            isinstance(outcome, Examined) and not _is_of(piece, outcome)
        ):
            outcome = CRASHED
        if isinstance(outcome, Outcome):
            self._give_up_if_all_fail(piece, outcome)
            self._urgent.extend(_piece_task(part) for part in _smaller(piece))
            return
        self._num_examined += piece.effort == FULL
        self._cache.put(outcome.fresh)
        opened = self._open[piece.number]
        offset = piece.start - opened.piece.start
        opened.facts[offset : offset + len(outcome.facts)] = outcome.facts
        opened.num_missing += len(outcome.ungraded) - len(outcome.facts)
        for row, key, extracted in outcome.ungraded:
            is_last = piece.settings.timeout_s <= FIRST_LIMIT_S
            self._urgent.append(self._grading(_PendingGrade(piece.number, offset + row, key, extracted, is_last)))
        self._finish(opened)

    def _give_up_if_all_fail(self, piece: RowRange, outcome: Outcome) -> None:
        """Stop if every trace fails, so that a broken tokenizer or installation is not mistaken for broken traces.

        Raises:
            StageError: no trace can be examined.
        """
        self._num_given_up += piece.stop - piece.start == 1
        if self._num_given_up >= MAX_FAILED_ALIKE and not self._num_examined:
            raise StageError(
                f"the first {self._num_given_up} traces cannot be examined ({outcome}). The cause is not in the "
                "traces: check the student's tokenizer, the installation and filter.grade_memory_gib."
            )

    def _grading(self, asked: _PendingGrade) -> PoolTask:
        opened = self._open[asked.number]
        facts, piece = opened.facts[asked.row], opened.piece
        assert facts is not None
        grade = functools.partial(grade_slowly, gym_min_score=piece.settings.gym_min_score)
        limit_s = None if asked.is_last_try else FIRST_LIMIT_S
        return PoolTask(asked, grade, (piece.problems[facts.problem_id], asked.extracted), limit_s)

    def _take_grade(self, asked: _PendingGrade, outcome: object) -> None:
        if outcome is TIMED_OUT and not asked.is_last_try:
            self._slow.append(self._grading(asked._replace(is_last_try=True)))
            return
        opened = self._open[asked.number]
        facts, grade = opened.facts[asked.row], grade_from(outcome, asked.extracted)
        assert facts is not None
        settings = opened.piece.settings
        if (entry := cache_entry(grade, outcome, settings.timeout_s, settings.memory_gib)) is not None:
            self._cache.put({asked.key: entry})
        opened.facts[asked.row] = replace(facts, grade=grade)
        opened.num_missing -= 1
        self._finish(opened)

    def _finish(self, opened: _Open) -> None:
        if opened.num_missing:
            return
        facts = [one for one in opened.facts if one is not None]
        with _facts_file(self._folder, opened.piece.number).open("w") as stream:
            stream.writelines(json.dumps(_facts_to_json(one)) + "\n" for one in facts)
        del self._open[opened.piece.number]
        self._advance(facts)


def _piece_task(piece: RowRange) -> PoolTask:
    return PoolTask(piece, examine_piece, piece, PIECE_TIMEOUT_S, reads_files=True)


def _is_of(piece: RowRange, examined: Examined) -> bool:
    """Return whether a worker's result fits its piece. Workers handle untrusted text, so their results are checked."""
    num_rows = piece.stop - piece.start
    return (
        len(examined.facts) == num_rows
        and all(facts.problem_id in piece.problems for facts in examined.facts)
        and all(0 <= row < num_rows for row, _, _ in examined.ungraded)
        and len({row for row, _, _ in examined.ungraded}) == len(examined.ungraded)
    )


def _smaller(piece: RowRange) -> list[RowRange]:
    """Return the halves of a piece that hung or crashed; for a single trace, the piece with less effort.

    Raises:
        StageError: even reading the trace fails.
    """
    if piece.effort == BARE:
        raise StageError(
            f"{piece.path}: row {piece.start} of row group {piece.group} cannot be read within the workers' "
            "time and memory limits. Raise filter.grade_memory_gib."
        )
    if piece.stop - piece.start == 1:
        return [replace(piece, effort=piece.effort - 1)]
    middle = (piece.start + piece.stop) // 2
    return [replace(piece, stop=middle), replace(piece, start=middle)]


def _facts_file(folder: Path, number: int) -> Path:
    return folder / f"{number:07d}.jsonl"


def _facts_to_json(facts: Facts) -> dict[str, Any]:
    row = asdict(facts)
    return {**row, "text_hash": facts.text_hash.hex(), "signature": facts.signature and facts.signature.hex()}


def _facts_from_json(row: dict[str, Any]) -> Facts:
    measures, grade, signature = row["measures"], row["grade"], row["signature"]
    return Facts(
        **{
            **row,
            "text_hash": bytes.fromhex(row["text_hash"]),
            "measures": measures and Measures(**measures),
            "signature": signature and bytes.fromhex(signature),
            "grade": grade and Grade(**grade),
        }
    )

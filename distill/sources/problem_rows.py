"""Read rows of problems: the question, its options, the expected answer and what is kept beside them.

    {"problem": "What is 2 + 2?", "answer": "4"}  ->  ReadRow(question="What is 2 + 2?", answer="4", …)  ->  Problem

What an answer means, such as an option's index, is known only once all rows of a source are read.
"""

import contextlib
import difflib
import hashlib
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.records import CodeTests, Problem, problem_id
from distill.core.table_cells import CellError, answer_text
from distill.errors import ProblemError
from distill.grading.boxes import find_boxes
from distill.grading.golds import ChoiceGold, UnreadableGoldError, read_choice_golds, strip_answer
from distill.grading.options import choice_of, options_of
from distill.recipe.problems import ProblemSource, Window
from distill.recipe.traces import TraceSource
from distill.sources.code_tests import UnreadableTestsError, read_tests
from distill.sources.contest_rows import full_statement
from distill.sources.tables import MAX_LINE_BYTES, MAX_LONG_LINE_BYTES, Row, file_rows, hub_rows
from distill.storage.case_files import iter_cases, tests_identity

PROBLEM_COLUMNS = ("problem", "question", "prompt", "instruction")
CODE_PROBLEM_COLUMNS = (*PROBLEM_COLUMNS, "text", "content", "description", "question_content")
OPTION_COLUMNS = ("options", "choices")
ANSWER_COLUMNS = ("answer", "expected_answer", "gtruth_answer", "solution")
SOLUTION_COLUMNS = ("canonical_solution", "solution", "solutions", "code")
"""Columns with a program that solves a problem of `task: code`."""
BOXED = "\\boxed"
"""The `answer_after` of solutions whose last box holds the answer, however the box is written."""
NUM_SHOWN_TESTS = 3
"""Assertions that `{tests}` in a template becomes."""


def content_hash(rows: Iterable["ReadRow"]) -> str:
    """Return the SHA-256 (hex) of the questions, answers, options, metadata and tests as read, in any order of the
    rows.

    It is the same for JSONL, CSV and Parquet: numbers count as their text, and null as no text.
    """
    digest = hashlib.sha256()
    for line in sorted(_hashed(row) for row in rows):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _hashed(row: "ReadRow") -> str:
    told = [row.question, row.answer, row.options.texts, _as_text(row.metadata)]
    return json.dumps(told if row.tests is None else [*told, tests_identity(row.tests)], sort_keys=True)


def _as_text(value: Any) -> Any:
    """Return a JSON value with texts in place of numbers, truth values and null, as CSV has them."""
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    return answer_text(value) or ""


def content_hash_of(source: ProblemSource) -> str:
    """Return the `content_hash` of a source's rows, loading them; empty for generated problems.

    Raises:
        ProblemError: the source cannot be loaded, or a row is unusable.
    """
    if source.source.startswith("gym:"):
        return ""
    return content_hash(read_rows(source, rows_of(source), may_lack_answers=True))


def rows_of(source: ProblemSource) -> Iterable[Row]:
    kind, _, name = source.source.partition(":")
    if kind == "hf":
        return hub_rows(name, source.config, source.split, source.revision, source.files)
    return file_rows(Path(name), max_line_bytes=longest_line(source))


def longest_line(source: ProblemSource | TraceSource) -> int:
    """Return the most bytes of a line of JSONL, which may hold the tests of programs."""
    return MAX_LONG_LINE_BYTES if source.task == "code" else MAX_LINE_BYTES


def read_rows(
    source: ProblemSource, rows: Iterable[Row], may_lack_answers: bool, store: Path | None = None
) -> list["ReadRow"]:
    """Return the rows that are within the source's window.

    Args:
        source: what to read, and how.
        rows: its rows.
        may_lack_answers: whether a row may have neither an expected answer nor tests.
        store: folder for long tests, see `distill.storage.case_files.pack_tests`.

    Raises:
        ProblemError: a row has no question, or no answer where one is needed, or cannot be read.
    """
    read: list[ReadRow] = []
    without_answer = []
    columns: tuple[str, str | None] | None = None
    for place, row in rows:
        if source.window is not None and not _is_within(source.window, row, place):
            continue
        columns = columns or _pick_columns(source, row, place, may_lack_answers or source.task == "code")
        found = _read_row(source, place, row, columns, store)
        has_gold = found.answer is not None if source.task != "code" else found.tests is not None
        if not has_gold and not may_lack_answers:
            without_answer.append(place)
        else:
            read.append(found)
    if without_answer and source.task == "code":
        named = f" in column {source.columns.tests!r}" if source.columns.tests else ""
        raise ProblemError(
            f"{source.source}: {len(without_answer)} rows have no tests{named} ({_shown(without_answer)}). Programs "
            "cannot be graded without tests: remove these rows, or name the right column in columns.tests."
        )
    if without_answer:
        marker = f" after {source.answer_after!r}" if source.answer_after else ""
        column = columns[1] if columns else "answer"
        raise ProblemError(
            f"{source.source}: {len(without_answer)} rows have no answer in column {column!r}{marker} "
            f"({_shown(without_answer)}). "
            "Such a problem cannot be graded: remove these rows, name the right column in columns.answer, or set "
            "filter.majority to let a problem's traces vote."
        )
    return read


def problems_of(source: ProblemSource, rows: Sequence["ReadRow"], seed: int) -> list[Problem]:
    answers = _choice_answers(source, rows) if source.task == "choice" else [row.answer for row in rows]
    return [_problem_of_row(source, row, answer, seed) for row, answer in zip(rows, answers, strict=True)]


def _is_within(window: Window, row: Mapping[str, Any], place: str) -> bool:
    """Return whether a row's date is within the window.

    Raises:
        ProblemError: the column holds no date.
    """
    value = row.get(window.column)
    text = answer_text(value)
    try:
        day = datetime.fromisoformat(text or "").date()
    except ValueError:
        raise ProblemError(
            f"{place}: column {window.column!r} (window.column) holds no date ({value!r:.40}). Fix or remove the row, "
            "or name another column."
        ) from None
    return (window.first is None or day >= window.first) and (window.last is None or day <= window.last)


class _Options(NamedTuple):
    """The options of a row."""

    texts: list[str]
    labels: list[str]
    """The row's own labels (`["1", "2"]`), if it has any."""
    are_numbers: bool = False


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row, read before the meaning of its source's answers is known."""

    place: str
    question: str
    value: Any
    """The answer as stored."""
    answer: str | None
    options: _Options
    own_id: str | None
    metadata: dict[str, Any]
    tests: CodeTests | None = None


def _read_row(
    source: ProblemSource,
    place: str,
    row: Mapping[str, Any],
    columns: tuple[str, str | None],
    store: Path | None = None,
) -> ReadRow:
    question = row.get(columns[0])
    if not isinstance(question, str) or not question.strip():
        raise ProblemError(
            f"{place}: column {columns[0]!r} holds no question ({question!r:.60}). Fix or remove the row, or "
            "name another column in columns.problem."
        )
    question = full_statement(row, question) if source.task == "code" else question
    value = row.get(columns[1]) if columns[1] else None
    try:
        answer = _program(value) if source.task == "code" else _final_answer(value, source.answer_after)
    except CellError as error:
        raise ProblemError(f"{place}: the answer in column {columns[1]!r} {error}. Fix or remove the row.") from None
    options = _options(source, place, row, question)
    if source.task == "choice" and isinstance(source.columns.options, list) and columns[1] in source.columns.options:
        # The right option has a column of its own; by its text it could be taken for a letter, or for another option.
        value = answer = string.ascii_uppercase[source.columns.options.index(columns[1])]
    own_id = row.get(source.columns.id) if source.columns.id else None
    if source.columns.id and (own_id is None or not str(own_id).strip()):
        raise ProblemError(
            f"{place}: column {source.columns.id!r} (columns.id) is missing or empty. Fix "
            "the row, or leave columns.id out to have ids made from the content."
        )
    name = None if own_id is None else _clean(str(own_id).strip())
    kept = {key: _metadata(place, row, column) for key, column in source.columns.metadata.items()}
    value = answer if source.answer_after else value
    return ReadRow(place, question.strip(), value, answer, options, name, kept, _tests(source, place, row, store))


def _tests(source: ProblemSource, place: str, row: Mapping[str, Any], store: Path | None) -> CodeTests | None:
    """Return the tests of a row of `task: code`.

    Raises:
        ProblemError: they cannot be read.
    """
    if source.task != "code":
        return None
    kind, _, name = source.source.partition(":")
    folder = Path(name).parent if kind == "file" else None
    try:
        return read_tests(row, source.columns.tests, source.tests, folder, store)
    except UnreadableTestsError as error:
        column = f"column {source.columns.tests!r}" if source.columns.tests else "their column"
        raise ProblemError(f"{place}: the tests cannot be read: {column} {error}. Fix or remove the row.") from None


def _metadata(place: str, row: Mapping[str, Any], column: str) -> Any:
    """Return a plain JSON value of a column; objects are without their null keys, which Parquet and Arrow add.

    Raises:
        ProblemError: there is no such column, or it holds something else.
    """
    if column not in row:
        raise ProblemError(f"{place}: no column {column!r} (columns.metadata). There are: {', '.join(row)}.")
    try:
        text = _clean(json.dumps(row[column], allow_nan=False, default=answer_text))
        return json.loads(text, object_hook=lambda found: {k: v for k, v in found.items() if v is not None})
    except (TypeError, ValueError):
        raise ProblemError(
            f"{place}: column {column!r} (columns.metadata) holds a {type(row[column]).__name__}, which JSON has not. "
            "Fix or remove the row."
        ) from None


def _problem_of_row(source: ProblemSource, row: ReadRow, answer: str | None, seed: int) -> Problem:
    task = source.task or "math"
    options, metadata = row.options.texts, dict(row.metadata)
    if source.shuffle_options and options:
        draws = [hashlib.sha256(f"{seed}/{row.question}/{i}".encode()).digest() for i in range(len(options))]
        order = sorted(range(len(options)), key=draws.__getitem__)
        letter = None if answer is None else choice_of(answer, options)
        options = [options[i] for i in order]
        answer = answer if letter is None else string.ascii_uppercase[order.index(ord(letter) - ord("A"))]
        metadata["option_order"] = order
    text = _fill(source.template, row.question, options, row.tests)
    prompt = [{"role": "user", "content": _clean(text)}]
    name = problem_id(prompt, task, answer, row.tests) if row.own_id is None else row.own_id
    metadata |= {"options": options} if options else {}
    return Problem(name, prompt, answer, task, source_label(source), metadata, row.tests)


def _choice_answers(source: ProblemSource, rows: Sequence[ReadRow]) -> list[str | None]:
    """Return the answers of a multiple-choice source, with letters for indices and labels.

    Raises:
        ProblemError: some answers name no option or are ambiguous.
    """
    given = [row for row in rows if row.answer is not None]
    golds = [
        ChoiceGold(
            row.place,
            row.value,
            row.options.texts or options_of(_asked(row.question)),
            row.options.labels,
            row.options.are_numbers,
        )
        for row in given
    ]
    try:
        read = iter(read_choice_golds(golds, source.answer_index))
    except UnreadableGoldError as unreadable:
        raise ProblemError(
            f"{source.source}: {len(unreadable.places)} {'row has' if len(unreadable.places) == 1 else 'rows have'} an "
            f"expected answer that cannot be read ({_shown(unreadable.places)}): {unreadable.why}. Write letters, fix "
            "or remove these rows, or say with answer_index: 0 or 1 what the first option counts as."
        ) from None
    return [None if row.answer is None else _clean(next(read)) for row in rows]


def _shown(places: Sequence[str]) -> str:
    return ", ".join(places[:5]) + (", …" if len(places) > 5 else "")


def _options(source: ProblemSource, place: str, row: Mapping[str, Any], question: str) -> _Options:
    """Return the options of a row; none if the source has no such column."""
    column = source.columns.options or _usual_options_column(source, row, question)
    if column is None:
        return _Options([], [])
    labels: list[str] = []
    options = row.get(column) if isinstance(column, str) else [row.get(one) for one in column]
    column = column if isinstance(column, str) else ", ".join(column)
    if isinstance(options, Mapping) and isinstance(options.get("text"), list):  # as in ARC and CommonsenseQA
        labels = [str(label) for label in options.get("label") or ()]
        options = options["text"]
    if not isinstance(options, list) or not options or not all(isinstance(o, str | int | float) for o in options):
        raise ProblemError(
            f"{place}: column {column!r} (columns.options) holds no list of options "
            f"({options!r:.60}). Fix the row, or name another column."
        )
    if len(options) > len(string.ascii_uppercase):
        raise ProblemError(
            f"{place}: {len(options)} options, but at most {len(string.ascii_uppercase)} are supported. Remove the row."
        )
    are_numbers = not all(isinstance(option, str) for option in options)
    return _Options([_clean(str(option)).strip() for option in options], labels, are_numbers)


def _usual_options_column(source: ProblemSource, row: Mapping[str, Any], question: str) -> str | None:
    """Return the usual column that holds the options, unless the question lists them itself."""
    if source.task != "choice":
        return None

    column = next((c for c in OPTION_COLUMNS if isinstance(row.get(c), list | dict) and row[c]), None)
    return None if column is None or options_of(_asked(question)) else column


def _asked(question: str) -> Problem:
    return Problem("", [{"role": "user", "content": question}], None, "choice", "")


def _fill(template: str, question: str, options: list[str], tests: CodeTests | None = None) -> str:
    """Fill a template with the question, the first tests and the lettered options.

    The options are appended if they have no place in it.
    """
    lettered = "\n".join(f"{letter}) {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False))
    *first, last = [*string.ascii_uppercase[: len(options)]] or ["?"]
    letters = f"{', '.join(first)} or {last}" if first else last
    if options and "{options}" not in template:
        template += "\n\n{options}"
    # Split rather than replaced, because the question may itself contain "{options}".
    return "".join(
        {"{problem}": question, "{options}": lettered, "{letters}": letters, "{tests}": _assertions(tests)}.get(
            part, part
        )
        for part in re.split(r"(\{problem\}|\{options\}|\{letters\}|\{tests\})", template)
    )


def _assertions(tests: CodeTests | None) -> str:
    """Return the first assertions among the tests, a line each."""
    if tests is None:
        return "{tests}"
    shown = islice((case["code"] for case in iter_cases(tests) if case["kind"] == "asserts"), NUM_SHOWN_TESTS)
    return "\n".join(code.strip() for code in shown)


def prompt_around(template: str, options: Sequence[str], tests: CodeTests | None = None) -> tuple[str, str]:
    """Return what a filled template has before and after the question."""
    before, _, after = _fill(template, "\0", list(options), tests).partition("\0")
    return before, after


def _pick_columns(
    source: ProblemSource, row: Mapping[str, Any], place: str, may_lack_answers: bool
) -> tuple[str, str | None]:
    """Return the names of the question and answer columns; `None` if there is no answer column and none is needed."""

    def pick(chosen: str | None, candidates: tuple[str, ...], key: str) -> str:
        if chosen is not None and chosen in row:
            return chosen
        if chosen is not None:
            near = difflib.get_close_matches(chosen, row, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ProblemError(f"{place}: no column {chosen!r} ({key}).{hint} There are: {', '.join(row)}.")
        found = next((c for c in candidates if c in row), None)
        if found is None:
            raise ProblemError(
                f"{place}: none of the columns {', '.join(candidates)} is there; name yours in {key}. "
                f"There are: {', '.join(row)}."
            )
        return found

    is_code = source.task == "code"
    question = pick(source.columns.problem, CODE_PROBLEM_COLUMNS if is_code else PROBLEM_COLUMNS, "columns.problem")
    usual = SOLUTION_COLUMNS if is_code else ANSWER_COLUMNS
    if may_lack_answers and source.columns.answer is None and not any(c in row for c in usual):
        return question, None
    return question, pick(source.columns.answer, usual, "columns.answer")


def _program(value: Any) -> str | None:
    """Return a program as it is stored, of several the first."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # TACO: a list of programs, as JSON
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, list | tuple):
        value = next((one for one in value if isinstance(one, str) and one.strip()), None)
    text = answer_text(value)
    return _clean(text) if text is not None and text.strip() else None


def _final_answer(answer: Any, marker: str | None) -> str | None:
    text = answer_text(answer)
    if text is None:
        return None
    if marker is not None and (text := text_after(text, marker)) is None:
        return None
    return _clean(strip_answer(text)) or None


def text_after(text: str, marker: str) -> str | None:
    """Return what `answer_after` asks for: the text after the last marker, or in the last box, if there is one."""
    if marker != BOXED:
        _, found, after = text.rpartition(marker)
        return after if found else None
    last = None
    for box in find_boxes(text):
        if last is None or box.start >= last.end:  # a box within another is a part of its content
            last = box
    return None if last is None else text[last.inner_start : last.inner_end]


def _clean(text: str) -> str:
    """Replace lone surrogates, which tokenizers and UTF-8 files reject."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def source_label(source: ProblemSource | TraceSource) -> str:
    """Return the origin that a record states, without folders of this machine."""
    kind, _, name = source.source.partition(":")
    if kind == "file":
        return f"file:{Path(name).name}"
    return f"{kind}:{name}" + (f"/{source.config}" if source.config else "")

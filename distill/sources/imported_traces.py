"""Import traces generated elsewhere: stream rows of a Hub dataset or a file as `(Problem, Trace)` pairs.

A row of OpenR1-Math-220k

    {"problem": "What is 2 + 2?", "answer": "4", "uuid": "9f…", "generations": ["<think>…</think>4", "<think>…"], …}

yields one problem and two traces, samples 0 and 1. Unusable rows are recorded with place and reason. Fields that a
source lacks stay empty: 0 tokens, seed 0, no revision.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from distill.core.chat_messages import ChatError, chat_of
from distill.core.finish_reasons import ending_of
from distill.core.json_shape import PROBLEM, fault
from distill.core.records import CodeTests, Message, Problem, Trace, problem_id
from distill.core.table_cells import CellError, answer_text
from distill.core.thinking import join_reasoning, split_reasoning, whole_characters
from distill.core.thought_marks import split_marked, with_think
from distill.errors import ProblemError, StoreError
from distill.grading.gym_tasks import check_gym_recipe
from distill.recipe.problems import Task
from distill.recipe.traces import TraceSource
from distill.sources.code_tests import UnreadableTestsError, checked_case, read_tests
from distill.sources.imported_texts import (
    CONTENT_COLUMNS,
    MESSAGES_COLUMNS,
    TEXT_COLUMNS,
    UnusableError,
    row_texts,
    value_in,
)
from distill.sources.problem_rows import longest_line, source_label, text_after
from distill.sources.tables import Row, file_rows, hub_rows
from distill.storage.case_files import at_home, iter_cases

NUM_LOOKED = 100
"""Number of rows after which a missing column that the recipe names is an error."""
MAX_EXAMPLES = 20
"""Maximum number of skipped rows recorded with place and reason; all are counted."""

PROBLEM_COLUMNS = ("problem", "question", "prompt", "instruction")
ANSWER_COLUMNS = ("answer", "expected_answer", "gtruth_answer", "gt")
PROGRAM_COLUMNS = ("canonical_solution", "solution")
"""Columns with a program that solves a problem of `task: code`."""
ID_COLUMNS = ("uuid", "problem_id", "id")
MODEL_COLUMNS = ("generation_model", "teacher", "model")
SYSTEM_COLUMNS = ("system", "system_prompt")


@dataclass(slots=True)
class Skipped:
    """Rows that could not be used: counts by reason, and the first rows with their places."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    """(place, reason) of the first rows."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> columns of its first row, if naming other columns may help."""

    def add(self, place: str, reason: str, row: Mapping[str, Any] | None = None) -> None:
        """Count an unusable row or trace.

        Args:
            place: the place of the row.
            reason: why it cannot be used, as a sentence.
            row: the row, if naming other columns may help.
        """
        self.counts[reason] += 1
        if row is not None:
            self.columns.setdefault(reason, list(row))
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append((place, reason))


@dataclass(slots=True)
class Identities:
    """Hashes of what all sources have yielded so far, so that problem ids and trace identities stay unique."""

    content_of_id: dict[str, bytes] = field(default_factory=dict)
    num_samples: Counter[str] = field(default_factory=Counter)


def foreign_traces(
    source: TraceSource,
    skipped: Skipped | None = None,
    identities: Identities | None = None,
    rows: Iterable[Row] | None = None,
    store: Path | None = None,
) -> Iterator[tuple[Problem, Trace]]:
    """Yield the traces of a source in order, each with its problem.

    Args:
        source: what to read, and how.
        skipped: collects the rows that could not be used.
        identities: those of the sources read before; `None`: this is the first.
        rows: the source's first rows, if only these are to be read; `None`: read all.
        store: folder for long tests of programs; `None`: a temporary one.

    Raises:
        ProblemError: the source cannot be read, a named column is missing, or no row is usable.
    """
    skipped = Skipped() if skipped is None else skipped
    reader = _Reader(source, Identities() if identities is None else identities, store)
    num_traces = 0
    for place, row in _rows(source, skipped) if rows is None else rows:
        try:
            found = reader.read(place, row)
        except UnusableError as error:
            skipped.add(place, str(error), row if error.of_columns else None)
            continue
        for pair in found:
            yield pair
            num_traces += 1
            if num_traces == source.limit:
                reader.refuse_missing_columns()
                return
        for reason in reader.left_out:
            skipped.add(place, reason)
    if reader.num_looked:
        reader.refuse_missing_columns()
    if not num_traces:
        raise ProblemError(_nothing_usable(source, skipped))


def _rows(source: TraceSource, skipped: Skipped) -> Iterator[Row]:
    kind, _, name = source.source.partition(":")
    if kind == "hf":
        return hub_rows(name, source.config, source.split, source.revision)
    return file_rows(Path(name), skipped.add, longest_line(source))


def _nothing_usable(source: TraceSource, skipped: Skipped) -> str:
    if not skipped.counts:
        return f"{source.source}: there are no rows. Check the source, its config and its split."
    counts, columns = skipped.counts, skipped.columns
    usual = max(counts, key=lambda reason: (counts[reason], reason in columns))
    place, reason = next((one for one in skipped.examples if one[1] == usual), skipped.examples[0])
    there = ", ".join(map(str, columns.get(reason, ())))
    named = f" Name the right ones under `columns:`. There are: {there}." if there else ""
    return f"{source.source}: none of the {counts.total():,} rows is usable, for example {place}: {reason}{named}"


class _Reader:
    """A converter of rows to (problem, trace) pairs."""

    def __init__(self, source: TraceSource, identities: Identities, store: Path | None) -> None:
        self._source, self._store = source, store
        self._label = source_label(source)
        self._known = _known_problems(source)
        self._identities = identities
        self.left_out: list[str] = []
        """Why single traces of the last row were left out."""
        self._unseen: dict[str, str] = source.columns.model_dump(exclude_none=True)
        """Columns that the recipe names but no row has had yet."""
        self.num_looked = 0
        self._last: Row = ("", {})

    def read(self, place: str, row: Mapping[str, Any]) -> list[tuple[Problem, Trace]]:
        self._look_for_named_columns(place, row)
        self.left_out = []
        problem = self._problem(row)
        pairs = []
        for text, told in row_texts(row, self._source):
            if text is None:
                self.left_out.append("a trace without text.")
                continue
            pairs.append((problem, self._trace(problem, row, text, told)))
        if not pairs:
            self.left_out = []
            raise UnusableError("it has no text.", of_columns=True)
        return pairs

    def _look_for_named_columns(self, place: str, row: Mapping[str, Any]) -> None:
        self._last = place, row
        self.num_looked += 1
        if self._unseen:
            self._unseen = {key: column for key, column in self._unseen.items() if column not in row}
        if self.num_looked == NUM_LOOKED:
            self.refuse_missing_columns()

    def refuse_missing_columns(self) -> None:
        """Raise if no row so far has a column that the recipe names.

        Raises:
            ProblemError: a named column is missing from all of them.
        """
        # A JSONL row may omit a column; if all rows do, the recipe is wrong.
        for key, column in self._unseen.items():
            place, row = self._last
            raise ProblemError(f"{place}: no column {column!r} (columns.{key}). There are: {', '.join(row)}.")

    def _value(self, row: Mapping[str, Any], key: str, usual: Sequence[str]) -> Any:
        return value_in(row, self._source.columns, key, usual)

    def _problem(self, row: Mapping[str, Any]) -> Problem:
        own = row.get("problem_id")
        if self._known and isinstance(own, str):
            if own not in self._known:
                raise UnusableError("its problem_id is not among the problems.")
            known = self._known[own]
            return replace(known, id=self._free_id(own, known.prompt, known.task, known.answer, known.tests))
        prompt = self._prompt(row)
        answer = self._answer(row)
        task = "math" if self._source.task in (None, "gym") else self._source.task
        tests = self._tests(row)
        name = self._id(row, prompt, task, answer, tests)
        return Problem(name, prompt, answer, task, self._label, tests=tests)

    def _prompt(self, row: Mapping[str, Any]) -> list[Message]:
        question = self._value(row, "problem", PROBLEM_COLUMNS)
        if isinstance(question, str) and question.strip():
            text = self._source.template.replace("{problem}", question.strip())
            messages = [{"role": "user", "content": whole_characters(text)}]
        else:
            messages = self._asked(row, question)
        system = self._value(row, "system", SYSTEM_COLUMNS)
        if self._source.system == "drop":
            return [message for message in messages if message["role"] != "system"]
        if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
            return [{"role": "system", "content": whole_characters(system)}, *messages]
        return messages

    def _asked(self, row: Mapping[str, Any], question: Any) -> list[Message]:
        """Return the prompt of a row as a chat: the question, or the messages before the last answer.

        Raises:
            UnusableError: there is none, or it cannot be read.
        """
        try:
            messages = chat_of(question)
            if question is None:
                messages = _before_the_answer(chat_of(self._value(row, "messages", MESSAGES_COLUMNS)) or [])
        except ChatError as error:
            raise UnusableError(f"its chat cannot be read: {error}.") from None
        if not messages or not any(m["role"] == "user" and m["content"].strip() for m in messages):
            named = self._source.columns.problem
            is_null = named is not None and named in row and question is None
            why = f"column {named!r} (columns.problem) is null." if is_null else "it has no question."
            raise UnusableError(why, of_columns=not is_null)
        return [self._in_think_marks(message) for message in messages]

    def _in_think_marks(self, message: Message) -> Message:
        """Return the message, with an earlier answer's thinking in the marks that the student learns."""
        if message["role"] != "assistant":
            return message
        text = with_think(message["content"], self._source.think_marks)
        split = split_marked(text)
        if split is not None and split.state == "closed":
            text = join_reasoning(split.reasoning, split.content)
        return {**message, "content": text}

    def _answer(self, row: Mapping[str, Any]) -> str | None:
        """Return the expected answer; `None` if the row's only answer is the model's own."""
        if self._source.task == "code":
            text = self._value(row, "answer", PROGRAM_COLUMNS)
            return whole_characters(text) if isinstance(text, str) and text.strip() else None
        usual = ANSWER_COLUMNS[1:] if self._answer_is_content(row) else ANSWER_COLUMNS
        try:
            text = answer_text(self._value(row, "answer", usual))
        except CellError as error:
            raise UnusableError(f"its answer {error}.") from None
        if text is None:
            return None
        if self._source.answer_after is not None and (text := text_after(text, self._source.answer_after)) is None:
            return None
        return whole_characters(text.strip()) or None

    def _tests(self, row: Mapping[str, Any]) -> CodeTests | None:
        """Return the tests of a row of `task: code`; `None` if there are none, so that its traces are ungraded.

        Raises:
            UnusableError: they cannot be read.
        """
        if self._source.task != "code":
            return None
        kind, _, path = self._source.source.partition(":")
        folder = Path(path).parent if kind == "file" else None
        try:
            return read_tests(row, self._source.columns.tests, self._source.tests, folder, self._store)
        except UnreadableTestsError as error:
            raise UnusableError(f"its tests cannot be read: their column {error}.") from None

    def _answer_is_content(self, row: Mapping[str, Any]) -> bool:
        """Return whether `answer` is the model's text after its thinking, as in {question, reasoning, answer}."""
        if self._source.columns.content == "answer":
            return True
        has_trace = any(row.get(column) is not None for column in (*TEXT_COLUMNS, *MESSAGES_COLUMNS))
        has_content = self._source.columns.content or any(row.get(c) is not None for c in CONTENT_COLUMNS[:-1])
        return not has_trace and not has_content and self._source.columns.text is None

    def _id(
        self, row: Mapping[str, Any], prompt: list[Message], task: str, answer: str | None, tests: CodeTests | None
    ) -> str:
        """Return the row's own id, or the content's hash if it has none."""
        own = self._value(row, "id", ID_COLUMNS)
        name = whole_characters(str(own).strip()) if isinstance(own, str | int) else ""
        return self._free_id(name or problem_id(prompt, task, answer, tests), prompt, task, answer, tests)

    def _free_id(self, name: str, prompt: list[Message], task: str, answer: str | None, tests: CodeTests | None) -> str:
        """Return the name, or the content's hash if another problem already has that name."""
        content = problem_id(prompt, task, answer, tests)
        told = [prompt, task, answer, tests and tests.sha256]
        digest = hashlib.sha256(json.dumps(told).encode()).digest()[:16]
        return name if self._identities.content_of_id.setdefault(name, digest) == digest else content

    def _trace(self, problem: Problem, row: Mapping[str, Any], text: str, told: Any) -> Trace:
        split = split_reasoning(text, row.get("think_opened") is True)
        ending = ending_of(told)
        model = self._value(row, "model", MODEL_COLUMNS)
        teacher = whole_characters(model) if isinstance(model, str) and model else self._source.teacher or self._label
        sample_index = self._identities.num_samples[problem.id]
        self._identities.num_samples[problem.id] += 1
        return Trace(
            problem.id,
            sample_index,
            teacher,
            _text(row.get("teacher_revision")),
            text,
            split.reasoning,
            split.content,
            ending.reason,
            _count(row.get("num_prompt_tokens")),
            _count(row.get("num_completion_tokens")),
            _count(row.get("seed")),
            error=f"finish_reason is {_text(told)}" if ending.reason == "error" else "",
        )


def _known_problems(source: TraceSource) -> dict[str, Problem]:
    """Return the problems to which rows refer, by id."""
    if source.problems is None:
        return {}
    problems = {}
    path = Path(source.problems.removeprefix("file:"))
    folder = path.parent
    for place, row in file_rows(path):
        try:
            problem = Problem.from_json(row)
            prompt = [{"role": m["role"], "content": whole_characters(m["content"])} for m in problem.prompt]
            problem = at_home(replace(problem, id=whole_characters(problem.id), prompt=prompt), folder)
            recipe = problem.metadata.get("gym")
        except (TypeError, KeyError, AttributeError):
            raise ProblemError(f"{place}: not a problem in the format of a run's problems.jsonl.") from None
        if wrong := fault(problem.to_json(), PROBLEM):
            raise ProblemError(f"{place}: not a problem in the format of a run's problems.jsonl ({wrong}).")
        if problem.task not in get_args(Task):
            raise ProblemError(f"{place}: unknown task {problem.task!r:.60}. Known: {', '.join(get_args(Task))}.")
        if problem.task == "gym":
            _check_gym(source, place, recipe)
        if problem.tests is not None:
            _check_tests(place, problem.tests)
        problems[problem.id] = problem
    return problems


def _check_gym(source: TraceSource, place: str, recipe: Any) -> None:
    """Check that the recipe allows a reasoning-gym scorer to run with options from a file.

    Raises:
        ProblemError: it does not, or the options could be evaluated.
    """
    if source.task != "gym":
        raise ProblemError(
            f"{place}: task gym runs a reasoning-gym scorer with options from this file. If you trust the file, set "
            f"task: gym beside problems: {source.problems}; otherwise give the problem another task."
        )
    try:
        check_gym_recipe(recipe)
    except ProblemError as error:
        raise ProblemError(f"{place}: metadata.gym: {error}") from None


def _check_tests(place: str, tests: CodeTests) -> None:
    """Check that the tests of a stored problem can be run.

    Raises:
        ProblemError: they cannot.
    """
    try:
        for case in iter_cases(tests):
            checked_case(case)
    except UnreadableTestsError as error:
        raise ProblemError(f"{place}: tests.cases {error}. Fix or remove the problem.") from None
    except StoreError as error:
        raise ProblemError(f"{place}: its tests cannot be read: {error}") from None
    except (ValueError, TypeError, AttributeError):
        raise ProblemError(f"{place}: its tests are no JSON objects. Fix or remove the problem.") from None


def _before_the_answer(messages: list[Message]) -> list[Message]:
    """Return the chat before its last answer; all of it if it ends with a question, answered in another column."""
    return messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0


def _text(value: Any) -> str:
    return whole_characters(value) if isinstance(value, str) else ""

"""Traces that somebody else made: rows of a Hub dataset or a file, read as our own problems and traces.

Enters: a `TraceSource`. Leaves: `(Problem, Trace)` pairs, a few rows in memory at a time. A row of OpenR1-Math-220k

    {"problem": "What is 2 + 2?", "answer": "4", "uuid": "9f…", "generations": ["<think>…</think>4", "<think>…"], …}

gives one problem and two traces, samples 0 and 1. Rows that cannot be used are kept aside with place and reason. What a
source does not tell is left empty: 0 tokens, seed 0, no revision.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.errors import ProblemError
from distill.problems import check_gym_recipe, source_label
from distill.prompts import join_reasoning, split_reasoning, whole_characters
from distill.recipe import TraceSource
from distill.records import FinishReason, Message, Problem, Trace, problem_id
from distill.rows import Row, file_rows, hub_rows

NUM_LOOKED = 100
"""After so many rows without a column that the recipe names, no more are read."""
MAX_EXAMPLES = 20
"""So many skipped rows are kept by place and reason; all are counted."""

PROBLEM_COLUMNS = ("problem", "question", "prompt", "instruction")
ANSWER_COLUMNS = ("answer", "expected_answer", "gtruth_answer", "gt")
TEXT_COLUMNS = ("generations", "text", "generated_solution", "completion", "response", "output", "generation")
MESSAGES_COLUMNS = ("messages", "conversations")
REASONING_COLUMNS = ("reasoning", "message_thinking", "reasoning_content", "thinking")
CONTENT_COLUMNS = ("content", "message_content", "answer")
ID_COLUMNS = ("uuid", "problem_id", "id")
MODEL_COLUMNS = ("generation_model", "teacher", "model")
FINISH_COLUMNS = ("finish_reasons", "finish_reason")

_FINISHED: dict[str, FinishReason] = {
    "": "stop",
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_length": "length",
    "max_new_tokens": "length",
    "loop": "loop",
    "repetition": "loop",
}


@dataclass(slots=True)
class Skipped:
    """Rows that could not be used: all counted by reason, the first of them by place."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    """(place, reason) of the first ones."""

    def add(self, place: str, reason: str) -> None:
        self.counts[reason] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append((place, reason))


@dataclass(slots=True)
class Identities:
    """What has been read so far, by hash: no two problems share an id and no two traces an identity, in all sources."""

    content_of_id: dict[str, bytes] = field(default_factory=dict)
    num_samples: Counter[str] = field(default_factory=Counter)


class _UnusableError(Exception):
    """Why a row gives no trace."""


def foreign_traces(
    source: TraceSource, skipped: Skipped | None = None, identities: Identities | None = None
) -> Iterator[tuple[Problem, Trace]]:
    """The problems and traces of a source, in its order; a problem comes with each of its traces.

    Args:
        source: what to read, and how.
        skipped: filled with the rows that could not be used, while reading.
        identities: of the sources read before; left out: none were.

    Raises:
        ProblemError: the source cannot be read, a named column is missing, or no row is usable.
    """
    skipped = Skipped() if skipped is None else skipped
    reader = _Reader(source, Identities() if identities is None else identities)
    num_traces = 0
    for place, row in _rows(source, skipped):
        try:
            found = reader.read(place, row)
        except _UnusableError as error:
            skipped.add(place, str(error))
            continue
        for pair in found:
            yield pair
            num_traces += 1
            if num_traces == source.limit:
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
    return file_rows(Path(name), skipped.add)


def _nothing_usable(source: TraceSource, skipped: Skipped) -> str:
    if not skipped.counts:
        return f"{source.source}: there are no rows. Check the source, its config and its split."
    place, reason = skipped.examples[0]
    return (
        f"{source.source}: none of the {skipped.counts.total():,} rows is usable; the first ({place}): {reason} "
        "Name the columns under columns:."
    )


class _Reader:
    """Rows to pairs."""

    def __init__(self, source: TraceSource, identities: Identities) -> None:
        self._source = source
        self._label = source_label(source)
        self._known = _known_problems(source)
        self._identities = identities
        self.left_out: list[str] = []
        """Reasons for which single traces of the last row were left out."""
        self._unseen: dict[str, str] = source.columns.model_dump(exclude_none=True)
        """Columns that the recipe names and no row has had yet."""
        self.num_looked = 0
        self._last: Row = ("", {})

    def read(self, place: str, row: Mapping[str, Any]) -> list[tuple[Problem, Trace]]:
        self._look_for_named_columns(place, row)
        self.left_out = []
        problem = self._problem(row)
        texts, reasons = self._texts(row)
        pairs = []
        for text, reason in zip(texts, reasons, strict=True):
            if not isinstance(text, str) or not text.strip():
                self.left_out.append("a trace without text.")
                continue
            pairs.append((problem, self._trace(problem, row, whole_characters(text), _finish_reason(reason))))
        if not pairs:
            self.left_out = []
            raise _UnusableError("it has no text.")
        return pairs

    def _look_for_named_columns(self, place: str, row: Mapping[str, Any]) -> None:
        self._last = place, row
        self.num_looked += 1
        if self._unseen:
            self._unseen = {key: column for key, column in self._unseen.items() if column not in row}
        if self.num_looked == NUM_LOOKED:
            self.refuse_missing_columns()

    def refuse_missing_columns(self) -> None:
        """A row of JSONL may leave a column out; that no row has it is a mistake.

        Raises:
            ProblemError: no row so far has a column that the recipe names.
        """
        for key, column in self._unseen.items():
            place, row = self._last
            raise ProblemError(f"{place}: no column {column!r} (columns.{key}). There are: {', '.join(row)}.")

    def _value(self, row: Mapping[str, Any], key: str, usual: Sequence[str]) -> Any:
        named = getattr(self._source.columns, key)
        if named is not None:
            return row.get(named)
        return next((row[column] for column in usual if row.get(column) is not None), None)

    def _problem(self, row: Mapping[str, Any]) -> Problem:
        own = row.get("problem_id")
        if self._known and isinstance(own, str):
            if own not in self._known:
                raise _UnusableError("its problem_id is not among the problems.")
            known = self._known[own]
            return replace(known, id=self._free_id(own, known.prompt, known.task, known.answer))
        question = self._value(row, "problem", PROBLEM_COLUMNS)
        if question is None:
            question = _before_the_answer(self._value(row, "messages", MESSAGES_COLUMNS))
        prompt = self._prompt(question)
        answer = self._answer(row)
        task = "math" if self._source.task in (None, "gym") else self._source.task
        return Problem(self._id(row, prompt, task, answer), prompt, answer, task, self._label)

    def _prompt(self, question: Any) -> list[Message]:
        if isinstance(question, str) and question.strip():
            text = self._source.template.replace("{problem}", question.strip())
            return [{"role": "user", "content": whole_characters(text)}]
        messages = _messages(question)
        if not any(message["role"] == "user" and message["content"].strip() for message in messages):
            raise _UnusableError("it has no question.")
        return messages

    def _answer(self, row: Mapping[str, Any]) -> str | None:
        """The expected answer; none where the row's only answer is the model's own."""
        usual = ANSWER_COLUMNS[1:] if self._answer_is_content(row) else ANSWER_COLUMNS
        answer = self._value(row, "answer", usual)
        if answer is None or isinstance(answer, dict | list):
            return None
        text = str(answer)
        if self._source.answer_after is not None:
            _, marker, text = text.rpartition(self._source.answer_after)
            if not marker:
                return None
        return whole_characters(text.strip()) or None

    def _answer_is_content(self, row: Mapping[str, Any]) -> bool:
        """Whether `answer` is what follows the thought: {question, reasoning, answer} has no other place for it."""
        if self._source.columns.content == "answer":
            return True
        has_trace = any(row.get(column) is not None for column in (*TEXT_COLUMNS, *MESSAGES_COLUMNS))
        has_content = self._source.columns.content or any(row.get(c) is not None for c in CONTENT_COLUMNS[:-1])
        return not has_trace and not has_content and self._source.columns.text is None

    def _id(self, row: Mapping[str, Any], prompt: list[Message], task: str, answer: str | None) -> str:
        """The row's own id, or the content's hash where it has none."""
        own = self._value(row, "id", ID_COLUMNS)
        name = whole_characters(str(own).strip()) if isinstance(own, str | int) else ""
        return self._free_id(name or problem_id(prompt, task, answer), prompt, task, answer)

    def _free_id(self, name: str, prompt: list[Message], task: str, answer: str | None) -> str:
        """The name, or the content's hash where another problem has that name already."""
        content = problem_id(prompt, task, answer)
        digest = hashlib.sha256(json.dumps([prompt, task, answer]).encode()).digest()[:16]
        return name if self._identities.content_of_id.setdefault(name, digest) == digest else content

    def _texts(self, row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """The row's traces and their finish reasons, one beside the other."""
        reasons = self._value(row, "finish_reason", FINISH_COLUMNS)
        text = self._value(row, "text", TEXT_COLUMNS)
        if isinstance(text, list) and not _messages(text):
            told = reasons if isinstance(reasons, list) else [reasons] * len(text)
            complete = row.get("is_reasoning_complete")
            if reasons is None and isinstance(complete, list):
                told = ["length" if is_complete is False else None for is_complete in complete]
            return text, [told[i] if i < len(told) else None for i in range(len(text))]
        reason = reasons[0] if isinstance(reasons, list) and reasons else reasons
        if isinstance(text, list):
            return [_last_answer(text)], [reason]
        if isinstance(text, str):
            return [text], [reason]
        messages = self._value(row, "messages", MESSAGES_COLUMNS)
        if messages is not None:
            return [_last_answer(messages)], [reason]
        reasoning = self._value(row, "reasoning", REASONING_COLUMNS)
        content = self._value(row, "content", CONTENT_COLUMNS)
        parts = [part.strip() if isinstance(part, str) else "" for part in (reasoning, content)]
        return [join_reasoning(*parts)], [reason]

    def _trace(self, problem: Problem, row: Mapping[str, Any], text: str, reason: FinishReason) -> Trace:
        split = split_reasoning(text)
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
            reason,
            _count(row.get("num_prompt_tokens")),
            _count(row.get("num_completion_tokens")),
            _count(row.get("seed")),
        )


def _known_problems(source: TraceSource) -> dict[str, Problem]:
    """The problems that rows name, by id."""
    if source.problems is None:
        return {}
    problems = {}
    for place, row in file_rows(Path(source.problems.removeprefix("file:"))):
        try:
            problem = Problem.from_json(row)
            prompt = [{"role": m["role"], "content": whole_characters(m["content"])} for m in problem.prompt]
            problem = replace(problem, id=whole_characters(problem.id), prompt=prompt)
            recipe = problem.metadata.get("gym")
        except (TypeError, KeyError, AttributeError):
            raise ProblemError(f"{place}: not a problem as a run's problems.jsonl has them.") from None
        if problem.task == "gym":
            _check_gym(source, place, recipe)
        problems[problem.id] = problem
    return problems


def _check_gym(source: TraceSource, place: str, recipe: Any) -> None:
    """Have the recipe allow what a file asks for: that a task of reasoning-gym is run with options of the file's own.

    Raises:
        ProblemError: it does not, or the options could be evaluated.
    """
    if source.task != "gym":
        raise ProblemError(
            f"{place}: task gym, whose scorer is run with options that this file names. If you trust it that far, set "
            f"task: gym beside problems: {source.problems}; else give the problem another task."
        )
    try:
        check_gym_recipe(recipe)
    except ProblemError as error:
        raise ProblemError(f"{place}: metadata.gym: {error}") from None


def _messages(value: Any) -> list[Message]:
    """Chat messages of either usual form, {role, content} or {from, value}; empty where it is none."""
    if not isinstance(value, list):
        return []
    roles = {"human": "user", "gpt": "assistant"}
    messages = []
    for message in value:
        if not isinstance(message, dict):
            return []
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            return []
        messages.append({"role": roles.get(role, role), "content": whole_characters(content)})
    return messages


def _before_the_answer(value: Any) -> list[Message]:
    """The chat up to its last answer."""
    messages = _messages(value)
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=len(messages))
    return messages[:last]


def _last_answer(value: Any) -> str:
    answers = [message["content"] for message in _messages(value) if message["role"] == "assistant"]
    return answers[-1] if answers else ""


def _finish_reason(reason: Any) -> FinishReason:
    """A source's reason in our words; a source that tells none published what had stopped, any other reason is none."""
    if not isinstance(reason, str):
        return "stop"
    return _FINISHED.get(reason.strip().casefold(), "error")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0


def _text(value: Any) -> str:
    return whole_characters(value) if isinstance(value, str) else ""

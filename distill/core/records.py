"""Records that pass between stages, stored as one JSON object per line.

Example of a trace:

    {"problem_id": "9f2c…", "sample_index": 0, "teacher": "org/model", "teacher_revision": "f48b…",
     "text": "<think>\\n2 + 2 = 4\\n</think>\\n\\n4", "reasoning": "2 + 2 = 4", "content": "4",
     "finish_reason": "stop", "num_prompt_tokens": 31, "num_completion_tokens": 19, "seed": 7, "sampling": {…}}
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

Message = dict[str, str]
"""A chat message: `{"role": "system" | "user" | "assistant", "content": …}`."""

FinishReason = Literal["stop", "length", "loop", "error"]
"""Stopped by itself, cut off at `max_tokens`, stopped in a repetition loop, or failed to answer."""

GradedBy = Literal["rule", "majority", "judge", ""]
"""Who decided a grade: a rule, the majority of the problem's traces, or a judge model. Empty if nobody did."""

SampleKey = tuple[str, int]
"""A sample's identity: `(problem_id, sample_index)`, independent of its position in a file."""

REASONS: dict[str, str] = {
    "error": "the engine could not answer (the trace says why)",
    "truncated": "cut off at max_tokens before the model stopped by itself",
    "loop": "stopped while sampling: its last tokens were one piece, repeated",
    "no_think": "no <think> … </think> block",
    "unclosed_think": "<think> was opened and never closed",
    "several_thinks": "a second thought, one inside another, or a mark such as </think> inside thought or answer",
    "empty_answer": "nothing after </think>",
    "contaminated": "the problem is in an evaluation set (the certificate names the item)",
    "secret": "question or trace holds a key, a token or a password (the detail names its kind)",
    "duplicate_problem": "the problem is the same as, or nearly the same as, another one",
    "no_answer": "no final answer could be found",
    "wrong_answer": "the final answer is not the expected one",
    "ungraded_gold": "the expected answer, or tests, are missing, damaged, or wrong for the problem's own solution",
    "damaged_answer": "the final answer holds a control character where a LaTeX command lost its backslash",
    "ungraded_timeout": "grading took longer than its limit and was stopped",
    "ungraded_memory": "grading took more memory than its limit and was stopped",
    "ungraded_crash": "the grader crashed",
    "ungraded_entry": "the reasoning-gym entry cannot be regenerated, and its scorer needs it",
    "ungraded_isolation": "its scorer evaluates answers, and this machine cannot confine it (`distill doctor`)",
    "ungraded_sandbox": "its answers are programs, and no sandbox could run this one (`distill doctor`)",
    "ungraded_judge": "the judge gave no verdict",
    "judge_veto": "a rule called it right and the judge did not",
    "several_answers": "several boxed results that disagree",
    "too_short": "shorter than filter.min_tokens",
    "too_long": "longer than filter.max_tokens",
    "refusal": "the answer refuses to answer",
    "prompt_leak": "it repeats the system prompt or a worked example",
    "code_block": "it holds a fenced code block",
    "unmeasured": "the text could not be measured: that took too long or crashed",
    "long_paragraph": "a paragraph is longer than filter.readability.max_paragraph_chars",
    "repetition": "the text repeats itself",
    "mixed_language": "too much of the text is in another language than asked for",
    "duplicate": "same text as another good trace of the problem",
    "near_duplicate": "nearly the same text as another good trace of the problem",
    "pass_rate": "the teacher solves the problem too seldom or too often (filter.select)",
    "not_selected": "a good trace, but the problem already has its share (filter.select)",
    "over_source_cap": "a good trace, but its source already has its share (filter.select)",
    "over_budget": "a good trace, but the token budget is full (filter.select)",
}
"""The closed set of reasons to drop a trace, in the order in which the funnel counts them."""

REASON_KEYS: dict[str, tuple[str, ...]] = {
    "error": (),
    "truncated": ("generate.sampling.max_tokens",),
    "loop": ("generate.loops",),
    "no_think": ("filter.require_think",),
    "unclosed_think": (),
    "several_thinks": (),
    "empty_answer": (),
    "contaminated": ("filter.decontaminate",),
    "secret": (),
    "duplicate_problem": ("filter.duplicates.problems",),
    "no_answer": (),
    "wrong_answer": (),
    "ungraded_gold": ("filter.unanswered", "filter.majority", "filter.judge"),
    "damaged_answer": (),
    "ungraded_timeout": ("filter.grade_timeout_s",),
    "ungraded_memory": ("filter.grade_memory_gib",),
    "ungraded_crash": (),
    "ungraded_entry": (),
    "ungraded_isolation": (),
    "ungraded_sandbox": ("sandbox.url",),
    "ungraded_judge": ("filter.judge",),
    "judge_veto": ("filter.judge.role",),
    "several_answers": ("filter.readability.several_answers",),
    "too_short": ("filter.min_tokens",),
    "too_long": ("filter.max_tokens",),
    "refusal": ("filter.readability.refusals",),
    "prompt_leak": ("filter.readability.max_prompt_leak",),
    "code_block": ("filter.readability.code_blocks",),
    "unmeasured": (),
    "long_paragraph": ("filter.readability.max_paragraph_chars",),
    "repetition": (
        "filter.readability.max_loop_repeats",
        "filter.readability.max_loop_chars",
        "filter.readability.max_compression_ratio",
        "filter.readability.max_repeated_share",
    ),
    "mixed_language": (
        "filter.readability.language",
        "filter.readability.min_language_share",
        "filter.readability.max_foreign_words",
    ),
    "duplicate": ("filter.duplicates",),
    "near_duplicate": ("filter.duplicates.traces",),
    "pass_rate": ("filter.select.min_pass_rate", "filter.select.max_pass_rate"),
    "not_selected": ("filter.select.per_problem",),
    "over_source_cap": ("filter.select.per_source",),
    "over_budget": ("filter.select.token_budget",),
}
"""The recipe keys that control each reason, the most relevant first. Empty if no key does."""


class Record:
    """Base class of all records: conversion to and from plain JSON."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON-ready dict, with its fields in order."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the record in `row`. Keys that are not fields are ignored.

        Raises:
            TypeError: a field without a default is missing.
        """
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in row.items() if key in names})


Language = Literal["python", "cpp"]
"""Of a program under test."""


@dataclass(frozen=True, slots=True)
class CodeTests(Record):
    """How the programs that answer a problem of `task: code` are tested.

    A case is one test, a JSON object:

        {"kind": "stdin", "stdin": "1 2\\n", "expected": "3\\n"}
        {"kind": "call", "function": "add", "arguments": [1, 2], "expected": 3}
        {"kind": "asserts", "code": "assert add(1, 2) == 3", "setup": "import math"}

    `accepted`, a list, may stand in place of `expected`: any of its values is right. `expected: null` of a `stdin` case
    says that only the input is known; the majority's output may then take its place. Few and short cases are in the
    record; others are in a file beside the problems, a case a line, so that no record holds them.
    """

    sha256: str
    """Of the cases, a line of JSON each."""
    num: int
    """Number of cases."""
    language: Language = "python"
    time_s: float = 6.0
    """CPU time of one case, in seconds."""
    memory_mib: int = 1024
    entry_point: str = ""
    """The function that an answer defines; empty: a whole program, or functions that the cases name."""
    prompt: str = ""
    """Code that an answer completes or follows: imports, helpers, the function's head."""
    checker: str = ""
    """Python code with `check(stdin, output, expected) -> bool`, where several outputs of `stdin` cases are right."""
    cases: list[dict[str, Any]] | None = None
    """`None`: they are in the file."""
    file: str = ""
    """Path of the file of cases; stored without its folder."""

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-ready, without what is empty, and with the file's name alone."""
        found = {name: getattr(self, name) for name in self.__slots__}
        found["file"] = self.file.rpartition("/")[2]
        return {key: value for key, value in found.items() if value not in ("", None)}


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """One question with its expected answer, as the student will see it.

    The answer of a problem of `task: code` is a program that solves it, where one is known.
    """

    id: str
    prompt: list[Message]
    answer: str | None
    task: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)
    tests: CodeTests | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the problem as a JSON-ready dict; without `tests` if it has none."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "tests"}
        return found if self.tests is None else {**found, "tests": self.tests.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the problem in `row`. Keys that are not fields are ignored.

        Raises:
            TypeError: a field without a default is missing.
        """
        names = {f.name for f in fields(cls)}
        found = {key: value for key, value in row.items() if key in names}
        if isinstance(tests := found.get("tests"), Mapping):
            found["tests"] = CodeTests.from_json(tests)
        return cls(**found)

    @property
    def question(self) -> str:
        """Return the text of the last user message."""
        return next((m["content"] for m in reversed(self.prompt) if m["role"] == "user"), "")

    @property
    def questions(self) -> str:
        """Return the text of all user messages: a later turn may say no more than "And in metres?"."""
        return "\n\n".join(m["content"] for m in self.prompt if m["role"] == "user")


@dataclass(frozen=True, slots=True)
class Trace(Record):
    """One answer: its text, and the reasoning and content derived from it.

    The text is verbatim, with two exceptions. A thought that was stored separately (in a field or column of its own) is
    put in front of the answer, between `<think>` and `</think>`. Marks named in `traces[].think_marks` are replaced by
    these.
    """

    problem_id: str
    sample_index: int
    teacher: str
    teacher_revision: str
    text: str
    reasoning: str
    content: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_completion_tokens: int
    seed: int
    sampling: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def key(self) -> SampleKey:
        return (self.problem_id, self.sample_index)

    @property
    def told_tokens(self) -> int | None:
        """Return the teacher's count of completion tokens; `None` if unknown, as for most traces made elsewhere."""
        return self.num_completion_tokens if self.num_completion_tokens or not self.text else None


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """The result of grading and filtering one trace.

    `correct` is `None` if the trace could not be graded, which is not the same as wrong. `reasons` holds every reason
    to drop the trace, in the order of `REASONS`; a trace without reasons is kept. `graded_by` says who decided
    `correct`. `details` adds to some reasons: what was measured, or which other trace or evaluation item it is.
    `num_student_tokens` is the length of reasoning and answer in the student's tokens, if the filter counts them.

    Raises:
        ValueError: a reason is not in `REASONS`.
    """

    problem_id: str
    sample_index: int
    correct: bool | None
    extracted_answer: str | None
    reasons: tuple[str, ...] = ()
    graded_by: GradedBy = ""
    details: dict[str, str] = field(default_factory=dict)
    num_student_tokens: int | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.reasons) - REASONS.keys():
            raise ValueError(f"unknown reasons {sorted(unknown)}; known are {list(REASONS)}")
        object.__setattr__(self, "reasons", tuple(sorted(set(self.reasons), key=list(REASONS).index)))

    @property
    def kept(self) -> bool:
        return not self.reasons

    @property
    def key(self) -> SampleKey:
        return (self.problem_id, self.sample_index)


def problem_id(prompt: list[Message], task: str, answer: str | None, tests: CodeTests | None = None) -> str:
    """Return a content hash (16 hex digits), which is the same for a problem in any order and any data set."""
    told = [prompt, task, answer] if tests is None else [prompt, task, answer, tests.sha256]
    content = json.dumps(told, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]

"""Explain a grade: list every candidate of the text and say which one counts.

Example:

    Explanation(candidates=[Explained(kind="box", line=3, column=7, answer="42", chosen=True, …)], …)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.core.records import REASONS, Problem
from distill.grading import READERS, WHOLE_TEXT, Grade
from distill.grading.choice import RANKS as CHOICE_RANKS
from distill.grading.choice import all_option_candidates, choose_option
from distill.grading.extraction import RANKS, Candidate, all_candidates, choose, read_as_math
from distill.grading.options import options_of

MAX_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Explained:
    """One candidate: its place (characters from 0, line and column from 1), kind and outcome."""

    start: int
    end: int
    line: int
    column: int
    kind: str
    text: str
    """The candidate's text, at most `MAX_SHOWN_CHARS` characters."""
    answer: str | None
    """The answer that it states; `None` if it is not valid."""
    chosen: bool
    why: str
    """Why it counts, is not valid, or was passed over."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All candidates of a text, sorted by place, and the grade."""

    problem: Problem
    options: list[str]
    candidates: list[Explained]
    grade: Grade

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict, as documented in docs/json.md."""
        chosen = next((i for i, candidate in enumerate(self.candidates) if candidate.chosen), None)
        return {
            "schema_version": 1,
            "task": self.problem.task,
            "gold": self.problem.answer,
            "options": self.options,
            "correct": self.grade.correct,
            "extracted_answer": self.grade.extracted_answer,
            "reason": self.grade.reason,
            "reason_text": REASONS[self.grade.reason] if self.grade.reason else None,
            "chosen": chosen,
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


def explain(
    problem: Problem, text: str, grade: Grade, last_number: bool = False, span: tuple[int, int] | None = None
) -> Explanation:
    """Explain every candidate of a text.

    Args:
        problem: the problem, with its task and any options.
        text: the whole text.
        grade: the grade of the text.
        last_number: the value that was used for grading.
        span: start and end of the graded part, which follows the thinking; `None`: the whole text.
    """
    offset, end = span or (0, len(text))
    content = text[offset:end]
    if problem.task == "choice":
        options = options_of(problem)
        candidates, chosen, ranks = (
            all_option_candidates(content, options),
            choose_option(content, options),
            CHOICE_RANKS,
        )
    else:
        options, ranks = [], RANKS
        reader, whole = READERS.get(problem.task, read_as_math), problem.task in WHOLE_TEXT
        candidates = all_candidates(content, reader, last_number, whole)
        chosen = choose(content, reader, last_number, whole)
    explained = [_explained(text, offset, candidate, chosen, ranks) for candidate in candidates]
    return Explanation(problem, options, explained, grade)


def _explained(
    text: str, offset: int, candidate: Candidate, chosen: Candidate | None, ranks: Sequence[Sequence[str]]
) -> Explained:
    start, end = candidate.start + offset, candidate.end + offset
    is_chosen = chosen is not None and (candidate.start, candidate.kind) == (chosen.start, chosen.kind)
    reading = chosen.reading if is_chosen and chosen is not None else candidate.reading
    return Explained(
        start,
        end,
        text.count("\n", 0, start) + 1,
        start - text.rfind("\n", 0, start),
        candidate.kind,
        text[start:end][:MAX_SHOWN_CHARS],
        reading.answer,
        is_chosen,
        _why(candidate, chosen, is_chosen, ranks),
    )


def _why(candidate: Candidate, chosen: Candidate | None, is_chosen: bool, ranks: Sequence[Sequence[str]]) -> str:
    if is_chosen and chosen is not None:
        return chosen.reading.why or "the last valid candidate of the strongest kind"
    if candidate.reading.answer is None:
        return f"not valid: {candidate.reading.why}"
    if chosen is None:
        return "not valid"
    if candidate.reading.is_weak or candidate.reading.is_word:
        return f"passed over: {candidate.reading.why or 'it may be prose'}"
    if _rank(candidate.kind, ranks) > _rank(chosen.kind, ranks):
        return "passed over: its kind is weaker"
    return "passed over: a later one counts"


def _rank(kind: str, ranks: Sequence[Sequence[str]]) -> int:
    return next((number for number, kinds in enumerate(ranks) if kind in kinds), len(ranks))

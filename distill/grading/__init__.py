"""Grading: is a trace's final answer the expected one? `GRADERS` is the table of tasks.

Enters: a problem, the trace's text after its thinking. Leaves: a `Grade`, tri-state: right, wrong, or could not be
graded. Quick comparisons happen in the caller's process; whatever parses model-written text runs in a pool whose
workers can be killed (`distill.grading.pool`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from distill.grading.gym import grade_gym
from distill.grading.math import extract_answer, grade_math, same_answer
from distill.grading.pool import CRASHED, TIMED_OUT, GradingPool
from distill.records import Problem

GRADERS: dict[str, Callable[[Problem, str], bool | None]] = {"math": grade_math, "gym": grade_gym}
"""Task -> function from (problem, extracted answer) to right, wrong or `None`; may hang or crash on hostile text."""


@dataclass(frozen=True, slots=True)
class Grade:
    """What grading said of one answer; `reason` names why it is not right (see `distill.records.REASONS`)."""

    correct: bool | None
    extracted_answer: str | None
    reason: str | None


def grade_all(answers: Iterable[tuple[Problem, str]], pool: GradingPool, last_number: bool = False) -> Iterator[Grade]:
    """Grade answers in order.

    Args:
        answers: each problem with the text after its thinking.
        pool: the workers for what is not settled by comparing strings.
        last_number: where an answer is neither boxed nor announced, take the last number in the text.
    """
    settled: list[Grade | None] = []
    tasks: list[tuple[Problem, str]] = []
    for problem, text in answers:
        grade = quick_grade(problem, text, last_number)
        settled.append(grade)
        if grade is None:
            tasks.append((problem, extract_answer(text, last_number) or ""))
    outcomes = iter(zip(tasks, pool.map(grade_slowly, tasks), strict=True))
    for grade in settled:
        if grade is not None:
            yield grade
        else:
            (_, extracted), outcome = next(outcomes)
            yield grade_from(outcome, extracted)


def quick_grade(problem: Problem, text: str, last_number: bool) -> Grade | None:
    """The grade, where comparing strings and numbers settles it."""
    extracted = extract_answer(text, last_number)
    if extracted is None:
        return Grade(False, None, "no_answer")
    # Only mathematics may look away from spaces and letter case: other tasks have scorers of their own.
    same = same_answer if problem.task == "math" else str.__eq__
    if problem.answer is not None and same(extracted, problem.answer):
        return Grade(True, extracted, None)
    return None


def grade_slowly(task: tuple[Problem, str]) -> bool | None:
    """Runs in a worker."""
    problem, extracted = task
    return GRADERS[problem.task](problem, extracted)


def grade_from(outcome: object, extracted: str) -> Grade:
    if outcome is TIMED_OUT:
        return Grade(None, extracted, "ungraded_timeout")
    if outcome is CRASHED:
        return Grade(None, extracted, "ungraded_crash")
    if outcome is None:
        return Grade(None, extracted, "ungraded_gold")
    return Grade(bool(outcome), extracted, None if outcome else "wrong_answer")

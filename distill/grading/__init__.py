"""Grading: is a trace's final answer the expected one? `GRADERS` is the table of tasks.

Enters: a problem, the trace's text after its thinking. Leaves: a `Grade`, tri-state: right, wrong, or could not be
graded. Quick comparisons happen in the caller's process; whatever parses model-written text runs in a pool whose
workers can be killed (`distill.grading.pool`).
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from distill.core.records import REASONS, Problem
from distill.grading.choice import extract_choice, grade_choice
from distill.grading.extraction import Reader, answer_of, choose, read_as_math, read_as_plain
from distill.grading.golds import EATEN_ESCAPE
from distill.grading.gym import FULL_SCORE, UngradedError, grade_gym
from distill.grading.judge import is_master_key
from distill.grading.math import grade_math, settle
from distill.grading.pool import CRASHED, OUT_OF_MEMORY, TIMED_OUT, GradingPool, Outcome, Settled
from distill.grading.rules import MAX_RULE_CHARS, grade_exact, grade_numeric, grade_regex, read_as_number
from distill.isolation import wire

GRADER_VERSION = 5
"""Raised with every change that may change a verdict: verdicts of another version are not used again."""

GRADERS: dict[str, Callable[[Problem, str], bool | None]] = {
    "math": grade_math,
    "choice": grade_choice,
    "exact": grade_exact,
    "numeric": grade_numeric,
    "regex": grade_regex,
    "gym": grade_gym,
}
"""Task -> function from (problem, extracted answer) to right, wrong or `None`; may hang or crash on hostile text."""

READERS: dict[str, Reader] = {
    "exact": read_as_plain,
    "gym": read_as_plain,  # words, lists and pictures as well as numbers
    "numeric": read_as_number,
    "regex": read_as_plain,
}
"""Task -> what reads its candidates; left out: as mathematics. `choice` has its own way (`distill.grading.choice`)."""

WHOLE_TEXT = {"exact", "numeric", "regex"}
"""Tasks where a text without any candidate is itself the answer."""

QUICK = {"choice", "exact", "numeric"}
"""Tasks whose graders take time linear in the text and call nothing that could hang: they need no worker."""

UNGRADED: dict[Outcome, str] = {
    TIMED_OUT: "ungraded_timeout",
    CRASHED: "ungraded_crash",
    OUT_OF_MEMORY: "ungraded_memory",
}


@wire.result
@dataclass(frozen=True, slots=True)
class Grade:
    """What grading said of one answer; `reason` names why it is not right (see `distill.core.records.REASONS`)."""

    correct: bool | None
    extracted_answer: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A final answer that strings and numbers do not settle: `grade_slowly` does."""

    extracted_answer: str


def grade(problem: Problem, text: str, last_number: bool = False, gym_min_score: float = FULL_SCORE) -> Grade:
    """Grade one answer in this process, without any limit on its time or memory: for texts that are trusted.

    For what a model wrote, use `grade_all` and a `GradingPool`, whose workers are confined. Answers to gym problems are
    scored in a confined process here too.

    Args:
        problem: with its expected answer and its task.
        text: what the model wrote after its thinking.
        last_number: where an answer is neither boxed nor announced, take the last number in the text.
        gym_min_score: a gym answer is right from this score on.
    """
    quick = quick_grade(problem, text, last_number)
    if isinstance(quick, Grade):
        return quick
    extracted = quick.extracted_answer
    return grade_from(grade_slowly((problem, extracted), gym_min_score), extracted)


def grade_all(
    answers: Iterable[tuple[Problem, str] | Grade],
    pool: GradingPool,
    last_number: bool = False,
    gym_min_score: float = FULL_SCORE,
) -> Iterator[Grade]:
    """Grade answers in order, a bounded number of them at a time, however many there are.

    Args:
        answers: each problem with the text after its thinking, or a grade that is known already and only takes its
            place; taken as workers become free.
        pool: the workers for what is not settled by comparing strings.
        last_number: where an answer is neither boxed nor announced, take the last number in the text.
        gym_min_score: a gym answer is right from this score on.
    """
    waiting: deque[str] = deque()  # the extracted answers of what has been given to the pool

    def tasks() -> Iterator[Settled | tuple[Problem, str]]:
        for answer in answers:
            if isinstance(answer, Grade):
                yield Settled(answer)
                continue
            problem, text = answer
            quick = quick_grade(problem, text, last_number)
            if isinstance(quick, Grade):
                yield Settled(quick)
            else:
                waiting.append(quick.extracted_answer)
                yield problem, quick.extracted_answer

    for outcome in pool.map(functools.partial(grade_slowly, gym_min_score=gym_min_score), tasks()):
        yield outcome if isinstance(outcome, Grade) else grade_from(outcome, waiting.popleft())


def extract(problem: Problem, text: str, last_number: bool = False) -> str | None:
    """The final answer in a text, as the problem's task writes it; `None`: there is none."""
    if problem.task == "judge":
        return text.strip() or None
    if problem.task == "choice":
        return extract_choice(problem, text)
    reader = READERS.get(problem.task, read_as_math)
    return answer_of(choose(text, reader, last_number, whole_text=problem.task in WHOLE_TEXT))


def quick_grade(problem: Problem, text: str, last_number: bool) -> Grade | Unsettled:
    """The grade, or the answer for a worker to grade where a parser, scorer or pattern has to run."""
    extracted = extract(problem, text, last_number)
    if extracted is None:
        return Grade(False, None, "no_answer")
    if problem.answer is not None and EATEN_ESCAPE.search(problem.answer):
        return Grade(None, extracted, "ungraded_gold")
    if EATEN_ESCAPE.search(extracted):
        return Grade(None, extracted, "damaged_answer")
    if problem.task not in GRADERS:  # no rule applies: a judge's to say
        empty = is_master_key(extracted)
        return Grade(False if empty else None, extracted, "wrong_answer" if empty else "ungraded_judge")
    if problem.task in QUICK:
        return grade_from(GRADERS[problem.task](problem, extracted), extracted)
    if problem.task == "gym":  # its scorer knows right answers besides this one
        return Grade(True, extracted, None) if extracted == problem.answer else Unsettled(extracted)
    if problem.answer is None:
        return Grade(None, extracted, "ungraded_gold")
    if problem.task == "math" and (verdict := settle(extracted, problem.answer)) is not None:
        return grade_from(verdict, extracted)
    if problem.task != "math" and len(extracted) > MAX_RULE_CHARS:
        return Grade(False, extracted, "wrong_answer")
    return Unsettled(extracted)


def grade_slowly(task: tuple[Problem, str], gym_min_score: float = FULL_SCORE) -> bool | str | None:
    """Right, wrong, or why it is neither (of `records.REASONS`; `None`: `ungraded_gold`). Runs in a worker."""
    problem, extracted = task
    if problem.task == "gym":
        try:
            return grade_gym(problem, extracted, gym_min_score)
        except UngradedError as error:
            return error.reason
    return GRADERS[problem.task](problem, extracted)


def grade_from(outcome: object, extracted: str) -> Grade:
    """The grade that a grader's answer, or the pool's word for the lack of one, stands for."""
    if isinstance(outcome, Outcome):
        return Grade(None, extracted, UNGRADED[outcome])
    if outcome is None:
        return Grade(None, extracted, "ungraded_gold")
    if isinstance(outcome, bool):
        return Grade(outcome, extracted, None if outcome else "wrong_answer")
    # A reason; anything else is what a worker made up.
    return Grade(None, extracted, outcome if isinstance(outcome, str) and outcome in REASONS else "ungraded_crash")

"""Grading: decide whether a trace's final answer is the expected one. `GRADERS` is the table of tasks.

A `Grade` has three outcomes: right, wrong, or could not be graded. Quick comparisons run in the caller's process.
Anything that parses model-written text runs in a pool of workers that can be killed (`distill.grading.pool`).
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from distill.core.records import REASONS, Problem
from distill.grading.choice import extract_choice, grade_choice
from distill.grading.code.grader import CODE, CodeGrader
from distill.grading.code.programs import program_in
from distill.grading.extraction import Reader, answer_of, choose, read_as_math, read_as_plain
from distill.grading.golds import EATEN_ESCAPE
from distill.grading.grades import Grade as Grade  # part of what this package offers
from distill.grading.gym import FULL_SCORE, UngradedError, grade_gym
from distill.grading.instructions import grade_instructions
from distill.grading.judge import is_master_key
from distill.grading.math import grade_math, settle
from distill.grading.pool import CRASHED, OUT_OF_MEMORY, TIMED_OUT, GradingPool, Outcome, Settled
from distill.grading.rules import MAX_RULE_CHARS, grade_exact, grade_numeric, grade_regex, read_as_number

GRADER_VERSION = 6
"""Increment with every change that may alter a verdict: verdicts of other versions are not reused."""

GRADERS: dict[str, Callable[[Problem, str], bool | None]] = {
    "math": grade_math,
    "choice": grade_choice,
    "exact": grade_exact,
    "numeric": grade_numeric,
    "regex": grade_regex,
    "gym": grade_gym,
    "instructions": grade_instructions,
}
"""Task -> function from (problem, extracted answer) to the verdict or `None`; may hang or crash on hostile text."""

READERS: dict[str, Reader] = {
    "exact": read_as_plain,
    "gym": read_as_plain,  # words, lists and pictures as well as numbers
    "numeric": read_as_number,
    "regex": read_as_plain,
}
"""Task -> reader of its candidates. Other tasks are read as mathematics, `choice` by `distill.grading.choice`."""

WHOLE_TEXT = {"exact", "numeric", "regex"}
"""Tasks for which a text without any candidate is itself the answer."""

QUICK = {"choice", "exact", "numeric"}
"""Tasks whose graders take time linear in the text and cannot hang, so they need no worker."""

UNGRADED: dict[Outcome, str] = {
    TIMED_OUT: "ungraded_timeout",
    CRASHED: "ungraded_crash",
    OUT_OF_MEMORY: "ungraded_memory",
}


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A final answer that string and number comparison cannot settle; it needs `grade_slowly`."""

    extracted_answer: str


def grade(problem: Problem, text: str, last_number: bool = False, gym_min_score: float = FULL_SCORE) -> Grade:
    """Grade one answer from a trusted text in this process, without limits on time or memory.

    For model-written text use `grade_all` with a `GradingPool`, whose workers are confined. Answers to gym problems are
    scored in a confined process even here, and programs run in a sandbox.

    Args:
        problem: the problem, with its expected answer and task.
        text: what the model wrote after its thinking.
        last_number: if no answer is boxed or announced, fall back to the last number in the text.
        gym_min_score: minimum score at which a gym answer is right.
    """
    quick = quick_grade(problem, text, last_number)
    if isinstance(quick, Grade):
        return quick
    extracted = quick.extracted_answer
    if problem.task == CODE:
        with CodeGrader(workers=1) as programs:
            return programs.grade(problem, extracted)
    return grade_from(grade_slowly((problem, extracted), gym_min_score), extracted)


def grade_all(
    answers: Iterable[tuple[Problem, str] | Grade],
    pool: GradingPool,
    last_number: bool = False,
    gym_min_score: float = FULL_SCORE,
    programs: CodeGrader | None = None,
) -> Iterator[Grade]:
    """Grade answers in order, with a bounded number of them in flight.

    Args:
        answers: each problem with the text after its thinking, or a known grade, which is yielded in its place;
            consumed as workers become free.
        pool: workers for the answers that string comparison does not settle.
        last_number: if no answer is boxed or announced, fall back to the last number in the text.
        gym_min_score: minimum score at which a gym answer is right.
        programs: grades the answers that are programs; `None`: they run on this machine.
    """
    waiting: deque[str] = deque()  # extracted answers of the tasks given to the pool
    own = contextlib.nullcontext(programs) if programs is not None else CodeGrader()

    def tasks(programs: CodeGrader) -> Iterator[Settled | tuple[Problem, str]]:
        for answer in answers:
            if isinstance(answer, Grade):
                yield Settled(answer)
                continue
            problem, text = answer
            quick = quick_grade(problem, text, last_number)
            if isinstance(quick, Grade):
                yield Settled(quick)
            elif problem.task == CODE:  # a confined worker can start no sandbox
                yield Settled(programs.submit(problem, quick.extracted_answer))
            else:
                waiting.append(quick.extracted_answer)
                yield problem, quick.extracted_answer

    with own as programs:
        for outcome in pool.map(functools.partial(grade_slowly, gym_min_score=gym_min_score), tasks(programs)):
            if isinstance(outcome, Future):
                yield outcome.result()
            else:
                yield outcome if isinstance(outcome, Grade) else grade_from(outcome, waiting.popleft())


def extract(problem: Problem, text: str, last_number: bool = False) -> str | None:
    """Return the final answer in a text, in the form of the problem's task; `None` if there is none."""
    if problem.task == "judge":
        return text.strip() or None
    if problem.task == "instructions":  # as it was written: loose checks remove the first and the last line
        return text if text.strip() else None
    if problem.task == "choice":
        return extract_choice(problem, text)
    if problem.task == CODE:
        return program_in(text, problem.tests)
    reader = READERS.get(problem.task, read_as_math)
    return answer_of(choose(text, reader, last_number, whole_text=problem.task in WHOLE_TEXT))


def quick_grade(problem: Problem, text: str, last_number: bool) -> Grade | Unsettled:
    """Return the grade, or the answer for a worker to grade if a parser, scorer or pattern has to run."""
    extracted = extract(problem, text, last_number)
    if extracted is None:
        return Grade(False, None, "no_answer")
    if problem.task == "instructions":  # has no expected answer
        return Unsettled(extracted)
    if problem.task == CODE:
        return Unsettled(extracted)
    if problem.answer is not None and EATEN_ESCAPE.search(problem.answer):
        return Grade(None, extracted, "ungraded_gold")
    if EATEN_ESCAPE.search(extracted):
        return Grade(None, extracted, "damaged_answer")
    if problem.task not in GRADERS:  # no rule applies: left to a judge
        empty = is_master_key(extracted)
        return Grade(False if empty else None, extracted, "wrong_answer" if empty else "ungraded_judge")
    if problem.task in QUICK:
        return grade_from(GRADERS[problem.task](problem, extracted), extracted)
    if problem.task == "gym":  # its scorer accepts other answers too
        return Grade(True, extracted, None) if extracted == problem.answer else Unsettled(extracted)
    if problem.answer is None:
        return Grade(None, extracted, "ungraded_gold")
    if problem.task == "math" and (verdict := settle(extracted, problem.answer)) is not None:
        return grade_from(verdict, extracted)
    if problem.task != "math" and len(extracted) > MAX_RULE_CHARS:
        return Grade(False, extracted, "wrong_answer")
    return Unsettled(extracted)


def grade_slowly(task: tuple[Problem, str], gym_min_score: float = FULL_SCORE) -> bool | str | None:
    """Return the verdict, or why there is none (of `records.REASONS`; `None`: `ungraded_gold`). Runs in a worker."""
    problem, extracted = task
    if problem.task == CODE:  # it has no sandbox, and without one nothing runs
        return "ungraded_sandbox"
    if problem.task == "gym":
        try:
            return grade_gym(problem, extracted, gym_min_score)
        except UngradedError as error:
            return error.reason
    return GRADERS[problem.task](problem, extracted)


def grade_from(outcome: object, extracted: str) -> Grade:
    """Return the grade for a grader's result, or for the pool's marker that there is none."""
    if isinstance(outcome, Outcome):
        return Grade(None, extracted, UNGRADED[outcome])
    if outcome is None:
        return Grade(None, extracted, "ungraded_gold")
    if isinstance(outcome, bool):
        return Grade(outcome, extracted, None if outcome else "wrong_answer")
    # A reason. Workers are not trusted: anything else counts as a crash.
    return Grade(None, extracted, outcome if isinstance(outcome, str) and outcome in REASONS else "ungraded_crash")

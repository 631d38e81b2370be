"""Grade answers by the rules of other harnesses, to see what part of a difference between scores is the grading.

`HARNESSES` is the table of them. Each rule is described in its module, with the source that was read. An answer in
which a harness finds nothing is wrong in all of them, with the reason `no_answer`: it is told apart from a wrong one.

Example: of `"Answer: 3\\nAnswer: 4"`, simple-evals extracts `"3"`, the first.
"""

from collections.abc import Iterable, Iterator

from distill.core.records import REASONS, Problem
from distill.errors import UserError
from distill.grading import UNGRADED, Grade
from distill.grading.golds import EATEN_ESCAPE
from distill.grading.harnesses.evalchemy import EVALCHEMY
from distill.grading.harnesses.findings import Harness
from distill.grading.harnesses.lighteval import LIGHTEVAL
from distill.grading.harnesses.nemo_skills import NEMO_SKILLS
from distill.grading.harnesses.places import PLACES
from distill.grading.harnesses.simple_evals import SIMPLE_EVALS
from distill.grading.options import choice_of, options_of
from distill.grading.pool import GradingPool, Outcome

HARNESSES: dict[str, Harness] = {harness.name: harness for harness in (LIGHTEVAL, SIMPLE_EVALS, EVALCHEMY, NEMO_SKILLS)}
"""Name, as in `--as` -> harness."""

EXTRACTORS: dict[str, Harness] = {**HARNESSES, **{place.name: place for place in PLACES}}
"""The harnesses, and single places compared by distill's rules: what the audit asks."""


def grade_all_as(harness: str, answers: Iterable[tuple[Problem, str]], pool: GradingPool) -> Iterator[Grade]:
    """Grade answers by a harness's rules, in order, in the pool's confined processes.

    An answer that a worker gives up on is ungraded, though the harness may count it as wrong.

    Args:
        harness: a name in `EXTRACTORS`.
        answers: each problem, with its expected answer, task and options, and all that the model wrote, its thought
            included: a harness that removes thoughts does so itself. Consumed as workers become free.
        pool: the workers. Their time limit includes the extraction.

    Raises:
        UserError: there is no such harness, or it has no rule for a problem's task.
    """
    tasks = ((checked(harness, problem.task), problem, text) for problem, text in answers)
    for outcome in pool.map(_grade, tasks):
        yield _trusted(outcome)


def checked(harness: str, task: str) -> str:
    """Return a harness's name if it grades a task.

    Raises:
        UserError: there is no such harness, or it has no rule for the task.
    """
    known = EXTRACTORS.get(harness)
    if known is None:
        raise UserError(f"No harness is named {harness!r}. Those known are {', '.join(HARNESSES)}.")
    if task not in known.rules:
        raise UserError(f"{harness} has no rule for the task {task!r}: it grades {', '.join(known.rules)}.")
    return harness


def _grade(task: tuple[str, Problem, str]) -> Grade:
    """Grade (harness, problem, text). Runs in a worker."""
    name, problem, text = task
    gold = problem.answer
    if gold is not None and problem.task == "choice":
        gold = choice_of(gold, options_of(problem))
    if gold is None or EATEN_ESCAPE.search(gold):
        return Grade(None, None, "ungraded_gold")
    answer, correct = EXTRACTORS[name].rules[problem.task](problem, gold, text)
    if answer is None:
        return Grade(False, None, "no_answer")
    if correct is None:
        return Grade(None, answer, "ungraded_gold")
    return Grade(correct, answer, None if correct else "wrong_answer")


def _trusted(outcome: object) -> Grade:
    """Return a worker's grade; workers are not trusted, so that anything else counts as a crash."""
    if isinstance(outcome, Outcome):
        return Grade(None, None, UNGRADED[outcome])
    if isinstance(outcome, Grade) and (outcome.reason is None or outcome.reason in REASONS):
        return outcome
    return Grade(None, None, "ungraded_crash")

r"""Places where many graders look for an answer, each as a harness: the last box, the first and the last "Answer:".

What stands there is compared by distill's rules, so that a different verdict means a different answer. The audit
(`distill.grading.audit`) asks all of them.
"""

from collections.abc import Callable

from distill.core.records import Problem
from distill.grading.choice import choose_option
from distill.grading.extraction import answer_of, choose, read_as_math
from distill.grading.harnesses.findings import (
    NOTHING,
    Finding,
    Harness,
    Rule,
    first_answer_line,
    last_answer_line,
    last_braced_box,
)
from distill.grading.math import grade_math
from distill.grading.options import choice_of, options_of
from distill.grading.rules import grade_numeric

MAX_LINE_CHARS = 4_000
"""Longer lines are compared as they are."""


def stated_after_answer(line: str) -> str:
    """Return the mathematical answer in the line after "Answer:", else the line."""
    stated = answer_of(choose(f"Answer: {line}", read_as_math)) if len(line) <= MAX_LINE_CHARS else None
    return line.strip(" *") if stated is None else stated


def same_value(problem: Problem, answer: str) -> bool | None:
    """Compare an answer with the expected one by distill's rules; `None` if it cannot be. May hang."""
    return (grade_numeric if problem.task == "numeric" else grade_math)(problem, answer)


def _value_at(find: Callable[[str], str | None], is_line: bool) -> Rule:
    def rule(problem: Problem, gold: str, text: str) -> Finding:
        found = find(text)
        if found is None or not found.strip():
            return NOTHING
        answer = stated_after_answer(found) if is_line else found.strip()
        return Finding(answer, same_value(problem, answer))

    return rule


def _option_at(find: Callable[[str], str | None], is_line: bool) -> Rule:
    def rule(problem: Problem, gold: str, text: str) -> Finding:
        found = find(text)
        if found is None or not found.strip():
            return NOTHING
        options = options_of(problem)
        if is_line:
            stated = answer_of(choose_option(f"Answer: {found[:MAX_LINE_CHARS]}", options))
        else:
            stated = choice_of(found, options)
        answer = found.strip()[:MAX_LINE_CHARS] if stated is None else stated
        return Finding(answer, answer == gold)

    return rule


def _place(name: str, find: Callable[[str], str | None], is_line: bool) -> Harness:
    value, option = _value_at(find, is_line), _option_at(find, is_line)
    return Harness(name, (), True, {"math": value, "numeric": value, "choice": option}, ())


PLACES = (
    _place("last box", last_braced_box, is_line=False),
    _place("first answer", first_answer_line, is_line=True),
    _place("last answer", last_answer_line, is_line=True),
)

"""Examine the text of one rollout: its form, the answer in it, its language and repetition. Runs in a confined worker.

A `Submission` enters, an `Examined` leaves; what a parser has to compare, a sandbox to run or a judge to read is left
to `distill.rewards.grader`.
"""

import re
from dataclasses import dataclass

from distill.core.records import FinishReason, Problem, Trace
from distill.core.thinking import split_reasoning
from distill.filters.language import has_words, hidden_prose, language_share, prompt_language
from distill.filters.readability import measure, unreadable
from distill.grading import READERS, Grade, quick_grade
from distill.grading.boxes import find_boxes
from distill.grading.cached import gradable
from distill.grading.choice import all_option_candidates
from distill.grading.code.grader import CODE
from distill.grading.extraction import all_candidates, read_as_math
from distill.grading.options import choice_of, options_of
from distill.isolation import wire
from distill.recipe.filter import Readability
from distill.rewards.form import answer_after, form_fault
from distill.rewards.rollouts import RULED

_NOTATION = re.compile(r"\\left|\\right|\\[,;!:() \[\]]|[\s${}]")
_TIMES = re.compile(r"\\times(?![a-zA-Z])|\\cdot(?![a-zA-Z])|\u00d7|\u00b7")
_OPERATOR = re.compile(r"[-+*^!]|\\(?:div|sqrt|binom|sum|prod|int|log|pm|bmod)(?![a-zA-Z])")
"""Signs of a calculation. A fraction is none: it is often the result itself."""
_NAME = re.compile(r"\A[a-zA-Z]=")
_TO_REWRITE = re.compile(r"\b(?:expand|factor(?:i[sz]e)?|simplify|multiply out)\b", re.IGNORECASE)

MARKS, HASHES = ("box", "tag", "final"), ("hashes",)
"""Kinds of candidates that mark a result, see `distill.grading.extraction`."""
MAX_RESULTS = 50

_BOX = re.compile(r"\\(?:[Bb]oxed|fbox|framebox)\s*(?=\{)")

WITHOUT_MARKS = frozenset({CODE, "instructions"})
"""Tasks whose answers are not looked for at marks."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One rollout, with what is to be found out about it."""

    problem: Problem
    """Without its test cases."""
    text: str
    finish_reason: FinishReason
    think_opened: bool
    language: str | None
    """ISO 639-1 code; `prompt`: the language of the prompt; `None`: language is not measured."""
    wants_repetition: bool


@wire.result
@dataclass(frozen=True, slots=True)
class Examined:
    """What examining a text told."""

    fault: str
    """Of `distill.rewards.form.FAULTS`, or empty."""
    is_unclosed: bool
    answer: str
    """The text after the last thought."""
    grade: Grade | None
    """`None`: `extracted` is to be graded."""
    extracted: str
    others: list[str]
    """Other results that the answer gives; if one of them is wrong, it is a guess."""
    is_echo: bool
    language_share: float | None
    is_repetitive: bool | None


def examine(one: Submission) -> Examined:
    """Return what is known of a rollout without comparing its answer in a parser or running it."""
    answer = answer_after(one.text, one.think_opened)
    quick = quick_grade(one.problem, _gradable(one, answer.text), last_number=False)
    return Examined(
        fault=form_fault(one.text, one.think_opened, one.finish_reason),
        is_unclosed=answer.is_unclosed,
        answer=answer.text,
        grade=quick if isinstance(quick, Grade) else None,
        extracted="" if isinstance(quick, Grade) else quick.extracted_answer,
        others=_other_results(one.problem, answer.text, quick.extracted_answer),
        is_echo=_is_echo(one.problem, quick.extracted_answer),
        language_share=_language_share(one),
        is_repetitive=_is_repetitive(one) if one.wants_repetition else None,
    )


def _gradable(one: Submission, answer: str) -> str:
    """Return the part of an answer that counts, as for a trace of the filter's."""
    trace = Trace("", 0, "", "", one.text, "", answer, one.finish_reason, 0, 0, 0)
    return gradable(one.problem, trace, last_number=False)


def _other_results(problem: Problem, answer: str, extracted: str | None) -> list[str]:
    """Return the results that an answer marks besides the extracted one, as its grader reads them.

    Boxes, tags and final answers count; hashes only without these, as for the grader. One that the text takes back at
    once is none.
    """
    if problem.task not in RULED or problem.task in WITHOUT_MARKS or extracted is None:
        return []
    if problem.task == "choice":
        options = options_of(problem)
        found = all_option_candidates(answer, options)
        named = [choice_of(answer[b.inner_start : b.inner_end], options) for b in find_boxes(answer)[-MAX_RESULTS:]]
    else:
        found, named = all_candidates(answer, READERS.get(problem.task, read_as_math)), []
    for kinds in (MARKS, HASHES):
        told = [c.reading.answer for c in found if c.kind in kinds and not (c.reading.is_weak or c.reading.is_word)]
        if results := [one for one in dict.fromkeys([*told, *named]) if one is not None]:
            return [_unboxed(one) for one in results if one != extracted]
    return []


def _unboxed(result: str) -> str:
    r"""Return a result without the commands of boxes within it: `5 {4}` for `5 \boxed{4}`."""
    return _BOX.sub("", result)


def _is_echo(problem: Problem, extracted: str | None) -> bool:
    """Return whether an answer is a calculation that the question asks for, left undone.

    Graders compare values, and "2 + 2" has the value of 4.
    """
    if problem.task not in ("math", "numeric") or not extracted or problem.answer is None:
        return False
    said, gold = _NAME.sub("", _bare(extracted)).rstrip("=?"), _NAME.sub("", _bare(problem.answer))
    if said == gold or _OPERATOR.search(said[1:]) is None or said not in _bare(problem.questions):
        return False
    return _OPERATOR.search(gold[1:]) is None or _TO_REWRITE.search(problem.questions) is not None


def _bare(text: str) -> str:
    """Return a formula without spaces, formula marks and the choice between signs of multiplication."""
    return _TIMES.sub("*", _NOTATION.sub("", text))


def _language_share(one: Submission) -> float | None:
    language = prompt_language(one.problem.question) if one.language == "prompt" else one.language
    if language is None:
        return None
    thought = split_reasoning(one.text, one.think_opened).reasoning
    shown = f"{thought}\n\n{hidden_prose(thought)}"
    return language_share(shown, language) if has_words(shown) else None


def _is_repetitive(one: Submission) -> bool:
    split = split_reasoning(one.text, one.think_opened)
    return "repetition" in unreadable(measure(split.reasoning, split.content, None), Readability(language=None))

"""Grade answers to verifiable instructions (IFEval): which are followed, strictly and loosely.

A problem has no expected answer. Its metadata say what to check, one mapping of arguments an instruction:

    {"instruction_ids": ["punctuation:no_comma", "length_constraints:number_words"],
     "kwargs": [{}, {"relation": "at least", "num_words": 300}]}

Loosely, an instruction is followed if the answer follows it without its first line, its last line or both, or without
asterisks, or with both changes: an introduction and bold print are forgiven (Zhou et al. 2023, arXiv:2311.07911,
section 2.2).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.core.records import Problem
from distill.grading.instruction_checks import CHECKS, Arguments, UncheckableError
from distill.isolation import wire

Check = Callable[[str, Arguments], bool]


@wire.result
@dataclass(frozen=True, slots=True)
class InstructionResult:
    """Whether an answer follows one instruction; `None` if that could not be checked."""

    id: str
    strict: bool | None
    loose: bool | None


def check_all(
    instruction_ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]], response: str
) -> list[InstructionResult]:
    """Check an answer for each of its instructions. An empty answer follows none.

    Args:
        instruction_ids: keys of `CHECKS`. The result of an unknown one is `None`.
        kwargs: arguments of each instruction. If there are more or fewer than instructions, no result is known.
        response: the answer without the thought, as the model wrote it.
    """
    if len(instruction_ids) != len(kwargs):
        return [InstructionResult(str(id_), None, None) for id_ in instruction_ids]
    variants = loose_variants(response)
    return [_check(str(id_), values, variants) for id_, values in zip(instruction_ids, kwargs, strict=True)]


def loose_variants(response: str) -> list[str]:
    """Return the distinct forms in which an answer is checked loosely, as it stands first; `[]` if it is empty."""
    lines = response.split("\n")
    without_lines = ["\n".join(kept).strip() for kept in (lines[1:], lines[:-1], lines[1:-1])]
    forms = [response, *without_lines]
    forms += [form.replace("*", "") for form in forms]
    return [form for form in dict.fromkeys(forms) if form.strip()]


def _check(id_: str, values: Any, variants: Sequence[str]) -> InstructionResult:
    check = CHECKS.get(id_)
    if check is None or not isinstance(values, Mapping):
        return InstructionResult(id_, None, None)
    if not variants:
        return InstructionResult(id_, False, False)
    arguments = Arguments(values)
    strict = _followed(check, variants[0], arguments)
    if strict:
        return InstructionResult(id_, True, True)
    others = []
    for variant in variants[1:]:
        others.append(_followed(check, variant, arguments))
        if others[-1]:
            return InstructionResult(id_, strict, True)
    return InstructionResult(id_, strict, None if None in (strict, *others) else False)


def _followed(check: Check, text: str, arguments: Arguments) -> bool | None:
    try:
        return check(text, arguments)
    except UncheckableError:
        return None


def check_problem(task: tuple[Problem, str]) -> list[InstructionResult]:
    """Check the answer to a problem for each of its instructions; `[]` if its metadata name none. Runs in a worker."""
    problem, response = task
    ids, kwargs = problem.metadata.get("instruction_ids"), problem.metadata.get("kwargs")
    if not isinstance(ids, list | tuple):
        return []
    return check_all(ids, kwargs if isinstance(kwargs, list | tuple) else (), response)


def grade_instructions(problem: Problem, extracted: str) -> bool | None:
    """Return whether an answer strictly follows all instructions of a problem; `None` if that could not be checked."""
    results = check_problem((problem, extracted))
    return all_followed(result.strict for result in results) if results else None


def all_followed(followed: Iterable[bool | None]) -> bool | None:
    """Return whether all instructions are followed: wrong if any is not, unknown if one that decides is unknown."""
    known = set(followed)
    return False if False in known else None if None in known else True

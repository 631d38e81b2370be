"""Say which part of the difference between two scores of the same answers is extraction, and which is comparison.

Example: of 500 answers, ours is right on 410 and another harness's grading on 390. For 25 answers it extracts something
else, which costs 3.8 points; for 4 it extracts the same and compares otherwise, which costs 0.2.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from distill.core.records import SampleKey
from distill.grading import Grade
from distill.grading.math import same_answer

MAX_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class GapPart:
    """The answers on which two gradings differ for one reason."""

    num_answers: int
    num_gained: int
    """Answers that only the other grading calls right."""
    num_lost: int
    """Answers that only ours calls right."""
    points: float
    """The other score minus ours, in percent of the answers that both graded, as far as these answers explain it."""
    examples: tuple[SampleKey, ...]
    """Keys of the first answers, those whose verdicts differ before others."""


@dataclass(frozen=True, slots=True)
class ExtractionGap:
    """Two gradings of the same answers. The points of the parts add up to `theirs - ours`."""

    num_answers: int
    num_graded: int
    """Answers with a verdict by both; the others count nowhere below."""
    num_same_verdict: int
    num_missing: int
    """Answers in which only ours finds an answer: what the other calls wrong may only be written otherwise."""
    ours: float | None
    """Our score, in percent of the answers that both graded; `None` if there are none."""
    theirs: float | None
    extraction: GapPart
    """The extracted answers differ, or only one grading finds any."""
    comparison: GapPart
    """The extracted answers are equal, the verdicts are not."""


def explain_gap(graded: Iterable[tuple[SampleKey, Grade, Grade]], max_examples: int = MAX_EXAMPLES) -> ExtractionGap:
    """Compare two gradings answer by answer; every answer weighs the same.

    Args:
        graded: each answer's key, our grade, and the other grading's.
        max_examples: maximum number of keys kept for each part.
    """
    answers = list(graded)
    both = [(key, one, two) for key, one, two in answers if one.correct is not None and two.correct is not None]
    extraction = [(key, one, two) for key, one, two in both if not same_extraction(one, two)]
    comparison = [(key, one, two) for key, one, two in both if same_extraction(one, two) and one.correct != two.correct]
    num = len(both)
    return ExtractionGap(
        num_answers=len(answers),
        num_graded=num,
        num_same_verdict=sum(one.correct == two.correct for _, one, two in both),
        num_missing=sum(two.extracted_answer is None and one.extracted_answer is not None for _, one, two in both),
        ours=100 * sum(one.correct is True for _, one, _ in both) / num if num else None,
        theirs=100 * sum(two.correct is True for _, _, two in both) / num if num else None,
        extraction=_part(extraction, num, max_examples),
        comparison=_part(comparison, num, max_examples),
    )


def same_extraction(one: Grade, two: Grade) -> bool:
    """Return whether two grades are of the same extracted answer: the same string, letter in any case, or quantity."""
    left, right = one.extracted_answer, two.extracted_answer
    if left is None or right is None:
        return left is right
    if len(left) == len(right) == 1:
        return left.casefold() == right.casefold()
    return left == right or same_answer(left, right)


def _part(differing: list[tuple[SampleKey, Grade, Grade]], num_graded: int, max_examples: int) -> GapPart:
    gained = [key for key, one, two in differing if two.correct and not one.correct]
    lost = [key for key, one, two in differing if one.correct and not two.correct]
    others = [key for key, one, two in differing if one.correct == two.correct]
    changed = {*gained, *lost}
    ordered = [key for key, _, _ in differing if key in changed] + others
    points = 100 * (len(gained) - len(lost)) / num_graded if num_graded else 0.0
    return GapPart(len(differing), len(gained), len(lost), points, tuple(ordered[:max_examples]))

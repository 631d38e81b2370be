"""Audit: the answers on which extractors, or a rule and a judge, disagree, and what that could do to the score.

Example: an answer of which distill extracts `"42"`, the last box holds `"42"` and the first "Answer:" says `"41"`, is
disputed. If every disputed answer went the worst way for the model the score would be `low`, the best way `high`.

Grades by other extractors come from `distill.grading.harnesses.grade_all_as`, under the names of its `EXTRACTORS`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from distill.core.records import SampleKey
from distill.grading import Grade
from distill.grading.math import same_answer

Dispute = Literal["extraction", "comparison", "judge"]
"""Another answer is extracted; the same one is judged otherwise by another rule; the judge says otherwise."""

OURS = "distill"


@dataclass(frozen=True, slots=True)
class Audited:
    """One answer with what each extractor and the judge said of it."""

    key: SampleKey
    said: dict[str, Grade]
    """Extractor -> its grade; `distill` first."""
    judge: bool | None
    """The judge's verdict; `None` if it gave none or was not asked."""
    disputes: tuple[Dispute, ...]
    """Empty if all agree."""

    @property
    def verdicts(self) -> set[bool]:
        """Return the possible verdicts: what distill, each extractor that found an answer, and the judge say.

        Both, if distill could not grade the answer.
        """
        ours = self.said[OURS].correct
        if ours is None:
            return {True, False}
        found = {grade.correct for grade in self.said.values() if grade.extracted_answer is not None}
        return {ours} | {verdict for verdict in (*found, self.judge) if verdict is not None}


@dataclass(frozen=True, slots=True)
class Audit:
    """All answers of a score. The score and its bounds are shares of all answers, each of the same weight."""

    num_answers: int
    num_by_dispute: dict[Dispute, int]
    """How many answers are disputed for each reason; an answer may be for several."""
    num_ungraded: int
    """Answers without a verdict by distill."""
    num_right: int
    """Answers that distill calls right."""
    low: float | None
    """Share of right answers if every answer that anyone calls wrong were wrong; `None` without answers."""
    high: float | None
    """Share of right answers if every answer that anyone calls right were right."""
    disputed: tuple[Audited, ...]


def audit_answer(key: SampleKey, ours: Grade, others: Mapping[str, Grade], judge: bool | None = None) -> Audited:
    """Compare what was said of one answer.

    An extractor that found nothing has no say, unless it is distill: many texts have no "Answer:", and no fault.

    Args:
        key: identity of the answer.
        ours: distill's grade by its rules, before any judge.
        others: extractor -> its grade.
        judge: the judge's verdict, if there is one.
    """
    found = [grade for grade in others.values() if grade.extracted_answer is not None]
    disputes: list[Dispute] = []
    if any(not _same_answer(ours, grade) for grade in found):
        disputes.append("extraction")
    known = [grade for grade in found if grade.correct is not None and ours.correct is not None]
    if any(_same_answer(ours, grade) and grade.correct != ours.correct for grade in known):
        disputes.append("comparison")
    if judge is not None and ours.correct is not None and judge != ours.correct:
        disputes.append("judge")
    return Audited(key, {OURS: ours, **others}, judge, tuple(disputes))


def audit(answers: Iterable[Audited]) -> Audit:
    """Count the disputes of a score's answers, and bound the score."""
    audited = list(answers)
    num = len(audited)
    disputes: dict[Dispute, int] = {"extraction": 0, "comparison": 0, "judge": 0}
    for answer in audited:
        for dispute in answer.disputes:
            disputes[dispute] += 1
    return Audit(
        num_answers=num,
        num_by_dispute=disputes,
        num_ungraded=sum(answer.said[OURS].correct is None for answer in audited),
        num_right=sum(answer.said[OURS].correct is True for answer in audited),
        low=sum(answer.verdicts == {True} for answer in audited) / num if num else None,
        high=sum(answer.verdicts != {False} for answer in audited) / num if num else None,
        disputed=tuple(answer for answer in audited if answer.disputes),
    )


def _same_answer(one: Grade, other: Grade) -> bool:
    """Return whether two extractors mean the same answer: both right, or equal as strings, letters or quantities."""
    left, right = one.extracted_answer, other.extracted_answer
    if left is None or right is None:
        return left is right
    if one.correct and other.correct:
        return True
    if len(left) == len(right) == 1:
        return left.casefold() == right.casefold()
    return left == right or same_answer(left, right)

"""Counts over verdicts for manifest and report: the funnel, and the yield by source and by pass rate."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from distill.core.records import REASONS, Verdict
from distill.results.filter import FilterMetrics, Yield

PASS_RATES = ("none right", "up to 25%", "up to 50%", "up to 75%", "under 100%", "all right", "ungraded")
"""Bins for the share of correct traces among a problem's graded ones."""


MALFORMED = frozenset({"no_think", "unclosed_think", "several_thinks", "empty_answer"})
"""Reasons of traces that are not one complete block of thinking with an answer behind it."""


@dataclass(slots=True)
class _Yields:
    num_problems: int = 0
    num_traces: int = 0
    num_correct: int = 0
    num_kept: int = 0

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.num_problems += 1
        self.num_traces += len(verdicts)
        self.num_correct += sum(verdict.correct is True for verdict in verdicts)
        self.num_kept += sum(verdict.kept for verdict in verdicts)

    def metrics(self) -> Yield:
        return Yield(**asdict(self))


@dataclass(slots=True)
class TokenSum:
    """Token total of several traces: in student tokens if known for all, else in teacher tokens if known for all.

    Otherwise it is unknown, because a partial sum could be mistaken for the total.
    """

    _of_student: int | None = 0
    _of_teacher: int | None = 0

    def add(self, num_student_tokens: int | None, told_tokens: int | None) -> None:
        """Count one trace; `None`: unknown."""
        self._of_student = _sum(self._of_student, num_student_tokens)
        self._of_teacher = _sum(self._of_teacher, told_tokens)

    @property
    def total(self) -> int | None:
        """Return the sum; `None` if unknown."""
        return self._of_teacher if self._of_student is None else self._of_student

    @property
    def counted_by(self) -> str | None:
        """Return whose tokens are counted, `student` or `teacher`; `None` if the sum is unknown."""
        return "student" if self._of_student is not None else "teacher" if self._of_teacher is not None else None


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(slots=True)
class Funnel:
    """Counts of dropped traces: each once under its first reason, and the total of every reason."""

    num_problems_kept: int = 0
    num_ungraded: int = 0
    num_well_formed: int = 0
    _kept_tokens: TokenSum = field(default_factory=TokenSum)
    _all: _Yields = field(default_factory=_Yields)
    _first: Counter[str] = field(default_factory=Counter)
    _every: Counter[str] = field(default_factory=Counter)
    _graded_by: Counter[str] = field(default_factory=Counter)
    _by_source: dict[str, _Yields] = field(default_factory=dict)
    _by_pass_rate: dict[str, _Yields] = field(default_factory=dict)

    @property
    def num_traces(self) -> int:
        return self._all.num_traces

    @property
    def num_kept(self) -> int:
        return self._all.num_kept

    def add(self, source: str, verdicts: Sequence[Verdict], told_tokens: Sequence[int | None]) -> None:
        """Count all traces of one problem.

        Args:
            source: the problem's source.
            verdicts: one per trace.
            told_tokens: completion tokens of each trace, as counted by the teacher; `None`: unknown.
        """
        self._all.add(verdicts)
        self.num_problems_kept += any(verdict.kept for verdict in verdicts)
        self.num_ungraded += sum(verdict.correct is None for verdict in verdicts)
        self.num_well_formed += sum(MALFORMED.isdisjoint(verdict.reasons) for verdict in verdicts)
        for verdict, told in zip(verdicts, told_tokens, strict=True):
            if verdict.kept:
                self._kept_tokens.add(verdict.num_student_tokens, told)
        self._first.update(verdict.reasons[0] for verdict in verdicts if verdict.reasons)
        self._every.update(reason for verdict in verdicts for reason in verdict.reasons)
        self._graded_by.update(verdict.graded_by for verdict in verdicts if verdict.correct is not None)
        self._by_source.setdefault(source, _Yields()).add(verdicts)
        self._by_pass_rate.setdefault(_bin(verdicts), _Yields()).add(verdicts)

    def metrics(self) -> FilterMetrics:
        """Return the counts."""
        num_graded = self._all.num_traces - self.num_ungraded
        return FilterMetrics(
            num_traces=self._all.num_traces,
            num_kept=self._all.num_kept,
            num_problems=self._all.num_problems,
            num_problems_kept=self.num_problems_kept,
            correct_share=self._all.num_correct / num_graded if num_graded else None,
            num_ungraded=self.num_ungraded,
            num_well_formed=self.num_well_formed,
            num_kept_tokens=self._kept_tokens.total,
            tokens_counted_by=self._kept_tokens.counted_by,
            dropped={reason: self._first[reason] for reason in REASONS if self._first[reason]},
            reasons={reason: self._every[reason] for reason in REASONS if self._every[reason]},
            graded_by=dict(sorted(self._graded_by.items())),
            by_source={source: found.metrics() for source, found in sorted(self._by_source.items())},
            by_pass_rate={
                name: self._by_pass_rate[name].metrics() for name in PASS_RATES if name in self._by_pass_rate
            },
        )


def _bin(verdicts: Sequence[Verdict]) -> str:
    graded = [verdict.correct for verdict in verdicts if verdict.correct is not None]
    if not graded:
        return "ungraded"
    share = sum(graded) / len(graded)
    if share in (0.0, 1.0):
        return "all right" if share else "none right"
    return next(
        name
        for top, name in ((0.25, "up to 25%"), (0.5, "up to 50%"), (0.75, "up to 75%"), (1.0, "under 100%"))
        if share <= top
    )


def funnel_steps(metrics: FilterMetrics | None) -> list[tuple[str, int]]:
    """Return the funnel's steps for display: all samples, each first reason, kept traces; none before the filter."""
    if metrics is None:
        return []
    return [("sampled", metrics.num_traces), *metrics.dropped.items(), ("kept", metrics.num_kept)]

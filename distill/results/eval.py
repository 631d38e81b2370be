"""What `eval` records."""

from typing import Any

from distill.results.base import Count, Interval, Recorded, absent_before

TITLE = "Evaluate"
DOES = "evaluate"


_LOCKED_OF_SCORE = ("num_problems", "samples_per_problem", "pass_at_1", "interval_95")


class EvalResult(Recorded):
    """One model's score on one set of problems."""

    TABLE = "Score"

    model: str
    """Hub id or folder."""
    num_problems: Count
    samples_per_problem: Count
    pass_at_1: float
    """Share of right answers: the mean over samples, then over problems."""
    interval_95: Interval
    """Lower and upper bound."""
    truncated_share: float
    """Of the answers: cut off at `max_tokens`."""
    num_ungraded: Count = 0
    mean_completion_tokens: float


class Difference(Recorded):
    """The student's score less the base's, on the same problems."""

    pass_at_1: float
    """Student less base."""
    interval_95: Interval
    """Paired by problem."""
    num_gained: Count
    """Problems solved more often."""
    num_lost: Count
    """Problems solved less often."""


class Scores(Recorded):
    """Both models' scores on the same problems."""

    base: EvalResult
    student: EvalResult
    difference: Difference


class Benchmark(Scores):
    """Both models' scores on one benchmark."""

    name: str


class Protocol(Recorded):
    """The conditions under which scores are comparable."""

    samples_per_problem: Count = 1
    """K."""
    temperature: float | None = absent_before()
    top_p: float | None = absent_before()
    top_k: int | None = absent_before()
    max_tokens: Count | None = absent_before()
    engine: str | None = None
    extraction: str = ""
    """How an answer is found."""
    interval: str = ""
    """How the interval is worked out."""


class EvalMetrics(Scores):
    """Metrics of `eval`."""

    LOCKED = ("base", "student", "difference")

    benchmarks: list[Benchmark]
    protocol: Protocol
    engine: dict[str, Any] = {}
    """Settings of the engines of `base` and `student`."""

    @property
    def tokens_spent(self) -> float | None:
        return sum(
            one.mean_completion_tokens * one.num_problems * one.samples_per_problem for one in (self.base, self.student)
        )

    def locked(self) -> dict[str, Any]:
        """Return the scores alone, without the models' names."""
        found = super().locked()
        return {role: {key: one[key] for key in _LOCKED_OF_SCORE if key in one} for role, one in found.items()}


class EvalInputs(Recorded):
    """The parts of the identity that others look at."""

    student: str | None = None

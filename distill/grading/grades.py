"""The result of grading one answer."""

from dataclasses import dataclass, field

from distill.isolation import wire


@wire.result
@dataclass(frozen=True, slots=True)
class Grade:
    """The result of grading one answer; `reason` says why it is not right (see `distill.core.records.REASONS`)."""

    correct: bool | None
    extracted_answer: str | None
    reason: str | None
    details: dict[str, str] = field(default_factory=dict)
    """More on it, for a verdict's `details`: of programs, how many tests are passed and the first that is not."""
    may_be_kept: bool = True
    """Whether its cache key holds all that decides it; a file that is lost is in none."""

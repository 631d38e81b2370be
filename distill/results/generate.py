"""What `generate` records."""

from typing import Any

from distill.results.base import Count, Counts, Recorded, sometimes

TITLE = "Sample traces"
DOES = "sample the teacher"


class Cost(Recorded):
    """Price of the tokens."""

    amount: float
    currency: str


class GenerateMetrics(Recorded):
    """Metrics of `generate`."""

    LOCKED = ("num_problems", "num_samples", "num_completion_tokens", "finish_reasons")

    teacher: str
    teacher_revision: str
    """Commit, hash of a folder, or `served`."""
    num_problems: Count
    num_problems_by_source: Counts
    num_problems_excluded: Count = 0
    """Kept out because they are measured on."""
    num_samples: Count
    samples_per_problem: Count
    """As asked for."""
    num_examples: Count = 0
    """Worked examples that the teacher was shown."""
    sampling: dict[str, Any] = {}
    num_prompt_tokens: Count
    num_completion_tokens: Count
    finish_reasons: Counts
    """Samples that ended by `stop`, `length`, `loop`, `error`."""
    num_not_needed: Count = 0
    """Samples that `stop_after_correct` spared."""
    engine: dict[str, Any] | None = None
    """Its settings; null where nothing had to be sampled."""
    num_damaged_records: Count = 0
    """Lines of the ledger that failed their checksum."""
    tokens_per_second: float | None = sometimes()
    """Completion tokens."""
    cost: Cost | None = sometimes()
    """Where the recipe has a price."""

    @property
    def tokens_spent(self) -> float | None:
        return self.num_completion_tokens or None


class GenerateInputs(Recorded):
    """The parts of the identity that others look at."""

    teacher_revision: str | None = None
    chat_template: str | None = None
    problems: str | None = None

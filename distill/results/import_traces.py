"""What `import` records."""

from typing import Any

from distill.results.base import Count, Counts, Recorded

TITLE = "Import traces"
DOES = "import traces"


class ImportMetrics(Recorded):
    """Metrics of `import`."""

    LOCKED = ("num_problems", "num_samples", "num_skipped")

    num_samples: Count
    num_problems: Count
    num_problems_by_source: Counts
    num_skipped: Count
    """Rows left out."""
    skipped: Counts = {}
    """Rows left out by reason."""
    num_completion_tokens: Count | None = None
    """As the sources tell them; null: not all do."""
    finish_reasons: Counts

    @property
    def tokens_spent(self) -> float | None:
        return self.num_completion_tokens or None


class ImportInputs(Recorded):
    """The parts of the identity that others look at."""

    traces: list[dict[str, Any]] | None = None
    measured: str | None = None

"""What `filter` records."""

from distill.results.base import Count, Counts, Recorded, sometimes

TITLE = "Grade and filter"
DOES = "grade and filter"


class Yield(Recorded):
    """What became of the traces of some problems."""

    num_problems: Count
    num_traces: Count
    num_correct: Count
    """Traces."""
    num_kept: Count
    """Traces."""


class FilterMetrics(Recorded):
    """Metrics of `filter`."""

    LOCKED = ("num_traces", "num_kept", "dropped")

    num_traces: Count
    num_kept: Count
    num_problems: Count
    num_problems_kept: Count
    """Of which any trace was kept."""
    correct_share: float | None = None
    """Of the graded traces."""
    num_ungraded: Count = 0
    num_well_formed: Count | None = sometimes()
    """Traces with one complete block of thinking and an answer behind it."""
    num_kept_tokens: Count | None = None
    """Null: not known."""
    tokens_counted_by: str | None = None
    """Whose tokens those are: `student` where the filter counts them (`filter.max_tokens`, `filter.min_tokens`), else
    `teacher`."""
    dropped: Counts
    """Each dropped trace once, under its first reason (`distill/core/records.py`)."""
    reasons: Counts = {}
    """Every reason's full count."""
    graded_by: Counts = {}
    """Traces graded by `rule`, `majority`, `judge`."""
    by_source: dict[str, Yield] = {}
    by_pass_rate: dict[str, Yield] = {}
    """By the share of a problem's graded traces that are right."""

    @property
    def is_empty(self) -> bool:
        return self.num_kept == 0


class FilterInputs(Recorded):
    """The parts of the identity that others look at."""

    traces: str | None = None
    problems: str | None = None

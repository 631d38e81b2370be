"""The report of a run: one self-contained HTML page with inputs, funnel, training, scores and traces."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.report.embed import is_report
from distill.report.gather import Run, gather_run
from distill.report.render import render_report
from distill.report.rounds import gather_rounds, has_rounds, render_rounds

__all__ = ["Run", "gather_any", "gather_run", "is_report", "render_any", "render_report"]


def gather_any(folder: Path, recipe: Mapping[str, Any] | None = None) -> Run:
    """Read a run with or without rounds, or one round; see `gather_run`."""
    return gather_rounds(folder) if has_rounds(folder) else gather_run(folder, recipe)


def render_any(run: Run) -> str:
    """Return the report page of a run with or without rounds, or of one round."""
    return render_rounds(run) if "rounds" in run.facts else render_report(run)

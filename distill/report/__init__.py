"""The report of a run: one self-contained HTML page with inputs, funnel, training, scores and traces."""

from distill.report.embed import is_report
from distill.report.gather import Run, gather_run
from distill.report.render import render_report

__all__ = ["Run", "gather_run", "is_report", "render_report"]

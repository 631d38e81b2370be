"""The run's report: one self-contained HTML page about what went in, what was kept and what the student learned."""

from distill.report.embed import is_report
from distill.report.gather import Run, gather_run
from distill.report.render import render_report

__all__ = ["Run", "gather_run", "is_report", "render_report"]

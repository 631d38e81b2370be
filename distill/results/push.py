"""What `push` records."""

from typing import Literal

from distill.results.base import Count, Recorded

TITLE = "Publish"
DOES = "publish"


class Pushed(Recorded):
    """The result of pushing one branch of a repository."""

    kind: str
    """`model` or `dataset`."""
    repo: str
    url: str
    branch: str
    commit: str
    num_files: Count
    num_changed: Count
    num_bytes_changed: Count
    already_there: bool


class Flag(Recorded):
    """A licence problem to report before publishing; a refusal stops the push until it is accepted."""

    level: Literal["warning", "refusal"]
    """`refusal` stops the push."""
    text: str


class PushMetrics(Recorded):
    """Metrics of `push`."""

    repo: str = ""
    url: str
    already_there: bool
    """Whether nothing had to be sent."""
    num_files: Count
    num_files_changed: Count
    num_bytes_changed: Count = 0
    pushed: list[Pushed]
    """One entry a revision of a repository."""
    flags: list[Flag] = []
    left_out: list[str] = []
    """Asked for and not published, and why."""

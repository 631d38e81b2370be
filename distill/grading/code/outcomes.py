"""How one test of a program ended."""

from typing import Any, NamedTuple

from distill.grading.sandbox import Execution


class Shown(NamedTuple):
    """What a test is, as a report shows it."""

    input: str
    expected: str


class Outcome(NamedTuple):
    """How one test ended."""

    passed: bool | None
    """`None`: what is expected is not known, or the test itself is at fault (see `reason`)."""
    end: str
    test: Shown = Shown("", "")
    got: str = ""
    detail: str = ""
    given: Any = None
    """What the program gave, for votes; `None`: it did not finish."""
    is_weaker: bool = False
    may_be_helped: bool = False
    """Whether several functions of the program decide it, of which one may be a helper that the test lacks."""
    reason: str = ""
    """Why the program cannot be graded: `ungraded_sandbox` or `ungraded_gold`."""


def not_finished(done: Execution, test: Shown) -> Outcome:
    """Return the outcome of a run that ended before it gave a result."""
    if done.end == "sandbox_error":
        return Outcome(None, done.end, reason="ungraded_sandbox", detail=done.detail or "the sandbox failed")
    got = done.stdout.decode("utf-8", "replace")
    return Outcome(False, done.end, test, got, done.detail)

"""Run programs from outside where they can do no harm and change no verdict.

    with submission("python", source, backend=BUBBLEWRAP) as program:
        program.run(b"1 2", Limits(cpu_s=2)).stdout
        with program.test(Limits()) as callee:
            callee.call("add", [1, 2], {}).value

Nothing that is expected goes into a sandbox: a verdict is what the caller compares. `docs/sandbox.md` says what is
confined and how.
"""

from distill.grading.sandbox.assertions import run_tests
from distill.grading.sandbox.available import bubblewrap_fails
from distill.grading.sandbox.callee import Callee
from distill.grading.sandbox.records import (
    BUBBLEWRAP,
    Backend,
    End,
    Execution,
    Language,
    Limits,
    SandboxError,
    TestsEnd,
    TestsRun,
    Value,
)
from distill.grading.sandbox.remote import RemoteSubmission, remote_fails
from distill.grading.sandbox.submission import Submission

__all__ = [
    "BUBBLEWRAP",
    "Backend",
    "Callee",
    "End",
    "Execution",
    "Language",
    "Limits",
    "SandboxError",
    "Submission",
    "TestsEnd",
    "TestsRun",
    "Value",
    "run_tests",
    "sandbox_fails",
    "submission",
]


def sandbox_fails(backend: Backend = BUBBLEWRAP) -> str | None:
    """Return why programs cannot be run, and what to do about it; `None` if they can. Tried only once."""
    return bubblewrap_fails() if backend.kind == "bubblewrap" else remote_fails(backend.url)


def submission(language: Language, source: str, *, backend: Backend = BUBBLEWRAP) -> Submission | RemoteSubmission:
    """Return a program in a fresh sandbox, to be used as a context manager.

    Args:
        language: of the program.
        source: its text.
        backend: where it runs.

    Raises:
        SandboxError: there is no sandbox. Nothing is run without one.
    """
    reason = sandbox_fails(backend)
    if reason is not None:
        raise SandboxError(reason)
    return (
        Submission(language, source)
        if backend.kind == "bubblewrap"
        else RemoteSubmission(language, source, backend.url)
    )

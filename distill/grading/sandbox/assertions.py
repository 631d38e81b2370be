"""Test code in a process that holds what is expected, while the program that it tests runs in another sandbox."""

import atexit
import contextlib
import os
import secrets
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from distill.grading.sandbox.callee import Callee
from distill.grading.sandbox.inside.candidate import CALL, EVALUATE, NUMBER_BYTES
from distill.grading.sandbox.inside.testing import BAD_TESTS, ENDED, FAILED, PASSED, PROGRAM_RAISED, TESTS, UNSPLITTABLE
from distill.grading.sandbox.inside.values import decode, encode
from distill.grading.sandbox.pool import pool
from distill.grading.sandbox.process import Ended, Sandbox
from distill.grading.sandbox.records import Limits, SandboxError, TestsEnd, TestsRun, cleaned_text
from distill.grading.sandbox.results import as_execution
from distill.grading.sandbox.start import asserts_source
from distill.grading.sandbox.talk import BrokenTalkError, Talk

TESTS_ENDS = frozenset({PASSED, FAILED, UNSPLITTABLE, BAD_TESTS})
_lock = threading.Lock()
_sandbox: Sandbox | None = None


def run_tests(
    code: str,
    trusted: str,
    names: Collection[str],
    callee: Callee,
    limits: Limits | None = None,
    given: Mapping[str, Any] | None = None,
) -> TestsRun:
    """Run test code in the tests' process, where calls of the program's functions go to the program's own.

    Args:
        code: the test code, whose assertions tell what they compared.
        trusted: code executed before it: imports, helpers of the tests, a checker.
        names: functions that stand for the program's.
        callee: the program. `None` of its functions need be called.
        limits: of the tests' process alone. Default: `Limits()`.
        given: plain values that the code has as variables.

    Raises:
        ValueError: a value of `given` is no plain one, or too large.
    """
    limits = limits or Limits()
    content = encode([code, trusted, sorted(names), dict(given or {})])
    for _ in range(2):  # once more with another sandbox if the first one ended
        try:
            return _run(content, callee, limits)
        except (SandboxError, OSError) as error:
            said = str(error)
            close_tests_sandbox()
    return TestsRun("sandbox_error", detail=said[:2_000])


def _run(content: bytes, callee: Callee, limits: Limits) -> TestsRun:
    number = secrets.token_bytes(NUMBER_BYTES)
    left_s = limits.wall
    kind = TESTS
    with contextlib.closing(Talk(_tests_sandbox(), "tests", limits)) as talk:
        while True:
            started = time.monotonic()
            try:
                told = talk.ask(number, kind, content, max(0.0, left_s))
            except BrokenTalkError:
                return TestsRun("bad_tests", detail="the tests wrote to the sandbox's own descriptors")
            left_s -= time.monotonic() - started
            if isinstance(told, Ended):
                done = as_execution(told, limits)
                if done.end == "sandbox_error":
                    raise SandboxError(done.detail)
                return TestsRun(
                    "bad_tests" if done.end in ("finished", "runtime_error") else done.end, detail=done.detail
                )
            if told is None:
                return TestsRun("time_limit", detail="the tests took too long")
            asked, content = told
            if asked == ENDED:
                return _as_run(content)
            if asked not in (CALL, EVALUATE):
                return TestsRun("bad_tests", detail="the tests wrote to the sandbox's own descriptors")
            reply = callee.request(asked, content)
            if not reply.kind:
                return TestsRun(reply.execution.end, detail=reply.execution.detail)
            kind, content = reply.kind, reply.content


def _as_run(content: bytes) -> TestsRun:
    """Return what the tests' process tells. Test code is from outside too."""
    try:
        told = decode(content)
        end: TestsEnd = "runtime_error" if told["end"] == PROGRAM_RAISED else told["end"]
        if end not in (*TESTS_ENDS, "runtime_error"):
            raise ValueError(end)
        line, got, expected, detail, by = (
            one if one is None else cleaned_text(str.__str__(one))
            for one in (told.get(name) for name in ("line", "got", "expected", "detail", "by"))
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return TestsRun("bad_tests", detail="the tests sent no result")
    return TestsRun(end, line, got, expected, detail or "", by or "")


def _tests_sandbox() -> Sandbox:
    global _sandbox
    with _lock:
        if _sandbox is not None and not _sandbox.is_running:
            _sandbox.close()
            _sandbox = None
        if _sandbox is None:
            _sandbox = pool().take()
            _sandbox.load(asserts_source(), ("ast", "numpy"))
        return _sandbox


@atexit.register
def close_tests_sandbox() -> None:
    """End the tests' sandbox. Another run starts a new one."""
    global _sandbox
    with _lock:
        closing, _sandbox = _sandbox, None
    if closing is not None:
        closing.close()


def _forget() -> None:
    """Forget the sandbox in a forked child: it belongs to the parent."""
    global _sandbox, _lock
    _sandbox, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)

"""A program as a module in a process of its own, whose functions are called."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from distill.grading.sandbox.inside.candidate import (
    CALL,
    CHECK,
    EVALUATE,
    NO_NUMBER,
    NUMBER_BYTES,
    RAISED,
    TOO_LARGE,
    VALUE,
)
from distill.grading.sandbox.inside.values import decode, encode
from distill.grading.sandbox.locks import EXECUTIONS
from distill.grading.sandbox.process import Ended, Sandbox
from distill.grading.sandbox.records import End, Execution, Limits, SandboxError, Value, cleaned_text
from distill.grading.sandbox.results import as_execution, ended_early, sandbox_error
from distill.grading.sandbox.talk import BrokenTalkError, Talk


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request."""

    execution: Execution
    """Without a value."""
    kind: bytes = b""
    """Empty if no reply came, and none will."""
    content: bytes = b""
    """Typed JSON, not read yet."""


class Callee:
    """A process in which a program was executed as a module. Its functions can be called one after another.

    Args:
        sandbox: gives the program's sandbox, a new one if it has ended.
        renew: ends the program's sandbox.
        limits: of all calls together.
    """

    def __init__(self, sandbox: Callable[[], Sandbox], renew: Callable[[], None], limits: Limits) -> None:
        self._sandbox, self._renew, self._limits = sandbox, renew, limits
        self._talk: Talk | None = None
        self._end: Execution | None = None
        self._history: list[tuple[bytes, bytes]] = []
        self._left_s = limits.wall

    def call(self, name: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> Execution:
        """Return what a function gives.

        Args:
            name: `f`, or `Class.f` for a method of a new instance.
            args: plain values.
            kwargs: plain values by name.

        Raises:
            ValueError: an argument is no plain value, or too large.
        """
        return _read(self.request(CALL, encode([name, list(args), kwargs or {}])))

    def evaluate(self, expression: str) -> Execution:
        """Return what an expression gives in the program's own process."""
        return _read(self.request(EVALUATE, encode(expression)))

    def check(self, code: str) -> Execution:
        """Run test code in the program's own process: `finished` if nothing is raised.

        The program can see the code there, and change what it compares: the verdict is weaker than others.
        """
        return _read(self.request(CHECK, encode(code)))

    def request(self, kind: bytes, content: bytes) -> Reply:
        """Send a request and return its reply unread. A time limit is confirmed by all requests once more, alone."""
        if self._end is not None:
            return Reply(self._end)
        with EXECUTIONS.together():
            reply = self._try(kind, content)
        if reply.execution.end == "time_limit":
            with EXECUTIONS.alone():
                reply = self._again(kind, content)
        elif reply.execution.end == "sandbox_error":
            self._renew()
            with EXECUTIONS.together():
                reply = self._again(kind, content)
        if reply.kind:
            self._history.append((kind, content))
        else:
            self._end = reply.execution
            self.close()
        return reply

    def _again(self, kind: bytes, content: bytes) -> Reply:
        """Make all requests once more of a new process, and return the last reply."""
        self.close()
        for earlier in [*self._history, (kind, content)]:
            reply = self._try(*earlier)
            if not reply.kind:
                break
        return reply

    def _try(self, kind: bytes, content: bytes) -> Reply:
        try:
            if self._talk is None:
                self._left_s = self._limits.wall
                self._talk = Talk(self._sandbox(), "calls", self._limits)
                ready = self._ask(self._talk, NO_NUMBER, b"", b"")
                if not ready.kind:
                    return ready
            return self._ask(self._talk, secrets.token_bytes(NUMBER_BYTES), kind, content)
        except (SandboxError, OSError) as error:
            return Reply(sandbox_error(error))

    def _ask(self, talk: Talk, number: bytes, kind: bytes, content: bytes) -> Reply:
        started = time.monotonic()
        try:
            told = talk.ask(number, kind, content, max(0.0, self._left_s))
        except BrokenTalkError:
            return Reply(Execution("runtime_error", b"", "it wrote to the sandbox's own descriptors", 0.0, 0.0))
        wall_s = time.monotonic() - started
        self._left_s -= wall_s
        if isinstance(told, Ended):
            return Reply(ended_early(as_execution(told, self._limits)))
        if told is None:
            return Reply(Execution("time_limit", b"", "it did not answer in time", 0.0, wall_s))
        return Reply(Execution("finished", b"", "", 0.0, wall_s), *told)

    def close(self) -> None:
        """End the process. Another request starts a new one."""
        if self._talk is not None:
            talk, self._talk = self._talk, None
            talk.close()


def _read(reply: Reply) -> Execution:
    """Return an execution with the value in a reply."""
    if not reply.kind:
        return reply.execution
    try:
        told = decode(reply.content)
        if reply.kind == VALUE:
            plain, changed = told
            return replace(reply.execution, value=Value(plain, changed))
        if reply.kind == RAISED:
            name, said, _ = told
            return _said(reply, "runtime_error", f"{name}: {said}", str(name))
        return _said(reply, "output_limit" if reply.kind == TOO_LARGE else "finished", str(told))
    except (ValueError, TypeError) as error:
        return _said(reply, "runtime_error", f"no value came back: {error}")


def _said(reply: Reply, end: End, detail: str, raised: str | None = None) -> Execution:
    return replace(reply.execution, end=end, detail=cleaned_text(detail), raised=raised and cleaned_text(raised))

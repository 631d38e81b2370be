"""One program in a fresh sandbox: run on inputs, or its functions called."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import IO, Self

from distill.grading.sandbox import compiled
from distill.grading.sandbox.callee import Callee
from distill.grading.sandbox.locks import EXECUTIONS
from distill.grading.sandbox.pool import pool
from distill.grading.sandbox.process import Sandbox
from distill.grading.sandbox.records import Execution, Language, Limits, SandboxError
from distill.grading.sandbox.results import as_execution, sandbox_error
from distill.grading.sandbox.start import memory_file

MODULES = ("numpy",)
"""Imported before tests are forked, if the program names them."""
IMPORTS = re.compile(rb"^[ \t]*(?:import|from)[ \t]+(" + "|".join(MODULES).encode() + rb")\b", re.MULTILINE)


class Submission:
    """A program in a fresh sandbox. Use it as a context manager; threads may share it.

    Args:
        language: of the program.
        source: its text.
    """

    def __init__(self, language: Language, source: str) -> None:
        self._language = language
        self._source = source.encode("utf-8", "surrogatepass")
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._binary: compiled.Binary | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox and all that runs in it."""
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()
                self._sandbox = None

    def run(self, stdin: bytes | IO[bytes], limits: Limits | None = None) -> Execution:
        """Run the program on an input. A time limit is reported only if it is reached once more, alone.

        Args:
            stdin: the input. An open file is read from its beginning, and never held in memory.
            limits: default: `Limits()`.
        """
        limits = limits or Limits()
        with EXECUTIONS.together():
            done = self._run_twice(stdin, limits)
        if done.end != "time_limit":
            return done
        with EXECUTIONS.alone():
            return self._run_twice(stdin, limits)

    def _run_twice(self, stdin: bytes | IO[bytes], limits: Limits) -> Execution:
        """Run it, and once more in another sandbox if the first one ended."""
        with contextlib.suppress(SandboxError, OSError):
            return self._run_once(stdin, limits)
        self.close()
        try:
            return self._run_once(stdin, limits)
        except (SandboxError, OSError) as error:
            return sandbox_error(error)

    def _run_once(self, stdin: bytes | IO[bytes], limits: Limits) -> Execution:
        if self._language == "cpp":
            if self._binary is None:
                self._binary = compiled.binary(self._source)
            if self._binary.content is None:
                return Execution("compile_error", b"", self._binary.said, self._binary.cpu_s, 0.0)
            sandbox, read = self.sandbox(), _input(stdin)
            program = memory_file("program", self._binary.content)
            return as_execution(sandbox.run("exec", limits, read, program), limits)
        return as_execution(self.sandbox().run("run", limits, _input(stdin)), limits)

    def sandbox(self) -> Sandbox:
        """Return this program's sandbox, started if there is none.

        Raises:
            SandboxError, OSError: it cannot be started.
        """
        with self._lock:
            if self._sandbox is not None and not self._sandbox.is_running:
                self._sandbox.close()
                self._sandbox = None
            if self._sandbox is None:
                self._sandbox = pool().take()
                is_python = self._language == "python"
                modules = {name.decode() for name in IMPORTS.findall(self._source)} if is_python else ()
                self._sandbox.load(self._source if is_python else b"", sorted(modules))
            return self._sandbox

    @contextlib.contextmanager
    def test(self, limits: Limits | None = None) -> Iterator[Callee]:
        """Execute the program as a module in a process of its own, whose functions can then be called.

        Args:
            limits: of all calls together. Default: `Limits()`.

        Raises:
            ValueError: the program is none in Python.
        """
        if self._language != "python":
            raise ValueError("only functions of Python programs can be called")
        callee = Callee(self.sandbox, self.close, limits or Limits())
        try:
            yield callee
        finally:
            callee.close()


def _input(stdin: bytes | IO[bytes]) -> int:
    """Return a descriptor from which an input can be read but not changed.

    A file, not a pipe: programs that ask for its size or map it into memory work as they do in contests.
    """
    if isinstance(stdin, bytes):
        sealed = memory_file("input", stdin)
        try:
            return os.open(f"/proc/self/fd/{sealed}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(sealed)
    try:
        return os.open(f"/proc/self/fd/{stdin.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):  # no file of the system
        stdin.seek(0)
        return _input(stdin.read())

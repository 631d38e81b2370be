"""What a sandbox is asked and what it tells."""

from dataclasses import dataclass
from typing import Any, Literal

from distill.errors import UserError

Language = Literal["python", "cpp"]
End = Literal[
    "finished", "runtime_error", "time_limit", "memory_limit", "output_limit", "compile_error", "sandbox_error"
]
"""How an execution ended. A `sandbox_error` says nothing about the program."""
TestsEnd = End | Literal["failed", "unsplittable", "bad_tests"]

MAX_DETAIL_CHARS = 2_000


class SandboxError(Exception):
    """A sandbox that ended or cannot be started: no fault of the program."""


class LimitsError(UserError):
    """Limits that no test can have."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one test."""

    cpu_s: float = 10.0
    """CPU time of all its threads."""
    wall_s: float = 0.0
    """Time by the clock; 0 is `2 * cpu_s + 5`, so that a busy machine does not decide."""
    memory_mib: int = 1024
    """Memory that it really uses. It may reserve 512 MiB more, as threads do."""
    output_bytes: int = 16 << 20
    """Of standard output, and of standard error, of which only the end is kept."""

    def __post_init__(self) -> None:
        if not (0 < self.cpu_s <= 3_600 and 0 <= self.wall_s <= 7_200):
            raise LimitsError(f"a time limit of {self.cpu_s:g} s (by the clock {self.wall_s:g} s) is no limit")
        if not (1 <= self.memory_mib <= 1 << 16 and 0 <= self.output_bytes <= 1 << 30):
            raise LimitsError(f"limits of {self.memory_mib} MiB and {self.output_bytes} bytes of output are none")

    @property
    def wall(self) -> float:
        """Return the limit by the clock in seconds."""
        return self.wall_s or 2 * self.cpu_s + 5


@dataclass(frozen=True, slots=True)
class Value:
    """What a call returned."""

    plain: Any
    """Of exact built-in types; of iterators, an iterator over the items."""
    changed: list[Any] | None = None
    """The arguments and the named ones after the call, where it changed them."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a program did."""

    end: End
    stdout: bytes
    """As far as allowed; empty for a call."""
    detail: str
    """The last lines of standard error or the compiler's first, without control characters."""
    cpu_s: float
    wall_s: float
    value: Value | None = None
    """Of a call that returned a plain value; `None` if it returned something else, which `detail` then names."""
    raised: str | None = None
    """Name of the exception that a call raised. The program can go on."""


@dataclass(frozen=True, slots=True)
class TestsRun:
    """How test code ended. `failed`, `unsplittable` and `bad_tests` are ends of the tests, others of the program.

    `unsplittable`: something that cannot travel between the program and its tests; `Callee.check` runs them weaker.
    `bad_tests`: the test code does not parse, or its setup fails.
    """

    end: TestsEnd
    line: str | None = None
    """The assertion that did not hold."""
    got: str | None = None
    expected: str | None = None
    """As Python writes them, shortened."""
    detail: str = ""
    by: str = ""
    """Who has it that they are `unsplittable`: `test`, their own text; `either`, that or the program; empty: the
    program alone may, by what it returns."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where programs run. There is no weaker one: without a sandbox nothing runs."""

    kind: Literal["bubblewrap", "remote"] = "bubblewrap"
    url: str = ""
    """Of a remote runner with the interface of piston, up to the part before `/execute`."""


BUBBLEWRAP = Backend()


def cleaned(said: bytes, from_end: bool = True) -> str:
    """Return text of a program as it may be shown: without control characters, shortened."""
    text = said.decode("utf-8", "replace").strip()
    text = text[-MAX_DETAIL_CHARS:] if from_end else text[:MAX_DETAIL_CHARS]
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def cleaned_text(said: str) -> str:
    """Return text of a program as it may be shown, from its beginning."""
    return cleaned(said.encode("utf-8", "replace"), from_end=False)

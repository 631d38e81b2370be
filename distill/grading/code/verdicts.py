"""What testing a program told: how many tests it passed, and the first one that it failed.

CodeVerdict(correct=False, num=3, num_passed=2, failed=FailedTest(3, "f(2)", "4", "5", "wrong answer"), …)
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from distill.core.records import Record
from distill.grading.sandbox import End

MAX_TEXT_CHARS = 1_000
"""Of an input, an output or a message in a record."""
MAX_LINE_CHARS = 200

ENDS: dict[str, str] = {
    "finished": "wrong answer",
    "failed": "wrong answer",
    "runtime_error": "runtime error",
    "time_limit": "time limit",
    "memory_limit": "memory limit",
    "output_limit": "output limit",
    "compile_error": "does not compile",
}
"""How a test that was not passed ended, in words."""

TESTS_PASSED, FAILED_TEST, WEAKER_TESTS, OUTPUTS = "tests_passed", "failed_test", "weaker_tests", "outputs"
"""Keys of a verdict's details: `7 of 10`; the first failing test, as JSON; the number of tests that ran in the
program's own process; a hash of its outputs, by which programs vote."""


@dataclass(frozen=True, slots=True)
class FailedTest(Record):
    """A test that a program did not pass; texts are shortened."""

    number: int
    """Counted from 1."""
    input: str
    expected: str
    got: str
    end: str
    """One of `ENDS`."""
    detail: str = ""
    """What the program or the compiler said."""

    def shortened(self) -> "FailedTest":
        """Return the test with short texts."""
        given, expected, got, detail = (
            shortened(text, MAX_TEXT_CHARS) for text in (self.input, self.expected, self.got, self.detail)
        )
        return FailedTest(self.number, given, expected, got, self.end, detail)

    def in_words(self, num: int) -> str:
        """Return it in a line."""
        said = f"test {self.number} of {num}: {self.end}"
        if self.end == ENDS["compile_error"]:
            return f"{self.end}: {one_line(self.detail)}"
        parts = [f"input {one_line(self.input)}"] * bool(self.input.strip())
        parts += [f"expected {one_line(self.expected)}"] * bool(self.expected.strip())
        parts += [f"got {one_line(self.got)}"] * bool(self.got.strip() or self.end == ENDS["finished"])
        parts += [one_line(self.detail, from_end=True)] * bool(self.detail.strip())
        return "; ".join([said, *parts])


@dataclass(frozen=True, slots=True)
class CodeVerdict:
    """What testing one program told."""

    correct: bool | None
    """`None`: the tests, or the sandbox, are at fault."""
    num: int
    """Number of tests."""
    num_passed: int = 0
    weaker: tuple[int, ...] = ()
    """Numbers of the tests whose assertions ran in the program's own process."""
    helped: tuple[int, ...] = ()
    """Numbers of the tests that call several functions of the program's: one may be a helper that the test lacks."""
    failed: FailedTest | None = None
    reason: str | None = None
    """Why there is no verdict, of `distill.core.records.REASONS`."""
    why: str = ""
    """The same in words."""
    outputs: str = ""
    """Hash of what it gave on the tests' inputs; empty if it did not finish all of them."""

    @property
    def score(self) -> float:
        """Return the share of tests passed, from 0 to 1."""
        return self.num_passed / self.num if self.num else 0.0

    def details(self) -> dict[str, str]:
        """Return what a record's `details` say of it."""
        found: dict[str, str] = {}
        if self.correct is not None:
            found[TESTS_PASSED] = f"{self.num_passed} of {self.num}"
        elif self.reason and self.why:
            found[self.reason] = self.why
        if self.failed is not None:
            found["wrong_answer"] = self.failed.in_words(self.num)
            found[FAILED_TEST] = json.dumps(asdict(self.failed), ensure_ascii=True)
        if weaker := {*self.weaker, *self.helped}:
            found[WEAKER_TESTS] = str(len(weaker))
        if self.outputs:
            found[OUTPUTS] = self.outputs
        return found


def share_passed(said: str) -> float | None:
    """Return the share of tests in a verdict's `tests_passed`, such as `7 of 10`; `None` if it says none."""
    passed, _, num = said.partition(" of ")
    return int(passed) / int(num) if passed.isdecimal() and num.isdecimal() and int(num) else None


def ungraded(num: int, reason: str, why: str) -> CodeVerdict:
    """Return a verdict that says nothing about the program.

    Args:
        num: number of tests.
        reason: of `distill.core.records.REASONS`.
        why: in words.
    """
    return CodeVerdict(None, num, reason=reason, why=shortened(why, MAX_TEXT_CHARS))


class OutputsHash:
    """A hash of what a program gives on the inputs of all tests."""

    def __init__(self) -> None:
        self._digest, self._is_whole = hashlib.sha256(), True

    def add(self, given: Any) -> None:
        """Add what it gave on the next input; `None`: it did not finish."""
        self._is_whole &= given is not None
        self._digest.update(repr(given).encode("utf-8", "surrogatepass") + b"\0")

    def text(self) -> str:
        """Return the hash; empty if an input was not finished."""
        return self._digest.hexdigest()[:16] if self._is_whole else ""


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, without its middle if it is longer."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def one_line(text: str, from_end: bool = False) -> str:
    """Return a text as a line; of several lines the first ones, or the last."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if from_end:
        return shortened(lines[-1] if lines else "", MAX_LINE_CHARS)
    return shortened(" ⏎ ".join(lines), MAX_LINE_CHARS)


def end_in_words(end: End | str) -> str:
    """Return how a test that was not passed ended."""
    return ENDS.get(end, end)

"""What runs in the tests' process: test code, with functions that stand for those of the program under test.

The program runs in another sandbox. Each call of one of its functions is sent there through distill and its value comes
back, of exact built-in types. What is expected never reaches the program, and no method of it reaches a comparison.
"""

import builtins
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from distill.grading.sandbox.inside.candidate import (
    CALL,
    EVALUATE,
    RAISED,
    VALUE,
    Channel,
    described,
)
from distill.grading.sandbox.inside.values import UnsendableError, ValueTooLargeError, decode, encode

TESTS, ENDED = b"T", b"Z"
PASSED, FAILED, UNSPLITTABLE, BAD_TESTS, PROGRAM_RAISED = "finished", "failed", "unsplittable", "bad_tests", "raised"
BY_TEST, BY_EITHER = "test", "either"
"""Who has it that test code cannot be split: its own text, or that or the program."""
MAX_SHOWN_CHARS = 2_000
STANDS_FOR = "_distill_function"
"""The program's function in an expression that its process works out (`inside.asserts`)."""


class Unsplittable(BaseException):
    """Something that cannot travel between the tests and the program.

    Args:
        said: what it is.
        by: `BY_TEST` or `BY_EITHER`; empty: the program alone may have it so.
    """

    def __init__(self, said: str, by: str = "") -> None:
        super().__init__(said)
        self.by = by


class Unplain(Unsplittable):
    """A result that is no plain value, or none at all. It equals nothing, so that the program has failed.

    Only tests that take results apart (`f(1).name`, `f(1)(2)`) may run in the program's own process instead: a program
    that could choose that by what it returns would choose it.
    """


class Failed(AssertionError):  # noqa: N818 - as tests say it
    """An assertion that does not hold.

    Args:
        line: of the test code.
        got: what it compares.
        expected: what it compares that with.
    """

    def __init__(self, line: int, got: Any = None, expected: Any = None, is_comparison: bool = False) -> None:
        super().__init__()
        self.line, self.got, self.expected, self.is_comparison = line, got, expected, is_comparison


class Opaque:
    """A result that is no plain value, and so equals none.

    Args:
        said: what it is.
    """

    def __init__(self, said: str) -> None:
        self._said = said

    def __repr__(self) -> str:
        return f"<{self._said}>"


class Changes:
    """What the program did to arguments, applied at once, or after a comparison has been made.

    `assert f(x) == sorted(x)` compares with the `x` of before: else a program could empty both.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Any, Any]] | None = None

    def add(self, old: Any, new: Any) -> None:
        """Have arguments changed."""
        if self._held is None:
            copy_changes(old, new)
        else:
            self._held.append((old, new))

    def hold(self) -> None:
        """Keep changes back until `release`."""
        self.release()
        self._held = []

    def release(self) -> None:
        """Apply what was kept back."""
        held, self._held = self._held, None
        for old, new in held or ():
            copy_changes(old, new)


class Proxy:
    """A function of the program.

    Args:
        name: of the function.
        channel: to distill.
        number: of this run.
        changes: of arguments.
    """

    def __init__(self, name: str, channel: Channel, number: bytes, changes: Changes) -> None:
        self.__name__ = self.__qualname__ = name
        self._channel, self._number, self._changes = channel, number, changes

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        given = list(arguments)
        try:
            content = encode([self.__name__, given, named])
        except (UnsendableError, ValueTooLargeError) as error:
            # Iterators and what has grown may be results of the program.
            by = BY_EITHER if isinstance(error, ValueTooLargeError) or "iterator" in str(error) else BY_TEST
            raise Unsplittable(f"an argument of {self.__name__}: {error}", by) from None
        value, changed = ask(self._channel, self._number, CALL, content)
        if changed is not None:
            self._changes.add([given, named], changed)
        return value


def ask(channel: Channel, number: bytes, kind: bytes, content: bytes) -> Any:
    """Return what the program gives, and its arguments if it changed them."""
    channel.send(number, kind, content)
    _, kind, content = channel.receive()
    try:
        told = decode(content)
        if kind == VALUE:
            value, changed = told
            return value, changed
        if kind == RAISED:
            name, said, _ = told
            raised = as_exception(str(name), str(said))
    except (ValueError, TypeError) as error:
        raise Unplain(f"a reply that is none: {error}") from None
    if kind == RAISED:
        raise raised
    raise Unplain(str(told))


def as_exception(name: str, said: str) -> Exception:
    """Return the built-in exception that a program raised; a `RuntimeError` for one of its own."""
    cls = getattr(builtins, name, None)
    # One that ends an iteration would end a test's loop over calls, as if there were no more.
    if not (isinstance(cls, type) and issubclass(cls, Exception)) or "Iteration" in name:
        cls, said = RuntimeError, f"{name}: {said}"
    try:
        error = cls(said)
    except TypeError:  # UnicodeDecodeError wants more
        error = RuntimeError(f"{name}: {said}")
    error.of_program = True  # type: ignore[attr-defined]
    return error  # type: ignore[no-any-return]


def copy_changes(old: Any, new: Any) -> None:
    """Make lists, dictionaries and sets equal to what the program made of its copies of them."""
    if type(old) is not type(new):
        return
    if type(old) in (list, tuple) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            if type(one) is type(other) and type(one) in (list, dict, set, tuple, bytearray):
                copy_changes(one, other)
            elif type(old) is list:
                old[index] = other
    elif type(old) in (list, bytearray):
        old[:] = new
    elif type(old) in (dict, set):
        old.clear()
        old.update(new)


def serve_tests(source: bytes, channel: Channel) -> NoReturn:
    """Run the test code that is asked for, tell how it ended, and end the process.

    Args:
        source: of `inside.asserts`.
        channel: to distill.
    """
    asserts: dict[str, Any] = {}
    exec(compile(source, "<asserts>", "exec", dont_inherit=True), asserts)  # noqa: S102 - distill's own
    number, _, content = channel.receive()
    code, trusted, names, given = decode(content)
    try:
        told = _run(code, trusted, names, given, channel, number, asserts["rewritten"])
    except BaseException as error:
        told = {"end": BAD_TESTS, "detail": ": ".join(map(str, described(error)[:2]))}
    sys.stdout.flush()
    channel.send(number, ENDED, encode({name: _cleaned(one) for name, one in told.items()}))
    os._exit(0)


def _cleaned(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode()[:MAX_SHOWN_CHARS] if isinstance(value, str) else value


def _run(
    code: str,
    trusted: str,
    names: list[str],
    given: dict[str, Any],
    channel: Channel,
    number: bytes,
    rewritten: Callable[[str, list[str]], Any],
) -> dict[str, Any]:
    module = types.ModuleType("tests")
    space = module.__dict__
    space.update(given, __builtins__=builtins, __name__="tests")
    sys.modules["tests"] = module
    exec(compile(trusted, "<setup>", "exec", dont_inherit=True), space)  # noqa: S102 - what the sandbox is for
    changes = Changes()
    proxies = {name: Proxy(name, channel, number, changes) for name in names}

    def rescue(function: Any, error: Exception | Unsplittable, source: str) -> Any:
        """Return what the program's process makes of a whole expression, or something that equals no plain value."""
        if not isinstance(function, Proxy) or getattr(error, "of_program", False):
            raise error
        try:  # an argument may be an object of the program's, which is plain for the program alone
            return ask(channel, number, EVALUATE, encode(source.replace(STANDS_FOR, function.__name__)))[0]
        except NameError:  # of a variable that only the tests have
            raise error from None
        except Unplain as unplain:
            return Opaque(str(unplain))

    space.update(
        proxies,
        _distill_Failed=Failed,
        _distill_rescued=(Unsplittable, NameError, AttributeError),
        _distill_rescue=rescue,
        _distill_hold=changes.hold,
        _distill_release=changes.release,
    )
    tree, takes_results_apart, unplain = rewritten(code, names)
    lines = code.splitlines()
    try:
        exec(compile(tree, "<tests>", "exec", dont_inherit=True), space)  # noqa: S102
    except Failed as error:
        return _failure(error, lines, takes_results_apart)
    except Unplain as error:
        number_of_line = described(error)[2]
        by = "" if number_of_line not in unplain else BY_TEST if unplain[number_of_line] else BY_EITHER
        end = UNSPLITTABLE if takes_results_apart or by else FAILED
        return {"end": end, "detail": str(error), "line": _line(number_of_line, lines), "by": by}
    except Unsplittable as error:
        return {"end": UNSPLITTABLE, "detail": str(error), "by": error.by}
    except AssertionError as error:
        return {"end": FAILED, "detail": str(error), "line": _line(described(error)[2], lines)}
    except BaseException as error:
        name, said, number_of_line = described(error)
        told = {"detail": f"{name}: {said}", "line": _line(number_of_line, lines)}
        if getattr(error, "of_program", False):
            return {"end": PROGRAM_RAISED, **told}
        # A name that the tests lack may be the program's; an attribute may belong to a class of its own.
        # A variable without a value is a branch that was not taken, which the program chooses.
        is_of_name = isinstance(error, NameError) and not isinstance(error, UnboundLocalError)
        elsewhere = is_of_name or (isinstance(error, AttributeError) and takes_results_apart)
        by = BY_TEST if is_of_name else ""
        return {"end": UNSPLITTABLE if elsewhere else FAILED, **told, "by": by}
    return {"end": PASSED}


def _failure(error: Failed, lines: list[str], takes_results_apart: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"end": FAILED, "line": _line(error.line, lines)}
    if error.is_comparison:
        if isinstance(error.got, Opaque) and takes_results_apart:
            return {"end": UNSPLITTABLE, "detail": repr(error.got)}
        told |= {"got": _shown(error.got), "expected": _shown(error.expected)}
    return told


def _shown(value: Any) -> str:
    try:
        return repr(value)[:MAX_SHOWN_CHARS]
    except Exception as error:
        return f"<{type(error).__name__}>"


def _line(number: int | None, lines: list[str]) -> str | None:
    return lines[number - 1].strip()[:MAX_SHOWN_CHARS] if number and number <= len(lines) else None

"""What runs in the process of a program under test: the program as a script, or as a module whose functions are called.

    request pipe     frames of 8 bytes of length, 16 of a number drawn at random, one that says what to do, and content
    reply pipe       the same, with the number of the request, so that a reply made up before the request is found out

Nothing here is secret and no verdict is made here: whatever a program does to these functions, it can only send a value
or none.
"""

import atexit
import builtins
import contextlib
import io
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn

from distill.grading.sandbox.inside.values import UnsendableError, ValueTooLargeError, decode, encode

CALL, EVALUATE, CHECK = b"C", b"E", b"K"
"""Requests: call a function, evaluate an expression, run test code in the program's own process."""
READY, VALUE, RAISED, UNSENDABLE, TOO_LARGE = b"r", b"v", b"x", b"u", b"l"
NUMBER_BYTES, LENGTH_BYTES = 16, 8
NO_NUMBER = bytes(NUMBER_BYTES)
BAD_SOURCE = 125
"""Exit code for a program that does not compile; its own exits with it are told apart by nothing, nor need be."""
MAX_SAID_CHARS = 2_000
NAME = "<program>"


def standard_streams() -> None:
    """Open standard input and output anew: those of the process that was forked know nothing of the pipes."""
    settings: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin = sys.__stdin__ = open(0, errors="surrogateescape", **settings)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", errors="surrogateescape", **settings)  # type: ignore[misc]  # noqa: SIM115
    raw = open(2, "wb", buffering=0, closefd=False)  # noqa: SIM115 - open until the end
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(  # type: ignore[misc]
        raw, encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True
    )


def compiled(source: bytes) -> types.CodeType:
    """Return a program's code. End the process if it has none."""
    try:
        code = compile(source, NAME, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _print(source, error, has_frames=False)
        end(BAD_SOURCE)
    return code


def run_program(source: bytes) -> NoReturn:
    """Run a program as Python runs a script, and end the process as it would."""
    code = compiled(source)
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    status = 0
    try:
        exec(code, main.__dict__)  # noqa: S102 - what the sandbox is for
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException as error:
        _print(source, error)
        status = 1
    # What a script's end does, in the same order: threads, exit functions, buffers.
    for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        try:
            step()
        except BaseException as error:
            _print(source, error)
            status = status or 1
    try:
        _flush(main)
    except BaseException:
        status = status or 120
    end(status)


def _flush(main: types.ModuleType) -> None:
    """Flush what Python's end would flush: standard output and files that the program has not closed."""
    if sys.stdout is not None and not getattr(sys.stdout, "closed", False):
        sys.stdout.flush()
    for file in (sys.__stdout__, *main.__dict__.values()):
        if isinstance(file, io.IOBase) and not file.closed:
            with contextlib.suppress(OSError):
                file.flush()


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(BaseException):
        print(code, file=sys.stderr)  # noqa: T201 - as Python does
    return 1


def _print(source: bytes, error: BaseException, has_frames: bool = True) -> None:
    """Print an exception as Python does, without the frames of this module."""
    with contextlib.suppress(BaseException):
        import linecache  # which takes longer than most programs run
        import traceback

        text = source.decode("utf-8", "replace")
        linecache.cache[NAME] = (len(text), None, text.splitlines(keepends=True), NAME)
        trace = error.__traceback__ if has_frames else None
        traceback.print_exception(type(error), error, trace.tb_next if trace else None)


def end(status: int) -> NoReturn:
    """End the process at once."""
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    os._exit(status)


class Channel:
    """Frames over a pair of pipes.

    Args:
        requests: descriptor to read from.
        replies: descriptor to write to.
    """

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies

    def send(self, number: bytes, kind: bytes, content: bytes) -> None:
        """Send one frame."""
        body = number + kind + content
        left = memoryview(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        while left:
            left = left[os.write(self._replies, left) :]

    def receive(self) -> tuple[bytes, bytes, bytes]:
        """Return the next frame as its number, kind and content. End the process if there will be none."""
        body = self._read(int.from_bytes(self._read(LENGTH_BYTES), "big"))
        return body[:NUMBER_BYTES], body[NUMBER_BYTES : NUMBER_BYTES + 1], body[NUMBER_BYTES + 1 :]

    def _read(self, num_bytes: int) -> bytes:
        parts = []
        while num_bytes:
            part = os.read(self._requests, min(num_bytes, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            num_bytes -= len(part)
        return b"".join(parts)


def serve_calls(source: bytes, channel: Channel) -> NoReturn:
    """Run a program as a module, then do what is requested of it."""
    code = compiled(source)
    module = types.ModuleType("solution")
    module.__dict__["__builtins__"] = builtins
    sys.modules["solution"] = module
    names = module.__dict__
    # Bound here: a program that replaces functions of this module or of `json` changes nothing but its own values.
    receive, send, answered = channel.receive, channel.send, _answered
    try:
        exec(code, names)  # noqa: S102 - what the sandbox is for
    except BaseException as error:
        _print(source, error)
        end(1)
    send(NO_NUMBER, READY, b"")
    while True:
        number, kind, content = receive()
        send(number, *answered(names, kind, content))


def _answered(names: dict[str, Any], kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Return what a request gives: the kind of the reply and its content."""
    try:
        if kind == CALL:
            name, arguments, named = decode(content)
            before = encode([arguments, named])
            value = _function(names, name)(*arguments, **named)
            after = [arguments, named]
            try:
                changed = after if encode(after, liberal=True) != before else None
            except UnsendableError:
                changed = None
            return VALUE, encode([value, changed], liberal=True)
        if kind == EVALUATE:
            return VALUE, encode([eval(decode(content), names), None], liberal=True)  # noqa: S307
        exec(compile(decode(content), "<tests>", "exec", dont_inherit=True), names)  # noqa: S102
        return VALUE, encode([None, None])
    except UnsendableError as error:
        return UNSENDABLE, encode(str(error)[:MAX_SAID_CHARS])
    except ValueTooLargeError as error:
        return TOO_LARGE, encode(str(error)[:MAX_SAID_CHARS])
    except BaseException as error:
        return RAISED, encode(described(error))


def described(error: BaseException) -> list[Any]:
    """Return an exception as its class's name, its message and the line of the program or its tests that raised it."""
    try:
        said = str(error)[:MAX_SAID_CHARS]
    except BaseException:
        said = ""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in (NAME, "<tests>"):
            line = trace.tb_lineno
        trace = trace.tb_next
    said = str.__str__(said).encode("utf-8", "backslashreplace").decode()
    return [str(type(error).__name__)[:100], said, line]


def _function(names: dict[str, Any], dotted: str) -> Callable[..., Any]:
    """Return a function by name: `f`, or `Class.f` for a method of a new instance."""
    first, *rest = dotted.split(".")
    if first not in names:
        raise NameError(f"name {first!r} is not defined")
    found = names[first]
    for part in rest:
        found = getattr(found() if isinstance(found, type) else found, part)
    return found  # type: ignore[no-any-return]

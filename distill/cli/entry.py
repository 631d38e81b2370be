"""The console script: runs a command and turns its outcome into an exit code and, on failure, one message.

Exit codes: 0 success, 2 user error, 130 and 143 stopped by Ctrl-C and SIGTERM, 1 anything else. With `--json` an error
is also a JSON object on standard output (docs/json.md).
"""

import contextlib
import difflib
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import typer
from typer import TyperException

from distill.cli.app import PROGRAM, app
from distill.cli.output import print_json, print_note
from distill.core.secrets import hide_logins
from distill.errors import DistillError, UserError

STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM = 130, 143


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that child processes are stopped and files closed."""


def main() -> None:
    """Run the command line."""
    with contextlib.suppress(ValueError):  # only the main thread may set signal handlers
        signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run())


def _run() -> int:
    """Run the command, report errors, and return the exit code."""
    if "" in sys.argv[1:]:
        return _end("UsageError", "an argument is empty. Is a variable in your command not set?", 2)
    try:
        code = app(prog_name=PROGRAM, standalone_mode=False)
    except DistillError as error:
        return _end(type(error).__name__, str(error), error.exit_code, same_command() if error.can_go_on else None)
    except Terminated:
        return _stopped(STOPPED_BY_SIGTERM)
    except TyperException as error:
        return _usage_error(error)
    except typer.Abort:
        return _end("Aborted", "Nothing was done.", 1)
    except Exception as error:
        if _wants_json():
            _print_error_json(type(error).__name__, str(error), 1, None)
        raise
    # Typer turns Ctrl-C into an exit code.
    return _stopped(code) if code == STOPPED_BY_CTRL_C else int(code or 0)


def same_command() -> str | None:
    """Return the command line as given, which resumes the work, or `None` if a launcher started it."""
    from distill.execution.launchers import launched_place

    with contextlib.suppress(UserError):
        if launched_place() is not None:
            return None
    return shlex.join([PROGRAM, *sys.argv[1:]])


def _stopped(code: int) -> int:
    command = same_command()
    way = f"Continue with:\n  {command}" if command else "The same launch resumes from here."
    message = f"Stopped. Finished work is kept. {way}"
    print_note(message)
    if _wants_json():
        _print_error_json("Stopped", message, code, command)
    return code


def _usage_error(error: Any) -> int:
    """Report a command line that cannot be parsed and where to find help, and return the exit code."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return int(error.exit_code)
    message = error.format_message()
    if option := getattr(error, "option_name", None):
        message = f"{error.message}{_hint(option, getattr(error, 'possibilities', None) or (), context)}"
    if context is not None:
        message += f"\nSee `{context.command_path} -h`."
    return _end("UsageError", message, error.exit_code)


def _hint(option: str, possible: Sequence[str], context: Any) -> str:
    """Return what an unknown option may have meant: a similar one, or an option of a command below."""
    near = difflib.get_close_matches(option, possible, n=1, cutoff=0.7)
    if near:
        return f". Did you mean {near[0]}?"
    below = getattr(getattr(context, "command", None), "commands", {})
    having = [name for name, member in below.items() if any(option in param.opts for param in member.params)]
    if having:
        name = next((word for word in sys.argv[1:] if word in having), having[0])
        return f". It goes after the command: {context.command_path} {name} {option}"
    return ""


def _end(kind: str, message: str, code: int, command: str | None = None) -> int:
    message = hide_logins(message)
    print_note(f"Error: {message}" + (f"\nContinue with:\n  {command}" if command else ""))
    if _wants_json():
        _print_error_json(kind, message, code, command)
    return code


def _wants_json() -> bool:
    return "--json" in sys.argv[1:]


def _print_error_json(kind: str, message: str, code: int, command: str | None) -> None:
    print_json(
        {
            "schema_version": 1,
            "error": {"type": kind, "message": message, "exit_code": code, "next_command": command},
        }
    )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated

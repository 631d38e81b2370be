"""Run a command, and leave none of its processes behind: `python -I guard.py PARENT COMMAND …`.

A server such as vLLM's starts processes of its own. A SIGKILL of distill, or of the server, would leave them running
with all of their memory. This program stands between: the kernel tells it when distill dies, and it then ends its whole
process group, which is the command's too. Only the standard library is imported, so that it starts at once and in any
working directory.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

STOP_WITHIN_S = 5.0
"""Time for the command to end by itself once this program has been told to."""


class EndedError(Exception):
    """A signal to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def guarded(command: Sequence[str]) -> list[str]:
    """Return the command line that runs another one behind the guard; to be started with `process_group=0`."""
    return [sys.executable, "-I", str(Path(__file__).absolute()), str(os.getpid()), *command]


def tell_when_parent_dies(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent dies. Linux only; elsewhere nothing happens.

    Args:
        parent: its process id.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request
        raise EndedError(signal.SIGTERM)


def run(parent: int, command: Sequence[str]) -> int:
    """Run the command and return its exit code; 128 and the signal's number if a signal ended it.

    When this process is told to end, the command is told so too, and the whole group is killed soon afterwards.
    """
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    process: subprocess.Popen[bytes] | None = None
    try:
        tell_when_parent_dies(parent)
        process = subprocess.Popen(command)
        code = process.wait()
    except EndedError as ended:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if process is not None:
            process.send_signal(ended.signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
        os.killpg(0, signal.SIGKILL)  # this process too
        raise
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    return code if code >= 0 else 128 - code


def _end(signum: int, frame: FrameType | None) -> None:
    raise EndedError(signum)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))

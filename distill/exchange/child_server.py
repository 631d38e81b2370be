"""Run a server of this machine as a child process for the length of a `with` block: it ends with the block, or with us.

with child_server([python, "-m", "…", "--port", str(port)], environment, log, is_ready) as process:
    …
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from distill.errors import StageError
from distill.exchange.guard import guarded
from distill.execution.process_group import NUM_LOG_LINES, cause_of_death
from distill.storage.files import disk_errors

LOOPBACK = "127.0.0.1"
STOP_WITHIN_S = 10.0
"""Time to end by itself after SIGTERM, before it and all that it started are killed."""
ASK_EVERY_S = 0.2
ASK_TIMEOUT_S = 5.0


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def child_server(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    is_ready: Callable[[], bool],
    timeout_s: float = 1_800.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it is ready, and end it with all of its processes however the block ends.

    Args:
        command: starts it.
        environment: all of its environment variables.
        log: gets what it prints.
        is_ready: whether it answers; asked again and again.
        timeout_s: time for it to become ready, in seconds.

    Raises:
        StageError: it died, or did not become ready in time.
    """
    with disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=dict(environment),
                process_group=0,  # so that its own children can be killed with it
            )
    try:
        _wait(process, is_ready, timeout_s, log)
        yield process
    finally:
        end_group(process, signal.SIGTERM, STOP_WITHIN_S)


def answers(url: str, key: str) -> bool:
    """Return whether a server on this machine answers a request with a key.

    Args:
        url: of something cheap, such as its list of models.
        key: sent as bearer token.
    """
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - http on loopback
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=ASK_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def end_of(log: Path) -> str:
    """Return the last lines of a log."""
    with log.open(errors="replace") as stream:
        return "".join(deque(stream, NUM_LOG_LINES)).rstrip()


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], timeout_s: float, log: Path) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if process.poll() is not None:
            raise StageError(
                f"the server died before it was ready ({cause_of_death(process.returncode)}).\n"
                f"The end of {log}:\n{end_of(log)}"
            )
        if time.monotonic() > deadline:
            raise StageError(f"the server was not ready after {timeout_s:.0f} s.\nThe end of {log}:\n{end_of(log)}")
        time.sleep(ASK_EVERY_S)


def end_group(process: subprocess.Popen[bytes], how: signal.Signals, within_s: float) -> None:
    """Ask a process to end, then kill its whole group: a child of it may have outlived it.

    Args:
        process: the first of its group.
        how: the signal that asks.
        within_s: time for it to end by itself, in seconds.
    """
    try:
        if process.poll() is None:
            process.send_signal(how)
            process.wait(within_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""What runs in the process that compiles a program: the compiler, with limits of its own, and the result to a pipe."""

import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

REFUSED = 1
"""Exit code for a program that does not compile."""
SOURCE, BINARY = "/tmp/program.cpp", "/tmp/program"  # noqa: S108 - in a file system of its own


def compile_program(source: bytes, command: Sequence[str], wall_s: float) -> NoReturn:
    """Compile, write the binary to standard output, and end the process.

    Args:
        source: the program.
        command: the compiler and its options.
        wall_s: seconds before the compiler is given up.
    """
    with os.fdopen(os.open(SOURCE, os.O_WRONLY | os.O_CREAT), "wb") as file:
        file.write(source)
    # What the compiler says goes to standard error, so that standard output has the binary and nothing else.
    actions = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    arguments = [*command, SOURCE, "-o", BINARY]
    child = os.posix_spawn(command[0], arguments, dict(os.environ), file_actions=actions)
    deadline = time.monotonic() + wall_s
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            break
        if time.monotonic() > deadline:
            os._exit(REFUSED)
        time.sleep(0.005)
    if status != 0:
        os._exit(REFUSED)
    with os.fdopen(os.open(BINARY, os.O_RDONLY), "rb") as file:
        while part := file.read(1 << 20):
            left = memoryview(part)
            while left:
                left = left[os.write(1, left) :]
    sys.stderr.flush()
    os._exit(0)

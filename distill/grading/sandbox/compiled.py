"""C++ programs: compiled in a sandbox of their own, once for each source."""

import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from distill.grading.sandbox.pool import pool
from distill.grading.sandbox.process import Ended
from distill.grading.sandbox.records import Limits, SandboxError, cleaned, cleaned_text

FLAGS = ("-O2", "-std=gnu++17", "-pipe", "-w", "-fmax-errors=20", "-DONLINE_JUDGE")
CPU_S, WALL_S, MEMORY_MIB = 30.0, 90.0, 1_536
MAX_BINARY_BYTES = 64 << 20
DISK_BYTES = 256 << 20
KEPT_BYTES = 256 << 20
"""Of binaries, in memory."""
NO_COMPILER = "g++ is not installed: `apt-get install g++` or `dnf install gcc-c++`"


@dataclass(frozen=True, slots=True)
class Binary:
    """A compiled program."""

    content: bytes | None
    """`None` if it does not compile."""
    said: str
    """What the compiler says first."""
    cpu_s: float


_kept: OrderedDict[str, Binary] = OrderedDict()
_lock = threading.Lock()


@functools.cache
def compiler() -> tuple[str, str] | None:
    """Return the path of g++ and what it is; `None` if there is none."""
    path = shutil.which("g++", path="/usr/bin:/bin:/usr/local/bin") if Path("/usr").exists() else None
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    return (str(Path(path).resolve()), done.stdout.splitlines()[0]) if done.returncode == 0 and done.stdout else None


def binary(source: bytes) -> Binary:
    """Return a compiled program.

    Raises:
        SandboxError: there is no compiler, or no sandbox.
    """
    found = compiler()
    if found is None:
        raise SandboxError(NO_COMPILER)
    key = hashlib.sha256(repr((source, FLAGS, found)).encode()).hexdigest()
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = _compile(source, found[0])
    if made.why in ("cpu", "wall"):  # confirmed alone; the caller holds its place among others, which is one too many
        made = _compile(source, found[0])
    compiled = _as_binary(made)
    with _lock:
        _kept[key] = compiled
        while sum(len(one.content or b"") for one in _kept.values()) > KEPT_BYTES:
            _kept.popitem(last=False)
    return compiled


def _compile(source: bytes, path: str) -> Ended:
    sandbox = pool().take()
    try:
        sandbox.load(source)
        limits = Limits(cpu_s=CPU_S, wall_s=WALL_S, memory_mib=MEMORY_MIB, output_bytes=MAX_BINARY_BYTES)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return sandbox.run("compile", limits, nothing, flags=[path, *FLAGS], disk_bytes=DISK_BYTES)
    finally:
        sandbox.close()


def _as_binary(made: Ended) -> Binary:
    if made.status == 0 and not made.over and made.stdout.startswith(b"\x7fELF"):
        return Binary(made.stdout, "", made.cpu_s)
    if made.fault:
        raise SandboxError(f"the compiler could not be started: {cleaned_text(made.fault)}")
    said = cleaned(made.stderr, from_end=False)
    if made.why in ("cpu", "wall"):
        said = f"the compiler needs more than {CPU_S:g} s\n{said}"
    elif made.over:
        said = f"more than {MAX_BINARY_BYTES >> 20} MiB\n{said}"
    elif made.why == "memory":
        said = f"the compiler needs more than {MEMORY_MIB} MiB\n{said}"
    return Binary(None, said.strip() or f"the compiler ended with {made.status}", made.cpu_s)

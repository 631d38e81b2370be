"""Choose the best wall around confined processes on this machine, and build the command that starts Python behind it.

bubblewrap  namespaces: no network, no other processes, only the files that are needed, read-only
landlock    the kernel's own rules for files and TCP, and system call filters for the rest
seccomp     system call filters alone: no network, no programs, no writing; files can be read
rlimits     limits of memory and file sizes, and a cleaned environment; nothing else
"""

import functools
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from distill.isolation import kernel

Wall = Literal["bubblewrap", "landlock", "seccomp", "rlimits"]
WALLS: tuple[Wall, ...] = ("bubblewrap", "landlock", "seccomp", "rlimits")
"""From best to worst."""
MAY_EVALUATE: frozenset[Wall] = frozenset({"bubblewrap", "landlock"})
"""Walls behind which a scorer may evaluate model output: malicious code would find no files and no keys there."""

TEMPORARY = "/tmp"  # noqa: S108 - a private tmpfs
TEMPORARY_BYTES = 64 << 20
PROBE_S = 30.0
PACKAGE = Path(__file__).resolve().parents[1]
SERVER = "distill.isolation.server"

PASSED = ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
"""The only variables of the caller's environment that a confined process sees."""
SET = {
    "PYTHONHASHSEED": "0",  # sets have the same order in every process
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",  # there is one worker per core already
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SYSTEM_FILES = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/etc/timezone", "/etc/fonts", "/etc/mime.types", "/sys/devices/system/cpu"),
)
BARE_PROC = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
"""The files of /proc and /dev that a process may read where it has no private /proc and /dev."""


@functools.cache
def best_wall() -> Wall:
    """Return the best wall that works here. Tried only once."""
    return next(wall for wall in WALLS if has_wall(wall))


@functools.cache
def has_wall(wall: Wall) -> bool:
    """Return whether a wall is available here."""
    if wall == "rlimits":
        return True
    if wall == "bubblewrap":
        return bubblewrap_fails() is None
    return kernel.has_seccomp() and (wall == "seccomp" or kernel.landlock_version() >= kernel.MIN_LANDLOCK)


@functools.cache
def bubblewrap_fails() -> str | None:
    """Return why bubblewrap cannot be used here; `None` if it can."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    command = start_command("bubblewrap", (), {}, ["-c", f"import {SERVER}"])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not start ({error})"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"bwrap does not work here ({last[:200]})"
    return None


def start_command(
    wall: Wall, read_paths: Sequence[Path], environment: Mapping[str, str], arguments: Sequence[str]
) -> list[str]:
    """Return the command that starts Python behind a wall. Only bubblewrap is set up from outside.

    Args:
        wall: the wall to start behind.
        read_paths: files and folders that may be read, besides the installation.
        environment: the whole environment of the process.
        arguments: for Python.
    """
    python = [sys.executable, "-P", *arguments]
    if wall != "bubblewrap":
        return python
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in (environment or confined_environment(TEMPORARY)).items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(TEMPORARY_BYTES), "--tmpfs", TEMPORARY]
    for path in readable_paths(read_paths):
        if path.is_symlink() and str(path) in SYSTEM:
            command += ["--symlink", str(path.readlink()), str(path)]
        else:
            command += ["--ro-bind", str(path), str(path)]
    return [*command, "--remount-ro", "/", "--chdir", TEMPORARY, "--", *python]


def confined_environment(home: str) -> dict[str, str]:
    """Return the whole environment of a confined process: locale and library paths, but no keys and no user names.

    Args:
        home: its HOME and folder for temporary files.
    """
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    path = os.pathsep.join(str(folder) for folder in _import_folders())
    own = {"HOME": home, "TMPDIR": home, "USER": "nobody", "LOGNAME": "nobody"}
    return {**passed, **SET, **own, "PATH": os.defpath, "PYTHONPATH": path}


def readable_paths(read_paths: Sequence[Path] = (), bare: Sequence[str] = ()) -> list[Path]:
    """Return the existing paths that a confined process may read: system libraries, Python, packages and `read_paths`.

    Outer paths come first. Paths inside others are left out.
    """
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    folders = [folder for folder in _import_folders() if folder != PACKAGE.parent]
    asked = [*map(Path, (*SYSTEM, *SYSTEM_FILES, *bare, *prefixes)), *folders, PACKAGE, *read_paths]
    there = {Path(os.path.abspath(path)) for path in asked if path.exists()}  # noqa: PTH100 - links stay as they are
    there |= {path.resolve() for path in there if str(path) not in SYSTEM}
    there -= {Path("/"), Path(TEMPORARY), Path.home()}
    found: list[Path] = []
    for path in sorted(there, key=lambda one: len(one.parts)):
        if not any(path.is_relative_to(outer) and not outer.is_symlink() for outer in found):
            found.append(path)
    return found


def _import_folders() -> Iterator[Path]:
    """Yield distill's own folder, and those of installed packages in Python's search order.

    The folder of a script and others of the user's own are left out.
    """
    installed = {*sysconfig.get_paths().values(), *site.getsitepackages()}
    yield PACKAGE.parent
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry)
        if not entry or not folder.is_absolute() or folder == PACKAGE.parent:
            continue
        if entry in installed or folder.name in ("site-packages", "dist-packages") or any(folder.glob("*.dist-info")):
            yield folder

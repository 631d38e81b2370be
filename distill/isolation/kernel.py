"""Restrictions that a confined process imposes on itself for good: privileges, system calls, files, memory.

They use the C library, because Python has no functions for most of them, and raise `OSError` on failure. Each holds for
the calling thread and everything that it forks.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from distill.isolation.syscalls import is_known_architecture

if TYPE_CHECKING:
    from pathlib import Path  # sandboxes for programs start without it

_SET_PARENT_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES, _DROP_BOUNDING = 1, 22, 38, 24
_FILTER = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers, the same on all architectures. Source: https://docs.kernel.org/userspace-api/landlock.html"""
_ASK_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NEVER = 1 << 0 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11
"""Executing files, and creating devices, sockets and pipes."""
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Version of Landlock -> all rights that it knows. Later versions are given those of 5."""
_NETWORK_RIGHTS, _SCOPES = 0b11, 0b11
"""Binding and connecting TCP (version 4); abstract Unix sockets and signals to processes outside (version 6)."""
MIN_LANDLOCK = 3
"""Older versions do not prevent a process from truncating files."""

_NEW_MOUNTS = 0x00020000
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call that the C library has no function for."""
    # Numbers must be as wide as a register.
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *wide))


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends. Exit at once if it has ended already."""
    _checked(_libc.prctl(_SET_PARENT_DEATH_SIGNAL, 9, 0, 0, 0))
    if os.getppid() != parent_pid:
        os._exit(1)


def drop_privileges() -> None:
    """Give up all capabilities, and the possibility of gaining new ones by running a program."""
    _checked(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    capability = 0
    while _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0) == 0:  # fails without permission, or beyond the last
        capability += 1
    drop_capabilities()


def drop_capabilities() -> None:
    """Give up all capabilities. No program that is run gives any back."""
    _checked(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    header = struct.pack("=Ii", 0x20080522, 0)
    _checked(_libc.capset(header, bytes(24)))


def own_mounts() -> None:
    """Give this process mounts of its own. Needs CAP_SYS_ADMIN in its user namespace."""
    _checked(_libc.unshare(_NEW_MOUNTS))


def mount_memory(path: str, num_bytes: int, num_files: int, writable: bool = True) -> None:
    """Mount an empty file system in memory, from which no program can be run.

    Args:
        path: an existing folder, whose content it hides.
        num_bytes: its size.
        num_files: of files, folders and links in it, its root included.
        writable: whether anything can be created there.
    """
    flags = _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS | (0 if writable else _READ_ONLY)
    options = f"size={num_bytes},nr_inodes={num_files},mode=700"
    _checked(_libc.mount(b"none", path.encode(), b"tmpfs", ctypes.c_ulong(flags), options.encode()))


def has_seccomp() -> bool:
    """Return whether this kernel supports system call filters, and the numbers of its calls are known."""
    if not is_known_architecture():
        return False
    # Only a kernel that knows filters follows the null pointer: EFAULT (14), else EINVAL.
    _libc.prctl(_SET_SECCOMP, _FILTER, None, 0, 0)
    return ctypes.get_errno() == 14


def install_filter(code: bytes) -> None:
    """Apply a system call filter to this process."""
    program = _FilterProgram(len(code) // 8, code)
    _checked(_libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0))


def landlock_version() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    return max(0, _system_call(_CREATE_RULESET, None, 0, _ASK_VERSION))


def restrict_files(readable: Iterable["Path"], writable: Iterable["Path"]) -> None:
    """Deny TCP, signals to processes outside, and all of the file system except these paths.

    Args:
        readable: files and folders that may be read. Missing ones are skipped.
        writable: folders in which files may also be created, changed and removed.
    """
    version = landlock_version()
    all_rights = _FILE_RIGHTS[min(version, 5)]
    attributes = struct.pack("=Q", all_rights)
    attributes += struct.pack("=Q", _NETWORK_RIGHTS) if version >= 4 else b""
    attributes += struct.pack("=Q", _SCOPES) if version >= 6 else b""
    rules = _checked(_system_call(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in readable:
            _allow(rules, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(rules, path, all_rights & ~_NEVER)
        _checked(_system_call(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _allow(rules: int, path: "Path", rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", rights if path.is_dir() else rights & _READ_FILE, opened)
        _checked(_system_call(_ADD_RULE, rules, _PATH_BENEATH, rule, 0))
    finally:
        os.close(opened)


def num_pages() -> int:
    """Return the size of this process's address space, in pages."""
    file = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        return int(os.read(file, 4096).split()[0])
    finally:
        os.close(file)


def limit_resources(limits: dict[int, int]) -> None:
    """Lower soft and hard limits: `resource.RLIMIT_…` -> value."""
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lowered, lowered))

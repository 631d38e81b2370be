"""Seccomp filters: BPF programs for `kernel.install_filter` that refuse system calls.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html, the kernel's `asm/unistd_64.h` and
`asm-generic/unistd.h` for the numbers.
"""

import errno
import functools
import os
import struct
from collections.abc import Iterable

_NETWORK = """
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201, accept 43 202, accept4 288 242"""
_PROGRAMS = "execve 59 221, execveat 322 281"
_OTHER_PROCESSES = """
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, process_mrelease 448 448,
kcmp 312 272, pidfd_open 434 434, pidfd_send_signal 424 424, pidfd_getfd 438 438, tkill 200 130,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, migrate_pages 256 238, move_pages 279 239,
sched_setaffinity 203 122, sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274, ioprio_set 251 30
"""
_KERNEL = """
unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, open_tree 428 428,
move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442,
bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter 426 426,
io_uring_register 427 427, keyctl 250 219, add_key 248 217, request_key 249 218, init_module 175 105,
finit_module 313 273, delete_module 176 106, kexec_load 246 104, kexec_file_load 320 294, reboot 169 142,
swapon 167 224, swapoff 168 225, acct 163 89, quotactl 179 60, quotactl_fd 443 443, syslog 103 116,
settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, clock_adjtime 305 266, sethostname 170 161,
setdomainname 171 162, personality 135 92, iopl 172 -, ioperm 173 -, modify_ldt 154 -, open_by_handle_at 304 265,
name_to_handle_at 303 264, sync 162 81, syncfs 306 267,
fanotify_init 300 262, fanotify_mark 301 263, lookup_dcookie 212 18, vhangup 153 58"""
_UNCOUNTED_MEMORY = """
memfd_create 319 279, memfd_secret 447 447, shmget 29 194, shmat 30 196, shmctl 31 195, msgget 68 186, msgsnd 69 189,
msgrcv 70 188, msgctl 71 187, semget 64 190, semop 65 193, semtimedop 220 192, semctl 66 191, mq_open 240 180,
mq_unlink 241 181, mq_timedsend 242 182, mq_timedreceive 243 183, mq_notify 244 184"""
"""Memory that no rlimit of the process counts, and that may outlive it."""
_FILE_ATTRIBUTES = """
chmod 90 -, fchmod 91 52, fchmodat 268 53, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -,
utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14,
lremovexattr 198 15, fremovexattr 199 16"""
"""Not restricted by Landlock."""
_FILE_CHANGES = """
creat 85 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34,
rmdir 84 -, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, mknod 133 -, mknodat 259 33, truncate 76 45"""
_DESCENDANTS = "fork 57 -, vfork 58 -"
_DESCRIPTORS_AND_NICENESS = """
setpriority 141 140, sendmsg 46 211, sendmmsg 307 269, recvmsg 47 212, recvmmsg 299 243"""
_CHECKED = """
clone 56 220, kill 62 129, tgkill 234 131, prlimit64 302 261, fcntl 72 25, ioctl 16 29, open 2 -, openat 257 56"""
_LACKING = "clone3 435 435, openat2 437 437"
"""Refused as on an older kernel: filters cannot read arguments in memory, and the C library has fallbacks."""
LAST_KNOWN = 451
"""Newer calls have not been reviewed, and are refused as on an older kernel."""

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> its AUDIT_ARCH_… value and its column in the tables above."""

_NEW_NAMESPACES = 0x7E020080
_THREAD = 0x00010000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SOME_PID = 0x7ABCDEF1
"""Larger than any, and not in a filter by accident."""
_OWNER_COMMANDS = (8, 10, 15, 1024, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: they make the kernel signal another process."""
_OWNER_REQUESTS = (0x8901, 0x8902, 0x5412, 0x541C)
"""FIOSETOWN, SIOCSPGRP, and TIOCSTI and TIOCLINUX, which insert input into a terminal."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def is_known_architecture() -> bool:
    """Return whether the system call numbers of this machine are known."""
    return os.uname().machine in _ARCHITECTURES


def server_filter(read_only: bool) -> bytes:
    """Return the filter for the process that forks workers, for use once it has imported what they need.

    Args:
        read_only: whether to refuse changes of the file system too. Not needed where mounts prevent them.
    """
    program = _Program()
    program.refuse(_PROGRAMS)
    program.refuse_common()
    if read_only:
        program.refuse(_FILE_CHANGES)
        program.refuse_if_any_bit("open", 1, _WRITING)
        program.refuse_if_any_bit("openat", 2, _WRITING)
    return program.finished()


def worker_filter(pid: int) -> bytes:
    """Return the additional filter for a worker: no other processes, no descriptors of others, signals only to itself.

    Args:
        pid: the worker's own.
    """
    program = _Program()
    program.refuse_others(pid)
    return program.finished()


def test_filter(pid: int, may_run_programs: bool) -> bytes:
    """Return the whole filter for a program under test: that of a server and that of a worker in one.

    Args:
        pid: the process's own.
        may_run_programs: whether it may replace itself by another program. It never has a second process.
    """
    return _any_test_filter(may_run_programs).replace(struct.pack("=I", _SOME_PID), struct.pack("=I", pid))


@functools.cache
def _any_test_filter(may_run_programs: bool) -> bytes:
    """Return the filter of some test: made once, since it takes longer than the rest of starting a test."""
    program = _Program()
    if not may_run_programs:
        program.refuse(_PROGRAMS)
    program.refuse_common()
    program.refuse_others(_SOME_PID)
    return program.finished()


def compiler_filter() -> bytes:
    """Return the filter for a compiler, which starts programs of its own."""
    program = _Program()
    program.refuse_common()
    return program.finished()


class _Program:
    """A filter under construction. Each rule expects the number of the call to be loaded, and leaves it loaded."""

    def __init__(self) -> None:
        self._arch, self._column = _ARCHITECTURES[os.uname().machine]
        self._checked = self._numbers(_CHECKED)
        self._code = [
            (_LOAD, 0, 0, _ARCH),
            (_EQUAL, 1, 0, self._arch),
            (_RETURN, 0, 0, _KILL_PROCESS),
            (_LOAD, 0, 0, _NUMBER),
            (_AT_LEAST, 0, 1, LAST_KNOWN + 1),  # includes x32 calls, which start at 2^30
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        ]
        self._give_back(self._numbers(_LACKING).values(), errno.ENOSYS)

    def refuse(self, *tables: str) -> None:
        for table in tables:
            self._give_back(self._numbers(table).values(), errno.EPERM)

    def refuse_common(self) -> None:
        """Refuse what nothing confined needs: networks, other processes, the kernel's settings, uncounted memory."""
        self.refuse(_NETWORK, _OTHER_PROCESSES, _KERNEL, _UNCOUNTED_MEMORY, _FILE_ATTRIBUTES)
        self.refuse_if_any_bit("clone", 0, _NEW_NAMESPACES)
        self.refuse_unless("prlimit64", 0)
        for command in _OWNER_COMMANDS:
            self.refuse_if("fcntl", 1, command)
        for request in _OWNER_REQUESTS:
            self.refuse_if("ioctl", 1, request)

    def refuse_others(self, pid: int) -> None:
        """Refuse further processes, descriptors of others, and signals to any but the process itself."""
        self.refuse(_DESCENDANTS, _DESCRIPTORS_AND_NICENESS)
        self.refuse_unless_any_bit("clone", 0, _THREAD)
        self.refuse_unless("kill", pid)
        self.refuse_unless("tgkill", pid)

    def refuse_if(self, name: str, argument: int, value: int) -> None:
        self._check(name, argument, (_EQUAL, 0, 1, value))

    def refuse_unless(self, name: str, value: int) -> None:
        """Refuse the call unless its first argument has this value."""
        self._check(name, 0, (_EQUAL, 1, 0, value))

    def refuse_if_any_bit(self, name: str, argument: int, bits: int) -> None:
        self._check(name, argument, (_ANY_BIT, 0, 1, bits))

    def refuse_unless_any_bit(self, name: str, argument: int, bits: int) -> None:
        self._check(name, argument, (_ANY_BIT, 1, 0, bits))

    def finished(self) -> bytes:
        """Return the program as an array of `struct sock_filter`."""
        return b"".join(struct.pack("=HBBI", *step) for step in [*self._code, (_RETURN, 0, 0, _ALLOW)])

    def _check(self, name: str, argument: int, test: tuple[int, int, int, int]) -> None:
        if name in self._checked:
            # Only the lower half is loaded: these arguments have 32 bits, and both architectures are little-endian.
            self._code += [
                (_EQUAL, 0, 4, self._checked[name]),
                (_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * argument),
                test,
                (_RETURN, 0, 0, _ERRNO | errno.EPERM),
                (_LOAD, 0, 0, _NUMBER),
            ]

    def _give_back(self, numbers: Iterable[int], error: int) -> None:
        for number in numbers:
            self._code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]

    def _numbers(self, table: str) -> dict[str, int]:
        rows = [row.split() for row in table.split(",")]
        return {row[0]: int(row[1 + self._column]) for row in rows if row[1 + self._column] != "-"}

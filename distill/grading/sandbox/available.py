"""Why no sandbox can be had on a machine."""

import contextlib
import functools
import os
import platform
import shutil
import sys

from distill.grading.sandbox.process import Sandbox
from distill.grading.sandbox.records import Limits, SandboxError
from distill.isolation import kernel

PROBE_S = 30.0
TRY_IT = "bwrap --unshare-all --ro-bind / / true"


@functools.cache
def bubblewrap_fails() -> str | None:
    """Return why no sandbox can be had here, with what was tried and what to do; `None` if it can. Tried only once."""
    if sys.platform != "linux":
        return f"the sandbox for programs needs Linux, and this is {platform.system()}; name a remote runner"
    if not kernel.has_seccomp():
        return f"the kernel has no seccomp filters, or {platform.machine()} is unknown; name a remote runner"
    if not hasattr(os, "pidfd_open") or not hasattr(os, "memfd_create"):
        return "this Python was built for a kernel without pidfd_open or memfd_create (Linux 5.3); name a remote runner"
    if shutil.which("bwrap") is None:
        return "`bwrap` is not installed: `apt-get install bubblewrap` (or dnf), or name a remote runner"
    said = _start_fails()
    if said is None:
        return None
    return (
        f"no sandbox can be started here ({said}). `{TRY_IT}` shows whether bubblewrap works; where programs may "
        "not make user namespaces, `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
        "kernel.apparmor_restrict_unprivileged_userns=0` lets them (in a container also `--security-opt "
        "seccomp=unconfined --security-opt systempaths=unconfined`), or name a remote runner"
    )


def _start_fails() -> str | None:
    """Start a sandbox and have it run a program; return why it could not."""
    try:
        with contextlib.closing(Sandbox()) as sandbox:
            sandbox.load(b"print(6 * 7)")
            done = sandbox.run("run", Limits(cpu_s=PROBE_S), os.open(os.devnull, os.O_RDONLY))
    except (OSError, SandboxError) as error:
        return str(error)
    if done.status == 0 and done.stdout == b"42\n":
        return None
    return done.fault or done.stderr.decode("utf-8", "replace").strip()[-300:] or f"exit code {done.status}"

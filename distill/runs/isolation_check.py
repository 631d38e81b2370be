"""The doctor's check of how this machine can confine the processes that parse and score untrusted texts."""

from distill.grading.sandbox import BUBBLEWRAP, Backend, sandbox_fails
from distill.grading.sandbox.compiled import NO_COMPILER, compiler
from distill.isolation.walls import MAY_EVALUATE, best_wall, bubblewrap_fails
from distill.runs.checks import MISSING, OK, WARNING, Check

INSTALL = "apt-get install bubblewrap  # or your system's package of that name"
ALLOW = "sysctl user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns  # namespaces must be allowed"
HOLDS = {
    "bubblewrap": "bubblewrap: no network, no secrets; only the files that are needed, read-only",
    "landlock": "Landlock and seccomp: no network, no secrets; only the files that are needed, read-only",
    "seccomp": "seccomp alone: no network, no programs, no writing; this user's files can be read",
    "rlimits": "limits of memory and file sizes alone",
}


def check_isolation() -> list[Check]:
    """Check what an untrusted text could reach if it took over the process that parses it."""
    wall, why = best_wall(), bubblewrap_fails()
    said = HOLDS[wall]
    if why is None:
        return [Check("isolation", OK, said)]
    mend = INSTALL if "not installed" in why else ALLOW
    if wall in MAY_EVALUATE:
        return [Check("isolation", OK, f"{said} ({why})")]
    return [Check("isolation", WARNING, f"{said} ({why}); gym tasks that evaluate answers stay ungraded", mend)]


def check_programs(backend: Backend = BUBBLEWRAP, needed_by: str = "", compiles: bool = False) -> list[Check]:
    """Check that programs in answers can be run.

    Args:
        backend: where they would run.
        needed_by: the key of a recipe that needs it; empty if none does.
        compiles: whether some are in C++.
    """
    why, status = sandbox_fails(backend), MISSING if needed_by else WARNING
    needs = f"{needed_by} needs it" if needed_by else "answers that are programs (task: code) cannot be graded"
    if why is not None:
        mend = INSTALL if "not installed" in why else "" if backend.url else ALLOW
        return [Check("sandbox", status, f"{why}; {needs}", mend)]
    if backend.url:
        return [Check("sandbox", OK, f"programs run on {backend.url}")]
    found = compiler()
    said = f"bubblewrap: each program in a sandbox of its own; {found[1] if found else 'no g++'}"
    if found is None and (compiles or not needed_by):
        status = MISSING if compiles else OK
        return [Check("sandbox", status, f"{said}, so none in C++", NO_COMPILER.partition("`")[2].partition("`")[0])]
    return [Check("sandbox", OK, said)]

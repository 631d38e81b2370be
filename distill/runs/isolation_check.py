"""The doctor's check of how this machine can confine the processes that parse and score untrusted texts."""

from distill.isolation.walls import MAY_EVALUATE, best_wall, bubblewrap_fails
from distill.runs.checks import OK, WARNING, Check

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

"""What lies at a path: only a regular file can be read to its end, and may be replaced.

Enters: a path from a recipe or the command line. Leaves: a word for it, `a folder` or `a named pipe`, so that nothing
waits for a pipe's writer or reads a device that never ends.
"""

import errno
import stat
from pathlib import Path

FILE = "a file"
MISSING = "missing"
LOOP = "a link that leads to itself"
_KINDS = (
    (stat.S_ISREG, FILE),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(path: Path) -> str:
    """Name what lies at a path, links followed: `FILE`, `MISSING`, `LOOP`, a folder, a named pipe, a socket, a device.

    Raises:
        OSError: the system does not tell, for example for lack of permission.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return LOOP
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return MISSING
        raise
    except ValueError:  # a NUL in the name
        return MISSING
    return next((name for test, name in _KINDS if test(mode)), "no file")


def is_file(path: Path) -> bool:
    """Tell whether a regular file lies at a path, links followed; a name that no file can have is none.

    Raises:
        OSError: the system does not tell.
    """
    return kind_of(path) == FILE

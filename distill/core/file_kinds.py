"""Name what is at a path: a file, a folder, a named pipe and so on.

Only a regular file can be read to its end and replaced. Opening a pipe blocks until it has a writer, and reading a
device may never end.
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
    """Return what is at a path, following links: `FILE`, `MISSING`, `LOOP`, or a phrase such as `a named pipe`.

    Raises:
        OSError: the path cannot be inspected, for example for lack of permission.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return LOOP
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return MISSING
        raise
    except ValueError:  # a NUL byte in the name
        return MISSING
    return next((name for test, name in _KINDS if test(mode)), "not a file")


def is_file(path: Path) -> bool:
    """Return whether a regular file is at a path, following links.

    Raises:
        OSError: the path cannot be inspected.
    """
    return kind_of(path) == FILE

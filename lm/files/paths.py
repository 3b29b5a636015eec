"""Paths as users write them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def expanded(path: str | Path) -> Path:
    """`path` with the user's home folder in place of a leading `~` or `~name`.

    A name without a user stays as it is: `~$notes.txt` is a file of an office program. `Path.expanduser`
    raises RuntimeError for it.
    """
    return Path(os.path.expanduser(path))


def open_to_change(path: str | Path, flags: int) -> int:
    """Open a file that is changed in place, as `os.open` does; usable as an `opener`.

    Raises OSError for a link, which may lead to any file of the user, and for what is not a regular file:
    opening a pipe would wait for its other end.
    """
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "it is a link", str(path))
    file = os.open(path, flags | _FLAGS, 0o644)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file

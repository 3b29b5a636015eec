"""An os.fsync as strict as that of Windows: it needs a file that is open for writing."""

import errno
import os
import sys

if sys.platform != "win32":
    import fcntl

_fsync = os.fsync


def fsync(file):
    number = file if isinstance(file, int) else file.fileno()
    if sys.platform != "win32" and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    _fsync(number)

"""File locks, which the kernel releases when the process that holds them ends, however it ends.

Two threads of one process exclude each other like two processes.

On Linux and macOS, they are `flock`s. Such a lock belongs to an open file: a process that inherits the open
file holds the lock, too.

On Windows, bytes of a file are locked, by a process that cannot pass them on. So a lock consists of two
bytes, each of which is enough to hold it. A process gives up the first one for a child that it has started,
and keeps the second until the child has locked the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm.files.paths import open_to_change

_PAUSE = 0.01  # seconds between attempts
_START = 120.0  # seconds in which a child process starts and takes over a lock, on Windows


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` while the block runs; waits until it is free."""
    file = acquire(path, float("inf"))
    assert file is not None
    try:
        yield
    finally:
        os.close(file)


def acquire(path: Path, timeout: float = 0.0) -> int | None:
    """Lock `path`. Returns the open file that holds the lock, to be kept open or passed on to a child
    process. None if it is still locked after `timeout` seconds. Raises OSError if it cannot be opened or is a
    link."""
    return _acquire(path, timeout, _lock)


def is_held(path: Path) -> bool:
    """Whether anyone holds the lock on `path`."""
    try:
        file = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait
    except FileNotFoundError:
        return False
    try:
        return not _is_free(file)
    finally:
        os.close(file)


def is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at `path`, which may have been deleted or replaced. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def remove(path: Path, file: int) -> None:
    """Delete a lock file that is locked through the open file `file`, unless another is in its place; and
    close it. Raises OSError."""
    try:
        ours = is_at(file, path)
        if ours and sys.platform != "win32":  # before anyone else can lock it
            path.unlink()
    finally:
        os.close(file)
    if ours and sys.platform == "win32":  # which refuses to delete a file that is open here or elsewhere
        path.unlink()


def popen_arguments(file: int) -> dict[str, Any]:
    """The arguments of `subprocess.Popen` for a child that takes over the lock of an open file."""
    return {} if sys.platform == "win32" else {"pass_fds": [file]}


def hand_over(file: int, child: subprocess.Popen[Any]) -> None:
    """Leave the lock of an open file to a child started with `popen_arguments`, and close the file here."""
    if sys.platform == "win32":
        _give_up(file)
        threading.Thread(target=_close_when_taken, args=(file, child), daemon=True).start()
    else:
        os.close(file)


def inherited(path: Path, file: int) -> int | None:
    """In such a child: the open file that holds the lock on `path`, where `file` is its number in the parent.
    None if there is none."""
    if sys.platform == "win32":
        return _acquire(path, _START, _take)
    else:
        return file


def _acquire(path: Path, timeout: float, lock: Callable[[int], bool]) -> int | None:
    file = open_to_change(path, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + max(timeout, _LEAST)
    try:
        while not lock(file):
            if time.monotonic() >= deadline:
                os.close(file)
                return None
            time.sleep(_PAUSE)
    except BaseException:
        os.close(file)
        raise
    return file


_BINARY = getattr(os, "O_BINARY", 0)

if sys.platform == "win32":
    import msvcrt

    # Nobody can read a locked byte: these are far behind the content.
    _FIRST, _SECOND = 1 << 30, (1 << 30) + 1
    _LEAST = 0.05  # seconds: `is_held` in another process locks each byte for a moment

    def _lock(file: int) -> bool:
        if not _call(file, _SECOND, msvcrt.LK_NBLCK):
            return False
        if _call(file, _FIRST, msvcrt.LK_NBLCK):
            return True
        _call(file, _SECOND, msvcrt.LK_UNLCK)
        return False

    def _take(file: int) -> bool:
        return _call(file, _FIRST, msvcrt.LK_NBLCK)

    def _give_up(file: int) -> None:
        _call(file, _FIRST, msvcrt.LK_UNLCK)

    def _is_free(file: int) -> bool:
        for _ in range(3):  # two callers must not mistake each other for the holder
            if all(_call(file, byte, msvcrt.LK_NBLCK) for byte in (_SECOND, _FIRST)):
                return True
            _call(file, _SECOND, msvcrt.LK_UNLCK)
            time.sleep(0.001)
        return False

    def _close_when_taken(file: int, child: subprocess.Popen[Any]) -> None:
        while child.poll() is None and _call(file, _FIRST, msvcrt.LK_NBLCK):
            _give_up(file)
            time.sleep(_PAUSE)
        os.close(file)

    def _call(file: int, byte: int, mode: int) -> bool:
        """Lock or unlock a byte of an open file. Returns whether that was possible."""
        os.lseek(file, byte, os.SEEK_SET)
        try:
            msvcrt.locking(file, mode, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    _LEAST = 0.0

    def _lock(file: int) -> bool:
        return _flock(file, fcntl.LOCK_EX)

    def _is_free(file: int) -> bool:
        # A shared lock, so that two callers do not mistake each other for the holder.
        return _flock(file, fcntl.LOCK_SH)

    def _flock(file: int, kind: int) -> bool:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

"""File locks, which the kernel releases when the process that holds them ends, however it ends.

They are `flock`s. Such a lock belongs to an open file: a process that inherits the open file holds the lock
too, and two threads of one process exclude each other like two processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl

    AVAILABLE = True
except ImportError:  # Windows, where the page cannot train
    AVAILABLE = False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` while the block runs; waits until it is free."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def acquire(path: Path, timeout: float = 0.0) -> int | None:
    """Lock `path`; returns the open file that holds the lock, to be kept open or passed on to a child
    process. None if it is still locked after `timeout` seconds."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(file)
                return None
        except BaseException:
            os.close(file)
            raise
        time.sleep(0.01)


def is_held(path: Path) -> bool:
    """Whether anyone holds the lock on `path`."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait
    except FileNotFoundError:
        return False
    try:
        # A shared lock, so that two callers do not mistake each other for the holder.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)

"""Locks on files, which the kernel lets go when the process that holds them ends, however it ends.

They are `flock`s: one belongs to an open file, so a process that was started with that file open holds
it too, and two threads of one process keep each other out like two processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: there the page does not train
    fcntl = None

AVAILABLE = fcntl is not None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` while the block runs; waits for whoever holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def take(path: Path, patience: float = 0.0) -> int | None:
    """The open file, to be kept open or handed on, by which `path` is locked from now on; None if
    somebody else holds it for longer than `patience` seconds."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience
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
    """Whether somebody holds the lock on `path`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # A shared lock, so that two who ask at once do not take each other for the holder.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)

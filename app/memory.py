"""Keeps the memory of a server flat: with glibc, every thread would keep what it once allocated."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_ARENA_MAX = -8  # of mallopt(3)


def share_memory_between_threads() -> None:
    """Let all threads allocate from the same memory, so that what one of them frees is used by the others.

    This must be called before the threads start. A server has one thread per request, but they run Python
    code and take turns anyway. With another C library than glibc, this does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)

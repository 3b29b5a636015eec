"""What a server takes from the computer: memory, cores, pauses for garbage collection, and open files."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

from lm.parallel import available_cores

if sys.platform != "win32":  # which has no limit on open files
    import resource

MAX_CONNECTIONS = 1000  # open at the same time; fewer if the process may not open twice as many files
_M_ARENA_MAX = -8  # of mallopt(3)


def share_memory_between_threads() -> None:
    """Let all threads allocate from the same memory, so that the others use what one of them frees.

    With glibc, each thread would otherwise have its own and keep what it once allocated; with another C
    library, this does nothing. It must be called before the threads start. A server has one thread per
    request. The threads lose little by sharing: they run Python code, one at a time.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def leave_cores() -> None:
    """Let torch use half of the cores, for each thread that calls it.

    One thread computes for all users. The others, and the browser or client, need cores as well, and
    threads that compete for a core while they wait for each other slow everything down many times.
    """
    import torch  # not before the server listens

    torch.set_num_threads(max(1, available_cores() // 2))


def freeze_objects() -> None:
    """Leave all objects that exist now out of garbage collections, which stop all threads. Scanning those of
    the imported libraries alone takes a tenth of a second."""
    gc.collect()
    gc.freeze()


def allow_many_files() -> None:
    """Let the process open as many files as `MAX_CONNECTIONS` needs, where the system permits it."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError, ValueError):
            allowed, permitted = resource.getrlimit(resource.RLIMIT_NOFILE)
            wanted = 2 * MAX_CONNECTIONS
            if permitted != resource.RLIM_INFINITY:
                wanted = min(wanted, permitted)
            if allowed != resource.RLIM_INFINITY and allowed < wanted:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, permitted))


def max_connections() -> int:
    """The number of connections that may be open at the same time."""
    if sys.platform != "win32":
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed != resource.RLIM_INFINITY:
            return min(MAX_CONNECTIONS, allowed // 2)
    return MAX_CONNECTIONS

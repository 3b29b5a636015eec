"""The lock of a run: one process trains it at a time, whichever machine it is on.

While a process trains, `training/lock` in the run's folder names it, and the process updates the time of this
file every HEARTBEAT seconds. It also holds a kernel lock on the file, which the kernel releases when the
process ends. So a lock that a killed process of this machine has left is ignored at once.

On a disk that several machines share, the kernel may know only the locks of its own machine. So a lock that
names another machine is respected until its time is STALE seconds old.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lm.errors import UserError, one_line
from lm.files import locks
from lm.files.model_files import read_json
from lm.files.paths import open_to_change

HEARTBEAT = 10.0  # seconds
STALE = 60.0  # seconds: six heartbeats, because some network disks show a change late
_MAX_SIZE = 1000  # bytes
_WAIT = 0.5  # seconds, for a process that is only looking
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Owner:
    """A process that trains a run."""

    process: int
    host: str
    boot: str = ""  # of the machine: the same in all its containers, and another after a restart

    def __str__(self) -> str:
        return f"process {self.process} on {one_line(self.host, 80)}"

    @property
    def is_here(self) -> bool:
        """Whether its machine is this one."""
        here = _this_process()
        return self.host == here.host or self.boot == here.boot != ""


def lock_of(folder: Path) -> Path:
    """The lock file of the run in a folder."""
    return folder / "training" / "lock"


def check_free(folder: Path) -> None:
    """Raise UserError if a process trains the run in a folder."""
    path = lock_of(folder)
    try:
        held = _is_held(path)
        if held:
            raise _taken(folder, held=True)
        if _obeyed(path, known=held is not None):
            raise _taken(folder, held=False)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            name = one_line(str(folder), 80)
            raise UserError(f"the name {name} is too long: choose a shorter one with --out.") from error
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def check_own(folder: Path) -> None:
    """Raise UserError if another process owns the run in a folder that this one has claimed."""
    owner = _named(lock_of(folder))
    if owner is not None and owner != _this_process():
        raise UserError(
            f"{folder} was moved or deleted during this training, and {owner} is training another run there:"
            " continue the moved run with --resume."
        )


@contextmanager
def claimed(folder: Path) -> Iterator[str]:
    """Own the run in `folder`, whose `training` exists, while the block runs.

    Yields a note about a stale lock that was removed, or ''. Raises UserError if the run has an owner.
    """
    path = lock_of(folder)
    try:
        file = _lock(folder)
    except OSError as error:
        raise UserError(f"{path} cannot be locked: {error.strerror}.") from error
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, file, over), daemon=True)
    try:
        note = _note(folder)
        os.ftruncate(file, 0)
        os.write(file, json.dumps(asdict(_this_process())).encode())
        beat.start()
        yield note
    finally:
        over.set()
        if beat.ident:
            beat.join()
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
        with contextlib.suppress(OSError):  # the folder may have been moved or deleted
            locks.remove(path, file)


def _lock(folder: Path) -> int:
    """The open lock file, locked by the kernel if it can. Raises UserError if the run has an owner."""
    path = lock_of(folder)
    while True:
        file, known = _open(path)
        if file is None:
            raise _taken(folder, held=True)
        try:
            if locks.is_at(file, path):  # its last owner may have just deleted it
                if _obeyed(path, known):
                    raise _taken(folder, held=False)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _open(path: Path) -> tuple[int | None, bool]:
    """The open lock file, None if the kernel has it locked for another process; and whether it can lock."""
    try:
        return locks.acquire(path, _WAIT), True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return open_to_change(path, os.O_RDWR | os.O_CREAT), False


def _is_held(path: Path) -> bool | None:
    """Whether the kernel has a lock file locked for a process; None if it cannot lock it."""
    try:
        return locks.is_held(path)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None


def _obeyed(path: Path, known: bool) -> bool:
    """Whether a lock that the kernel does not hold is valid. `known`: the kernel would hold one of this
    machine."""
    owner = _named(path)
    return owner is not None and not (known and owner.is_here) and _age(path) <= STALE


def _named(path: Path) -> Owner | None:
    """The process that a lock names."""
    try:
        values = read_json(path, path.parents[1], _MAX_SIZE)
        return Owner(int(values["process"]), str(values["host"]), str(values["boot"]))
    except (UserError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _age(path: Path) -> float:
    """Seconds since a lock was updated, by the clock of the disk, which may be that of a server."""
    now = time.time()
    with contextlib.suppress(OSError):
        os.utime(path.parent)
        now = os.stat(path.parent).st_mtime
    return now - os.stat(path).st_mtime


def _taken(folder: Path, held: bool) -> UserError:
    path = lock_of(folder)
    owner = _named(path)
    if owner is None:
        return UserError(f"{folder} is being trained by another process: wait until it has finished.")
    if held and not owner.is_here and (age := _age(path)) > STALE:
        return UserError(
            f"{folder} has a stale lock: {owner}, which was training it, updated the lock {age:,.0f} seconds"
            f" ago. If that process has ended, delete {path} and try again."
        )
    ending = "or stop it first"
    if not held:
        ending += f"; if it was killed, try again in {STALE:.0f} seconds"
    return UserError(f"{folder} is being trained by {owner}: wait until it has finished, {ending}.")


def _note(folder: Path) -> str:
    """A warning about the lock that is about to be replaced, or "" if it needs none."""
    owner = _named(lock_of(folder))
    if owner is None or owner.is_here:
        return ""
    return (
        f"{folder} had a stale lock: {owner}, which was training it, had updated the lock"
        f" {_age(lock_of(folder)):,.0f} seconds before."
    )


def _beat(path: Path, file: int, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(file if os.utime in os.supports_fd else path)


def _this_process() -> Owner:
    boot = Path("/proc/sys/kernel/random/boot_id")  # exists on Linux only
    return Owner(os.getpid(), socket.gethostname(), boot.read_text("ascii").strip() if boot.exists() else "")

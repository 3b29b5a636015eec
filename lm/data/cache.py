"""The cache folder: every token stream that was made, each in a folder of its own.

A stream is made beside its place, under a lock, and renamed into it when it is whole. So two
processes that want the same one make it once, and one that is killed leaves nothing but a folder
that the next maker removes.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lm.errors import DataError
from lm.invocation import command

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PARTIAL = ".partial"
# Beside the streams: what files and Hub datasets were found to be, and one lock for each stream.
_KNOWN, _LOCKS = "known", "locks"


@dataclass(frozen=True)
class Entry:
    """Something in the cache."""

    path: Path
    size: int  # bytes
    used: float  # seconds since the epoch


def cache_folder() -> Path:
    """$LM_CACHE, or a folder of ours in the user's cache directory."""
    if "LM_CACHE" in os.environ:
        return Path(os.environ["LM_CACHE"])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "lm"


def make_once(key: str, make: Callable[[Path], None]) -> None:
    """Fill the folder `key` of the cache by `make(folder)` if it is not there yet. Raises
    DataError if there is no room for it."""
    folder = cache_folder() / key
    if folder.is_dir():
        return
    partial = folder.with_name(key + PARTIAL)
    with making_room_for(_lock(key)), FileLock(_lock(key)):
        if folder.is_dir():  # while this process waited
            return
        # What a maker that was killed has left: whoever holds the lock is alone.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            make(partial)
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def making_room_for(path: Path) -> Iterator[None]:
    """While something is written into the cache, say clearly why it could not be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DataError(
                f"no room is left in {cache_folder()} for the token stream: free some, for example with"
                f" `{command('data clear')}`, or set LM_CACHE to a folder on a larger disk."
            ) from error
        raise DataError(f"the cache folder {cache_folder()} cannot be used: {error}.") from error


def known(name: str) -> Path:
    """The file that remembers something found out before."""
    return cache_folder() / _KNOWN / name


def entries() -> list[Entry]:
    """The token streams and what is left of half-made ones, what was used last first."""
    root = cache_folder()
    paths = [p for p in root.iterdir() if p.name not in (_KNOWN, _LOCKS)] if root.is_dir() else []
    return sorted(map(_entry, paths), key=lambda entry: -entry.used)


def remove(path: Path) -> bool:
    """Delete an entry of the cache, unless someone is making it."""
    lock = _lock(path.name.removesuffix(PARTIAL))
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except Timeout:
        return False
    return True


def mark_used(folder: Path) -> None:
    """Remember that a token stream was used now."""
    with suppress(OSError):  # a cache that can only be read is as good
        os.utime(folder)


def _lock(key: str) -> Path:
    return cache_folder() / _LOCKS / key


def _entry(path: Path) -> Entry:
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    return Entry(path, sum(file.st_size for file in files), path.stat().st_mtime)

"""The cache folder: token streams, each in a folder of its own.

A stream is built in a temporary folder under a lock and renamed when it is complete and on the disk. So
processes that need the same stream build it only once, and one that is killed leaves only a folder that the
next one removes.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lm.console.invocation import command
from lm.errors import DataError
from lm.files.atomic import DISK_FULL, flush_to_disk, rename
from lm.files.paths import expanded

PARTIAL = ".partial"
_STREAM = re.compile(r".*-[0-9a-f]{16}", re.DOTALL)
_UNFINISHED = re.compile(r".+(-[0-9a-f]{16}|\.[0-9a-f]{12})\.partial", re.DOTALL)  # a stream, `temporary`
_OF_STREAM = re.compile(r"(info|tokenizer|digests)\.json|\w+\.tokens")  # its files
# Subfolders that are not streams: what is known about files and Hub datasets, and a lock for each stream.
_KNOWN, _LOCKS = "known", "locks"


@dataclass(frozen=True)
class Entry:
    """A token stream in the cache, or the remains of an unfinished one."""

    path: Path
    size: int  # bytes
    used: float  # seconds since the epoch


def cache_folder() -> Path:
    """$LM_CACHE, or our folder in the user's cache directory."""
    if chosen := os.environ.get("LM_CACHE"):
        return expanded(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(base) / "lm"


def build_once(key: str, build: Callable[[Path], None], is_whole: Callable[[], bool] = lambda: True) -> None:
    """Create the folder `key` of the cache with `build(folder)`, unless it exists and `is_whole`.

    Raises DataError if the disk is full or the cache cannot be written.
    """
    folder = cache_folder() / key
    if folder.is_dir() and is_whole():
        return
    partial = folder.with_name(key + PARTIAL)
    with _writing_to_cache(), FileLock(_lock(key)):
        if folder.is_dir() and is_whole():  # built while this process waited
            return
        if os.path.lexists(folder):
            _delete(folder)
        # Left by a process that was killed: while we hold the lock, no other process uses it.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            build(partial)
            for file in partial.iterdir():
                flush_to_disk(file)  # after a power failure, a renamed file may be empty otherwise
            rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _writing_to_cache() -> Iterator[None]:
    """Create the cache, and turn an OSError while writing to it into a DataError that says what to do."""
    try:
        (cache_folder() / _LOCKS).mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DataError(
                f"no space left in {cache_folder()} for the token stream: free some, for example with"
                f" `{command('data clear')}`, or set LM_CACHE to a folder on a larger disk."
            ) from error
        raise DataError(f"the cache folder {cache_folder()} cannot be used: {error}.") from error


def known(name: str) -> Path:
    """The file that stores something found out about a dataset."""
    return cache_folder() / _KNOWN / name


def entries() -> list[Entry]:
    """All entries of the cache, most recently used first."""
    root = cache_folder()
    paths = [p for p in root.iterdir() if _is_ours(p)] if root.is_dir() else []
    return sorted(map(_entry, paths), key=lambda entry: -entry.used)


def _is_ours(path: Path) -> bool:
    """Whether this is a stream, finished or not, and no other file in the folder that LM_CACHE names."""
    if path.is_symlink() or _UNFINISHED.fullmatch(path.name):
        return not path.is_symlink()
    if not path.is_dir():
        return False
    names = {file.name for file in path.iterdir()}
    is_stream = {"info.json", "train.tokens"} <= names
    # If it is damaged, files may be missing.
    return is_stream or bool(_STREAM.fullmatch(path.name) and all(map(_OF_STREAM.fullmatch, names)))


@contextmanager
def temporary(stem: str) -> Iterator[Path]:
    """A path in the cache for this process alone, deleted at the end. Until then, `remove` skips it."""
    # Not the process id: in containers that share a cache, it is often the same.
    name = f"{stem}.{uuid.uuid4().hex[:12]}"
    lock, path = _lock(name), cache_folder() / (name + PARTIAL)
    try:
        with _writing_to_cache(), FileLock(lock):
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            lock.unlink()


def remove(path: Path) -> bool:
    """Delete an entry and return True, unless it is being built or, on Windows, used."""
    lock = _lock(path.name.removesuffix(PARTIAL))
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            _delete(path)
    except Timeout:
        return False
    except PermissionError:
        if sys.platform != "win32":
            raise
        return False
    return True


def _delete(path: Path) -> None:
    """Delete a file or a folder. What is left of a folder if this is interrupted does not look complete."""
    if not path.is_dir():
        path.unlink()
        return
    if not path.name.endswith(PARTIAL):
        partial = path.with_name(path.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        rename(path, partial)
        path = partial
    shutil.rmtree(path)


def mark_used(folder: Path) -> None:
    """Record that a token stream was used now."""
    with suppress(OSError):  # the cache may be read-only
        os.utime(folder)


def _lock(key: str) -> Path:
    return cache_folder() / _LOCKS / key


def _entry(path: Path) -> Entry:
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    return Entry(path, sum(file.st_size for file in files), path.stat().st_mtime)

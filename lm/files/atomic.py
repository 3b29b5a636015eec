"""Atomic file writes: killing the process at any time leaves the previous file or folder whole.

On Windows, a file that is open or memory-mapped in any process cannot be renamed, replaced or deleted, and
the folders above it cannot be renamed. Other programs, such as virus scanners, open files for a moment. So
everything is renamed through this module, which tries again for a while.
"""

import errno
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm.errors import UserError, one_line
from lm.files.paths import expanded, open_to_change

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LONGEST_NAME = 200  # bytes: a file system allows 255, and `replacing` and others add to a name
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # in names on Windows
_DEVICE = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)")  # with any extension
_FREE_SPACE = "free some space, or choose a folder on another disk"
_PATIENCE = 10.0  # seconds until a file that another program has open is an error


def portable_name(text: str) -> str:
    """`text` as a name for a file or a folder on every system: 'a:b?' -> 'a-b-', 'aux.txt' -> 'aux_.txt'."""
    name = _DEVICE.sub(r"\1_", _FORBIDDEN.sub("-", text))
    if len(encoded := name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        name = encoded[:_LONGEST_NAME].decode("utf-8", "ignore")
    return name.rstrip(". ")


def patiently(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`. On Windows, it is called again while it is refused because a file is open.

    Raises OSError, as `function` does.
    """
    deadline, pause = time.monotonic() + _PATIENCE, 0.01
    while True:
        try:
            return function(*arguments)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.2)


def rename(path: str | Path, target: str | Path) -> None:
    """Rename a file or a folder to `target`, which does not exist. Raises OSError."""
    patiently(os.rename, path, target)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` unless the block raises."""
    path = Path(path)
    # Not the process id: threads share it, and so do containers that write to the same folder.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        yield partial
        flush_to_disk(partial)
        patiently(os.replace, partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: str | Path) -> None:
    """Delete what killed processes have left of files in a folder, to which no other process writes now."""
    for path in Path(folder).glob(".*.partial"):
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError into a UserError while a file or folder that the user has named is written. Also raises
    UserError for a name that no file can have."""
    if not _is_possible(path):
        raise UserError(f"cannot write {str(path)!r}: no file can have this name; choose another name.")
    try:
        yield
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror or one_line(error)
        remedy = _FREE_SPACE if error.errno in DISK_FULL else "choose an existing, writable folder"
        raise UserError(f"cannot write {path}: {reason}; {remedy}.") from error


def _is_possible(path: str | Path) -> bool:
    """Whether a file can have this name: without NUL and without half of a surrogate pair."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def check_output(file: str | Path, remedy: str = "choose a file in an existing, writable folder") -> None:
    """Raise UserError, which ends in `remedy`, before any work is done if a file cannot be written."""
    path = expanded(file)
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else path.parent, os.W_OK):
        raise UserError(f"cannot write {file}: {remedy}.")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def append_text(path: str | Path, text: str) -> None:
    """Append `text` as UTF-8 to `path`: all of it or, if the disk is full, nothing.

    Raises OSError, also if `path` is a link.
    """
    data = text.encode()
    with open(path, "ab", buffering=0, opener=open_to_change) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(end)
            raise


def replace_folder(path: str | Path, fill: Callable[[Path], None]) -> None:
    """Create a folder with `fill(folder)`, then move it to `path`.

    A folder cannot be renamed over an existing one, so that one is renamed first. A kill between the two
    renames leaves it under a name that `folder_or_previous` knows.
    """
    path = Path(path)
    new, old = path.with_name(path.name + ".new"), _previous(path)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        fill(new)
        for file in new.iterdir():
            flush_to_disk(file)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        rename(path, old)
    rename(new, path)
    shutil.rmtree(old, ignore_errors=True)


def folder_or_previous(path: str | Path) -> Path | None:
    """`path`, else the folder that a killed `replace_folder` was replacing, else None."""
    return next((p for p in (Path(path), _previous(Path(path))) if p.is_dir()), None)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file has reached the disk. Raises OSError."""
    with open(path, "r+b") as file:  # Windows flushes only files that are open for writing
        os.fsync(file.fileno())

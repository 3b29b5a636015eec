"""Bounds the disk space of uploads: Gradio limits the size of a file, but not that of all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lm.errors import UserError

MAX_TOTAL_SIZE = 1 << 30  # bytes of all uploads that Gradio keeps
_MIN_SIZE = 65_536  # bytes that a file counts at least, so that their number is limited, too
_USED_AFTER = 60  # seconds after which the page has copied an upload, or never will


def mark_as_copied(path: str) -> None:
    """Let an upload that the page has copied be the first to be deleted.

    The page does not delete it: Gradio names uploads by their content, so another visitor may have
    uploaded the same file.
    """
    with suppress(OSError):
        os.utime(path, (0, 0))


class UploadLimit:
    """Counts the bytes of uploads. Gradio adds finished ones to the set `finished`, and keeps unfinished ones
    directly in `folder`."""

    def __init__(self, folder: Path, finished: set[str], max_total_size: int = MAX_TOTAL_SIZE):
        self._folder, self._finished, self._max_total_size = folder, finished, max_total_size
        self._reserved = 0  # bytes of unfinished uploads

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Reserve space for an upload of `size` bytes, and delete what it leaves if it fails.

        Raises UserError if there is no space.
        """
        size = max(size, _MIN_SIZE)
        if not self._make_room(size):
            raise UserError("too many uploads; try again in a moment.")
        self._reserved += size
        try:
            yield
        finally:
            self._reserved -= size
            if not self._reserved:
                self._delete_unfinished()

    def _make_room(self, size: int) -> bool:
        """Delete the oldest finished uploads until there is space for `size` more bytes. Returns whether
        there is enough."""
        files = []
        for path in list(self._finished):
            try:
                stat = os.lstat(path)
                files.append((stat.st_mtime, path, max(stat.st_size, _MIN_SIZE)))
            except OSError:  # Gradio has deleted it
                self._finished.discard(path)
        total = self._reserved + size + sum(size for _, _, size in files)
        for modified, path, freed in sorted(files):
            if total <= self._max_total_size or modified > time.time() - _USED_AFTER:
                break
            with suppress(OSError):
                os.unlink(path)
            self._finished.discard(path)
            total -= freed
        return total <= self._max_total_size

    def _delete_unfinished(self) -> None:
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith("tmp") and entry.is_file(follow_symlinks=False):
                    os.unlink(entry)

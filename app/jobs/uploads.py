"""Uploaded texts to train on.

    <models>/.texts/<id>/<name>        the id is the beginning of the content's SHA-256

Each text has a folder of its own, so that names cannot collide, and the folder of all texts never looks like
a model, whatever their names. Browsers refer to a text by its id, never by a path.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import re
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lm.errors import UserError

from .locks import locked

FOLDER = ".texts"
PREFIX = "text:"
MAX_SIZE = 200 << 20  # bytes of one text
MAX_TOTAL_SIZE = 2 << 30  # bytes of all of them
_BLOCK = 1 << 20
_SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".tsv")  # that lm/data/sources.py treats as text or a table
_MAX_NAME = 60  # characters
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class UploadedText:
    id: str
    path: Path
    size: int  # bytes
    added: float  # seconds since the epoch

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def dataset(self) -> str:
        """The value of the setting `dataset` by which a browser refers to it."""
        return PREFIX + self.id


class Uploads:
    """The uploaded texts of a models folder."""

    def __init__(self, models: Path, max_size: int = MAX_SIZE, max_total_size: int = MAX_TOTAL_SIZE):
        self.folder = models.absolute() / FOLDER
        self._max_size, self._max_total_size = max_size, max_total_size

    def all(self) -> list[UploadedText]:
        """All texts, newest first."""
        try:
            names = [name for name in os.listdir(self.folder) if _ID.fullmatch(name)]
        except OSError:
            return []
        texts = (self._text(name) for name in names)
        return sorted((text for text in texts if text), key=lambda text: -text.added)

    def get(self, dataset: str) -> UploadedText:
        """The text that a browser refers to as `dataset`. Raises UserError if it does not exist."""
        id = dataset.removeprefix(PREFIX)
        text = self._text(id) if _ID.fullmatch(id) else None
        if not text:
            raise UserError("this text no longer exists; upload it again or choose another one.")
        return text

    def add(self, path: str | Path) -> UploadedText:
        """Copy an uploaded file; the server has chosen its `path`. Raises UserError if it is not a text or
        is too large."""
        path = Path(path)
        try:
            # Do not follow a link, and do not wait for a pipe.
            opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with open(opened, "rb") as file:
                return self._add(file, safe_name(path.name))
        except OSError as error:
            raise UserError(f"cannot read the upload: {error.strerror}.") from error

    def _add(self, file: IO[bytes], name: str) -> UploadedText:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f".{secrets.token_hex(8)}.partial"
            try:
                with open(partial, "wb") as copy:
                    id = self._copy(file, copy, name)
                    copy.flush()
                    os.fsync(copy.fileno())
                return self._move_in(partial, id, name)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot store the text in {self.folder.name}: {error.strerror}.") from error

    def _copy(self, file: IO[bytes], copy: IO[bytes], name: str) -> str:
        """Copy a file, checking that it is a text and not too large; its id."""
        available = self._max_total_size - sum(text.size for text in self.all())
        digest, size, decoder = hashlib.sha256(), 0, None
        while block := file.read(_BLOCK):
            size += len(block)
            if size > self._max_size:
                raise UserError(f"{name} is too large: a text can have {_megabytes(self._max_size)}.")
            if size > available:
                raise UserError(
                    f"uploaded texts can have {_megabytes(self._max_total_size)} in total; delete some from"
                    f" the folder {self.folder.name} first."
                )
            decoder = decoder or _decoder(block)
            _check(decoder, block, name)
            digest.update(block)
            copy.write(block)
        if not decoder:
            raise UserError(f"{name} is empty.")
        _check(decoder, b"", name)
        return digest.hexdigest()[:16]

    def _move_in(self, partial: Path, id: str, name: str) -> UploadedText:
        """Move a copy to its final path, unless the same text was uploaded before."""
        with locked(self.folder / "lock"):
            if not self._text(id):
                (self.folder / id).mkdir(exist_ok=True)
                os.replace(partial, self.folder / id / name)
        return self.get(id)

    def _text(self, id: str) -> UploadedText | None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder / id):
                if entry.is_file(follow_symlinks=False):
                    stat = entry.stat()
                    return UploadedText(id, Path(entry.path), stat.st_size, stat.st_mtime)
        return None


def safe_name(name: str) -> str:
    """A harmless file name: 'C:\\docs\\a b.md' -> 'a b.md.txt'."""
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    stem, dot, suffix = name.rpartition(".")
    suffix = (dot + suffix).lower()
    if suffix not in _SUFFIXES:
        stem, suffix = name, ".txt"
    return f"{safe_stem(stem) or 'text'}{suffix}"


def safe_stem(text: str) -> str:
    """The letters, digits and harmless punctuation of `text`, on one line; may be empty."""
    kept = re.sub(r"[^\w.()+-]+", " ", text, flags=re.UNICODE)
    return kept[:_MAX_NAME].strip(" .-")


def _decoder(first: bytes) -> codecs.IncrementalDecoder:
    """As in lm/data/decoding.py: UTF-8, or UTF-16 if there is a byte order mark."""
    utf_16 = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8")()


def _check(decoder: codecs.IncrementalDecoder, block: bytes, name: str) -> None:
    try:
        text = decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text; convert it to UTF-8 and upload it again.") from error
    if "\0" in text:
        raise UserError(f"{name} is not a text: it contains zero bytes.")


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MB"

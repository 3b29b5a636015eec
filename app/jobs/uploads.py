"""The texts that were uploaded to be trained on.

    <models>/.texts/<id>/<name>        the id is the beginning of the content's SHA-256

Each lies in a folder of its own, so that no two names meet and the folder of all texts, whatever they
are called, never looks like a model. A browser names a text by its id; a path never comes from there.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lm.errors import UserError

from .locks import locked

FOLDER = ".texts"
PREFIX = "text:"
LARGEST = 200 << 20  # bytes of one text
LARGEST_IN_ALL = 2 << 30  # bytes of all of them
_BLOCK = 1 << 20
_KINDS = (".txt", ".json", ".jsonl", ".csv", ".tsv")  # what is read as a table, or as it is
_LONGEST_NAME = 60  # characters
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Text:
    """An uploaded text."""

    id: str
    path: Path
    size: int  # bytes
    added: float  # seconds since the epoch

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def dataset(self) -> str:
        """What a browser calls it where it says what to train on."""
        return PREFIX + self.id


class Texts:
    """The uploaded texts of a models' folder."""

    def __init__(self, models: Path, largest: int = LARGEST, largest_in_all: int = LARGEST_IN_ALL):
        self.folder = models.absolute() / FOLDER
        self._largest, self._largest_in_all = largest, largest_in_all

    def all(self) -> list[Text]:
        """All of them, the newest first."""
        try:
            names = [name for name in os.listdir(self.folder) if _ID.fullmatch(name)]
        except OSError:
            return []
        texts = (self._text(name) for name in names)
        return sorted((text for text in texts if text), key=lambda text: -text.added)

    def get(self, dataset: str) -> Text:
        """The text that a browser calls `dataset`. Raises UserError."""
        id = dataset.removeprefix(PREFIX)
        text = self._text(id) if _ID.fullmatch(id) else None
        if not text:
            raise UserError("That text is not here any more: upload it again, or choose another.")
        return text

    def add(self, text: str, name: str = "") -> Text:
        """Keep a text that was written or pasted. Raises UserError."""
        return self._add(io.BytesIO(text.encode("utf-8", "replace")), name or "pasted.txt")

    def add_file(self, path: str | Path, name: str = "") -> Text:
        """Keep a copy of an uploaded file, whose `path` the server itself has made. Raises UserError
        for what is no text, or too large."""
        path = Path(path)
        try:
            # Not through a link, and not waiting for a pipe that somebody put there.
            opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with open(opened, "rb") as file:
                return self._add(file, name or path.name)
        except OSError as error:
            raise UserError(f"The upload cannot be read: {error.strerror}.") from error

    def remove(self, dataset: str) -> None:
        """Delete a text."""
        shutil.rmtree(self.get(dataset).path.parent, ignore_errors=True)

    def _add(self, file: IO[bytes], name: str) -> Text:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f".{secrets.token_hex(8)}.partial"
            try:
                with open(partial, "wb") as copy:
                    id = self._copy(file, copy, safe_name(name))
                    copy.flush()
                    os.fsync(copy.fileno())
                return self._keep(partial, id, safe_name(name))
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"The text cannot be kept in {self.folder.name}: {error.strerror}.") from error

    def _copy(self, file: IO[bytes], copy: IO[bytes], name: str) -> str:
        """Copy what is a text, and not too large; its id."""
        room = self._largest_in_all - sum(text.size for text in self.all())
        digest, size, decoder = hashlib.sha256(), 0, None
        while block := file.read(_BLOCK):
            size += len(block)
            if size > self._largest:
                raise UserError(f"{name} is too large: a text may have {_megabytes(self._largest)}.")
            if size > room:
                raise UserError(
                    f"All texts together may have {_megabytes(self._largest_in_all)}: delete some first."
                )
            decoder = decoder or _decoder(block)
            _check(decoder, block, name)
            digest.update(block)
            copy.write(block)
        if not size:
            raise UserError(f"{name} is empty.")
        _check(decoder, b"", name)
        return digest.hexdigest()[:16]

    def _keep(self, partial: Path, id: str, name: str) -> Text:
        """Put a copy into its place, unless it was uploaded before."""
        with locked(self.folder / "lock"):
            if not self._text(id):
                (self.folder / id).mkdir(exist_ok=True)
                os.replace(partial, self.folder / id / name)
        return self.get(id)

    def _text(self, id: str) -> Text | None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder / id):
                if entry.is_file(follow_symlinks=False):
                    stat = entry.stat()
                    return Text(id, Path(entry.path), stat.st_size, stat.st_mtime)
        return None


def safe_name(name: str) -> str:
    """A file's name that is nothing but one: 'C:\\docs\\a b.md' -> 'a b.md.txt'."""
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    stem, dot, kind = name.rpartition(".")
    kind = (dot + kind).lower()
    if kind not in _KINDS:
        stem, kind = name, ".txt"
    return f"{safe_stem(stem) or 'text'}{kind}"


def safe_stem(text: str) -> str:
    """The letters, digits and harmless signs of `text`, on one line; perhaps none."""
    kept = re.sub(r"[^\w.()+-]+", " ", text, flags=re.UNICODE)
    return kept[:_LONGEST_NAME].strip(" .-")


def _decoder(first: bytes) -> codecs.IncrementalDecoder:
    """As lm/data/reading.py has it: UTF-8, or UTF-16 where the text says so."""
    utf_16 = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8")()


def _check(decoder: codecs.IncrementalDecoder, block: bytes, name: str) -> None:
    try:
        text = decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no text in UTF-8: save it as that, and upload it again.") from error
    if "\0" in text:
        raise UserError(f"{name} is no text: it holds zero bytes.")


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MB"

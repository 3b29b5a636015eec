"""Uploaded texts to train on.

    <models>/.texts/<id>/<name>        the id is the beginning of a SHA-256 of the content and the name

A text may be any file that `lm train` reads, in any encoding; app/jobs/reading.py reports what is wrong with
it. The ending of its name says how it is read. The same content with another name is another text. Each text
has a folder of its own, so that names cannot collide, and the folder of all texts never looks like a model,
whatever their names. Browsers refer to a text by its id, never by a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lm.data import archives, reading
from lm.data.binary_files import known_kind
from lm.data.compression import compression_of, without_compression
from lm.data.listing import TABLES, kind_of
from lm.data.tables import PRUNED
from lm.errors import UserError, one_line
from lm.files.atomic import flush_to_disk, portable_name, rename
from lm.files.locks import locked

FOLDER = ".texts"
PREFIX = "text:"
MAX_SIZE = 200 << 20  # bytes of one text
MAX_TOTAL_SIZE = 2 << 30  # bytes of all of them
MAX_UNPACKED_SIZE = 1 << 30  # bytes of a compressed text or an archive
_BLOCK = 1 << 20
# Any other file is a text, and gets the ending .txt as well.
_ENDINGS = (".txt", ".md", ".zip", ".tar", *TABLES)
_MAX_NAME = 60  # characters
_MAX_PASTED_NAME = 30
MAX_PASTED = 2_000_000  # characters of a pasted text
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class UploadedText:
    id: str
    path: Path
    size: int  # bytes
    added: float  # seconds since the epoch

    @property
    def name(self) -> str:
        """The file name, with the ending that says how it is read."""
        return self.path.name

    @property
    def title(self) -> str:
        """The name without its ending, unless that is worth mentioning: 'My novel (draft 2)'."""
        return self.name.removesuffix(".txt")

    @property
    def dataset(self) -> str:
        """The value of the setting `dataset` by which a browser refers to it."""
        return PREFIX + self.id


class Uploads:
    """The uploaded texts of a models folder."""

    def __init__(
        self,
        models: Path,
        max_size: int = MAX_SIZE,
        max_total_size: int = MAX_TOTAL_SIZE,
        max_unpacked_size: int = MAX_UNPACKED_SIZE,
    ):
        self.folder = models.absolute() / FOLDER
        self._max_size, self._max_total_size = max_size, max_total_size
        self._max_unpacked_size = max_unpacked_size

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
        """Copy an uploaded file; the server has chosen its `path`. Raises UserError if it is a file of a
        known kind that is not text, or too large."""
        path = Path(path)
        try:
            # Do not follow a link, and do not wait for a pipe.
            opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with open(opened, "rb") as file:
                return self._add(file, path.name)
        except OSError as error:
            raise UserError(f"cannot read the upload: {error.strerror}.") from error

    def add_pasted(self, text: str) -> UploadedText:
        """Store a text that was pasted, named after its beginning. Raises UserError as `add` does."""
        if len(text) > MAX_PASTED:
            raise UserError(f"a pasted text can have {MAX_PASTED:,} characters; upload it as a file instead.")
        beginning = " ".join(text[: 4 * _MAX_NAME].split())
        name = f"{safe_stem(beginning)[:_MAX_PASTED_NAME]}.txt"
        return self._add(io.BytesIO(text.encode("utf-8", "replace")), name)

    def with_names(self, message: str) -> str:
        """A message of `lm train` with the names of uploaded texts in place of their paths."""
        sep = re.escape(os.sep)
        return re.sub(rf"{re.escape(str(self.folder))}{sep}{_ID.pattern}{sep}", "", message)

    def _add(self, file: IO[bytes], given: str) -> UploadedText:
        """Store a text under a harmless name; errors call it by the `given` one."""
        name, given = safe_name(given), one_line(given, _MAX_NAME)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f".{secrets.token_hex(8)}.partial{_ending(name)}"
            try:
                with open(partial, "wb") as copy:
                    id = self._copy(file, copy, name, given)
                flush_to_disk(partial)
                self._check_unpacked(partial, given)
                return self._move_in(partial, id, name)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot store the text in {self.folder.name}: {error.strerror}.") from error

    def _copy(self, file: IO[bytes], copy: IO[bytes], name: str, given: str) -> str:
        """Copy a file, checking that it is not too large and may be a text; its id."""
        available = self._max_total_size - sum(text.size for text in self.all())
        digest, size = hashlib.sha256(), 0
        while block := file.read(_BLOCK):
            is_text = not _is_packed(name) and kind_of(name) not in PRUNED
            if not size and is_text and (kind := known_kind(block)):
                raise UserError(f"{given} looks like {kind}, not text.")
            size += len(block)
            if size > self._max_size:
                raise UserError(f"{given} is too large: a text can have {_megabytes(self._max_size)}.")
            if size > available:
                raise UserError(
                    f"uploaded texts can have {_megabytes(self._max_total_size)} in total; delete some from"
                    f" the folder {self.folder.name} first."
                )
            digest.update(block)
            copy.write(block)
        if not size:
            raise UserError(f"{given} is empty.")
        digest.update(name.encode())
        return digest.hexdigest()[:16]

    def _check_unpacked(self, path: Path, given: str) -> None:
        """Raise UserError if the file is damaged, or if it is empty or too large once it is decompressed."""
        if not _is_packed(path.name):
            return
        size = 0
        try:
            whole = str(path)
            for member in archives.archive_members(whole) if archives.is_archive(whole) else [whole]:
                with reading.explaining_file_errors(member), archives.open_bytes(member) as file:
                    while block := file.read(_BLOCK):
                        size += len(block)
                        if size > self._max_unpacked_size:
                            most = _megabytes(self._max_unpacked_size)
                            raise UserError(f"{given} is too large: it can have {most} when unpacked.")
        except UserError as error:
            raise UserError(str(error).replace(str(path), given)) from error
        finally:
            archives.close_archives()
        if not size:
            raise UserError(f"{given} is empty.")

    def _move_in(self, partial: Path, id: str, name: str) -> UploadedText:
        """Move a copy to its final path, unless the same text was uploaded before."""
        with locked(self.folder / "lock"):
            if not self._text(id):
                (self.folder / id).mkdir(exist_ok=True)
                rename(partial, self.folder / id / name)
        return self.get(id)

    def _text(self, id: str) -> UploadedText | None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder / id):
                if entry.is_file(follow_symlinks=False):
                    stat = entry.stat()
                    return UploadedText(id, Path(entry.path), stat.st_size, stat.st_mtime)
        return None


def safe_name(name: str) -> str:
    """A harmless file name with the ending of its kind: 'C:\\docs\\a b.PY' -> 'a b.PY.txt'."""
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    ending = _ending(name)
    stem = name[: -len(ending)] if name.lower().endswith(ending) else name
    return portable_name(f"{safe_stem(stem) or 'text'}{ending}")


def _ending(name: str) -> str:
    """The part of a name that says how the file is read: '.csv', '.csv.gz', '.gz', or '.txt'."""
    plain = without_compression(name)
    compression = name[len(plain) :].lower()
    kind = os.path.splitext(plain)[1].lower()
    return (kind if kind in _ENDINGS else "" if compression else ".txt") + compression


def _is_packed(name: str) -> bool:
    """Whether a file is compressed or an archive."""
    return bool(compression_of(name)) or archives.is_archive(name)


def safe_stem(text: str) -> str:
    """The letters, digits and harmless punctuation of `text`, on one line; may be empty."""
    kept = re.sub(r"[^\w.,()[\]{}+&'-]+", " ", text, flags=re.UNICODE)
    return kept[:_MAX_NAME].strip(" .-")


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MB"

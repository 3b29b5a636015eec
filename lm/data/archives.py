"""Opens files wherever they are: compressed, in an archive or on the Hub.

A file in an archive has a name such as zip://name::archive.zip, as in `fsspec`. What unpacks to far more than
text can is a decompression bomb, which is an error.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import IO

from lm.data.compression import compression_of, decompressed, without_compression
from lm.data.datasets_library import datasets_library
from lm.errors import DataError, UserError, one_line

_MEMBER, _REMOTE = ("zip://", "tar://"), "hf://"  # no path begins like this: two slashes in a row
_ODD_NAME = re.compile(r"^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)|::|\0")  # of a file in an archive
_HIDDEN = re.compile(r"(^|/)(\.(?!/)|__MACOSX/)")  # but "./a.txt" is a.txt
_TAR = re.compile(r".*\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2|txz)", re.IGNORECASE | re.DOTALL)
_ALWAYS_UNPACKED = 1 << 26  # bytes; small files may be as compressible as they like
# Largest ratio of unpacked to packed size. A file larger than _ALWAYS_UNPACKED with a higher ratio is not
# text. Zeros have 229 in gzip at its fastest (Python 3.11).
_RATIO = 200
# Bytes to read at a time. Readers of these formats return everything they have unpacked, even if that is more
# than was asked for.
_STEPS = {zipfile.ZIP_BZIP2: 1 << 12, zipfile.ZIP_LZMA: 1 << 12}

_Check = Callable[[int], None]  # of the bytes that were unpacked
# An open archive, its files by their names, its size in bytes, and what was unpacked.
_Archive = tuple["zipfile.ZipFile | _Tar", dict[str, zipfile.ZipInfo], int, "_Unpacked"]


def name_of(file: str) -> str:
    """'zip://name::archive.zip' -> 'name'; the name of a plain file is itself."""
    member, path = member_and_path(file)
    return member or path


def suffix(file: str) -> str:
    """'zip://a.TSV.gz::archive.zip' -> '.tsv'."""
    return os.path.splitext(without_compression(name_of(file)).lower())[1]


def is_archive(file: str) -> bool:
    """Whether a file on this disk is a zip or tar archive, judged by its name."""
    return file.lower().endswith(".zip") or bool(_TAR.fullmatch(file))


def archive_members(file: str) -> list[str]:
    """The files in an archive, as names for `open_bytes`: those of .zip by their names, those of .tar in
    their order, in which they are unpacked.

    Raises DataError if the archive cannot be read, names a file outside itself, or is a decompression bomb.
    """
    kind = "tar" if _TAR.fullmatch(file) else "zip"
    try:
        with _archive(file) as (_, infos, size, _):
            unpacked = sum(info.file_size for info in infos.values())
    except UserError:
        raise
    except Exception as error:  # each compression has its own errors
        if is_remote(file) and not isinstance(error, zipfile.BadZipFile):
            raise  # of the network
        raise DataError(f"{file} cannot be read as a {kind} archive: {one_line(error)}.") from error
    _check_ratio(file, size, unpacked)
    if odd := next(filter(_ODD_NAME.search, infos), None):
        raise DataError(
            f"{file} contains a file with the name '{one_line(odd, 80)}', which is not one inside the"
            " archive: pack it again from its folder."
        )
    return [f"{kind}://{name}::{file}" for name in infos if not _HIDDEN.search(name)]


def members(file: str) -> list[str]:
    """The files in a .zip archive, which a Hub dataset may have; for any other file, the file itself.

    Raises DataError as `archive_members` does.
    """
    if file.startswith(_MEMBER) or not file.lower().endswith(".zip"):
        return [file]
    return archive_members(file)


def member_and_path(file: str) -> tuple[str, str]:
    """'zip://name::archive.zip' -> ('name', 'archive.zip'); any other file is not a member: ('', file)."""
    if not file.startswith(_MEMBER):
        return "", file
    member, _, path = file.partition("://")[2].partition("::")
    return member, path


def is_remote(file: str) -> bool:
    """Whether `file` is the address of a file on the Hub."""
    return file.startswith(_REMOTE)


def open_bytes(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Open a file, a member of an archive or a file on the Hub, decompressed.

    Reading raises DataError if it unpacks to far more than text can: a decompression bomb. The archive of a
    member stays open for the next one, see `close_archives`.
    """
    if file.startswith((*_MEMBER, _REMOTE)) or compression_of(file):
        return _open_packed(file)
    return open(file, "rb")


def close_archives() -> None:
    """Close the archives whose members were read."""
    _open_archive.cache_clear()


@contextlib.contextmanager
def _open_packed(file: str) -> Iterator[IO[bytes]]:
    compression = compression_of(name_of(file))
    with _open_compressed(file) as (opened, check):
        if not compression:
            yield opened
            return
        with decompressed(opened, compression) as unpacked:
            yield _bounded(unpacked, check)


@contextlib.contextmanager
def _open_compressed(file: str) -> Iterator[tuple[IO[bytes], _Check]]:
    """Open a file, a member of an archive or a file on the Hub as it is stored there, and a check of how far
    it is unpacked."""
    member, path = member_and_path(file)
    if is_remote(file):
        with _open_remote(file) as remote:
            yield remote, functools.partial(_check_ratio, file, getattr(remote, "size", None))
    elif member:
        with _archive(path) as (archive, infos, size, unpacked), archive.open(infos[member]) as opened:
            info = infos[member]

            def check(position: int) -> None:
                _check_ratio(file, info.compress_size, position)
                _check_ratio(path, size, unpacked.total(file, position))

            yield _bounded(opened, check, _STEPS.get(info.compress_type, 1 << 20)), check
    else:
        with open(file, "rb") as plain:
            yield plain, functools.partial(_check_ratio, file, os.path.getsize(file))


def _open_remote(file: str) -> IO[bytes]:
    """Open a file on the Hub as `datasets` does, which retries after a broken connection."""
    library = datasets_library(f"streaming {file}")
    from datasets.utils.file_utils import xopen

    # Give up on a broken connection after minutes rather than hours.
    library.config.STREAMING_READ_MAX_RETRIES = 3
    opened: IO[bytes] = xopen(file, "rb")
    return opened


@contextlib.contextmanager
def _archive(file: str) -> Iterator[_Archive]:
    """An archive, which stays open, as finding its members takes longest."""
    if not is_remote(file):
        now = os.getpid(), threading.get_ident()
        found = os.stat(file)
        yield _open_archive(file, *now, found.st_ino, found.st_size, found.st_mtime_ns)
        return
    try:
        yield _open_archive(file, os.getpid())  # the address names a commit
    except Exception:  # such as a broken connection, after which it has to be opened again
        close_archives()
        raise


@functools.lru_cache(maxsize=8)
def _open_archive(file: str, *_facts: int) -> _Archive:
    """Open an archive; another file of that name and another process or thread, which must not share a
    position in it, have other `_facts`."""
    if _TAR.fullmatch(file):
        tar = _Tar(file)
        return tar, tar.infos, os.path.getsize(file), _Unpacked()
    opened = _open_remote(file) if is_remote(file) else open(file, "rb")  # noqa: SIM115
    archive = zipfile.ZipFile(opened)
    return archive, _by_name(archive.infolist()), opened.seek(0, os.SEEK_END), _Unpacked()


def _by_name(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive by their names, sorted, without symbolic links. Of those with the same name,
    each content is read once, the second as if it were in a folder named 2."""
    infos = [info for info in infos if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)]
    files = {(info.filename, info.CRC, info.file_size): info for info in infos}
    found: dict[str, zipfile.ZipInfo] = {}
    for info in sorted(files.values(), key=lambda info: info.filename):
        name, number = info.filename, 1
        while name in found:
            number += 1
            name = f"{number}/{info.filename}"
        found[name] = info
    return found


class _Tar:
    """A tar archive, perhaps compressed, with what is used of a ZipFile here: its files can be opened.

    They keep their order, because a compressed archive can only be read forward. Of those with the same name,
    the last one replaces the others, as where it is unpacked. Of the hard links to a file, the first that is
    not hidden is read.
    """

    def __init__(self, file: str):
        self._stack = contextlib.ExitStack()  # closes the file when this object is deleted
        opened = self._stack.enter_context(open_bytes(file))
        self._tar = tarfile.TarFile(fileobj=opened)
        files: dict[str, tarfile.TarInfo] = {}
        for member in self._tar:
            if member.isreg():
                files[_plain(member.name)] = member
            elif member.islnk() and (target := files.get(_plain(member.linkname))):
                files[_plain(member.name)] = target
        visible = {id(file): name for name, file in reversed(files.items()) if not _HIDDEN.search(name)}
        self._files = {name: file for name, file in files.items() if visible.get(id(file), name) == name}
        opened.seek(self._tar.offset)
        if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # which tarfile takes for the end, too
            raise tarfile.ReadError("it is damaged or truncated")
        self.infos = {name: zipfile.ZipInfo(name) for name in self._files}
        for name, info in self.infos.items():
            info.file_size = info.compress_size = self._files[name].size

    def open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """Open one of the files. Reading raises TarError if the archive is truncated."""
        return self._tar.extractfile(self._files[info.filename])  # type: ignore[return-value]


def _plain(name: str) -> str:
    """'./a.txt' -> 'a.txt'."""
    return re.sub(r"^(\./+)+", "", name)


class _Unpacked(dict[str, int]):
    """How far each member of an archive was unpacked, in bytes. Members that are small enough alone may be
    a bomb together."""

    _sum = 0

    def total(self, member: str, position: int) -> int:
        """The bytes of all members, the first `position` of this one included."""
        if (more := position - self.get(member, 0)) > 0:
            self[member] = position
            self._sum += more
        return self._sum


def _bounded(opened: IO[bytes], check: _Check, step: int = 1 << 20) -> IO[bytes]:
    return io.BufferedReader(_Bounded(opened, check, step), 1 << 17)


class _Bounded(io.RawIOBase):
    """An unpacked file that is read at most `step` bytes at a time; `check` raises an error if that is too
    far."""

    def __init__(self, opened: IO[bytes], check: _Check, step: int):
        self._opened, self._check, self._step = opened, check, step
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._opened.seekable()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._opened.read(min(len(buffer), self._step))
        buffer[: len(part)] = part
        self._position += len(part)
        self._check(self._position)
        return len(part)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            while self.read(self._step):  # the file itself would unpack it all unchecked
                pass
        start = 0 if whence == os.SEEK_SET else self._position
        self._position = self._opened.seek(start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def _check_ratio(file: str, packed: int | None, unpacked: int) -> None:
    if packed is not None and unpacked > max(_ALWAYS_UNPACKED, _RATIO * packed):
        raise DataError(
            f"{file} unpacks to more than {_RATIO} times its size, as a decompression bomb does and text does"
            " not: if you know what it is, unpack it and use the unpacked files."
        )

"""Compressed files: their names and their content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
from collections.abc import Callable
from typing import IO

_SUFFIXES = {
    **{".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"},
    **{".tgz": "gzip", ".tbz2": "bz2", ".txz": "xz"},
}
_BLOCK = 1 << 16  # bytes to read at a time

_Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor


def compression_of(file: str) -> str | None:
    """The compression of a file, judged by its name."""
    return next((kind for suffix, kind in _SUFFIXES.items() if file.lower().endswith(suffix)), None)


def without_compression(file: str) -> str:
    """'a.txt.gz' -> 'a.txt'."""
    return file.rpartition(".")[0] if compression_of(file) else file


def decompressed(packed: IO[bytes], compression: str) -> IO[bytes]:
    """The content of a compressed file, all its streams if it has several. Reading raises an error of the
    compression or EOFError if it is damaged, truncated or followed by anything but zeros."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    if compression == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        return zstd.ZstdFile(packed)  # type: ignore[return-value, unused-ignore]
    new = bz2.BZ2Decompressor if compression == "bz2" else lzma.LZMADecompressor
    return io.BufferedReader(_Streams(packed, new))


class _Streams(io.RawIOBase):
    """The content of a file of bz2 or xz streams. Python's own classes take a damaged stream for the end of
    the file, unless it is the first."""

    def __init__(self, packed: IO[bytes], new: Callable[[], _Decompressor]):
        self._packed, self._new = packed, new
        self._stream, self._position = new(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._packed.seekable()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = b""
        while not data:
            packed = b""
            if self._stream.eof:
                if not (packed := self._next_stream()):
                    break
                self._stream = self._new()
            elif self._stream.needs_input and not (packed := self._packed.read(_BLOCK)):
                raise EOFError("it is truncated")
            data = self._stream.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _next_stream(self) -> bytes:
        """The beginning of the next stream, without the zeros before it; empty at the end of the file."""
        found = self._stream.unused_data.lstrip(b"\0")
        while not found and (block := self._packed.read(_BLOCK)):
            found = block.lstrip(b"\0")
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert whence != os.SEEK_END
        offset += self._position if whence == os.SEEK_CUR else 0
        if offset < self._position:
            self._packed.seek(0)
            self._stream, self._position = self._new(), 0
        while self._position < offset and self.read(min(offset - self._position, _BLOCK)):
            pass
        return self._position

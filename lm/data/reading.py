"""Reads text files into documents: UTF-8 with SEPARATOR between documents.

Plain text is read a block at a time, because a single document may be larger than memory. Tables are read by
`lm/data/tables.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lm.data.archives import is_remote, open_bytes
from lm.data.decoding import Decoded, decoded
from lm.data.separation import separated, without_empty
from lm.errors import DataError, UserError, one_line
from lm.tokenization.documents import SEPARATOR

_NOT_VALID = {  # what the libraries of the compressions say -> the kind of file
    "Not a gzipped file": "gzip",
    "Invalid data stream": "bzip2",
    "Input format not supported by decoder": "xz",
    "Unable to decompress Zstandard data: Unknown frame descriptor": "zstd",
}


def is_decodable(file: str) -> bool:
    """Whether a file is text in the encoding that is assumed unless another is named."""
    with explaining_file_errors(file), open_bytes(file) as opened:
        try:
            for _ in decoded(opened, file):
                pass
        except DataError:
            return False
    return True


def read_text_files(
    files: list[str],
    encoding: str | None = None,
    errors: str = "strict",
    separator: str | None = None,
    done: Decoded | None = None,
    name: str | None = None,
) -> Iterator[bytes]:
    """Read each file as a document, or as several with a `separator` between them, skipping empty ones.

    `encoding`, `errors` and `done` are those of `decoded`. Raises DataError if a file cannot be read or
    decoded, and calls it by its `name`, if that is given.
    """

    def documents() -> Iterator[bytes]:
        for file in files:
            with explaining_file_errors(name or file), open_bytes(file) as opened:
                blocks = decoded(opened, name or file, encoding, errors, done)
                yield from separated(blocks, separator) if separator else blocks
            yield SEPARATOR

    return without_empty(documents())


@contextlib.contextmanager
def explaining_file_errors(file: str) -> Iterator[None]:
    """Turn any error of reading a file into a DataError that says what is wrong with it.

    Those of the network, while a file is streamed, stay as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_remote(file):
            raise
        if isinstance(error, FileNotFoundError):
            problem = "was deleted before it could be read"
        elif kind := next((_NOT_VALID[start] for start in _NOT_VALID if str(error).startswith(start)), None):
            problem = f"is not a valid {kind} file"
        elif isinstance(error, OSError):
            problem = f"cannot be read: {error.strerror or one_line(error)}"
        elif isinstance(error, RuntimeError) and "encrypted" in str(error):  # of zipfile
            problem = "is encrypted: unpack the archive, and use its files"
        else:  # each compression has its own errors
            problem = f"is damaged: {one_line(error)}"
        raise DataError(f"{file} {problem}.") from error

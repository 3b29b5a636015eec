"""Opens files of any kind, and reads text files into documents: UTF-8 with SEPARATOR between documents.

Plain text is read a block at a time, because a single document may be larger than memory. Tables are read by
`lm/data/tables.py`. The `datasets` library is optional and imported only when it is needed.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator
from types import ModuleType
from typing import IO

from lm.data.decoding import Decoded, decoded
from lm.data.separation import separated, without_empty
from lm.errors import DataError, UserError, one_line
from lm.invocation import pip_install
from lm.tokenization.documents import SEPARATOR

_ODD_NAME = re.compile(r"^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)|::|\0")  # of a file in an archive
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


def datasets_library(purpose: str) -> ModuleType:
    """The `datasets` library, with its output turned off.

    Raises UserError, naming the `purpose`, if it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{purpose} needs the `datasets` library: {pip_install('data')}") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def compression_of(file: str) -> str | None:
    """The compression of a file, judged by its name."""
    return next((kind for suffix, kind in _COMPRESSIONS.items() if file.lower().endswith(suffix)), None)


def without_compression(file: str) -> str:
    """'a.txt.gz' -> 'a.txt'."""
    return file.rpartition(".")[0] if compression_of(file) else file


def members(file: str) -> list[str]:
    """The files in a .zip archive, as names for `open_bytes`; for any other file, the file itself.

    Raises DataError if the archive cannot be read, or names a file outside itself.
    """
    if "::" in file or not file.lower().endswith(".zip"):
        return [file]
    try:
        with open_bytes(file) as opened, zipfile.ZipFile(opened) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        if is_remote(file) and isinstance(error, OSError):
            raise  # of the network
        raise DataError(f"{file} cannot be read as a zip archive: {one_line(error)}.") from error
    if odd := next(filter(_ODD_NAME.search, names), None):
        raise DataError(
            f"{file} contains a file with the name '{one_line(odd, 80)}', which is not one inside the"
            " archive: pack it again from its folder."
        )
    return [f"zip://{name}::{file}" for name in names if not re.search(r"(^|/)(\.|__MACOSX/)", name)]


def is_remote(file: str) -> bool:
    """Whether `file` is the address of a file on the Hub."""
    return file.startswith("hf://")


def open_bytes(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Open a file, a member of an archive or a file on the Hub, decompressed."""
    compression = compression_of(name_of(file))
    if is_remote(file):
        return _open_remote(file, compression)
    if "::" not in file and not compression:
        return open(file, "rb")
    import fsspec  # takes a tenth of a second

    return fsspec.open(file, "rb", compression=compression)


@contextlib.contextmanager
def _open_remote(file: str, compression: str | None) -> Iterator[IO[bytes]]:
    """Open a file on the Hub as `datasets` does, which retries after a broken connection."""
    library = datasets_library(f"streaming {file}")
    from datasets.utils.file_utils import xopen
    from fsspec.compression import compr

    # Give up on a broken connection after minutes rather than hours.
    library.config.STREAMING_READ_MAX_RETRIES = 3
    with xopen(file, "rb") as opened:
        yield compr[compression](opened, mode="rb") if compression else opened


def is_decodable(file: str) -> bool:
    """Whether a file is text in the encoding that is assumed unless another is named."""
    with explaining_file_errors(file), open_bytes(file) as opened:
        try:
            for _ in decoded(opened, file):
                pass
        except DataError:
            return False
    return True


def name_of(file: str) -> str:
    """'zip://name::archive.zip' -> 'name'; the name of a plain file is itself."""
    return file.partition("::")[0].removeprefix("zip://") if "::" in file else file


def read_text_files(
    files: list[str],
    encoding: str | None = None,
    errors: str = "strict",
    separator: str | None = None,
    done: Decoded | None = None,
) -> Iterator[bytes]:
    """Read each file as a document, or as several with a `separator` between them, skipping empty ones.

    `encoding`, `errors` and `done` are those of `decoded`. Raises DataError if a file cannot be read or
    decoded.
    """
    return without_empty(_texts(files, encoding, errors, separator, done))


def _texts(
    files: list[str], encoding: str | None, errors: str, separator: str | None, done: Decoded | None
) -> Iterator[bytes]:
    for file in files:
        with explaining_file_errors(file), open_bytes(file) as opened:
            blocks = decoded(opened, file, encoding, errors, done)
            yield from separated(blocks, separator) if separator else blocks
        yield SEPARATOR


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
        elif isinstance(error, OSError):
            problem = f"cannot be read: {error.strerror or one_line(error)}"
        else:  # each compression has its own errors
            problem = f"is damaged: {one_line(error)}"
        raise DataError(f"{file} {problem}.") from error

"""Reads files and tables of any kind into documents: UTF-8 with SEPARATOR between documents.

Plain text is read here, a block at a time, because a single document may be larger than memory. Tables
are read by the `datasets` library, which is optional and imported only when it is needed.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from lm.data.decoding import Decoded, decoded
from lm.errors import DataError, UserError, one_line
from lm.invocation import pip_install
from lm.tokenization.documents import SEPARATOR

if TYPE_CHECKING:
    import datasets
    import pyarrow

_ROWS = 256  # rows per batch
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


def datasets_library(purpose: str) -> ModuleType:
    """The `datasets` library. Raises UserError, naming the `purpose`, if it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{purpose} needs the `datasets` library: {pip_install('data')}") from error
    return datasets


def compression_of(file: str) -> str | None:
    """The compression of a file, judged by its name."""
    return next((kind for suffix, kind in _COMPRESSIONS.items() if file.lower().endswith(suffix)), None)


def without_compression(file: str) -> str:
    """'a.txt.gz' -> 'a.txt'."""
    return file.rpartition(".")[0] if compression_of(file) else file


def members(file: str) -> list[str]:
    """The files in a .zip archive, as names for `open_bytes`; for any other file, the file itself.

    Raises DataError if the archive cannot be read.
    """
    if "::" in file or not file.lower().endswith(".zip"):
        return [file]
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as a zip archive: {one_line(error)}.") from error
    return [f"zip://{name}::{file}" for name in names if not re.search(r"(^|/)(\.|__MACOSX/)", name)]


def open_bytes(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Open a file or a member of an archive, decompressed."""
    compression = compression_of(name_of(file))
    if "::" not in file and not compression:
        return open(file, "rb")
    import fsspec  # takes a tenth of a second

    return fsspec.open(file, "rb", compression=compression)


def name_of(file: str) -> str:
    """'zip://name::archive.zip' -> 'name'; the name of a plain file is itself."""
    return file.partition("::")[0].removeprefix("zip://") if "::" in file else file


def read_text_files(
    files: list[str], encoding: str | None, errors: str, done: Decoded | None = None
) -> Iterator[bytes]:
    """Read each file as a document, skipping empty ones.

    `encoding`, `errors` and `done` are those of `decoded`. Raises DataError if a file cannot be read or
    decoded.
    """
    any_written = False
    for file in files:
        written = False
        with explaining_file_errors(file), open_bytes(file) as opened:
            for block in decoded(opened, file, encoding, errors, done):
                yield SEPARATOR + block if any_written and not written else block
                written = any_written = True


@contextlib.contextmanager
def explaining_file_errors(file: str) -> Iterator[None]:
    """Turn any error of reading a file into a DataError that says what is wrong with it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{file} was deleted before it could be read.") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or one_line(error)}.") from error
    except Exception as error:  # each compression has its own errors
        raise DataError(f"{file} is damaged: {one_line(error)}.") from error


def read_table(rows: datasets.IterableDataset, name: str, column: str | None) -> Iterator[bytes]:
    """Read each row as a document, skipping empty ones; without a `column`, the text column is detected.

    Raises DataError if there is no such column or it does not contain text.
    """
    written = False
    for table in rows.with_format("arrow").iter(batch_size=_ROWS):
        column = column or text_column(table, name)
        texts = [text.encode() for text in column_of(table, column, name) if text]
        if texts:
            yield (SEPARATOR if written else b"") + SEPARATOR.join(texts)
            written = True


def column_of(table: pyarrow.Table, column: str, name: str) -> list[str | None]:
    """The values of a column. Raises DataError if there is no such column or it does not contain text."""
    if column not in table.column_names:
        raise DataError(f"{name} has no column '{column}'; it has {', '.join(table.column_names)}.")
    values = table.column(column).to_pylist()
    other = next((v for v in values if v is not None and not isinstance(v, str)), None)
    if other is not None:
        raise DataError(
            f"the column '{column}' of {name} contains {type(other).__name__}, not text; choose another"
            f" with --text-column: {_examples(table)}."
        )
    return values


def text_column(table: pyarrow.Table, name: str) -> str:
    """The column named "text", or the only one with strings, or the only one with more than single words.

    Raises DataError, listing the columns, if there is no such column.
    """
    if "text" in table.column_names:
        return "text"
    columns = {column: table.column(column).to_pylist() for column in table.column_names}
    strings = [c for c, values in columns.items() if any(isinstance(v, str) for v in values)]
    long = [c for c in strings if any(len(v.split()) > 1 for v in columns[c] if isinstance(v, str))]
    for candidates in (strings, long):
        if len(candidates) == 1:
            return candidates[0]
    if not strings:
        raise DataError(f"no column of {name} contains text: {_examples(table)}.")
    raise DataError(
        f"several columns of {name} contain text; choose one with --text-column: {_examples(table)}."
    )


def _examples(table: pyarrow.Table) -> str:
    """'id (17), title ('On the sea'), ...': each column with a value."""

    def example(column: str) -> str:
        values = table.column(column).to_pylist()
        value: Any = next((v for v in values if v not in (None, "")), None)
        shown = " ".join(repr(value).split())
        return f"{column} ({shown if len(shown) <= 30 else shown[:29] + '…'})"

    return ", ".join(map(example, table.column_names))


def bad_json_line(files: Iterable[str]) -> str | None:
    """Where the first line is that is not JSON, which the loader of `datasets` does not say."""
    for file in files:
        with open_bytes(file) as opened:
            for number, line in enumerate(opened, start=1):
                try:
                    if line.strip():
                        json.loads(line)
                except ValueError as error:
                    return f"{file}, line {number:,}, is not JSON: {one_line(error)}"
    return None


def bad_parquet_file(files: Iterable[str]) -> str | None:
    """The first file that cannot be read to its end, which the loader of `datasets` does not say."""
    import pyarrow
    import pyarrow.parquet

    for file in files:
        try:
            with open_bytes(file) as opened:
                for _ in pyarrow.parquet.ParquetFile(opened).iter_batches():
                    pass
        except (OSError, pyarrow.ArrowException):
            return file
    return None

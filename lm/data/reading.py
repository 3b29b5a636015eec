"""Reading files and tables: whatever they are, out comes UTF-8 with SEPARATOR between documents.

Text is read here, a megabyte at a time, because one document may be larger than memory; tables are
read by the `datasets` library. It is imported only when a table is read.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from lm.errors import DataError, one_line
from lm.tokenization.tokenizer import SEPARATOR

if TYPE_CHECKING:
    import datasets
    import pyarrow

_BLOCK = 1 << 20  # bytes
_ROWS = 256  # read together
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


def compression_of(file: str) -> str | None:
    """What a file is compressed by, judged by its name."""
    return next((kind for ending, kind in _COMPRESSED.items() if file.lower().endswith(ending)), None)


def without_compression(file: str) -> str:
    """'a.txt.gz' -> 'a.txt'."""
    return file.rpartition(".")[0] if compression_of(file) else file


def inside(file: str) -> list[str]:
    """The files in a .zip, as names that `open_bytes` knows; any other file is all there is in it.
    Raises DataError."""
    if "::" in file or not file.lower().endswith(".zip"):
        return [file]
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as a zip archive: {one_line(error)}.") from error
    return [f"zip://{name}::{file}" for name in names if not re.search(r"(^|/)(\.|__MACOSX/)", name)]


def open_bytes(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Open a file, or what is compressed in it, or a file in an archive."""
    compression = compression_of(name_of(file))
    if "::" not in file and not compression:
        return open(file, "rb")
    import fsspec

    return fsspec.open(file, "rb", compression=compression)


def name_of(file: str) -> str:
    """'zip://name::archive.zip' -> 'name'; a plain file keeps its own."""
    return file.partition("::")[0].removeprefix("zip://") if "::" in file else file


def read_text_files(files: list[str], errors: str) -> Iterator[bytes]:
    """Each file is a document: UTF-8 (or UTF-16 if it says so) without its byte-order mark, and
    with the line ends of Windows as those of everyone else. Empty files are left out."""
    written = False  # any document
    for file in files:
        begun = False  # this one
        try:
            with open_bytes(file) as opened:
                for block in filter(None, _text(opened, file, errors)):
                    yield SEPARATOR + block if written and not begun else block
                    begun = written = True
        except DataError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{file} vanished before it was read.") from error
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or one_line(error)}.") from error
        except Exception as error:  # each compression has errors of its own
            raise DataError(f"{file} is damaged: {one_line(error)}.") from error


def _text(opened: IO[bytes], file: str, errors: str) -> Iterator[bytes]:
    block = opened.read(_BLOCK)
    utf_16 = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if utf_16 else "utf-8")(errors)
    block = block.removeprefix(codecs.BOM_UTF8)
    as_it_is = errors == "strict" and not utf_16  # decoded only to see whether that can be done
    position, held = 0, b""
    while True:
        waiting = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place, value = position - waiting + error.start, error.object[error.start]
            raise DataError(
                f"{file} is not UTF-8: byte 0x{value:02x} at position {place:,};"
                " --encoding-errors replace reads it all the same."
            ) from error
        clean = held + (block if as_it_is else text.encode("utf-8", "replace"))
        if not block:
            yield clean
            return
        held = b"\r" if clean.endswith(b"\r") else b""
        clean = clean.removesuffix(held)
        yield clean.replace(b"\r\n", b"\n") if b"\r" in clean else clean
        position += len(block)
        block = opened.read(_BLOCK)


def read_table(rows: datasets.IterableDataset, name: str, column: str | None) -> Iterator[bytes]:
    """Each row is a document. Without a `column`, the one that is text is found. Rows without text
    are left out. Raises DataError if there is no such column or it holds something else."""
    written = False
    for table in rows.with_format("arrow").iter(batch_size=_ROWS):
        column = column or text_column(table, name)
        texts = [text.encode() for text in column_of(table, column, name) if text]
        if texts:
            yield (SEPARATOR if written else b"") + SEPARATOR.join(texts)
            written = True


def column_of(table: pyarrow.Table, column: str, name: str) -> list[str | None]:
    """The values of a column. Raises DataError if there is no such column of text."""
    if column not in table.column_names:
        raise DataError(f"{name} has no column '{column}'; it has {', '.join(table.column_names)}.")
    values = table.column(column).to_pylist()
    other = next((v for v in values if v is not None and not isinstance(v, str)), None)
    if other is not None:
        raise DataError(
            f"the column '{column}' of {name} holds {type(other).__name__}, not text; choose another"
            f" with --text-column: {_examples(table)}."
        )
    return values


def text_column(table: pyarrow.Table, name: str) -> str:
    """The column called text, or the only one with strings, or the only one where they are more
    than single words."""
    if "text" in table.column_names:
        return "text"
    columns = {column: table.column(column).to_pylist() for column in table.column_names}
    strings = [c for c, values in columns.items() if any(isinstance(v, str) for v in values)]
    long = [c for c in strings if any(len(v.split()) > 1 for v in columns[c] if isinstance(v, str))]
    for candidates in (strings, long):
        if len(candidates) == 1:
            return candidates[0]
    what = "which column of {} is the text? Name one" if strings else "no column of {} holds text"
    raise DataError(f"{what.format(name)} with --text-column: {_examples(table)}.")


def _examples(table: pyarrow.Table) -> str:
    """'id (17), title ('On the sea'), ...': each column with a value."""

    def example(column: str) -> str:
        values = table.column(column).to_pylist()
        value: Any = next((v for v in values if v not in (None, "")), None)
        shown = " ".join(repr(value).split())
        return f"{column} ({shown if len(shown) <= 30 else shown[:29] + '…'})"

    return ", ".join(map(example, table.column_names))


def bad_json_line(files: Iterable[str]) -> str | None:
    """The place of the first line that is no JSON, which the loader of `datasets` does not tell."""
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
    """The first file that cannot be read to its end, which the loader of `datasets` does not tell."""
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

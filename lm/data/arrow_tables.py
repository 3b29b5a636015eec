"""Reads Parquet and Arrow files row by row: only the columns that are needed, each value as Python has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lm.console.invocation import pip_install
from lm.data.archives import open_bytes
from lm.data.values import Row, distinct_names
from lm.errors import DataError, UserError, one_line

_ROWS = 256  # decoded at a time


def arrow_rows(file: str, kind: str, columns: set[str] | None) -> Iterator[Row]:
    """The rows of a file; `kind` is "parquet" or "arrow", which is either format of Arrow's IPC.

    Only `columns` are read, if given. Otherwise, dates and times that Python cannot represent are None.
    Raises DataError if the file or a column cannot be read, UserError if pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(f"reading {file} needs the `pyarrow` library: {pip_install('data')}") from error
    try:
        with open_bytes(file) as opened:
            for batch in (_parquet_batches if kind == "parquet" else _arrow_batches)(opened, columns):
                yield from _rows(batch, file, columns is None)
    except UserError:
        raise
    except Exception as error:  # names that are not UTF-8, for example, raise other errors than pyarrow's own
        if isinstance(error, OSError) and type(error) is not OSError:
            raise  # of the disk or the network; pyarrow's own is a plain OSError
        raise DataError(f"{file} is damaged or truncated ({one_line(error)}): download it again.") from error


def _parquet_batches(opened: Any, columns: set[str] | None) -> Iterator[Any]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(opened, page_checksum_verification=True)  # of files that have some
    names, chosen = table.schema_arrow.names, None
    if columns is not None:
        pairs = zip(names, distinct_names(names), strict=True)
        chosen = list(dict.fromkeys(name for name, distinct in pairs if distinct in columns))
    for batch in table.iter_batches(batch_size=_ROWS, columns=chosen):
        yield _renamed(batch, names)


def _arrow_batches(opened: Any, columns: set[str] | None) -> Iterator[Any]:
    import pyarrow

    is_file = opened.read(6) == b"ARROW1"
    opened.seek(0)
    reader = pyarrow.ipc.open_file(opened) if is_file else pyarrow.ipc.open_stream(opened)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
    for batch in batches:
        part = _renamed(batch, batch.schema.names)
        if columns is not None:
            part = part.select([name for name in part.schema.names if name in columns])
        yield from (part.slice(start, _ROWS) for start in range(0, part.num_rows, _ROWS))


def _renamed(batch: Any, names: list[str]) -> Any:
    """A batch of some of the columns with these names, all those of the same name, with distinct names."""
    left: dict[str, list[str]] = {}
    for name, distinct in zip(names, distinct_names(names), strict=True):
        left.setdefault(name, []).append(distinct)
    return batch.rename_columns([left[name].pop(0) for name in batch.schema.names])


def _rows(batch: Any, file: str, every: bool) -> list[Row]:
    """The rows of a batch; `every` says that all columns are read, whichever is needed."""
    if "map<" not in str(batch.schema.types):
        with contextlib.suppress(Exception):  # of conversions, such as OverflowError
            rows: list[Row] = batch.to_pylist()  # the fastest way
            return rows
    names = batch.schema.names
    values = [_values(c, name, file, every) for name, c in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _values(column: Any, name: str, file: str, every: bool) -> list[Any]:
    """The values of a column. Raises DataError, naming it."""
    import pyarrow

    try:
        values: list[Any] = column.to_pylist()
    except Exception as error:
        if every and pyarrow.types.is_temporal(column.type):
            return [None] * len(column)
        raise DataError(
            f"the column '{name}' of {file} cannot be read ({one_line(error)}): choose another one with"
            " --text-column."
        ) from error
    return [_with_objects(value, column.type) for value in values] if "map<" in str(column.type) else values


def _with_objects(value: Any, kind: Any) -> Any:
    """A value with objects in place of maps, which pyarrow returns as lists of pairs."""
    import pyarrow

    if value is None:
        return None
    if pyarrow.types.is_map(kind):
        return {str(key): _with_objects(item, kind.item_type) for key, item in value}
    if pyarrow.types.is_struct(kind):
        return {field.name: _with_objects(value[field.name], field.type) for field in kind}
    return [_with_objects(item, kind.value_type) for item in value] if isinstance(value, list) else value

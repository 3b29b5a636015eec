"""Reads tables row by row: CSV, TSV, JSON, JSON lines, Parquet and Arrow, each value as the file writes it.

A row maps column names to values. CSV cells are strings. JSON has strings, `Number`s, which keep their
digits, True, False, None, lists and objects; a JSON row that is not an object has the single column "text".
CSV, JSON lines, Parquet and Arrow are read in constant memory, any other JSON file as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lm.data.archives import open_bytes
from lm.data.arrow_tables import arrow_rows
from lm.data.columns import Notes
from lm.data.csv_tables import csv_rows
from lm.data.decoding import Decoded, open_text
from lm.data.json_tables import json_rows
from lm.data.reading import explaining_file_errors
from lm.data.values import Row

KINDS = ("csv", "json", "parquet", "arrow")
PRUNED = ("parquet", "arrow")  # kinds of which single columns are read


@dataclass(frozen=True)
class Options:
    """How to read the files of a table."""

    header: bool = True  # whether the first row of CSV names the columns
    json_field: str | None = None  # dotted name of the list of rows in JSON
    encoding: str | None = None
    encoding_errors: str = "strict"
    delimiter: str | None = None  # of CSV; None: detected
    names: tuple[str, ...] = ()  # of the columns of CSV without a header


def read_rows(
    file: str,
    kind: str,
    options: Options,
    notes: Notes,
    decoded: Decoded | None = None,
    columns: set[str] | None = None,
) -> Iterator[Row]:
    """The rows of a file of one of the KINDS.

    Of Parquet and Arrow, only `columns` are read, if given. Raises DataError if the file is not of that kind,
    OSError if it cannot be read.
    """
    if kind in PRUNED:
        yield from arrow_rows(file, kind, columns)
        return
    with explaining_file_errors(file), open_bytes(file) as opened:
        lines = open_text(opened, file, options.encoding, options.encoding_errors, decoded)
        if kind == "json":
            yield from json_rows(lines, file, options.json_field, notes)
        else:
            yield from csv_rows(lines, file, options.header, options.delimiter, options.names, notes)

"""Reads CSV and TSV row by row, and warns of what may be read as something else than was meant.

`lm/data/csv_dialect.py` recognizes the delimiter and the quotes.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any, TextIO

from lm.console.wording import plural
from lm.data.archives import suffix
from lm.data.columns import MAX_COLUMNS, Notes
from lm.data.csv_dialect import DELIMITERS, NO_DELIMITER, Dialect, first_rows, is_unclosed, recognize
from lm.data.csv_header import like_data
from lm.data.values import Row, distinct_names, listed, shortened
from lm.errors import DataError, one_line

_SNIFFED = 1000  # lines by which the dialect is recognized
_SNIFFED_SIZE = 1 << 20  # characters in them, at most
_FOR_EXCEL = re.compile(r'("?)sep=(.)\1[,;]*', re.IGNORECASE)  # a first line that is not a row
_SWALLOWED = 20  # lines in a cell above which there is a warning


def csv_rows(
    lines: TextIO, file: str, header: bool, delimiter: str | None, given_names: tuple[str, ...], notes: Notes
) -> Iterator[Row]:
    """The rows of a CSV or TSV file. Raises DataError if it is not one.

    Args:
        header: whether the first row names the columns, unless there are `given_names`.
        delimiter: between cells; None: it is detected.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the limit of the module is for all of a process
    head = _first_lines(lines)
    header &= not given_names
    begin = 1  # the number of the first line
    if head and (excel := _FOR_EXCEL.fullmatch(head[0].rstrip("\r\n"))):
        delimiter, head, begin = excel[2], head[1:], 2
    rest = next(lines, None)
    if suffix(file) == ".tsv":
        dialect = Dialect(delimiter or "\t", quoted=False)
    else:
        dialect = recognize(file, head, rest is None, begin, delimiter)
        if not dialect.quoted:
            notes.warn(
                f"quotes {file}",
                f"the quotes in {file} are read as text: they do not enclose cells, as those of CSV do.",
            )
    reader = dialect.reader(head if rest is None else chain(head, [rest], lines))
    try:
        # Tables of a spreadsheet may begin with empty rows.
        first = next(filter(_has_text if header else None, reader), None)
    except csv.Error as error:
        raise _not_csv(file, error, begin, reader.line_num + begin - 1) from error
    if first is None:
        return
    if len(first) > MAX_COLUMNS:
        raise DataError(
            f"{file} has {len(first):,} columns, and a CSV file can have {MAX_COLUMNS:,}: keep only those"
            " with text, or rename the file to .txt if it is text."
        )
    names = list(given_names) or distinct_names([cell.strip() if header else "" for cell in first])
    _note_format(notes, dialect, names, header)
    cells: Iterator[list[str]] = reader
    if header:
        rows = first_rows(dialect, head)
        _check_header(first, rows[rows.index(first) + 1 :] if first in rows else [], dialect, file, notes)
    else:
        cells = chain([first], reader)
    yield from _named(cells, names, reader, begin, file, notes)


def _check_header(first: list[str], rows: list[list[str]], dialect: Dialect, file: str, notes: Notes) -> None:
    """Raise DataError, or warn, if the first row does not seem to be the header of the `rows` below it."""
    below = list(filter(_has_text, rows))
    if _is_title(first, rows):
        raise DataError(
            f"the first row of {file} names only {sum(map(bool, first))} of {len(first):,} columns:"
            " delete lines above the header, or use --no-header if there is none."
        )
    if len(below) > 1 and all(len(row) == len(first) + 1 and row[-1] for row in below):
        raise DataError(
            f"the rows of {file} have one cell more than the first row, as if R had written row names:"
            " name all columns, or write the table with row.names = FALSE."
        )
    if dialect.delimiter == NO_DELIMITER and any(d in first[0] for d in DELIMITERS):
        notes.warn(
            f"single {file}",
            f"each line of {file} is read as one cell: most lines lack the delimiter of the first"
            f" ('{shortened(first[0])}').",
        )
    if cell := like_data(first, below):
        notes.warn(
            f"header {file}",
            f"the first row of {file} looks like data ('{shortened(cell)}') but is read as the"
            " header: use --no-header if it is not.",
        )


def _has_text(row: list[str]) -> bool:
    return any(cell.strip() for cell in row)


def _is_title(first: list[str], rows: list[list[str]]) -> bool:
    """Whether the first row is a title rather than a header: the next row has text in a column that it
    leaves empty, and either only its first cell has text, or the row below it is empty."""
    below = next(filter(_has_text, rows), [])
    if len(first) < 3 or not any(cell and not name for name, cell in zip(first, below, strict=False)):
        return False
    return not _has_text(rows[0]) or (not any(first[1:]) and all(below))


def _first_lines(lines: TextIO) -> list[str]:
    """The lines by which the dialect is recognized."""
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line)
        if len(head) >= _SNIFFED or size >= _SNIFFED_SIZE:
            break
    return head


def _not_csv(file: str, error: csv.Error, begin: int, line: int) -> DataError:
    """The error of a row from line `begin` to `line`."""
    if is_unclosed(error):
        where, problem = begin, "a quote in it is never closed; close it, or double it if it is text"
    elif "expected after" in str(error):
        where, problem = line, "text follows a closing quote; double the quotes that are text"
    else:
        where, problem = line, one_line(error)
    return DataError(f"{file}, line {where:,}, is not CSV: {problem}.")


def _named(
    rows: Iterator[list[str]], names: list[str], reader: Any, begin: int, file: str, notes: Notes
) -> Iterator[Row]:
    """The cells of each row by their columns. The `reader` counts the lines from `begin` on.

    Warns of rows with too many lines or cells, and counts those with too few cells. Raises DataError if a row
    is not in the dialect of the reader.
    """
    width, wide, wide_at, longest, longest_at, last = len(names), 0, 0, 0, 0, reader.line_num
    narrow: dict[int, tuple[int, int]] = {}
    notes.narrow[file] = names, narrow
    try:
        for cells in rows:
            number = reader.line_num
            if number - last > longest:
                longest, longest_at = number - last, last + begin
            last = number
            if len(cells) > width:
                wide, wide_at = wide + 1, wide_at or number + begin - 1
            elif len(cells) < width and any(cells):
                count, line = narrow.get(len(cells), (0, number + begin - 1))
                narrow[len(cells)] = count + 1, line
            if cells:
                yield dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise _not_csv(file, error, last + begin, reader.line_num + begin - 1) from error
    finally:
        if longest > _SWALLOWED:
            notes.warn(
                f"swallowed {file}",
                f"a row of {file} has {longest:,} lines, from line {longest_at:,} on: is a quote not closed?"
                " Close or double it, or rename the file to .tsv if it has tabs and no quoting.",
            )
        if wide:
            notes.warn(
                f"wide {file}",
                f"{file} has {plural(wide, 'row')} with more cells than its {plural(width, 'column')}, the"
                f" first in line {wide_at:,}: what follows them is not read; quote cells that contain the"
                " delimiter.",
            )


def _note_format(notes: Notes, dialect: Dialect, names: list[str], header: bool) -> None:
    shown = DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))
    cells = "one column" if dialect.delimiter == NO_DELIMITER else f"{shown} between cells"
    cells += ", a backslash before quotes" if dialect.escaped else ""
    first = "header" if header else "no header, columns"
    notes.format = notes.format or f"{cells}, {first} {listed(names)}"

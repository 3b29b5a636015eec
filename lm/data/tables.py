"""Reads tables row by row: CSV, TSV, JSON, JSON lines, Parquet and Arrow, each value as the file writes it.

A row maps column names to values. CSV cells are strings. JSON has strings, `Number`s, which keep their
digits, True, False, None, lists and objects; a JSON row that is not an object has the single column "text".
CSV, JSON lines, Parquet and Arrow are read in constant memory, any other JSON file as a whole.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TextIO

from lm.console.wording import did_you_mean, plural
from lm.data.arrow_tables import arrow_rows
from lm.data.columns import MAX_COLUMNS, POEM, Notes
from lm.data.csv_dialect import DELIMITERS, NO_DELIMITER, Dialect, first_rows, is_unclosed, recognize
from lm.data.decoding import Decoded, open_text
from lm.data.header import like_data
from lm.data.reading import explaining_file_errors, open_bytes, suffix
from lm.data.values import MISSING, Number, Row, distinct_names, is_messages, listed, shortened, value_at
from lm.errors import DataError, one_line

KINDS = ("csv", "json", "parquet", "arrow")
PRUNED = ("parquet", "arrow")  # kinds of which single columns are read

_SNIFFED = 1000  # lines by which the dialect of a CSV file is recognized
_SNIFFED_SIZE = 1 << 20  # characters in them, at most
_FOR_EXCEL = re.compile(r'("?)sep=(.)\1[,;]*', re.IGNORECASE)  # a first line that is not a row
_SWALLOWED = 20  # lines in a cell above which there is a warning
_DEPTH = 100  # of lists and objects in JSON, at most


@dataclass(frozen=True)
class Options:
    """How to read the files of a table."""

    header: bool = True  # whether the first row of CSV names the columns
    json_field: str | None = None  # dotted name of the list of rows in JSON
    encoding: str | None = None
    encoding_errors: str = "strict"
    delimiter: str | None = None  # of CSV; None: detected
    names: tuple[str, ...] = ()  # of the columns of CSV without a header


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=Number)
_INCOMPLETE = object()  # not a JSON value
_NOT_BLANK = re.compile(r"[^ \t\n\r]")


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
    read = _csv_rows if kind == "csv" else _json_rows
    with explaining_file_errors(file), open_bytes(file) as opened:
        lines = open_text(opened, file, options.encoding, options.encoding_errors, decoded)
        yield from read(lines, file, options, notes)


def _csv_rows(lines: TextIO, file: str, options: Options, notes: Notes) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the limit of the module is for all of a process
    head = _first_lines(lines)
    given, begin = options.delimiter, 1  # the number of the first line
    if head and (excel := _FOR_EXCEL.fullmatch(head[0].rstrip("\r\n"))):
        given, head, begin = excel[2], head[1:], 2
    rest = next(lines, None)
    if suffix(file) == ".tsv":
        dialect = Dialect(given or "\t", quoted=False)
    else:
        dialect = recognize(file, head, rest is None, begin, given)
        if not dialect.quoted:
            notes.warn(
                f"quotes {file}",
                f"the quotes in {file} are read as text: they do not enclose cells, as those of CSV do.",
            )
    reader = dialect.reader(head if rest is None else chain(head, [rest], lines))
    try:
        first = next(filter(None, reader), None)
    except csv.Error as error:
        raise _not_csv(file, error, begin, reader.line_num + begin - 1) from error
    if first is None:
        return
    if len(first) > MAX_COLUMNS:
        raise DataError(
            f"{file} has {len(first):,} columns, and a CSV file can have {MAX_COLUMNS:,}: keep only those"
            " with text, or rename the file to .txt if it is text."
        )
    names = _column_names(first, options)
    _note_format(notes, dialect, names, options)
    cells: Iterator[list[str]] = reader
    if options.header and not options.names:
        below = first_rows(dialect, head)[1:]
        if len(first) > 2 and first[0] and not any(first[1:]) and below and all(below[0]):
            raise DataError(
                f"the first row of {file} names only one of {len(first):,} columns: delete lines above the"
                " header, or use --no-header if there is none."
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
    else:
        cells = chain([first], reader)
    yield from _named(cells, names, reader, begin, file, notes)


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


def _column_names(cells: list[str], options: Options) -> list[str]:
    """A name for each column: that in the first row, or its number."""
    if options.names:
        return list(options.names)
    return distinct_names([cell.strip() if options.header else "" for cell in cells])


def _note_format(notes: Notes, dialect: Dialect, names: list[str], options: Options) -> None:
    shown = DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))
    cells = "one column" if dialect.delimiter == NO_DELIMITER else f"{shown} between cells"
    cells += ", a backslash before quotes" if dialect.escaped else ""
    header = "header" if options.header and not options.names else "no header, columns"
    notes.format = notes.format or f"{cells}, {header} {listed(names)}"


def _json_rows(lines: TextIO, file: str, options: Options, notes: Notes) -> Iterator[Row]:
    """The rows of a JSON file, or of one with a JSON value per line or several in a row, whatever its name
    says."""
    start, first, second = [], "", ""
    for line in lines:
        start.append(line)
        if line.strip():
            first, second = first or line, second if not first else line
        if second:
            break
    if not first:
        return
    value = _decoded(first)
    one_per_line = suffix(file) in (".jsonl", ".ndjson")
    if value is _INCOMPLETE:
        one_per_line &= first.strip() not in ("[", "{")
    else:
        one_per_line &= isinstance(value, dict)
        one_per_line |= bool(second)
    if one_per_line:
        nested = bool(_poems(value))  # the first line decides for all
        for number, line in enumerate(chain(start, lines), start=1):
            line = line.rstrip("\r\n").removeprefix("\ufeff")  # as where files were joined
            if line.strip():
                yield from _rows_in(_parse(line, file, number), file, options, None, nested)
        return
    values = [value]
    if value is _INCOMPLETE:
        values = _parse("".join(start) + lines.read(), file, decode=_decode_all)
    several = len(values) > 1  # each is then like a line
    nested = not several or bool(_poems(values[0]))
    for value in values:
        yield from _rows_in(value, file, options, None if several else notes, nested)


def _decode_all(text: str) -> list[Any]:
    """The JSON values in a text, one after another, as jq writes them. Raises as `_decode` does."""
    values, end = [], 0
    while found := _NOT_BLANK.search(text, end):
        value, end = _DECODER.raw_decode(text, found.start())
        values.append(_checked(value, text[found.start() : end]))
    return values


def _decode(text: str) -> Any:
    """The JSON value in a text. Raises JSONDecodeError, or RecursionError if it is nested too deeply."""
    return _checked(_DECODER.decode(text), text)


def _checked(value: Any, text: str) -> Any:
    """A value that was read from a text. Raises RecursionError if it is nested too deeply."""
    if text.count("[") + text.count("{") > _DEPTH:
        inside: list[Any] = [[value]]
        for _ in range(_DEPTH + 1):
            values = chain.from_iterable(v.values() if isinstance(v, dict) else v for v in inside)
            inside = [v for v in values if isinstance(v, (dict, list))]
        if inside:
            raise RecursionError
    return value


def _decoded(line: str) -> Any:
    try:
        return _decode(line)
    except (ValueError, RecursionError):
        return _INCOMPLETE


def _parse(text: str, file: str, number: int = 1, decode: Callable[[str], Any] = _decode) -> Any:
    """The JSON value in a text that begins in this line of the file. Raises DataError."""
    try:
        return decode(text)
    except json.JSONDecodeError as error:
        where = f"{file}, line {number + error.lineno - 1:,}"
        problem = error.msg.removesuffix(" at")  # "Invalid control character at"
        raise DataError(f"{where}, is not JSON: {problem} at column {error.colno:,}.") from error
    except RecursionError as error:
        where = f"{file}, line {number:,}"
        raise DataError(f"{where}, is nested too deeply: JSON can have {_DEPTH} levels here.") from error


def _rows_in(
    value: Any, file: str, options: Options, notes: Notes | None, nested: bool = True
) -> Iterator[Row]:
    """The rows in a JSON value: with `notes` a whole file, else a line. If `nested`, poems in it are rows."""
    if options.json_field:
        value = _field(value, options.json_field, file)
    elif nested and (poems := _poems(value, sure=notes is None)):
        if notes and (lists := [repr(name) for name, _ in poems if name]):
            notes.format = notes.format or f"rows in {listed(list(dict.fromkeys(lists)))}"
        yield from (poem for _, poem in poems)
        return
    elif notes and isinstance(value, dict):
        name = _list_of_rows(value, file)
        if name:
            value = _field(value, name, file)
            notes.format = notes.format or f"rows in '{name}'"
    several = isinstance(value, list) and (notes or options.json_field) and not is_messages(value)
    for row in value if several else [value]:
        yield row if isinstance(row, dict) else {} if row is None else {"text": row}


def _poems(value: Any, sure: bool = False) -> list[tuple[str, Row]]:
    """The poems in a JSON value that is one or has them in lists of objects, each with the name of its list.

    Nothing if the rows are poems or other objects anyway, or if most of the text is elsewhere.
    """
    if isinstance(value, dict) and _is_poem(value):
        return [("", value)]
    found: list[tuple[str, Row]] = []
    if not _add_poems(value, "", found) or not any(name for name, _ in found):
        return []
    inside = sum(_characters(poem) for _, poem in found)
    return found if sure or 2 * inside > _characters(value) else []


def _is_poem(value: Row) -> bool:
    """Whether an object has lines, all of them strings."""
    lines = value.get(POEM)
    return isinstance(lines, list) and bool(lines) and all(type(line) is str for line in lines)


def _add_poems(value: Any, name: str, found: list[tuple[str, Row]]) -> bool:
    """Add the poems in a value to those `found`; False if a list has both objects and other text."""
    if isinstance(value, dict):
        if _is_poem(value):
            found.append((name, value))
            return True
        return all(
            _add_poems(item, f"{name}.{key}" if name else key, found)
            for key, item in value.items()
            if isinstance(item, (dict, list))
        )
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return all(isinstance(item, dict) and _add_poems(item, name, found) for item in value)
    return True


def _field(value: Any, name: str, file: str) -> Any:
    found = value_at(value, name) if isinstance(value, dict) else MISSING
    if not isinstance(found, list):
        lists = [each for each, _ in _lists(value)] if isinstance(value, dict) else []
        known = f"it has {listed(lists)}{did_you_mean(name, lists)}" if lists else "leave out --json-field."
        raise DataError(f"{file} has no list '{name}' of rows; {known}")
    return found


def _list_of_rows(value: Row, file: str) -> str | None:
    """The name of the list that holds the rows, or None if the object itself is a row.

    A list of objects, else one of strings. It holds more text than the rest of the object; otherwise, this is
    a text with a few facts about it. Raises DataError if there are several.
    """
    found = dict(islice(((name, items) for name, items in _lists(value) if items), MAX_COLUMNS + 1))
    if len(found) > MAX_COLUMNS:  # not rows but a row, which has too many columns
        return None
    objects = {name: items for name, items in found.items() if all(isinstance(i, dict) for i in items)}
    strings = {
        name: items
        for name, items in found.items()
        if all(isinstance(i, str) and not isinstance(i, Number) for i in items)
    }
    lists = objects or strings
    inside = sum(map(_characters, lists.values()))
    if not lists or 2 * inside <= _characters(value):
        return None
    if len(lists) > 1:
        raise DataError(
            f"{file} contains several lists of rows; choose one with --json-field: {listed(list(lists))}."
        )
    return next(iter(lists))


def _lists(value: Row, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The lists in an object and in the objects inside it, other than messages, with their dotted names."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _lists(item, f"{prefix}{name}.")
        elif isinstance(item, list) and not is_messages(item):
            yield prefix + name, item


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_characters, items))

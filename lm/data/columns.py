"""Which column of a table is its text: the named one, or one chosen from the first rows."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from lm.console.wording import did_you_mean, plural
from lm.data.values import (
    LISTED,
    MISSING,
    Number,
    Row,
    all_numbers,
    has_numbers,
    inner_columns,
    is_figure,
    listed,
    parents,
    shortened,
    text_of,
    value_at,
    without_surrogates,
)
from lm.errors import DataError, one_line

POEM = "paragraphs"  # the lines of a poem in the files of chinese-poetry

_PAUSE = re.compile("[，。！？；、]")  # between words of languages that are written without spaces
_SEVERAL = 0.1  # fraction of texts with several words, below which a column is one of single words
_ROWS = 1000  # by which the column is chosen, if there is text in them
_CHARACTERS = 4_000_000  # in all columns of these rows, at most
MAX_COLUMNS = 10_000  # in which text is looked for: more take long
_EXAMPLE = 80  # characters
_NOTED = 1000  # columns of a file, at most


class NoColumnError(DataError):
    """A table does not have the column that is named."""


@dataclass
class Notes:
    """How a table was read, for the report; there is one warning of each kind."""

    column: str = ""
    why: str = ""  # this column
    example: str = ""  # the first text, shortened to a line
    format: str = ""  # delimiter and header, or where in JSON the rows are
    rows: int = 0
    empty: int = 0  # rows without text
    numbers: int = 0  # rows whose text has a number, or true or false
    longer: list[str] = field(default_factory=list)  # columns with more text
    files: dict[str, set[str]] = field(default_factory=dict)  # the columns of each, up to the one used
    # For each CSV file: its columns, and {number of cells: (number of rows, line of the first)} of the rows
    # with too few cells.
    narrow: dict[str, tuple[list[str], dict[int, tuple[int, int]]]] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)  # by their kind

    def facts(self, name: str) -> dict[str, Any]:
        """All of this about the table `name` as JSON values."""
        warnings = list(self.warnings.values())
        known = {self.column, *parents(self.column)}
        without = [
            os.path.basename(file) for file, names in self.files.items() if names and not names & known
        ]
        if without and self.column:
            warnings.append(
                f"nothing is read of {listed(without)}: no column is named '{self.column}' there."
            )
        for file, (columns, rows) in self.narrow.items():
            at = columns.index(self.column) if self.column in columns else 0
            if lost := [counted for cells, counted in rows.items() if cells <= at]:
                count, line = sum(number for number, _ in lost), min(line for _, line in lost)
                warnings.append(
                    f"{file} has {plural(count, 'row')} with too few cells for the column '{self.column}',"
                    f" the first in line {line:,}: what they contain is not read; quote cells that contain"
                    " line breaks."
                )
        if self.numbers:
            warnings.append(
                f"the column '{self.column}' of {name} contains numbers or true and false rather than text in"
                f" {self.numbers:,} of {plural(self.rows, 'row')}: they are read as they are written."
            )
        facts = asdict(dataclasses.replace(self, files={}, narrow={}, warnings={}))
        # Names of files and columns may contain line breaks.
        return {**facts, "warnings": [one_line(warning, 1000) for warning in warnings]}

    def warn(self, kind: str, message: str) -> None:
        """Add a warning. It replaces one of this kind, which is about rows that are now read again."""
        self.warnings[kind] = message


@dataclass
class Rows:
    """Which columns to keep of the rows that have text, and what was kept of each."""

    keep: tuple[str, ...] = ()
    numbers: list[int] = field(default_factory=list)  # from 1, rows without text counted
    values: dict[str, list[Any]] = field(default_factory=dict)  # by column
    only_tables: bool = True  # whether no text file was read
    before: int = 0  # rows of the tables read before

    def add(self, number: int, row: Row | None = None) -> None:
        """Keep a row of the present table, or a document of a text file."""
        self.numbers.append(self.before + number)
        for name in self.keep:
            value = value_at(row or {}, name)
            self.values.setdefault(name, []).append(None if value is MISSING else value)

    def choose(self, chosen: list[int], count: int) -> None:
        """Of `count` rows or documents, keep those with these indices."""
        numbers = self.numbers or range(1, count + 1)  # of text that has no rows
        self.numbers = [numbers[index] for index in chosen]
        self.values = {name: [kept[index] for index in chosen] for name, kept in self.values.items()}

    def cut(self, begin: int, end: int, first: int) -> None:
        """Of the rows from number `first` on, keep those from `begin` to `end`."""
        for kept in (self.numbers, *self.values.values()):
            kept[first:] = kept[first + begin : first + end]


def texts(
    read: Callable[[set[str] | None], Iterator[Row]],
    name: str,
    column: str | None,
    errors: str,
    notes: Notes,
    prune: bool = False,
    kept: Rows | None = None,
) -> Iterator[str]:
    """The text of each row of the table `name`, empty where there is none.

    `read` returns an iterator over the rows from the beginning, with at least the given columns; `prune`
    says that fewer columns are read faster. Without a `column`, it is chosen from the first rows. The rows
    with text are added to `kept`. Raises DataError if there is no such column, one to keep included, or if it
    does not contain text.
    """
    column, rows = choose(read, name, column, notes, prune, kept.keep if kept else ())
    for row in rows:
        notes.rows += 1
        text = row.get(column)
        if type(text) is not str:
            text = text_at(row, column, name, notes)
        if not text.strip():
            notes.empty += 1
            yield ""
            continue
        notes.example = notes.example or shortened(text, _EXAMPLE)
        if kept is not None:
            kept.add(notes.rows, row)
        yield text if text.isascii() else without_surrogates(text, f"row {notes.rows:,} of {name}", errors)


def offered(rows: Iterator[Row]) -> dict[str, str]:
    """The columns in the first rows of a table, those with text first, each with one of its values."""
    columns = _Columns(None)
    for row in rows:
        columns.add(row)
        if columns.suffice:
            break
    names = sorted(columns, key=lambda name: not columns[name].characters)
    return {name: _example(columns[name].example) for name in names}


def noting(rows: Iterator[Row], file: str, notes: Notes) -> Iterator[Row]:
    """The rows of a file; their columns are noted until the one that was chosen is among them."""
    names = notes.files.setdefault(file, set())
    for row in rows:
        names.update(row or ("",))
        yield row
        if (notes.column and notes.column in names) or len(names) > _NOTED:
            yield from rows


def text_at(row: Row, column: str, name: str, notes: Notes) -> str:
    """The text of a column in a row; `notes` counts numbers. Raises DataError if it is an object."""
    value = value_at(row, column)
    if value is MISSING or value is None:
        return ""
    inner = inner_columns(value, column)
    if inner:
        raise DataError(
            f"the column '{column}' of {name} contains objects; choose one of their fields with"
            f" --text-column: {listed(inner)}."
        )
    if type(value) is not str and has_numbers(value):
        notes.numbers += 1
    try:
        return text_of(value)
    except TypeError as error:
        raise DataError(f"the column '{column}' of {name} contains {error}, not text.") from error


@dataclass
class _Column:
    """What the first rows have in a column."""

    characters: int = 0  # of text; numbers and dates count only in strings of a column named "text"
    texts: int = 0
    several_words: int = 0  # texts with more than one
    is_list: bool = False
    example: Any = None
    inside_list: bool = False  # a field of the objects in a list, which is not chosen automatically


class _Columns(dict[str, _Column]):
    """The columns in the first rows of a table by their dotted names, and whether `wanted` is there."""

    def __init__(self, wanted: str | None) -> None:
        super().__init__()
        self.wanted, self.exists, self.found = wanted, False, False
        self.rows = 0
        self.size = 0  # characters and bytes in all rows
        self.full = False  # whether there are more than MAX_COLUMNS, the others not counted

    @property
    def suffice(self) -> bool:
        """Whether enough was counted to choose a column, if there is text in one."""
        return self.rows >= _ROWS or self.size >= _CHARACTERS or self.full

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        for name, value in row.items():
            self._add(name, value, inside_list=False)
        if self.wanted and not self.found:
            value = value_at(row, self.wanted)
            self.exists |= value is not MISSING
            self.found = value is not MISSING and value not in (None, "")
        elif not self.wanted:
            self.found = self.found or bool(self.with_text())

    def _add(self, name: str, value: Any, inside_list: bool) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._add(f"{name}.{key}", item, inside_list)
            return
        if isinstance(value, (list, tuple)) and inner_columns(value, name):
            for item in value:
                self._add(name, item, inside_list=True)
            return
        if len(self) >= MAX_COLUMNS and name not in self and name != "text":
            self.full = True
            return
        column = self.setdefault(name, _Column(inside_list=inside_list))
        try:
            text = "" if all_numbers(value) else text_of(value)
        except TypeError:  # objects, which are an error only in the column that is used
            text = ""
        self.size += len(value) if isinstance(value, bytes) else len(text)
        named_text = name == "text" and isinstance(value, str)  # sums and telephone numbers may be text
        is_text = bool(text.strip()) and (named_text or not is_figure(text))
        if column.example in (None, "", []) or (is_text and not column.characters):
            column.example = value
        if is_text:
            column.characters += len(text)
            column.texts += 1
            column.several_words += len(text.split(maxsplit=1)) > 1 or bool(_PAUSE.search(text))
            column.is_list |= not isinstance(value, str)

    def with_text(self) -> list[str]:
        """The columns with text, other than fields of the objects in a list."""
        return [name for name, column in self.items() if column.characters and not column.inside_list]

    def examples(self, names: Iterable[str]) -> str:
        """'id (17), title ('On the sea'), ...': these columns, each with a value."""
        names = list(names)
        if not names:
            return "it has no columns"
        shown = ", ".join(f"{shortened(name)} ({_example(self[name].example)})" for name in names[:LISTED])
        return shown + (f" and {len(names) - LISTED} more" if names[LISTED:] else "")


def _example(value: Any) -> str:
    if isinstance(value, (bool, Number)):
        return shortened(text_of(value), 30)
    shown = " ".join(repr(value[:60] if isinstance(value, (str, bytes)) else value).split())
    return shown if len(shown) <= 30 else shown[:29] + "…"


def choose(
    read: Callable[[set[str] | None], Iterator[Row]],
    name: str,
    wanted: str | None,
    notes: Notes,
    prune: bool = False,
    keep: tuple[str, ...] = (),
) -> tuple[str, Iterator[Row]]:
    """The text column of a table, and an iterator over all its rows; the arguments are those of `texts`.

    Raises DataError, naming the columns, if there is no such column or the choice is not clear.
    """
    rows, columns = read(_needed(wanted, *keep) if prune and wanted else None), _Columns(wanted)
    head: list[Row] = []
    for row in rows:
        head.append(row)
        columns.add(row)
        if columns.suffice:
            break
    for row in () if columns.found else rows:  # no text yet: keep looking
        columns.add(row)
        if columns.found:
            break
    if prune and wanted and columns.rows and not columns.exists:
        return choose(read, name, wanted, notes, keep=keep)  # an error that names the other columns
    for column in keep if columns.rows else ():
        if all(value_at(row, column) is MISSING for row in head):
            if all(value_at(row, column) is MISSING for row in read(None)):
                raise _no_column(column, name, columns)
            prune = True  # read again
    if not columns.rows:
        return wanted or "text", iter(())
    if not wanted:
        column, notes.why = _automatic(columns, name)
    elif columns.exists:
        column, notes.why = wanted, "chosen with --text-column"
    else:
        raise _no_column(wanted, name, columns)
    notes.column = column
    chosen = columns.get(column)
    notes.longer = [n for n, c in columns.items() if chosen and c.characters > chosen.characters]
    if notes.longer and not wanted:
        longest = max(notes.longer, key=lambda other: columns[other].characters)
        notes.warn(
            "longer",
            f"the column '{longest}' of {name} contains more text than '{column}', which is used"
            f" ({columns[longest].characters:,} and {columns[column].characters:,} characters in"
            f" {plural(columns.rows, 'row')}): choose one with --text-column.",
        )
    if prune or columns.rows > len(head):
        return column, read(_needed(column, *keep))
    return column, chain(head, rows)


def _needed(*columns: str) -> set[str]:
    """These columns, which may be fields of others, and those that contain them."""
    return {name for column in columns for name in (column, *parents(column))}


def _no_column(wanted: str, name: str, columns: _Columns) -> NoColumnError:
    names = list(columns)
    return NoColumnError(
        f"{name} has no column '{wanted}'; it has {listed(names)}{did_you_mean(wanted, names)}"
    )


def _automatic(columns: _Columns, name: str) -> tuple[str, str]:
    """The column named "text", or the only one with text, or the only one with more than single words, or the
    list with most of the text, such as the lines of poems that also have a title; and why."""
    texts = columns.with_text()
    if "text" in texts:
        return "text", "named text"
    if columns.full and columns.rows == 1:
        raise DataError(
            f"{name} has a row with more than {MAX_COLUMNS:,} columns or fields of objects: choose one with"
            " --text-column, or rename the file to .txt if it is text."
        )
    within = [n for n, c in columns.items() if c.characters and c.inside_list]
    if not texts and len(within) == 1:
        return within[0], "the only one with text"
    if not texts and not within:
        examples = columns.examples(columns)
        if all(isinstance(column.example, bytes) for column in columns.values()):
            raise DataError(f"no column of {name} contains text: {examples}.")
        raise DataError(
            f"no column of {name} contains text: {examples}; to use one of them anyway, name it with"
            " --text-column."
        )
    long = [n for n in texts if columns[n].several_words >= _SEVERAL * columns[n].texts]
    for candidates, why in ((texts, "the only one with text"), (long, "the only one with several words")):
        if len(candidates) == 1:
            (column,) = candidates
            if all(columns[other].characters <= columns[column].characters for other in within):
                return column, why
    lists = [n for n in texts if columns[n].is_list]
    if POEM in lists:
        return POEM, "the lines of the poems"
    if len(lists) == 1:
        (column,) = lists
        others = (c.characters for n, c in columns.items() if n != column)
        if 2 * sum(others) < columns[column].characters:
            return column, "the list with most of the text"
    shown = columns.examples(texts + within)
    raise DataError(f"several columns of {name} contain text; choose one with --text-column: {shown}.")

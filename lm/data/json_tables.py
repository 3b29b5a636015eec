"""Reads JSON row by row: one value per line, several in a row, or a list of rows somewhere in a value.

JSON lines are read in constant memory, any other file as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, TextIO

from lm.console.wording import did_you_mean
from lm.data.archives import suffix
from lm.data.columns import MAX_COLUMNS, POEM, Notes
from lm.data.values import MISSING, Number, Row, is_messages, listed, value_at
from lm.errors import DataError

_DEPTH = 100  # of lists and objects, at most
_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=Number)
_INCOMPLETE = object()  # not a JSON value
_NOT_BLANK = re.compile(r"[^ \t\n\r]")


def json_rows(lines: TextIO, file: str, field: str | None, notes: Notes) -> Iterator[Row]:
    """The rows of a JSON file, or of one with a JSON value per line or several in a row, whatever its name
    says. `field` is the dotted name of the list of rows, if it is given. Raises DataError."""
    start, first, second = [], "", ""
    for line in lines:
        start.append(line)
        if line.strip():
            first, second = first or line, second if not first else line
        if second:
            break
    if not first:
        return
    try:
        value = _value(first)
    except (ValueError, RecursionError):
        value = _INCOMPLETE
    one_per_line = suffix(file) in (".jsonl", ".ndjson")
    if value is _INCOMPLETE:
        one_per_line &= first.strip() not in ("[", "{")
    else:
        one_per_line &= isinstance(value, dict)
        one_per_line |= bool(second)
    if one_per_line:
        nested = bool(_poems(value))  # the first line decides for all
        rest = chain(start, lines)
        for number, line in enumerate(rest, start=1):
            line = line.rstrip("\r\n").removeprefix("\ufeff")  # as where files were joined
            if line.strip() in ("[", "{"):  # jq writes a value in several lines, but an empty one in one
                values = _or_data_error(_values, "".join(chain([line, "\n"], rest)), file, number)
            else:
                values = [_or_data_error(_value, line, file, number)] if line.strip() else []
            for value in values:
                yield from _rows_in(value, file, field, None, nested)
        return
    values = [value]
    if value is _INCOMPLETE:
        values = _or_data_error(_values, "".join(start) + lines.read(), file, 1)
    several = len(values) > 1  # each is then like a line
    nested = not several or bool(_poems(values[0]))
    for value in values:
        yield from _rows_in(value, file, field, None if several else notes, nested)


def _value(text: str) -> Any:
    """The JSON value in a text. Raises JSONDecodeError, or RecursionError if it is nested too deeply."""
    return _checked(_DECODER.decode(text), text)


def _values(text: str) -> list[Any]:
    """The JSON values in a text, one after another, as jq writes them. Raises as `_value` does."""
    values, end = [], 0
    while found := _NOT_BLANK.search(text, end):
        value, end = _DECODER.raw_decode(text, found.start())
        values.append(_checked(value, text[found.start() : end]))
    return values


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


def _or_data_error(read: Callable[[str], Any], text: str, file: str, number: int) -> Any:
    """`read(text)` for a text that begins in this line of the file. Raises DataError."""
    try:
        return read(text)
    except json.JSONDecodeError as error:
        where = f"{file}, line {number + error.lineno - 1:,}"
        problem = error.msg.removesuffix(" at")  # "Invalid control character at"
        raise DataError(f"{where}, is not JSON: {problem} at column {error.colno:,}.") from error
    except RecursionError as error:
        where = f"{file}, line {number:,}"
        raise DataError(f"{where}, is nested too deeply: JSON can have {_DEPTH} levels here.") from error


def _rows_in(
    value: Any, file: str, field: str | None, notes: Notes | None, nested: bool = True
) -> Iterator[Row]:
    """The rows in a JSON value: with `notes` a whole file, else a line. If `nested`, poems in it are rows."""
    if field:
        value = _field(value, field, file)
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
    several = isinstance(value, list) and (notes or field) and not is_messages(value)
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

    A list of objects, else one of strings. It holds more text than the rest of the object; otherwise, the
    object is a text with a few facts about it. So is one with a string named "text". Raises DataError if
    there are several lists.
    """
    if type(value.get("text")) is str and value["text"].strip():
        return None
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

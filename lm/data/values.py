"""The values in the rows of a table, and the text that each is read as.

A value becomes text like this: a string is that text; a number or true and false are what the file writes;
a list is its items on one line each; a conversation, a list of objects with `role` and `content` or `from`
and `value`, is one line "role: content" per message; null is not text. Nor is an object: its fields are
columns with dotted names, such as translation.en.
"""

from __future__ import annotations

import re
from typing import Any

from lm.errors import DataError, one_line

Row = dict[str, Any]

MISSING = object()  # the value of a column that a row does not have
LISTED = 20  # columns named in a message
_EXPONENTIAL = re.compile(r"\s*[+-]?(\d[\d.,_]*|\.\d+)e[+-]?\d+\s*", re.IGNORECASE)
_CALLS = ("tool_calls", "function_call")
# The fields for who wrote a message and what. A message that calls tools may have no content.
_SPEAKERS = (("role", "content"), ("from", "value"), *(("role", call) for call in _CALLS))
# The fields by which exports of chats say who wrote a message, and when.
_OF_A_MESSAGE = {"from", "from_id", "sender", "author", "user", "role", "speaker", "actor"} | {
    *("date", "time", "timestamp", "ts", "created_at")
}


class Number(str):
    """A number in JSON as it is written."""


def with_line_feeds(text: str) -> str:
    """The text with the line breaks of a text file that has been read."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def value_at(row: Row, column: str) -> Any:
    """The value of a column with a dotted name such as 'translation.en', or MISSING.

    A column whose own name has dots is preferred. Of a list of objects, it is the list of their values.
    """
    if column in row:
        return row[column]
    for at, character in enumerate(column):
        inner = row.get(column[:at]) if character == "." else None
        if isinstance(inner, dict):
            found = value_at(inner, column[at + 1 :])
            if found is not MISSING:
                return found
        elif isinstance(inner, list):
            values = [value_at(item, column[at + 1 :]) for item in _objects(inner)]
            if found := [value for value in values if value is not MISSING]:
                return found
    return MISSING


def _objects(items: list[Any]) -> list[Row]:
    """The objects in a list, and in the lists in it."""
    found = (_objects(i) if isinstance(i, list) else [i] if isinstance(i, dict) else [] for i in items)
    return [item for each in found for item in each]


def parents(column: str) -> list[str]:
    """'a.b.c' -> ['a', 'a.b']: the columns that may contain a column with a dotted name."""
    return [column[:at] for at, character in enumerate(column) if character == "."]


def distinct_names(names: list[str]) -> list[str]:
    """Distinct names for the columns. An empty or repeated name gets the number of its column at its end,
    again and again until no other column has it."""
    taken = set(names)
    distinct: dict[str, None] = {}
    for number, name in enumerate(names, start=1):
        if not name or name in distinct:
            name = f"{name} {number}".strip()
            while name in taken:
                name += f" {number}"
            taken.add(name)
        distinct[name] = None
    return list(distinct)


def is_messages(value: Any) -> bool:
    """Whether it is a conversation: a list of objects with role and content, or from and value."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(
            isinstance(item, dict)
            and any(isinstance(item.get(who), str) and what in item for who, what in _SPEAKERS)
            for item in value
        )
    )


def is_pieces(value: Any) -> bool:
    """Whether it is a text in pieces, some of which are objects because they have a format: strings and
    objects with a text, or only objects that have a type as well. Messages, which have a sender or a date,
    are each a text."""
    if not isinstance(value, (list, tuple)) or not any(isinstance(item, dict) for item in value):
        return False
    objects = [item for item in value if isinstance(item, dict)]
    strings = [item for item in value if isinstance(item, str)]
    return (
        len(objects) + len(strings) == len(value)
        and all(isinstance(item.get("text"), str) and _OF_A_MESSAGE.isdisjoint(item) for item in objects)
        and (bool(strings) or all(isinstance(item.get("type"), str) for item in objects))
    )


def is_figure(text: str) -> bool:
    """Whether a text is a number, an amount, a date or a time: it has digits and no letters."""
    if any(map(str.isalpha, text)):
        return bool(_EXPONENTIAL.fullmatch(text))
    return any(map(str.isdigit, text))


def listed(names: list[str]) -> str:
    """'id, title, text', shortened."""
    shown = ", ".join(map(shortened, names[:LISTED]))
    return shown + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def shortened(text: str, limit: int = 40) -> str:
    """A text as the beginning of one printable line."""
    line = " ".join(text[: 4 * limit].split())
    shown = one_line(line, limit)
    shown = shown if shown.endswith("…") or len(text) <= 4 * limit else f"{shown}…"
    return "".join(c if c.isprintable() else "\ufffd" for c in shown)


def without_surrogates(text: str, where: str, errors: str) -> str:
    """The text, if it can be written as UTF-8; `errors` "replace" replaces halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "strict":
            raise DataError(
                f"{where} contains {text[error.start]!r}, half of a character; use --encoding-errors replace"
                " to read it anyway."
            ) from error
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of(value: Any) -> str:
    """The text of a value without objects other than messages and pieces. Raises TypeError, naming what it
    is."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_messages(value):
        return "\n".join(filter(None, map(_message, value)))
    if is_pieces(value):
        return "".join(item["text"] if isinstance(item, dict) else item for item in value)
    if isinstance(value, (list, tuple)):
        return "\n".join(text_of(item) for item in value if item is not None)
    if isinstance(value, (bytes, dict)):
        raise TypeError("bytes" if isinstance(value, bytes) else "objects")
    return str(value)  # numbers, dates and times of Parquet


def is_text(value: Any) -> bool:
    """Whether a list of objects is read as text, without choosing one of their fields."""
    return is_messages(value) or is_pieces(value)


def _message(message: Row) -> str:
    """'role: content', or '' without content, as of a call of a tool. Raises TypeError."""
    who, what = next(
        keys for keys in _SPEAKERS if isinstance(message.get(keys[0]), str) and keys[1] in message
    )
    content = None if what in _CALLS else message[what]
    if isinstance(content, list):  # of parts, such as text and images
        content = [part.get("text") if isinstance(part, dict) else part for part in content]
    text = text_of(content) if content is not None else ""
    return f"{message[who]}: {text}" if text else ""


def has_numbers(value: Any) -> bool:
    """Whether a value, or one in a list, is neither null nor a string: a number, true, false, a date."""
    if isinstance(value, (list, tuple)):
        return not is_text(value) and any(map(has_numbers, value))
    return value is not None and type(value) is not str


def inner_columns(value: Any, column: str) -> list[str]:
    """The dotted names of the fields in objects, other than messages and pieces."""
    items = value if isinstance(value, (list, tuple)) else [value]
    if is_text(value):
        return []
    found = {f"{column}.{key}": None for item in items if isinstance(item, dict) for key in item}
    found |= {
        name: None
        for item in items
        if isinstance(item, (list, tuple))
        for name in inner_columns(item, column)
    }
    return list(found)


def all_numbers(value: Any) -> bool:
    """Whether there is no string in a value that is not an object."""
    if isinstance(value, (list, tuple)):
        return not is_text(value) and all(map(all_numbers, value))
    return not isinstance(value, str) or isinstance(value, Number)

"""Messages of `lm` as the page shows them: in the user's language, with field labels in place of flags.

The messages of `lm` are English sentences that contain values and name flags. messages/*.json holds them as
templates, `{}` for a value and `{#}` for a number, each with its Chinese or, where the page has other words
than the command line, its English and its Chinese. There, `{0}` is the first value. A value that is itself
one of these messages is translated as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .i18n import in_chinese, translate

_FOLDER = Path(__file__).parent / "messages"
_FIELD = re.compile(r"\{(#?)\}")
_NUMBER = re.compile(r"-?[\d.,]+(e[+-]?\d+)?")
_FLAG = re.compile(r"(?<![\w-])--(?:no-)?([a-z][a-z-]*)")
_SVG_TEXT = re.compile(r">([^<>]{1,80})</text>")
_HINT = re.compile(r"; did you mean '([^']*)'\?\Z")
_ONE = rf"{_FLAG.pattern}( \(now [^)]*\))?"
_FLAGS = re.compile(rf"{_ONE}((,| and|,? or)( raise| use)? {_ONE})*")
_MAX_DEPTH = 3  # of messages inside messages
# Flags whose settings have a field on the Train tab; others are called by their words: "batch size".
FIELDS = {
    "dataset": "Training text",
    "encoding": "Encoding",
    "encoding-errors": "Replace damaged characters",
    "text-column": "Text column",
    "header": "The first row names the columns",
    "json-field": "List of rows",
    "document-separator": "Between documents",
    "init-from": "Start from",
    "cell": "Cell",
    "tokenizer": "Tokens",
    "hidden-size": "Hidden size",
    "layers": "Layers",
    "max-time": "Training time",
}


@dataclass(frozen=True)
class Message:
    """A message of `lm`, and what the page says instead."""

    parts: tuple[str, ...]  # the literal text before, between and after the values
    numbers: tuple[bool, ...]  # for each value, whether it must be a number
    english: str | None  # None: as it is
    chinese: str

    @property
    def first(self) -> int | None:
        """The number of the value with which the English begins; None if it begins with other words."""
        if self.english is None:
            return None if self.parts[0] else 0
        found = re.match(r"\{(\d)\}", self.english)
        return int(found[1]) if found else None

    def values(self, text: str) -> list[str] | None:
        """The values in a text that is this message; None if it is another one."""
        first, *middle, last = self.parts if self.numbers else (*self.parts, "")
        if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
            return None
        if not self.numbers:
            return [] if text == first else None
        rest, values = text[len(first) : len(text) - len(last)], []
        for part in middle:
            value, found, rest = rest.partition(part)
            if not found:
                return None
            values.append(value)
        values.append(rest)
        fitting = zip(values, self.numbers, strict=True)
        return values if all(_NUMBER.fullmatch(v) for v, is_number in fitting if is_number) else None


@cache
def messages() -> list[Message]:
    """All messages, the most specific ones first."""
    found = []
    for file in sorted(_FOLDER.glob("*.json")):
        for template, words in json.loads(file.read_text("utf-8")).items():
            english, chinese = words if isinstance(words, list) else (None, words)
            parts = _FIELD.split(template)
            numbers = tuple(mark == "#" for mark in parts[1::2])
            found.append(Message(tuple(parts[::2]), numbers, english, chinese))
    return sorted(found, key=lambda message: -sum(map(len, message.parts)))


def svg_in_words_of_the_page(svg: str) -> str:
    """A plot of `lm` with the texts in it that are known in the words of the page."""
    return _SVG_TEXT.sub(lambda text: f">{_translated(text[1], 0) or text[1]}</text>", svg)


def in_words_of_the_page(text: str) -> str:
    """A message of `lm` as the page says it. One that is not known stays English, without flags."""
    hint = _HINT.search(text)
    text = _without_hint(text)
    shown = _translated(text, 0) or without_flags(text)
    return f"{shown} {translate('Did you mean “{name}”?', name=hint[1])}" if hint else shown


def begins_with_name(text: str) -> bool:
    """Whether a message of `lm` begins, in English, with a value that is the name of something."""
    found = _found(_without_hint(text))
    if not found or found[0].first is None:
        return False
    message, values = found
    value = values[message.first or 0]
    return begins_with_name(value) if _found(value) else not value.startswith("the ")


def _without_hint(text: str) -> str:
    """A message without the question that lm.console.wording.did_you_mean adds."""
    return _HINT.sub(".", text)


def _found(text: str) -> tuple[Message, list[str]] | None:
    """The message that a text is, and its values; None if it is not known."""
    for message in messages():
        values = message.values(text)
        if values is not None:
            return message, values
    return None


def _translated(text: str, depth: int) -> str | None:
    """The message in the words of the page; None if it is not known."""
    if depth == _MAX_DEPTH or not (found := _found(text)):
        return None
    message, values = found
    quoted = (part.endswith("'") for part in message.parts)  # words of the user
    shown = [
        value if is_quoted else _translated(value, depth + 1) or _value(value)
        for value, is_quoted in zip(values, quoted, strict=False)
    ]
    if in_chinese():
        return _filled(message.chinese, shown)
    return _filled(message.english, shown) if message.english else _joined(message.parts, shown)


def _value(text: str) -> str:
    """A value; only one that is a list of flags is changed, since others may be words of the user."""
    return without_flags(text) if _FLAGS.fullmatch(text) else text


def _filled(template: str, values: Sequence[str]) -> str:
    return re.sub(r"\{(\d)\}", lambda field: values[int(field[1])], template)


def _joined(parts: Sequence[str], values: Sequence[str]) -> str:
    texts = [without_flags(parts[0])]
    for value, part in zip(values, parts[1:], strict=True):
        texts += [value, without_flags(part)]
    return "".join(texts)


def without_flags(text: str) -> str:
    """A text with the names of fields, or words, in place of flags: '“Hidden size”' for '--hidden-size'."""
    return _FLAG.sub(lambda flag: _quoted(flag[1]), text)


def _quoted(flag: str) -> str:
    label = FIELDS.get(flag)
    return f"“{translate(label)}”" if label else f"“{flag.replace('-', ' ')}”"

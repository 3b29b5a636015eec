"""Documents as bytes: UTF-8 with a SEPARATOR between documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import mmap

import numpy as np

SEPARATOR = b"\xff"  # a byte that never occurs in UTF-8
# What errors="surrogateescape" decodes it to: a lone surrogate, which no text contains.
SEPARATOR_CHARACTER = SEPARATOR.decode("utf-8", "surrogateescape")
CHUNK = 1 << 14  # bytes passed to `tokenizers` at a time
LONGEST = 1 << 20  # bytes of a chunk in which no word ends
_NEAR = 1 << 8  # bytes at the end of a chunk in which a word usually ends


def _after_a_word(whitespace: bytes) -> re.Pattern[bytes]:
    """A pattern for this ASCII whitespace after a character that is not whitespace. That character is checked
    last: a pattern that begins with a set of bytes is found much faster."""
    wide = (  # whitespace beyond ASCII
        *(rb"\xc2[\x85\xa0]", rb"\xe1\x9a\x80", rb"\xe2\x80[\x80-\x8a\xa8\xa9\xaf]"),
        *(rb"\xe2\x81\x9f", rb"\xe3\x80\x80"),
    )
    before = b"".join(b"(?<!" + character + whitespace + b")" for character in wide)
    return re.compile(whitespace + rb"(?<=[^\t-\r ]" + whitespace + b")" + before)


# None of our tokens crosses from a word to the whitespace after it. Some external tokenizers, such as that of
# Llama 3, join punctuation to the line break after it. None joins a letter to a line break, or anything to
# the space after it, so these places come first.
_SPACE, _WHITESPACE = _after_a_word(b" "), _after_a_word(rb"[\t-\r ]")


def is_ascii(text: bytes) -> bool:
    """Whether all characters are ASCII, separators aside."""
    return int(np.count_nonzero(np.frombuffer(text, np.int8) < 0)) == text.count(SEPARATOR)


def count_characters(text: bytes) -> int:
    """The number of characters, separators not included."""
    return int(np.count_nonzero(_starts_character(text))) - text.count(SEPARATOR)


def character_starts(text: bytes | np.ndarray) -> np.ndarray:
    """The offset (characters,) int64 of the first byte of each character and of each separator."""
    return np.flatnonzero(_starts_character(text))


def character_offset(text: bytes, number: int) -> int:
    """The offset of character `number`, counted from 0 without the separators; the end if there is none."""
    starts = character_starts(text)
    starts = starts[np.frombuffer(text, np.uint8)[starts] != SEPARATOR[0]]
    return int(starts[number]) if number < len(starts) else len(text)


def chunks(
    text: bytes | mmap, size: int = CHUNK, longest: int = LONGEST, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
    """The bytes from `start` to `stop` in chunks of about `size`, whose tokens are those of the whole text.

    A chunk ends before whitespace that follows a word, or after a SEPARATOR. It is longer than `size` if a
    word is. Only where more than `longest` bytes have no such place, it ends between two characters.
    """
    stop = len(text) if stop is None else stop
    while start < stop:
        end = start + size
        end = stop if end >= stop else _border(text, start, end, min(start + longest, stop), stop)
        yield text[start:end]
        start = end


def _border(text: bytes | mmap, start: int, end: int, limit: int, stop: int) -> int:
    """Where to end a chunk from `start` to about `end`, or to `limit` if no word ends there."""
    near = max(start, end - _NEAR)
    for begin in (near, start):
        if border := _last(_SPACE, text, begin, end) or _last_after_a_letter(text, begin, end):
            return border
    if border := _last(_WHITESPACE, text, near, end):
        return border
    separator = text.find(SEPARATOR, end, limit + 1) + 1
    if found := _WHITESPACE.search(text, end, separator or limit):
        return found.start()
    if separator or limit == stop:
        return separator or stop
    if border := max(_last(_WHITESPACE, text, start, end), text.rfind(SEPARATOR, start, end) + 1):
        return border
    while text[limit] & 0xC0 == 0x80:
        limit -= 1
    return limit


def _last(pattern: re.Pattern[bytes], text: bytes | mmap, start: int, end: int) -> int:
    """The last match that begins after `start`, up to `end`; 0 if there is none."""
    return max((match.start() for match in pattern.finditer(text, start + 1, end + 1)), default=0)


def _last_after_a_letter(text: bytes | mmap, start: int, end: int) -> int:
    """The last whitespace after a letter or digit, after `start` and up to `end`; 0 if there is none."""
    for match in reversed([*_WHITESPACE.finditer(text, start + 1, end + 1)]):
        before = text[max(match.start() - 4, start) : match.start()].decode("utf-8", "ignore")
        if before[-1:].isalnum():
            return match.start()
    return 0


def _starts_character(text: bytes | np.ndarray) -> np.ndarray:
    # As signed numbers, the continuation bytes of UTF-8 are those below -64.
    return np.frombuffer(text, np.int8) >= -64

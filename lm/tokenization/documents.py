"""Documents as bytes: UTF-8 with a SEPARATOR between documents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SEPARATOR = b"\xff"  # a byte that never occurs in UTF-8
# What errors="surrogateescape" decodes it to: a lone surrogate, which no text contains.
SEPARATOR_CHARACTER = SEPARATOR.decode("utf-8", "surrogateescape")
CHUNK = 1 << 14  # bytes passed to `tokenizers` at a time


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


def chunks(text: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """Split text into chunks of at most `size` bytes, at offsets that `split_offset` finds."""
    start = 0
    while len(text) - start > size:
        end = start + split_offset(text[start : start + size])
        yield text[start:end]
        start = end
    yield text[start:]


def split_offset(text: bytes) -> int:
    """The last offset at which splitting changes no token.

    That is before a space that follows a word, in the second half of the text; without one, between
    two characters.
    """
    offset = len(text)
    while (offset := text.rfind(b" ", max(len(text) // 2, 1), offset)) > 0:
        if not text[offset - 1 : offset].isspace() and text[offset - 1] != SEPARATOR[0]:
            return offset
    offset = len(text) - 1
    while offset > 0 and text[offset] & 0xC0 == 0x80:
        offset -= 1
    return offset or len(text)


def _starts_character(text: bytes | np.ndarray) -> np.ndarray:
    # As signed numbers, the continuation bytes of UTF-8 are those below -64.
    return np.frombuffer(text, np.int8) >= -64

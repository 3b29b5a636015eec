"""Errors for bytes that are not valid in the encoding of a file; they name the likely encoding."""

from __future__ import annotations

import re

from lm.data.binary_files import binary_kind
from lm.data.encodings import SAMPLE, is_same, plausibility, recognize_escapes
from lm.data.likely_encoding import likely_encodings
from lm.errors import DataError

_SHOWN = 60  # characters of a line in an error


class EncodingError(DataError):
    """Bytes that are not valid in the encoding of a file."""

    def __init__(self, message: str, sample: bytes = b"", at: int = 0):
        """`sample`: lines of the file, in which the bytes are at the offset `at`."""
        super().__init__(message)
        self._sample, self._at = sample, at

    def line(self, encoding: str) -> str | None:
        """The line with those bytes, read in another encoding; None if it is not valid in that one either."""
        if not self._sample or not plausibility(self._sample, encoding):
            return None
        return _line(self._sample, self._at, encoding)


def not_decodable(
    file: str, data: bytes, start: int, offset: int, name: str, at_end: bool = False
) -> EncodingError:
    """The error for the byte at `start` of `data`, which is at position `offset` of the file.

    `at_end`: whether the file ends within the character that begins there.
    """
    shown = "UTF-8" if name == "utf-8" else name
    problem = f"{file} is not {shown}: byte 0x{data[start]:02x} at position {offset:,}"
    if kind := binary_kind(data[:SAMPLE]) if offset < SAMPLE else None:
        return EncodingError(f"{problem}; it looks like {kind}, not text.")
    sample, at = _around(data, start)
    valid, damaged = _utf_8_characters(sample)
    if at_end and (valid if name == "utf-8" else damaged or name.startswith(("utf-16", "utf-32"))):
        return EncodingError(
            f"{problem}; the file ends within a character: get the whole file, or replace the character with"
            " --encoding-errors replace."
        )
    if name == "utf-8" and valid > 2 * damaged:  # by chance, text in other encodings has few valid ones
        line = _line(sample, at, "utf-8")
        return EncodingError(
            f"{problem}; it is UTF-8 with a damaged character ('{line}'): repair it there, or replace it with"
            " --encoding-errors replace."
        )
    likely = likely_encodings(sample) if name == "utf-8" or damaged else ["utf-8"]
    likely = [each for each in likely if not is_same(each, name)]
    if not likely:
        message = f"{problem}; name its encoding with --encoding."
    elif len(likely) == 1:
        line = _line(sample, at, likely[0])
        message = f"{problem}; it looks like {likely[0]} ('{line}'): use --encoding {likely[0]}."
    else:
        differing = _differing(sample, at, likely)
        lines = ", ".join(f"{each} ('{_line(sample, differing, each)}')" for each in likely)
        message = f"{problem}; it may be {lines}: name the one whose line is right with --encoding."
    return EncodingError(message, sample, at)


def check_escapes(file: str, block: bytes) -> None:
    """Raise EncodingError, naming `file`, if ASCII text is in an encoding with escape sequences."""
    if likely := recognize_escapes(block):
        text = block.decode(likely, "replace")
        first = next((i for i, character in enumerate(text) if character > "\x7f"), 0)
        line = _shortened(text[:first], text[first:])
        raise EncodingError(
            f"{file} looks like {likely} ('{line}'): use --encoding {likely}, or utf-8 to keep its escape"
            " sequences.",
            block[:SAMPLE],
        )


def _around(data: bytes, start: int) -> tuple[bytes, int]:
    """Whole lines around an offset as a sample of the text, and the offset in it."""
    begin = 0 if start < SAMPLE // 2 else max(start - SAMPLE // 2, data.rfind(b"\n", 0, start) + 1)
    end = min(begin + SAMPLE, len(data))
    if end < len(data):
        end = max(data.rfind(b"\n", 0, end), data.find(b"\n", start, end), start + 1)
    return data[begin:end], start - begin


def _utf_8_characters(sample: bytes) -> tuple[int, int]:
    """How many characters beyond ASCII are valid UTF-8, and how many are not."""
    text = sample.decode("utf-8", "surrogateescape")
    damaged = sum("\ud800" <= character <= "\udfff" for character in text)
    return sum(character > "\x7f" for character in text) - damaged, damaged


def _differing(sample: bytes, at: int, encodings: list[str]) -> int:
    """The first offset from `at` on of a byte that most of the encodings read as different characters."""
    readings = [len({bytes([b]).decode(name, "replace") for name in encodings}) for b in range(256)]
    return max(range(at, len(sample)), key=lambda offset: readings[sample[offset]])


def _line(sample: bytes, at: int, encoding: str) -> str:
    """The line around an offset of a sample, decoded, printable and shortened around that offset."""
    return _shortened(sample[:at].decode(encoding, "replace"), sample[at:].decode(encoding, "replace"))


def _shortened(before: str, after: str) -> str:
    """The line around a position in a text, printable and shortened around that position."""
    before, after = re.split(r"[\r\n]", before)[-1], re.split(r"[\r\n]", after)[0]
    left, right = before[-_SHOWN // 2 :], after[: _SHOWN // 2]
    line = (
        ("… " if len(left) < len(before) else "") + left + right + (" …" if len(right) < len(after) else "")
    )
    return "".join(c if c.isprintable() else "\ufffd" for c in line).strip()

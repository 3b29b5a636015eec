"""From the bytes of a file to text: decoded block by block, with line feeds as line breaks.

Text of any size is decoded in constant memory. Valid UTF-8 is only checked and passed on as it is.
"""

from __future__ import annotations

import codecs
import io
import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO

from lm.console.wording import plural
from lm.data.binary_files import check_is_text
from lm.data.encoding_errors import check_escapes, not_decodable
from lm.data.encodings import SAMPLE, encoding_of, is_same
from lm.errors import DataError, one_line
from lm.tokenization.documents import count_characters

BLOCK = 1 << 20  # bytes
# Fraction of the characters that --encoding-errors replace may change without a warning.
REPLACED_LIMIT = 0.001

_BOM = "\ufeff"
_FILES = 3  # named in a warning


@dataclass
class Decoded:
    """What decoding files did to their characters."""

    characters: int = 0  # counted only with errors="replace"
    replaced: int = 0  # that became U+FFFD because their bytes are not valid
    # Files that were read in their own encoding instead of the one that was named.
    own_encoding: dict[str, None] = field(default_factory=dict)


def decoded(
    opened: IO[bytes],
    file: str,
    encoding: str | None = None,
    errors: str = "strict",
    done: Decoded | None = None,
    line_breaks: bool = True,
) -> Iterator[bytes]:
    r"""The text of a binary file in blocks of UTF-8, without a byte-order mark.

    The encoding is that of the byte-order mark, else `encoding`, else UTF-16 or UTF-32 if that is clear, else
    UTF-8. A file that is valid UTF-8 with characters beyond ASCII is read as UTF-8 even if another `encoding`
    is named, except ASCII or UTF-7. `errors` is "strict" or "replace"; what was done to the text is added to
    `done`. `line_breaks` turns "\r\n" and "\r" into "\n". Raises DataError, naming `file`, if it is not text
    or the bytes are not valid.
    """
    blocks = _utf_8_blocks(opened, file, encoding, errors, done or Decoded())
    return _with_line_breaks(blocks) if line_breaks else filter(None, blocks)


def open_text(
    opened: IO[bytes],
    file: str,
    encoding: str | None = None,
    errors: str = "strict",
    done: Decoded | None = None,
) -> io.TextIOWrapper:
    """The text of a binary file as a text file, decoded as `decoded` does but with its own line breaks."""
    blocks = decoded(opened, file, encoding, errors, done, line_breaks=False)
    return io.TextIOWrapper(io.BufferedReader(_Blocks(blocks), BLOCK), encoding="utf-8", newline="")


def replaced_warning(replaced: int, characters: int) -> str | None:
    """A warning if --encoding-errors replace has changed more than a few of the characters."""
    if replaced <= REPLACED_LIMIT * characters:
        return None
    return (
        f"--encoding-errors replace changed {replaced:,} of {plural(characters, 'character')}"
        f" ({replaced / characters:.2%}) to U+FFFD: the text probably has another encoding; without this"
        " flag, the error names it."
    )


def own_encoding_warning(files: Collection[str]) -> str | None:
    """A warning if files were not read in the encoding that was named."""
    if not files:
        return None
    names = ", ".join(one_line(os.path.basename(file.partition("::")[0])) for file in islice(files, _FILES))
    return (
        f"--encoding was not used for {plural(len(files), 'file')}"
        f" ({names}{', …' if len(files) > _FILES else ''}): UTF-8 and byte-order marks take precedence."
    )


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a file to read."""

    def __init__(self, blocks: Iterator[bytes]):
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


def _utf_8_blocks(
    opened: IO[bytes], file: str, encoding: str | None, errors: str, done: Decoded
) -> Iterator[bytes]:
    block = opened.read(max(BLOCK, len(codecs.BOM_UTF32)))
    name, mark = encoding_of(block, encoding)
    if encoding and not mark and _is_utf_8_instead(block, opened, encoding):
        name = "utf-8"
    if encoding and not is_same(name, encoding):
        done.own_encoding[file] = None
    check_is_text(file, block[:SAMPLE], name)
    block = block.removeprefix(mark) or opened.read(BLOCK)
    decoder = codecs.getincrementaldecoder(name)("strict" if errors == "strict" else _REPLACE)
    is_utf_8 = codecs.lookup(name).name in ("utf-8", "utf-8-sig")
    position, first, before = len(mark), True, _replaced_so_far()
    recent = b""  # the bytes before the block, to show in an error
    while True:
        if not encoding and is_utf_8 and (b"\x1b$" in block or b"~{" in block):
            check_escapes(file, block)
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(block, final=not block)
            if is_utf_8 and errors == "strict":
                encoded = block  # with the beginning or without the end of a character, as the file has it
            else:
                text = text.removeprefix(_BOM) if first and not mark else text
                encoded = text.encode("utf-8", "strict" if errors == "strict" else _REPLACE)
        except UnicodeDecodeError as error:
            start = error.start - len(pending)  # in the block
            raise not_decodable(
                file, recent + block, len(recent) + start, position + start, name, at_end=not block
            ) from error
        except UnicodeError as error:  # half of a surrogate pair
            raise DataError(f"{file} is not {name}: {error}.".replace("\n", " ")) from error
        if errors != "strict":
            done.characters += count_characters(encoded)
            done.replaced += _replaced_so_far() - before
            before = _replaced_so_far()
        first = first and not text
        yield encoded
        if not block:
            return
        position, recent = position + len(block), (recent + block)[-SAMPLE:]
        block = opened.read(BLOCK)


def _is_utf_8_instead(block: bytes, opened: IO[bytes], encoding: str) -> bool:
    """Whether a file that begins with `block` is UTF-8 beyond ASCII rather than in an encoding of bytes.

    Text in another encoding is not UTF-8 by chance, except a few characters of two bytes. Reads on until that
    is certain, and returns to the end of the block.
    """
    name = codecs.lookup(encoding).name
    if name.startswith(("utf-7", "utf-8", "ascii")):
        return False
    is_wide = name.startswith(("utf-16", "utf-32"))  # a space in them contains a NUL
    is_single_byte = len(bytes(range(0x80, 0x100)).decode(encoding, "replace")) == 0x80
    # UTF-8 of three bytes begins with 0xE0.
    inconclusive = bytes(range(0x80 if is_single_byte or is_wide else 0xE0))
    decoder, found, more = codecs.getincrementaldecoder("utf-8")(), False, block
    try:
        while more:
            decoder.decode(more)
            if is_wide and b"\0" in more:
                return False
            found = found or bool(more.translate(None, inconclusive))
            more = opened.read(BLOCK)
        decoder.decode(b"", final=True)
        return found
    except UnicodeDecodeError:
        return False
    finally:
        opened.seek(len(block))


def _with_line_breaks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    carried = b""
    for block in blocks:
        clean = carried + block
        carried = b"\r" if clean.endswith(b"\r") else b""  # "\n" may follow in the next block
        clean = clean.removesuffix(carried)
        if b"\r" in clean:
            clean = clean.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if clean:
            yield clean
    if carried:
        yield b"\n"


_REPLACE = "lm.replace"  # as Python's "replace", and counts
_counter = threading.local()


def _replaced_so_far() -> int:
    """The number of replacements in this thread since it started."""
    return getattr(_counter, "replaced", 0)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, (UnicodeDecodeError, UnicodeEncodeError))
    halves = error.end - error.start if isinstance(error, UnicodeEncodeError) else 0  # of surrogate pairs
    _counter.replaced = _replaced_so_far() + max(halves, 1)
    return "\ufffd".encode() * halves if halves else "\ufffd", error.end


codecs.register_error(_REPLACE, _replace)

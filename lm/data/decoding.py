"""From bytes to text: the encoding of a file, line breaks, and errors that name the likely encoding.

Text of any size is decoded in constant memory. Valid UTF-8 is only checked and passed on as it is.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import encodings.aliases
import io
import re
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from lm.errors import DataError, UserError
from lm.tokenization.documents import count_characters
from lm.wording import plural

BLOCK = 1 << 20  # bytes
REPLACED_LIMIT = (
    0.001  # fraction of the characters that --encoding-errors replace may change without a warning
)

_SAMPLE = 1 << 15  # bytes by which an encoding is recognized
_SHOWN = 60  # characters of a line in an error
_BOMS = (  # that of UTF-32-LE begins with that of UTF-16-LE
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BOM = "\ufeff"
# Codecs of Python that do not decode files: they need the whole text at once, or never succeed.
_NOT_FOR_FILES = {"idna", "punycode", "undefined"}
# Of encodings that decode a text to the same characters, the one to suggest.
_COMMON = (
    *("cp1252", "gb18030", "cp932", "euc_jp", "cp949", "big5", "cp1251", "koi8_r", "cp1250", "cp1253"),
    *("cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "mac_roman", "utf_16_le", "utf_16_be"),
)
_SIGNATURES = {  # the first bytes of files that are not text
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"RIFF": "a sound, image or video",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a zip archive or an office document",
    b"PK\x05\x06": "a zip archive",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!\x1a": "a rar archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"ID3": "a sound",
    b"fLaC": "a sound",
    b"OggS": "a sound",
    b"\x1aE\xdf\xa3": "a video",
    b"SQLite format 3\0": "a database",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\xca\xfe\xba\xbe": "a program",
    b"wOFF": "a font",
    b"wOF2": "a font",
    b"OTTO": "a font",
    b"\0\1\0\0": "a font",
}
_PRINTABLE_SIGNATURES = (b"BM", b"MZ", b"ID3", b"BZh", b"RIFF", b"GIF8", b"%PDF-", b"OTTO")
_BINARY = 0.01  # fraction of control and unassigned characters, of which text has almost none
_CONTROLS = bytes(c for c in range(0x20) if c not in b"\t\n\v\f\r\b\x1b")


class EncodingError(DataError):
    """Bytes that are not valid in the encoding of a file."""

    def __init__(self, message: str, sample: bytes = b"", at: int = 0):
        """`sample`: lines of the file, in which the bytes are at the offset `at`."""
        super().__init__(message)
        self._sample, self._at = sample, at

    def line(self, encoding: str) -> str | None:
        """The line with those bytes, read in another encoding; None if it is not valid in that one either."""
        if not self._sample or not _plausibility(self._sample, encoding):
            return None
        return _line(self._sample, self._at, encoding)


@dataclass
class Decoded:
    """What decoding files did to their characters."""

    characters: int = 0  # counted only with errors="replace"
    replaced: int = 0  # that became U+FFFD because their bytes are not valid


def check_encoding(name: str) -> str:
    """`name`, if it is an encoding that Python can decode files with. Raises UserError."""
    if not _is_encoding(name):
        aliases = encodings.aliases.aliases
        written = re.sub(r"[^a-z0-9]+", "_", name.lower())
        names = sorted(each for each in {*aliases, *aliases.values()} if _is_encoding(each))
        close = difflib.get_close_matches(written, names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "examples are cp1252, gb18030 and utf-16."
        raise UserError(f"--encoding '{name}' is not an encoding that Python knows; {hint}")
    return name


def _is_encoding(name: str) -> bool:
    try:
        with contextlib.suppress(UnicodeError):  # one byte is too little for UTF-16
            b"a".decode(name)
        return codecs.lookup(name).name not in _NOT_FOR_FILES
    except (LookupError, ValueError):
        return False


def decoded(
    opened: IO[bytes],
    file: str,
    encoding: str | None = None,
    errors: str = "strict",
    done: Decoded | None = None,
    line_breaks: bool = True,
) -> Iterator[bytes]:
    r"""The text of a binary file in blocks of UTF-8, without a byte-order mark.

    By default, `encoding` is that of the byte-order mark, else UTF-16 if that is clear, else UTF-8.
    `errors` is "strict" or "replace"; what the latter did is added to `done`. `line_breaks` turns "\r\n" and
    "\r" into "\n". Raises DataError, naming `file`, if the bytes are not valid.
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


def binary_kind(sample: bytes, encoding: str | None = None) -> str | None:
    """'a JPEG image', 'a binary file' and the like, judged by a file's first bytes; None for text."""
    if known := known_kind(sample):
        return known
    if any(sample.startswith(bom) for bom, _ in _BOMS) or _utf_16(sample):
        return None
    if encoding and not codecs.lookup(encoding).name.startswith("utf-8"):
        sample = sample.decode(encoding, "replace").encode("utf-8", "replace")
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return "a binary file" if controls > _BINARY * len(sample) else None


def known_kind(sample: bytes) -> str | None:
    """'a JPEG image' and the like, if a file's first bytes are those of a format that is not text."""
    if sample[4:8] == b"ftyp":
        return "a video"
    signature = next((s for s in _SIGNATURES if sample.startswith(s)), None)
    if signature and (signature not in _PRINTABLE_SIGNATURES or not _is_utf_8(sample) or b"\0" in sample):
        return _SIGNATURES[signature]
    return None


def replaced_warning(replaced: int, characters: int) -> str | None:
    """A warning if --encoding-errors replace has changed more than a few of the characters."""
    if replaced <= REPLACED_LIMIT * characters:
        return None
    return (
        f"--encoding-errors replace changed {replaced:,} of {plural(characters, 'character')}"
        f" ({replaced / characters:.2%}) to U+FFFD: the text probably has another encoding; without this"
        " flag, the error names it."
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
    name, mark = _encoding_of(block, encoding)
    block = block.removeprefix(mark) or opened.read(BLOCK)
    decoder = codecs.getincrementaldecoder(name)("strict" if errors == "strict" else _REPLACE)
    is_utf_8 = codecs.lookup(name).name in ("utf-8", "utf-8-sig")
    position, first, before = len(mark), True, _replaced_so_far()
    while True:
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(block, final=not block)
            if is_utf_8 and errors == "strict":
                encoded = block  # with the beginning or without the end of a character, as the file has it
            else:
                text = text.removeprefix(_BOM) if first and not mark else text
                encoded = text.encode("utf-8", "strict" if errors == "strict" else "replace")
        except UnicodeDecodeError as error:
            offset = position - len(pending) + error.start
            raise _not_decodable(file, pending + block, error.start, offset, name) from error
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
        position += len(block)
        block = opened.read(BLOCK)


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


def _encoding_of(start: bytes, encoding: str | None) -> tuple[str, bytes]:
    """The encoding of a file that starts with these bytes, and its byte-order mark."""
    if encoding is None:
        for mark, name in _BOMS:
            if start.startswith(mark):
                return name, mark
        return _utf_16(start) or "utf-8", b""
    name = codecs.lookup(encoding).name
    if name in ("utf-8", "utf-8-sig"):
        return "utf-8", codecs.BOM_UTF8 if start.startswith(codecs.BOM_UTF8) else b""
    if name in ("utf-16", "utf-32"):
        marks = [(mark, each) for mark, each in _BOMS if each.startswith(name) and start.startswith(mark)]
        if marks:
            return marks[0][1], marks[0][0]
        return (_utf_16(start) if name == "utf-16" else None) or f"{name}-le", b""
    return encoding, b""


def _utf_16(start: bytes) -> str | None:
    """The byte order of UTF-16 without a byte-order mark, if the text clearly is that.

    Western text has a zero byte at every other position, and only there. Other text has zero bytes too, those
    of spaces and line breaks; it is UTF-16 if it is not UTF-8 and all its characters are assigned.
    """
    sample = start[: _SAMPLE & ~1]
    sample = sample[: len(sample) & ~1]
    if len(sample) < 8 or b"\0" not in sample:
        return None
    zeros = [sample[parity::2].count(0) for parity in (0, 1)]
    for parity, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[parity] >= len(sample) // 4 and not zeros[1 - parity] and _plausibility(sample, name):
            return name
    if _is_utf_8(sample):
        return None
    found = {name: _plausibility(sample, name) for name in ("utf-16-le", "utf-16-be")}
    best = max(found, key=lambda name: found[name])
    return best if found[best] > 0 else None


def _plausibility(sample: bytes, name: str) -> float:
    """The fraction of ASCII and East Asian punctuation in the text, or 0 if it has many odd characters."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    odd = sum(unicodedata.category(c) in ("Cn", "Co", "Cc") and c not in "\t\n\r\f" for c in text)
    if odd > _BINARY * len(text):
        return 0.0
    usual = sum(c < "\x7f" or "\u3000" < c <= "\u3011" or "\uff00" < c <= "\uff1f" for c in text)
    return usual / len(text) if usual * 100 >= len(text) else 0.0


def _is_utf_8(sample: bytes) -> bool:
    """Whether the bytes are the beginning of a UTF-8 file."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _not_decodable(file: str, data: bytes, start: int, offset: int, name: str) -> EncodingError:
    """The error for the byte at `start` of `data`, which is at position `offset` of the file."""
    shown = "UTF-8" if name == "utf-8" else name
    problem = f"{file} is not {shown}: byte 0x{data[start]:02x} at position {offset:,}"
    if kind := binary_kind(data[:_SAMPLE]) if offset < _SAMPLE else None:
        return EncodingError(f"{problem}; it looks like {kind}, not text.")
    sample, at = _around(data, start)
    valid, damaged = _utf_8_characters(sample)
    if name == "utf-8" and valid > 10 * damaged:
        line = _line(sample, at, "utf-8")
        return EncodingError(
            f"{problem}; it is UTF-8 with a damaged character ('{line}'): repair it there, or replace it with"
            " --encoding-errors replace."
        )
    likely = likely_encoding(sample) if name == "utf-8" or damaged else "utf-8"
    if likely is None or codecs.lookup(likely).name == codecs.lookup(name).name:
        return EncodingError(f"{problem}; name its encoding with --encoding.", sample, at)
    line = _line(sample, at, likely)
    message = f"{problem}; it looks like {likely} ('{line}'): use --encoding {likely}."
    return EncodingError(message, sample, at)


def likely_encoding(sample: bytes) -> str | None:
    """The most likely encoding of text that is not UTF-8, or None if nothing fits."""
    import charset_normalizer  # takes a tenth of a second

    matches = list(charset_normalizer.from_bytes(sample))
    if not matches:
        return None
    best = matches[0]
    similar = [
        match.could_be_from_charset
        for match in matches
        if match.chaos <= best.chaos + 0.02 and match.coherence >= best.coherence - 0.1
    ]
    if any("cp1252" in names for names in similar):
        return "cp1252"
    found = next((name for name in _COMMON if name in similar[0]), best.encoding)
    return codecs.lookup(found).name


def _around(data: bytes, start: int) -> tuple[bytes, int]:
    """Whole lines around an offset as a sample of the text, and the offset in it."""
    begin = 0 if start < _SAMPLE // 2 else max(start - _SAMPLE // 2, data.rfind(b"\n", 0, start) + 1)
    end = min(begin + _SAMPLE, len(data))
    if end < len(data):
        end = max(data.rfind(b"\n", 0, end), data.find(b"\n", start, end), start + 1)
    return data[begin:end], start - begin


def _utf_8_characters(sample: bytes) -> tuple[int, int]:
    """How many characters beyond ASCII are valid UTF-8, and how many are not."""
    text = sample.decode("utf-8", "surrogateescape")
    damaged = sum("\ud800" <= character <= "\udfff" for character in text)
    return sum(character > "\x7f" for character in text) - damaged, damaged


def _line(sample: bytes, at: int, encoding: str) -> str:
    """The line around an offset of a sample, decoded, printable and shortened around that offset."""
    before = sample[:at].decode(encoding, "replace")
    after = sample[at:].decode(encoding, "replace")
    before, after = re.split(r"[\r\n]", before)[-1], re.split(r"[\r\n]", after)[0]
    left, right = before[-_SHOWN // 2 :], after[: _SHOWN // 2]
    line = (
        ("… " if len(left) < len(before) else "") + left + right + (" …" if len(right) < len(after) else "")
    )
    return "".join(c if c.isprintable() else "\ufffd" for c in line).strip()


_REPLACE = "lm.replace"  # as Python's "replace", and counts
_counter = threading.local()


def _replaced_so_far() -> int:
    """The number of replacements in this thread since it started."""
    return getattr(_counter, "replaced", 0)


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    _counter.replaced = _replaced_so_far() + 1
    return "\ufffd", error.end


codecs.register_error(_REPLACE, _replace)

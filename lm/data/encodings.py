"""Recognizes the encoding of a text by its bytes: byte-order marks, UTF-16, UTF-32, and escape sequences."""

from __future__ import annotations

import codecs
import contextlib
import encodings.aliases
import re
import unicodedata

from lm.console.wording import similar, suggesting
from lm.errors import UserError

SAMPLE = 1 << 15  # bytes by which an encoding is recognized
MAX_ODD = 0.01  # fraction of control and unassigned characters, of which text has almost none
BOMS = (  # that of UTF-32-LE begins with that of UTF-16-LE
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Codecs of Python that do not decode files: they need the whole text at once, or never succeed.
_NOT_FOR_FILES = {"idna", "punycode", "undefined"}
# Control characters that text does not contain. (Text may contain NUL.)
NEVER_IN_TEXT = bytes(c for c in range(1, 0x20) if c not in b"\t\n\v\f\r\b\x1b")
_ISO_2022 = re.compile(rb"\x1b\$([@AB]|\([@A-DOPQ]|\)C)")
_ISO_2022_NAMES = ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2", "iso2022_jp_2004", "iso2022_kr")
_HZ = re.compile(rb"~\{([\x21-\x77][\x21-\x7e])+~\}")


def check_encoding(name: str) -> str:
    """`name`, if it is an encoding that Python can decode files with. Raises UserError."""
    if not _is_encoding(name):
        aliases = encodings.aliases.aliases
        written = re.sub(r"[^a-z0-9]+", "_", name.lower())
        names = sorted(each for each in {*aliases, *aliases.values()} if _is_encoding(each))
        near = similar(written, names)
        hint = suggesting(near) if near else "; examples are cp1252, gb18030 and utf-16."
        raise UserError(f"--encoding '{name}' is not an encoding that Python knows{hint}")
    return name


def _is_encoding(name: str) -> bool:
    try:
        with contextlib.suppress(UnicodeError):  # one byte is too little for UTF-16
            b"a".decode(name)
        return codecs.lookup(name).name not in _NOT_FOR_FILES
    except (LookupError, ValueError):
        return False


def encoding_of(start: bytes, encoding: str | None) -> tuple[str, bytes]:
    """The encoding of a file that starts with these bytes, and its byte-order mark.

    The mark takes precedence over the `encoding` that is named.
    """
    named = codecs.lookup(encoding).name if encoding else ""
    # If UTF-16 is named, its mark and a NUL are not the mark of UTF-32.
    for mark, name in sorted(BOMS, key=lambda each: not each[1].startswith(named[:6] or " ")):
        if start.startswith(mark):
            return name, mark
    if not encoding:
        return recognize_wide(start) or "utf-8", b""
    if named in ("utf-16", "utf-32"):
        found = recognize_wide(start) or ""
        return found if found.startswith(named) else f"{named}-le", b""
    return "utf-8" if named == "utf-8-sig" else encoding, b""


def is_same(encoding: str, named: str) -> bool:
    """Whether an encoding is the one that is named: "utf-16-le" is "utf-16", too."""
    return codecs.lookup(encoding).name.startswith(codecs.lookup(named).name.removesuffix("-sig"))


def recognize_wide(start: bytes) -> str | None:
    """The name of UTF-16 or UTF-32 without a byte-order mark, if the text clearly is that.

    In UTF-16, the upper bytes of most alphabets are control characters: 0 for ASCII, 4 for Cyrillic, 14 for
    Thai. East Asian text has control characters anywhere, among them zero bytes, those of spaces and line
    breaks; it is UTF-16 if it is not UTF-8 and all its characters are assigned.
    """
    sample = start[:SAMPLE]
    if len(sample) < 8 or b"\0" not in sample:
        return None
    if 2 * sample.count(0) >= len(sample):
        for name in ("utf-32-le", "utf-32-be"):
            if min(_text(sample, name), default="\xff") < "\x7f":  # a space or a line break
                return name
    sample = sample[: len(sample) & ~1]
    for parity, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        upper, lower = sample[parity::2], sample[1 - parity :: 2]
        controls = len(upper) - len(upper.translate(None, bytes(range(0x20))))
        few_zeros = lower.count(0) * 8 <= controls  # of letters such as Ā
        if 4 * controls >= 3 * len(upper) and 0 in upper and few_zeros and _text(sample, name):
            return name
    controls = len(sample) - len(sample.translate(None, NEVER_IN_TEXT))
    if is_utf_8(sample) or controls * 200 < len(sample):
        return None
    found = {name: plausibility(sample, name) for name in ("utf-16-le", "utf-16-be")}
    best = max(found, key=lambda name: found[name])
    return best if found[best] > 0 else None


def recognize_escapes(block: bytes) -> str | None:
    """The encoding of ASCII text that switches to another alphabet by escape sequences: ISO-2022 or HZ."""
    if not block.isascii():
        return None
    is_iso_2022 = bool(_ISO_2022.search(block))
    for name in _ISO_2022_NAMES if is_iso_2022 else ("hz",) if _HZ.search(block) else ():
        with contextlib.suppress(UnicodeDecodeError):
            if not codecs.getincrementaldecoder(name)().decode(block).isascii():
                return name
    return _ISO_2022_NAMES[0] if is_iso_2022 else None


def plausibility(sample: bytes, name: str) -> float:
    """The fraction of ASCII and East Asian punctuation in the text, or 0 if it has many odd characters."""
    text = _text(sample, name)
    usual = sum(c < "\x7f" or "\u3000" < c <= "\u3011" or "\uff00" < c <= "\uff1f" for c in text)
    return usual / len(text) if text and usual * 100 >= len(text) else 0.0


def _text(sample: bytes, name: str) -> str:
    """The sample as text; empty if that is not valid or has many odd characters."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return ""
    odd = sum(unicodedata.category(c) in ("Cn", "Co", "Cc") and c not in "\t\n\r\f" for c in text)
    return "" if odd > MAX_ODD * len(text) else text


def is_utf_8(sample: bytes) -> bool:
    """Whether the bytes are the beginning of a UTF-8 file."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True

"""Recognizes the encoding of a text by its first bytes: byte-order marks, UTF-16, and the most likely one."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import encodings.aliases
import re
import unicodedata

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
# Of encodings that decode a text to the same characters, the one to suggest.
_COMMON = (
    *("cp1252", "gb18030", "cp932", "euc_jp", "cp949", "big5", "cp1251", "koi8_r", "cp1250", "cp1253"),
    *("cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "mac_roman", "utf_16_le", "utf_16_be"),
)


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


def encoding_of(start: bytes, encoding: str | None) -> tuple[str, bytes]:
    """The encoding of a file that starts with these bytes, and its byte-order mark."""
    if encoding is None:
        for mark, name in BOMS:
            if start.startswith(mark):
                return name, mark
        return recognize_utf_16(start) or "utf-8", b""
    name = codecs.lookup(encoding).name
    if name in ("utf-8", "utf-8-sig"):
        return "utf-8", codecs.BOM_UTF8 if start.startswith(codecs.BOM_UTF8) else b""
    if name in ("utf-16", "utf-32"):
        marks = [(mark, each) for mark, each in BOMS if each.startswith(name) and start.startswith(mark)]
        if marks:
            return marks[0][1], marks[0][0]
        return (recognize_utf_16(start) if name == "utf-16" else None) or f"{name}-le", b""
    return encoding, b""


def recognize_utf_16(start: bytes) -> str | None:
    """The byte order of UTF-16 without a byte-order mark, if the text clearly is that.

    Western text has a zero byte at every other position, and only there. Other text has zero bytes too, those
    of spaces and line breaks; it is UTF-16 if it is not UTF-8 and all its characters are assigned.
    """
    sample = start[: SAMPLE & ~1]
    sample = sample[: len(sample) & ~1]
    if len(sample) < 8 or b"\0" not in sample:
        return None
    zeros = [sample[parity::2].count(0) for parity in (0, 1)]
    for parity, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[parity] >= len(sample) // 4 and not zeros[1 - parity] and plausibility(sample, name):
            return name
    if is_utf_8(sample):
        return None
    found = {name: plausibility(sample, name) for name in ("utf-16-le", "utf-16-be")}
    best = max(found, key=lambda name: found[name])
    return best if found[best] > 0 else None


def plausibility(sample: bytes, name: str) -> float:
    """The fraction of ASCII and East Asian punctuation in the text, or 0 if it has many odd characters."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    odd = sum(unicodedata.category(c) in ("Cn", "Co", "Cc") and c not in "\t\n\r\f" for c in text)
    if odd > MAX_ODD * len(text):
        return 0.0
    usual = sum(c < "\x7f" or "\u3000" < c <= "\u3011" or "\uff00" < c <= "\uff1f" for c in text)
    return usual / len(text) if usual * 100 >= len(text) else 0.0


def is_utf_8(sample: bytes) -> bool:
    """Whether the bytes are the beginning of a UTF-8 file."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


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

"""Recognizes files that are not text: by the first bytes of known formats, and by control characters."""

from __future__ import annotations

import codecs

from lm.data.encodings import BOMS, MAX_ODD, is_utf_8, recognize_utf_16

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
_CONTROLS = bytes(c for c in range(0x20) if c not in b"\t\n\v\f\r\b\x1b")


def binary_kind(sample: bytes, encoding: str | None = None) -> str | None:
    """'a JPEG image', 'a binary file' and the like, judged by a file's first bytes; None for text."""
    if known := known_kind(sample):
        return known
    if any(sample.startswith(bom) for bom, _ in BOMS) or recognize_utf_16(sample):
        return None
    if encoding and not codecs.lookup(encoding).name.startswith("utf-8"):
        sample = sample.decode(encoding, "replace").encode("utf-8", "replace")
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return "a binary file" if controls > MAX_ODD * len(sample) else None


def known_kind(sample: bytes) -> str | None:
    """'a JPEG image' and the like, if a file's first bytes are those of a format that is not text."""
    if sample[4:8] == b"ftyp":
        return "a video"
    signature = next((s for s in _SIGNATURES if sample.startswith(s)), None)
    if signature and (signature not in _PRINTABLE_SIGNATURES or not is_utf_8(sample) or b"\0" in sample):
        return _SIGNATURES[signature]
    return None

"""Recognizes files that are not text: by the first bytes of known formats, and by control characters."""

from __future__ import annotations

import codecs
import re
import tarfile

from lm.data.encodings import BOMS, MAX_ODD, NEVER_IN_TEXT, recognize_escapes, recognize_wide
from lm.errors import DataError

BINARY = "a binary file"
# What to do with files that are not text -> what they are -> their first bytes.
_FORMATS = {
    "unpack it and pass the folder": {
        "a 7z archive": rb"7z\xbc\xaf",
        "a rar archive": rb"Rar!\x1a",
    },
    "save the document as text, or rename the archive to end in .zip": {
        "a zip archive or an office document": rb"PK\x03\x04",
        "a zip archive": rb"PK\x05\x06",
    },
    "unpack it first": {
        "a gzip archive": rb"\x1f\x8b",
        "a bzip2 archive": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
        "an xz archive": rb"\xfd7zXZ\0",
        "a zstd archive": rb"\x28\xb5\x2f\xfd",
        "an lz4 archive": rb"\x04\x22M\x18",
        "a compressed file": rb"\x1f\x9d",
    },
    "save it as text first": {
        "a PDF document": rb"(\xef\xbb\xbf)?\s{,16}%PDF-\d",
        "an office document": rb"\xd0\xcf\x11\xe0",
        "a DjVu document": rb"AT&TFORM.{4}DJV",
        "an e-book": rb".{60}BOOKMOBI",
    },
    "rename it to end in .parquet": {"a Parquet file": rb"PAR1\x15"},
    "rename it to end in .arrow": {"an Arrow file": rb"ARROW1\0|\xff{4}.{2}\0\0"},
    "save it as Parquet or JSON lines first": {
        "an ORC file": rb"ORC[\0-\x08\x0e-\x1f]",
        "an Avro file": rb"Obj\x01",
    },
    "save its text as a file first": {
        "a database": rb"SQLite format 3\0",
        "a pickled object": rb"\x80[\x02-\x05]",
        "an array": rb"\x93NUMPY|\x89HDF\r\n",
        "a model": rb"GGUF[\x01-\x09]\0|.{6}\0\0\{\"",
    },
    "choose a text file": {
        "a JPEG image": rb"\xff\xd8\xff",
        "a PNG image": rb"\x89PNG\r\n\x1a\n",
        "a GIF image": rb"GIF8[79]a.{,16}\0",
        "a BMP image": rb"BM.{4}\0{4}",
        "a TIFF image": rb"II\*\0|MM\0\*",
        "a sound, image or video": rb"RIFF.{4}(WAVE|AVI |WEBP|RMID|ACON)",
        "a sound": rb"ID3[\x02-\x04]\0|fLaC\0|OggS\0",
        "a video": rb"\x1aE\xdf\xa3|\0.{3}ftyp",
        "a program": rb"\x7fELF|MZ.{,62}\0\0|\xca\xfe\xba\xbe|[\xcf\xce]\xfa\xed\xfe|\0asm",
        "a compiled Python file": rb"..\r\n[\0-\x03]\0\0\0",
        "a font": rb"wOF[F2]\0|OTTO\0|\0\x01\0\0",
    },
}
_SIGNATURES = {
    kind: re.compile(start, re.DOTALL) for kinds in _FORMATS.values() for kind, start in kinds.items()
}
_TAR = "a tar archive"
_CONTROLS = b"\0" + NEVER_IN_TEXT


def check_is_text(file: str, sample: bytes, encoding: str) -> None:
    """Raise DataError, naming `file`, if its first bytes are those of a known format, or if they have control
    characters of most kinds, as programs have. Text has some of a few kinds."""
    kind = known_kind(sample)
    if not kind:
        sample = _as_utf_8(sample, encoding)
        many = len(sample) - len(sample.translate(None, _CONTROLS)) > MAX_ODD * len(sample)
        kind = BINARY if many and len({*sample} & {*_CONTROLS}) > len(_CONTROLS) // 2 else None
    if kind:
        raise DataError(f"{file} looks like {kind}, not text: {_advice(kind)}.")


def binary_kind(sample: bytes) -> str | None:
    """'a JPEG image', 'a binary file' and the like, judged by a file's first bytes; None for text."""
    if known := known_kind(sample):
        return known
    if any(sample.startswith(bom) for bom, _ in BOMS) or recognize_wide(sample) or recognize_escapes(sample):
        return None
    sample = sample.rstrip(b"\x1a")  # the end of a text file in DOS
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return BINARY if controls > MAX_ODD * len(sample) else None


def known_kind(sample: bytes) -> str | None:
    """'a JPEG image' and the like, if a file's first bytes are those of a format that is not text."""
    if _is_tar(sample):
        return _TAR
    return next((kind for kind, start in _SIGNATURES.items() if start.match(sample)), None)


def _is_tar(sample: bytes) -> bool:
    """Whether the sample starts with the header of a member, whose checksum is right."""
    if b"\0" not in sample[:512]:
        return False
    try:
        tarfile.TarInfo.frombuf(sample[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _as_utf_8(sample: bytes, encoding: str) -> bytes:
    if codecs.lookup(encoding).name.startswith("utf-8"):
        return sample
    return sample.decode(encoding, "replace").encode("utf-8", "replace")


def _advice(kind: str) -> str:
    if kind == _TAR:
        return "unpack it and pass the folder"
    return next((advice for advice, kinds in _FORMATS.items() if kind in kinds), "choose a text file")

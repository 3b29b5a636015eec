"""Writes compressed files and archives."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}


def tarred(path, files, mode="w"):
    """Write a tar archive of `files`, pairs of a name and the content in bytes."""
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, method, **members):
    """Write a zip archive of text files, whose names are given without `.txt`."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.txt", content)
    return path

"""Hashes of texts: of the files of one, cached until one of them changes, and of all texts together."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from lm.data import archives
from lm.data.cache import known
from lm.data.listing import suffix_of
from lm.errors import DataError
from lm.files.atomic import write_text
from lm.files.digests import digest_of
from lm.files.model_files import version_of

_FORMAT = b"2"  # changes when an identity may become another one
_DIGEST = re.compile("[0-9a-f]{64}")

T = TypeVar("T")


def fingerprint_of(identities: Iterable[str]) -> str:
    """A hash of texts with these identities (`Source.identity`), the same wherever their files are."""
    return hashlib.sha256("\0".join(identities).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def identity_of(files: dict[str, list[str]]) -> str:
    """A hash of the contents of all files, how they are read, and the splits they belong to.

    It is cached by the names, sizes and times of the files, so that an unchanged text is not read again.
    Files changed within the last two seconds are hashed every time: their time may not show the next change.
    """
    listing, newest = hashlib.sha256(_FORMAT), 0
    for split, group in files.items():
        for file in group:
            path = archives.member_and_path(file)[1]
            modified, changed, *version = _or_data_error(version_of, path)
            newest = max(newest, modified, changed)
            facts = (split, os.path.abspath(path), file, modified, changed, *version)
            listing.update(repr(facts).encode())
    cached = known(listing.hexdigest()[:32])
    settled = time.time_ns() - newest > 2_000_000_000
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if settled and _DIGEST.fullmatch(identity := cached.read_text(encoding="ascii")):
            return identity
    identity = _content_hash(files)
    with contextlib.suppress(OSError):
        if settled:
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_text(cached, identity)
    return identity


def _content_hash(files: dict[str, list[str]]) -> str:
    identity = hashlib.sha256()
    contents: dict[str, str] = {}
    for split, group in sorted(files.items()):
        for file in group:
            member, path = archives.member_and_path(file)
            if path not in contents:
                contents[path] = _or_data_error(digest_of, path)
            how = file.removesuffix(f"::{path}") if member else suffix_of(file)
            # Names in a tar archive may not be UTF-8.
            identity.update(f"{split}\0{how}\0{contents[path]}\0".encode("utf-8", "surrogateescape"))
    return identity.hexdigest()


def _or_data_error(function: Callable[[str], T], path: str) -> T:
    try:
        return function(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error

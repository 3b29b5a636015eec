"""Repositories of the local Hub: folders, their files and hashes, and the metadata in their README.md."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

import yaml

LARGE = (".parquet", ".safetensors", ".arrow", ".gz", ".zst", ".bin")
DATE = "2026-01-01T00:00:00.000Z"  # of every commit


class HubError(Exception):
    """An error response: status, the Hub's error code, message."""


def files(folder: Path) -> dict[str, Path]:
    """All files of a repository by their relative paths."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def commit_of(folder: Path) -> str:
    """The sha of a repository, 40 hex digits that depend only on its contents."""
    listing = [f"{name} {digest(path)}" for name, path in files(folder).items()]
    return hashlib.sha1("\n".join(listing).encode()).hexdigest()


def card_data(folder: Path) -> dict:
    """The metadata in the README.md of a repository."""
    card = folder / "README.md"
    found = re.match(r"---\n(.*?)\n---\n", card.read_text(), re.DOTALL) if card.exists() else None
    return yaml.safe_load(found[1]) if found else {}


def digest(path: Path) -> str:
    """The ETag and oid of a file: its sha256 if it is LARGE, else its git sha1."""
    return _digest(path, path.stat().st_mtime_ns, path.stat().st_size)


@cache
def _digest(path: Path, *_) -> str:
    data = path.read_bytes()
    if path.name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def describe(name: str, path: Path) -> dict:
    """The entry of a file or folder in the responses of tree and paths-info."""
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    oid, size = digest(path), path.stat().st_size
    lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 134}} if name.endswith(LARGE) else {}
    commit = {"id": "0" * 40, "title": "Upload", "date": DATE}
    return {"type": "file", "path": name, "oid": oid[:40], "size": size, **lfs, "lastCommit": commit}

"""SHA-256 digests of weights and states, stored in a JSON file next to them: a changed bit is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm.errors import ModelError
from lm.files.model_files import open_file

FIELD = "sha256"  # of the JSON files: {file name: digest}


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_in(values: dict[str, Any], name: str) -> Any:
    """The digest of file `name` in the JSON next to it.

    None if the JSON has no digests, as in earlier versions; '', which matches no file, if it lacks this one.
    """
    stored = values.get(FIELD)
    return stored.get(name, "") if isinstance(stored, dict) else stored


def check(path: Path, stored: Callable[[], Any], remedy: str) -> None:
    """Raise ModelError, ending with `remedy`, if a file is not the one whose digest was stored.

    `stored` reads the digest. It may return several, one of which must match, or None: folders written by
    earlier versions have no digests.
    """
    digest = _digest_in_folder(path)
    while not _matches(digest, stored()):
        before, digest = digest, _digest_in_folder(path)
        if digest == before:  # otherwise a training run has just replaced the file
            raise ModelError(f"{path} is damaged: its SHA-256 is not the one stored with it; {remedy}.")


def _digest_in_folder(path: Path) -> str:
    """The SHA-256 of a file of a model. Raises ModelError as `open_file` does."""
    with open_file(path, path.parent) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}.") from error


def _matches(digest: str, stored: Any) -> bool:
    return stored is None or digest in (stored if isinstance(stored, list) else [stored])

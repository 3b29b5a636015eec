"""Opens the files of a model folder, which anyone may have made.

Only regular files inside the folder are opened, of limited size, and JSON is read up to a limited depth.
Everything that reads such a file does it through this module.
"""

from __future__ import annotations

import json
import os
import re
import stat
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from lm.errors import ModelError, one_line

MAX_JSON = 1 << 20  # bytes; a config.json has about 1,000
_MAX_DEPTH = 32
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# If a link or a pipe has replaced the file since the checks, opening it fails, or does not wait.
_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)


def open_file(path: Path, folder: Path, limit: int | None = None) -> BinaryIO:
    """Open a file of the model in `folder` for reading.

    Raises ModelError if it is missing, is not a regular file, is a link that leaves the folder, or has more
    than `limit` bytes.
    """
    try:
        real = os.path.realpath(path)
        if not is_inside(real, folder):
            raise ModelError(f"{path} is a link that leaves its folder: replace it with the file itself.")
        if not stat.S_ISREG(os.lstat(real).st_mode):  # opening a pipe would wait for its other end
            raise ModelError(f"{path} is not a regular file: replace it with one.")
        file = open(os.open(real, _FLAGS), "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is incomplete: {path.name} is missing.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {_reason(error)}.") from error
    size = os.fstat(file.fileno()).st_size
    if limit is not None and size > limit:
        file.close()
        raise ModelError(f"{path} has {size:,} bytes; the limit is {limit:,}.")
    return file


def read_bytes(path: Path, folder: Path, limit: int) -> bytes:
    """The content of a file of the model in `folder`. Raises ModelError as `open_file` does."""
    with open_file(path, folder, limit) as file:
        try:
            content = file.read(limit + 1)  # it may have grown
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {_reason(error)}.") from error
    if len(content) > limit:
        raise ModelError(f"{path} has more than {limit:,} bytes, the limit.")
    return content


def read_json(path: Path, folder: Path, limit: int = MAX_JSON, bits: int = 64) -> dict[str, Any]:
    """Read a JSON object of the model in `folder`. Raises ModelError if it is missing, damaged or nested too
    deeply, or has a number of more than `bits` bits, the sign included."""
    if not os.path.lexists(path):
        raise ModelError(f"{folder} is not a model folder: it has no {path.name}.")
    try:
        value = parse_json(read_bytes(path, folder, limit), bits)
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it does not contain a JSON object.")
    return value


def parse_json(content: bytes, bits: int = 64) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError if it is not one, is nested too deeply, or has a
    number of more than `bits` bits or a half of a surrogate pair, which no UTF-8 file can have."""
    try:
        value = json.loads(content.decode(), parse_int=partial(_integer, bits))
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for parent in level for child in nested(parent)]
        if not level:
            break
    else:
        raise ValueError("it is nested too deeply.")
    if _SURROGATE.search(content):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it has half of a surrogate pair.") from None
    return value


def nested(value: Any) -> list[Any]:
    """The lists and objects directly in a value of JSON."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in values if isinstance(child, (dict, list))]


def version_of(path: str | Path) -> tuple[int, int, int, int]:
    """Identifies the content of a file: changes when it is written or replaced. Raises OSError.

    These are the times of modification and of change (ns), the inode and the size. The time of modification
    is not enough: a file that was copied or unpacked can have any.
    """
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size


def is_readable(path: Path, folder: Path) -> bool:
    """Whether `open_file` can open a file."""
    try:
        open_file(path, folder).close()
    except ModelError:
        return False
    return True


def is_inside(real: str, folder: Path) -> bool:
    """Whether a path without links is inside a folder.

    A folder in the Hub's cache, such as models--<name>/snapshots/<revision>, has links to files in
    models--<name>/blobs, which count as inside.
    """
    home = os.path.realpath(folder)
    if os.path.join(real, "").startswith(os.path.join(home, "")):
        return True
    for snapshots in Path(home).parents:
        repository = snapshots.parent
        if snapshots.name == "snapshots" and repository.name.startswith(("models--", "datasets--")):
            return os.path.dirname(real) == os.path.join(repository, "blobs")
    return False


def _integer(bits: int, digits: str) -> int:
    bound = 1 << (bits - 1)
    # Python refuses to read very long numbers.
    number = int(digits) if len(digits) <= len(str(-bound)) else bound
    if abs(number) >= bound:
        raise ValueError(f"the number {one_line(digits, 20)} is out of range.")
    return number


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or one_line(error)

"""Small changes that damage a model folder: what all kinds of hostile folders are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], object]
Kinds = dict[str, tuple[Damage, str | None]]
BRACKETS = "[" * 200_000
BIG = "1" + "0" * 400
ESCAPE = "\x1b]0;pwned\x07\x1b[31m"


def add_kinds(known: Kinds, group: str, message: str | None, **kinds: Damage) -> None:
    """Add kinds of a group, all with the same message, to the known ones."""
    for name, damage in kinds.items():
        known[f"{group}-{name.replace('_', '-')}"] = damage, message


def with_file(file: str, content: bytes | str) -> Damage:
    """Replace the content of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def sparse(file: str, size: int) -> Damage:
    """Extend a file to `size` bytes that take no space on the disk."""

    def extend(folder: Path) -> None:
        with open(folder / file, "ab") as opened:
            opened.truncate(size)

    return extend


def edited(file: str, change: Callable[[Any], object]) -> Damage:
    """Change the values in a JSON file."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        change(values)
        (folder / file).write_text(json.dumps(values))

    return damage

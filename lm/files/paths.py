"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """`path` with the user's home folder in place of a leading `~` or `~name`.

    A name without a user stays as it is: `~$notes.txt` is a file of an office program. `Path.expanduser`
    raises RuntimeError for it.
    """
    return Path(os.path.expanduser(path))

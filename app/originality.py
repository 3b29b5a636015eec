"""Which parts of a text are copied word for word from what the model was trained on."""

from __future__ import annotations

from pathlib import Path


def marked(folder: Path, text: str, levels: str) -> str:
    """`levels` with letters for digits where the text is copied, from 'a' for 0 on."""
    return levels

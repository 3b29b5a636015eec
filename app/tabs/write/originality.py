"""Mark the parts of a text that are copied verbatim from a model's training text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lm.memorization.search import Blocks, find_copied
from lm.memorization.training_text import find_training_text

_TIME_LIMIT = 2.0  # seconds per search


def mark_copied(folder: Path, text: str, levels: str) -> tuple[str, float]:
    """Turn the digits of `levels` into letters ('a' for 0, and so on) where `text` is copied, and also return
    the share of the training text that was searched. Raises UserError if that text is not available."""
    blocks = _training_text(folder, (folder / "config.json").stat().st_mtime_ns)
    spans, searched = find_copied(text, blocks, seconds=_TIME_LIMIT)
    marked = list(levels.ljust(len(text)))
    for start, end in spans:
        for index in range(start, end):
            marked[index] = chr(ord("a") + (int(marked[index]) if marked[index].isdigit() else 0))
    return "".join(marked), searched


@lru_cache(maxsize=4)
def _training_text(folder: Path, modified: int) -> Blocks:
    return find_training_text(folder)  # found again when the model was `modified`

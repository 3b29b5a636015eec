"""Mark the parts of a text that are copied verbatim from a model's training text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from lm.files.model_files import version_of
from lm.memorization.search import Blocks, find_copied
from lm.memorization.training_text import find_training_text

_TIME_LIMIT = 2.0  # seconds per search


def copied_spans(folder: Path, text: str) -> tuple[list[tuple[int, int]], float]:
    """(start, end) of each part of `text` that is copied, and the share of the training text that was
    searched. Raises UserError if that text is not available."""
    blocks = _training_text(folder, *version_of(folder / "config.json"))
    return find_copied(text, blocks, seconds=_TIME_LIMIT)


@lru_cache(maxsize=4)
def _training_text(folder: Path, *version: int) -> Blocks:
    return find_training_text(folder)  # found again when the model has another `version`

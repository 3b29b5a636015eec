"""Which parts of a text are copied word for word from what the model was trained on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from lm.memorization.search import TrainingText

_PATIENCE = 2.0  # seconds that one search may take
_KEPT = 4  # texts that are held open; they are mapped, not in memory
_open: OrderedDict[tuple[Path, int], TrainingText] = OrderedDict()
_lock = threading.Lock()


def marked(folder: Path, text: str, levels: str) -> tuple[str, float]:
    """`levels` of `text` with letters for digits where it is copied ('a' for 0 and so on), and which share
    of the training text was searched. Raises UserError if that text is not to be had."""
    found = _training_text(folder).search(text, seconds=_PATIENCE)
    result = list(levels.ljust(len(text)))
    for start, end in found.marked:
        for at in range(start, end):
            result[at] = chr(ord("a") + (int(result[at]) if result[at].isdigit() else 0))
    return "".join(result), found.searched


def _training_text(folder: Path) -> TrainingText:
    key = folder, (folder / "config.json").stat().st_mtime_ns
    with _lock:
        if key not in _open:
            _open[key] = TrainingText.of(folder, make=True)
            while len(_open) > _KEPT:
                _open.popitem(last=False)
        _open.move_to_end(key)
        return _open[key]

"""Text that is scored, not trained on: one split of it, whole and in memory."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lm.config.schema import DataConfig
from lm.data.cache import PARTIAL, cache_folder, making_room_for
from lm.data.corpus import copy_split, read_splits
from lm.data.progress import ProgressCallback
from lm.data.sources import Source, find_source
from lm.data.text import Text, count_characters
from lm.errors import DataError, UserError
from lm.tokenization.tokenizer import SEPARATOR


def read_whole(config: DataConfig, split: str | None, progress: ProgressCallback) -> tuple[str, bytes]:
    """The name and the text of a split: UTF-8 with SEPARATOR between documents.

    `split` is a split's name, or a fraction: 0.1 is the last tenth. Without one it is the test
    split of a set that has one, else its validation split, else all there is. Raises DataError.
    """

    def read(sources: list[Source], folder: Path) -> list[Text]:
        return [_read(s, split, folder / str(number), progress) for number, s in enumerate(sources)]

    return _joined(config, read)


def read_held_out(config: DataConfig, split: str, progress: ProgressCallback) -> tuple[str, bytes]:
    """The name and the text that a training with these settings holds out as its `split`,
    validation or test. Raises DataError."""
    if "-" in config.dataset:
        raise UserError("the model was trained on standard input: name a text to score with --dataset.")

    def read(sources: list[Source], folder: Path) -> list[Text]:
        texts, _ = read_splits(sources, config, folder, progress)
        if split not in texts:
            held_out = " and ".join(name for name in texts if name != "train")
            raise DataError(f"the model was trained without a {split} text, only with {held_out}.")
        return texts[split]

    return _joined(config, read)


def _joined(config: DataConfig, read: Callable[[list[Source], Path], list[Text]]) -> tuple[str, bytes]:
    sources = [find_source(dataset, config) for dataset in config.dataset]
    folder = cache_folder() / f"text.{os.getpid()}{PARTIAL}"
    try:
        with making_room_for(folder):
            folder.mkdir()
            texts = read(sources, folder)
            text = SEPARATOR.join(b"".join(text.blocks()) for text in texts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for source in sources:
            source.forget()
    return "+".join(source.name for source in sources), text


def _read(source: Source, split: str | None, stem: Path, progress: ProgressCallback) -> Text:
    whole = next((name for name in ("test", "validation", "train") if name in source.files), None)
    try:
        share = float(split)
    except (TypeError, ValueError):
        return copy_split(source, split or whole or next(iter(source.files)), stem, progress)
    if not 0 < share < 1:
        raise UserError(f"--split is a split's name or lies between 0 and 1, not {split}.")
    text = copy_split(source, "train" if "train" in source.files else whole, stem, progress)
    total = sum(map(count_characters, text.blocks()))
    return text.cut(math.floor(total * (1 - share)))[1]

"""The text of each split, copied to disk: a split of the dataset, or a fraction of its training text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lm.config.schema import DataConfig
from lm.console.progress import ProgressCallback, with_progress
from lm.data.columns import NoColumnError
from lm.data.source import Source
from lm.data.text import Text, save_text
from lm.errors import DataError, UserError
from lm.tokenization.documents import SEPARATOR

SPLITS = ("train", "validation", "test")
_SAMPLE = 10_000_000  # characters that the vocabulary is learned from with --streaming
_HELD_OUT = 500_000  # characters to validate on with --streaming, or a tenth of the sample if that is less


def read_splits(
    sources: list[Source], config: DataConfig, folder: Path, progress: ProgressCallback
) -> tuple[dict[str, list[Text]], list[int]]:
    """Copy the text of each split into files in `folder`.

    Returns the texts of each split, one per source, and for each source the number of its first training
    rows that --streaming must leave out because they are validated on. Raises UserError.
    """
    texts: dict[str, list[Text]] = {name: [] for name in SPLITS}
    held_out = []
    for number, source in enumerate(sources):
        stem, rows = folder / f"{number}", 0
        if config.streaming:
            progress(f"Reading the beginning of {source.name}", None)
            splits, rows = _read_samples(source, config, stem)
        else:
            splits = _read_all(source, config, stem, progress)
        for name, text in splits.items():
            texts[name].append(text)
        held_out.append(rows)
    return {name: group for name, group in texts.items() if group}, held_out


def copy_split(source: Source, split: str, stem: Path, progress: ProgressCallback) -> Text:
    """Copy a split of a source into a file whose path begins with `stem`.

    Raises DataError if the split is missing, empty or unreadable.
    """
    local = source.fetched(split, progress)
    pieces = with_progress(local.read(split), f"Reading {source.name}", local.size(split), progress)
    text = save_text(Path(f"{stem}-{split}.text"), pieces, source.config.max_chars)
    if not len(text):
        raise empty(source, split)
    return text


@contextmanager
def like_training(source: Source, name: str, split: str) -> Iterator[Source]:
    """The source to read a held-out split from, `name` being "validation" or "test": with the column that
    the training text was read from, if it is a table.

    Reading raises DataError if the split has no such column.
    """
    config = source.config
    notes = source.notes.get(config.train_split)
    column = config.text_column or (notes.column if notes else "") or None
    try:
        yield replace(source, config=replace(config, text_column=column))
    except NoColumnError as error:
        fixes = ["rename one there"]
        if source.kind == "csv" and config.header:
            fixes.append("use --no-header if the first rows are text")
        if not config.streaming:
            fixes.append(f"hold out training text with --{name}-split 0.1")
        raise DataError(
            f"in the split '{split}', {error} The training text is read from that column:"
            f" {', or '.join(fixes)}."
        ) from error


def empty(source: Source, split: str) -> DataError:
    """The error about a split without text."""
    if len(source.files) == 1:
        if source.kind == "csv" and source.config.header:
            return DataError(
                f"{source.file_name} contains no text below its header: choose another file, or use"
                " --no-header if the first row is text."
            )
        if source.copy:
            return DataError("standard input contains no text: check the command that writes it.")
        return DataError(f"{source.file_name} contains no text: choose another file.")
    return DataError(f"the split '{split}' of {source.name} contains no text: choose another one.")


def fraction_of(split: str | None, flag: str) -> float | None:
    """The fraction of the text that `split` asks for, or None if it is the name of a split.

    Raises UserError if it is a number outside (0, 1).
    """
    try:
        fraction = float(split or "")
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise UserError(f"{flag} must be the name of a split or a fraction between 0 and 1, got {split}.")
    return fraction


def _read_all(source: Source, config: DataConfig, stem: Path, progress: ProgressCallback) -> dict[str, Text]:
    """Copy the splits of a source into files, and split off those that are fractions of the training text."""
    validation = config.validation_split
    if validation is None:
        validation = "validation" if "validation" in source.files else "0.1"
    chosen = {"validation": validation, "test": config.test_split}
    fractions = {name: fraction_of(split, f"--{name}-split") for name, split in chosen.items()}
    named = {name: split for name, split in chosen.items() if split and fractions[name] is None}
    for split in (config.train_split, *named.values()):
        source.check(split)
    texts = {"train": copy_split(source, config.train_split, stem, progress)}
    if any(fractions.values()):
        total = texts["train"].count_characters()
        if total < 2:
            raise DataError(f"{source.name} has only one character: there is nothing to learn from it.")
        remaining, left = 1.0, total
        for name in ("test", "validation"):  # the test text follows the validation text
            if fraction := fractions[name]:
                remaining -= fraction
                if remaining <= 0:
                    raise UserError("--validation-split and --test-split leave nothing to train on.")
                # Predicting a token from another takes two, even in a tiny text.
                left = min(math.floor(total * remaining), max(left - 2, total // 2))
                texts["train"], texts[name] = texts["train"].split_at(left)
    for name, split in named.items():
        with like_training(source, name, split) as held_out:
            texts[name] = copy_split(held_out, split, stem, progress)
    return texts


def _read_samples(source: Source, config: DataConfig, stem: Path) -> tuple[dict[str, Text], int]:
    """Copy a sample of each split of a streamed source into files.

    Also returns how many training rows the validation text took, where the source has no split for it.
    """
    for name, split in (("validation", config.validation_split), ("test", config.test_split)):
        if split and split not in source.files:
            raise UserError(
                f"with --streaming, --{name}-split must be the name of a split; {source.name} has"
                f" {', '.join(source.files)}."
            )
    own = "validation" if "validation" in source.files else None
    samples = {"train": list(_first(source.texts(config.train_split), _SAMPLE))}
    for name, split in (("test", config.test_split), ("validation", config.validation_split or own)):
        if split:
            with like_training(source, name, split) as like:
                samples[name] = list(_first(like.texts(split), 2 * _HELD_OUT))
    held_out = 0
    if "validation" not in samples:
        train = samples["train"]
        left = max(1, min(_HELD_OUT, sum(map(len, train)) // 10))
        while left > 0 and held_out < len(train):
            left -= len(train[held_out])
            held_out += 1
        samples["validation"], samples["train"] = train[:held_out], train[held_out:]
    texts = {}
    for name, sample in samples.items():
        if not any(sample):
            raise DataError(
                f"{source.name} has too few documents to stream: nothing is left for the {name} text."
            )
        joined = SEPARATOR.join(text.encode() for text in sample if text)
        texts[name] = save_text(Path(f"{stem}-{name}.text"), [joined])
    return texts, held_out


def _first(texts: Iterator[str], characters: int) -> Iterator[str]:
    """The first texts, until they have `characters` characters."""
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return

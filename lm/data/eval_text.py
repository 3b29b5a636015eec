"""Text to score rather than train on: one split, whole and in memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm.config.schema import DataConfig
from lm.console.progress import ProgressCallback
from lm.data.as_trained import as_trained
from lm.data.cache import temporary
from lm.data.columns import Rows
from lm.data.decoding import own_encoding_warning, replaced_warning
from lm.data.find_source import find_sources, recorded_revisions
from lm.data.fingerprint import fingerprint_of
from lm.data.source import Source
from lm.data.splits import copy_split, empty, fraction_of, read_splits
from lm.data.text import Text, save_text
from lm.data.values import with_line_feeds
from lm.errors import DataError, UserError
from lm.tokenization.documents import SEPARATOR


class EvalText(NamedTuple):
    """A text to score."""

    name: str
    text: bytes  # UTF-8 with SEPARATOR between documents
    warnings: list[str]
    tables: list[dict[str, Any]]  # how the splits of tables were read, see `Source.table_facts`
    as_trained: dict[str, Any]  # the settings of the training with which it was read


def read_whole(
    config: DataConfig,
    split: str | None,
    progress: ProgressCallback,
    training: Mapping[str, Any] | None = None,
    rows: Rows | None = None,
    outputs: Iterable[str] = (),
) -> EvalText:
    """The text of a split.

    `split` is the name of a split or a fraction: 0.1 is the last 10% of the text. By default, the test
    split, else the validation split, else the whole text. `training` are settings of the training (see
    `as_trained`), each used where it fits the text. `rows` receives the number of each document, and what is
    kept of it if it is the row of a table; tables are then split and cut between rows. Raises UserError if
    the text cannot be read, or if it is one of the `outputs`, the files that will be written.
    """
    taken: dict[str, Any] = {}

    def read(sources: list[Source], folder: Path) -> list[Text]:
        texts = []
        for number, source in enumerate(sources):
            more = number < len(sources) - 1
            text, each = _read(source, split, training or {}, folder / str(number), progress, rows, more)
            texts.append(text)
            taken.update(each)
        return texts

    return _join(find_sources(config, outputs=outputs), read)._replace(as_trained=taken)


def read_held_out(
    config: DataConfig,
    split: str,
    progress: ProgressCallback,
    outputs: Iterable[str] = (),
    trained_on: Mapping[str, Any] | None = None,
) -> EvalText:
    """The text that training with this config holds out as its `split`, "validation" or "test".

    `trained_on`: what the model's config.json says about its text. Raises UserError if the text cannot be
    read, if it is another one, or if it is one of the `outputs`, the files that will be written.
    """
    trained_on = trained_on or {}
    fingerprint = trained_on.get("fingerprint")
    if "-" in config.dataset:
        raise UserError("the model was trained on standard input: name a text to score with --dataset.")

    def read(sources: list[Source], folder: Path) -> list[Text]:
        if fingerprint and fingerprint_of(source.identity for source in sources) != fingerprint:
            # Another text would be split elsewhere, and the end of it may have been trained on.
            raise DataError(
                f"{' and '.join(config.dataset[:3])} is not the text that the model was trained on: it has"
                " changed, or another file has this name. Name a text to score with --dataset."
            )
        texts, _ = read_splits(sources, config, folder, progress)
        if split not in texts:
            held_out = " and ".join(name for name in texts if name != "train")
            raise DataError(f"the model was trained without a {split} split, only with {held_out}.")
        return texts[split]

    revisions = recorded_revisions(config, trained_on)
    return _join(find_sources(config, revisions, of_run=True, outputs=outputs), read)


def _join(sources: list[Source], read: Callable[[list[Source], Path], list[Text]]) -> EvalText:
    try:
        with temporary("text") as folder:
            folder.mkdir()
            texts = read(sources, folder)
            joined = SEPARATOR.join(b"".join(text.blocks()) for text in texts)
    finally:
        for source in sources:
            source.forget()
    replaced = (replaced_warning(s.decoded.replaced, s.decoded.characters) for s in sources)
    own = (own_encoding_warning(s.decoded.own_encoding) for s in sources)
    tables = [table for source in sources for table in source.table_facts()]
    noted = (warning for table in tables for warning in table["warnings"])
    found = (warning for source in sources for warning in source.warnings)
    warnings = list(dict.fromkeys([*found, *filter(None, [*replaced, *own]), *noted]))
    return EvalText("+".join(source.name for source in sources), joined, warnings, tables, {})


def _read(
    source: Source,
    split: str | None,
    training: Mapping[str, Any],
    stem: Path,
    progress: ProgressCallback,
    rows: Rows | None,
    more: bool,
) -> tuple[Text, dict[str, Any]]:
    """The text to score, and the settings of the training with which it was read."""
    usual = [name for name in ("test", "validation", "train") if name in source.files]
    chosen = next(iter(usual or source.files))
    fraction = fraction_of(split, "--split")
    if fraction is None:
        chosen = split or chosen
    elif "train" in source.files:
        chosen = "train"
    source, taken = as_trained(source.fetched(chosen, progress), chosen, training)
    is_table = source.kind != "text"
    if is_table and rows is not None:
        texts = _texts(source, chosen, fraction, rows, more)
        text = save_text(stem, [SEPARATOR.join(map(str.encode, texts))])
    else:
        text = copy_split(source, chosen, stem, progress)
        if fraction is not None:
            text = text.split_at(math.floor(text.count_characters() * (1 - fraction)))[1]
        if rows is not None:
            _number_documents(source, text, rows)
    if is_table and (column := training.get("text_column")):
        notes = source.notes[chosen]
        missing = f"{notes.why} (there is no '{column}' as in training)"
        notes.why = "as in training" if "text_column" in taken else missing
    return text, taken


def _number_documents(source: Source, text: Text, rows: Rows) -> None:
    """Add the documents of a text file to `rows`. Raises UserError if columns are to be kept."""
    if rows.keep:
        raise UserError(f"{source.file_name} is not a table: --keep and --regions name columns of tables.")
    rows.only_tables = False
    documents = 1 + sum(block.count(SEPARATOR) for block in text.blocks())
    for number in range(1, documents + 1):
        rows.add(number)
    rows.before += documents


def _texts(source: Source, split: str, fraction: float | None, rows: Rows, more: bool) -> list[str]:
    """The texts of the rows of a table; with `fraction` those at its end. Of a limited number of characters,
    at least a row. If `more` sources follow, whose rows are numbered on, all rows are read."""
    first, limit = len(rows.numbers), source.config.max_chars
    texts: list[str] = []
    total = 0
    found = filter(None, source.texts(split, rows))
    for text in map(with_line_feeds, found):
        if limit is not None and texts and total + len(text) > limit:
            break
        texts.append(text)
        total += len(text)
    if more:
        deque(found, maxlen=0)  # the other rows have numbers, too
    if not texts:
        raise empty(source, split)
    begin, left = 0, total * (fraction or 1)
    while begin < len(texts) - 1 and total > left:
        total -= len(texts[begin])
        begin += 1
    rows.cut(begin, len(texts), first)
    rows.before += source.notes[split].rows
    return texts[begin:]

"""Reads minimal pairs from tables: two sentences in each row, and the phenomenon that they test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lm.config.schema import DataConfig
from lm.console.progress import ProgressCallback
from lm.console.wording import did_you_mean
from lm.data import archives
from lm.data.compression import without_compression
from lm.data.find_source import find_sources
from lm.data.source import Source
from lm.data.values import MISSING, Row, listed, text_of, value_at, without_surrogates
from lm.errors import DataError

_NAMED = 4  # tables
UID = "UID"  # the column of BLiMP that names the phenomenon


class PairColumns(NamedTuple):
    """The columns of a pair, by default those of BLiMP (Warstadt et al. 2020)."""

    good: str = "sentence_good"
    bad: str = "sentence_bad"
    phenomenon: str | None = None  # None: UID or, in a table without it, the name of the file
    keep: tuple[str, ...] = ()


@dataclass
class Pairs:
    """Minimal pairs; each list has an entry per pair."""

    name: str = ""  # of the tables
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    phenomena: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # the name of each pair's file
    rows: list[int] = field(default_factory=list)  # its number there, from 1
    kept: dict[str, list[Any]] = field(default_factory=dict)  # by column
    warnings: list[str] = field(default_factory=list)  # about the tables


def read_pairs(
    config: DataConfig, columns: PairColumns, progress: ProgressCallback, outputs: Iterable[str] = ()
) -> Pairs:
    """The pairs in the tables that `config.dataset` names, in all of their splits.

    Raises UserError if there is none, if a row lacks one of the columns or a sentence, or if one of the
    `outputs`, files that will be written, is read.
    """
    sources = find_sources(config, outputs=outputs)
    names = [source.name for source in sources]
    pairs = Pairs("+".join(names) if len(names) <= _NAMED else f"{len(names)} tables")
    try:
        for source in sources:
            if source.kind == "text":
                raise DataError(
                    f"{source.file_name} is not a table: --pairs reads CSV, TSV, JSON and Parquet."
                )
            for split in source.files:
                _add(pairs, source.fetched(split, progress), split, columns)
            pairs.warnings += source.warnings
            for facts in source.table_facts():
                pairs.warnings += facts["warnings"]
    finally:
        for source in sources:
            source.forget()
    if not pairs.good:
        files = [source.file_name for source in sources]
        have = "has" if len(files) == 1 else "have"
        raise DataError(f"{', '.join(files)} {have} no rows: name another table.")
    for column, values in pairs.kept.items():
        if all(value is MISSING for value in values):
            raise DataError(f"{pairs.name} has no column '{column}' (--keep).")
        pairs.kept[column] = [None if value is MISSING else value for value in values]
    return pairs


def _add(pairs: Pairs, source: Source, split: str, columns: PairColumns) -> None:
    """Add the pairs of a split."""
    errors = source.config.encoding_errors
    for file, number, row in source.rows(split):
        where, name = f"row {number:,} of {file}", archives.name_of(file)
        pairs.good.append(_text(row, columns.good, "--good", where, errors))
        pairs.bad.append(_text(row, columns.bad, "--bad", where, errors))
        if columns.phenomenon is None and UID not in row:
            pairs.phenomena.append(Path(without_compression(name)).stem)
        else:
            column = columns.phenomenon or UID
            pairs.phenomena.append(_text(row, column, "--phenomenon", where, errors))
        pairs.files.append(Path(name).name)
        pairs.rows.append(number)
        for column in columns.keep:
            pairs.kept.setdefault(column, []).append(value_at(row, column))


def _text(row: Row, column: str, flag: str, where: str, errors: str) -> str:
    """The text of a column. Raises DataError if there is none."""
    value = value_at(row, column)
    if value is MISSING:
        names = list(row)
        raise DataError(
            f"{where} has no column '{column}' ({flag}); it has {listed(names)}{did_you_mean(column, names)}"
        )
    try:
        text = "" if value is None else text_of(value)
    except TypeError as error:
        raise DataError(f"the column '{column}' in {where} contains {error}, not text.") from error
    if not text.strip():
        raise DataError(f"{where} has no text in the column '{column}' ({flag}).")
    return without_surrogates(text, where, errors)

"""Writes tables of tokens, words and regions as TSV, CSV, JSON lines, or in the format of lm-zoo."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.data.values import Number, text_of
from lm.files.atomic import replacing, writing
from lm.files.digests import digest_of
from lm.files.paths import expanded
from lm.insight.scored_text import Table, Values, escaped_text, numbers_within
from lm.language_model import LanguageModel
from lm.storage.model_folder import WEIGHTS
from lm.version import __version__

_QUOTED = re.compile(r'[#",\r\n]|^\s|\s$|^$')  # a reader takes what follows # for a comment


def free_name(name: str, table: Table) -> str:
    """The name of a kept column: with `kept_` before it as often as the table already has that name."""
    while name in table:
        name = f"kept_{name}"
    return name


def table_lines(table: Table, kind: str | None = None, comments: Sequence[str] = ()) -> Iterator[str]:
    """The lines of a table as "tsv", "csv", "jsonl" or "lm-zoo", with these comments if the format has any.

    Without a format, it is TSV without comments. Halves of surrogate pairs, which JSON can contain and UTF-8
    cannot, become "?".
    """
    for line in _lines(table, kind, comments):
        yield line.encode("utf-8", "replace").decode()


def _lines(table: Table, kind: str | None, comments: Sequence[str]) -> Iterator[str]:
    if kind == "jsonl":
        yield from _json_lines(table)
        return
    if kind == "lm-zoo":
        table = _as_lm_zoo(table)
    elif kind in ("tsv", "csv"):
        yield from (f"# {' '.join(comment.split())}\n" for comment in comments)
    cell = {"csv": _csv_cell, "tsv": _tsv_cell}.get(kind or "", str)
    separator = "," if kind == "csv" else "\t"
    yield separator.join(map(cell, _texts(Values(table), kind))) + "\n"
    for row in zip(*(_texts(column, kind) for column in table.values()), strict=True):
        yield separator.join(map(cell, row)) + "\n"


def _tsv_cell(text: str) -> str:
    return text.replace("#", "\\u0023")


def _csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _texts(column: Iterable[object], kind: str | None) -> Iterable[str]:
    if isinstance(column, np.ndarray):
        if column.dtype.kind == "f":
            return (f"{value:.5f}" for value in column)
        return map(str, column.astype(int) if column.dtype.kind == "b" else column)
    if isinstance(column, Values):
        texts = map(_text, column)
        return texts if kind == "csv" else map(escaped_text, texts)
    return map(str, column)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    return text_of(value) if not isinstance(value, bytes) else value.hex()


def _plain(value: Any) -> Any:
    """A value of JSON in which each `Number` is a number. JSON does not have NaN, which becomes null, nor
    infinity and bytes, which become text."""
    number = value
    if isinstance(value, Number):
        with contextlib.suppress(ValueError):  # of more digits than Python converts
            number = json.loads(value)
    if isinstance(number, float) and not math.isfinite(number):
        return None if math.isnan(number) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else number


def _json_lines(table: Table) -> Iterator[str]:
    columns = []
    for column in table.values():
        if isinstance(column, np.ndarray) and column.dtype.kind != "f":
            columns.append(column.tolist())
        else:
            values = column.round(5).tolist() if isinstance(column, np.ndarray) else column
            columns.append([_plain(value) for value in values])
    for row in zip(*columns, strict=True):
        yield json.dumps(dict(zip(table, row, strict=True)), ensure_ascii=False, default=str) + "\n"


def _as_lm_zoo(table: Table) -> Table:
    """sentence_id, token_id, token and surprisal, both ids from 1."""
    name = next(name for name in ("surprisal", "mean") if name in table)
    sentence = np.asarray(table["document"], np.int64)
    return {
        "sentence_id": sentence,
        "token_id": numbers_within(sentence),
        "token": next(iter(table.values())),
        "surprisal": table[name],
    }


def header_comment(
    models: Mapping[str, LanguageModel], text: str, settings: Mapping[str, Any], units: str
) -> list[str]:
    """The comment of a table: program, models with their digests, text, settings, and `units`, which says
    what its columns contain."""
    named = [
        f"model {name}, digest sha256:{digest_of(Path(model.folder) / WEIGHTS)}"
        for name, model in models.items()
        if model.folder
    ]
    texts = {name: " + ".join(v) if isinstance(v, tuple) else v for name, v in settings.items()}
    shown = ", ".join(f"{name.replace('_', '-')}: {value}" for name, value in texts.items())
    return [f"lm {__version__}", *named, f"text {text}", f"settings {shown}", units]


def write_table(file: str, lines: Iterator[str]) -> None:
    """Write a table to a file, atomically, or to standard output. Raises UserError."""
    if file == "-":
        sys.stdout.writelines(lines)
        return
    path = expanded(file)
    with writing(file):
        if path.exists() and not path.is_file():  # a pipe or a device, which must not be replaced
            with open(path, "w", encoding="utf-8", newline="") as opened:
                opened.writelines(lines)
            return
        with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as opened:
            opened.writelines(lines)

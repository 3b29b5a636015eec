"""Sentences that are scored one by one, from the zero state: items of a study, and minimal pairs.

Nothing here depends on Gradio. Tables are read, scored and written by the functions of `lm evaluate`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lm.data.columns import Notes, choose, texts
from lm.data.pairs import UID, Pairs
from lm.data.values import Row, with_line_feeds
from lm.errors import DataError, UserError
from lm.insight.items import COLUMN_COMMENTS, Items
from lm.insight.pairs import ScoredPairs, pair_table, score_pairs
from lm.insight.scored_text import ScoredText, Table
from lm.insight.surprisal import entropies, score_text
from lm.insight.table_files import header_comment, table_lines
from lm.language_model import LanguageModel
from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER

MAX_CHARACTERS = 10_000
_GOOD, _BAD = "sentence_good", "sentence_bad"  # the columns of BLiMP


@dataclass(frozen=True)
class Study:
    """Scored items: each sentence was read from the zero state."""

    model: LanguageModel
    items: Items
    scored: ScoredText
    entropies: np.ndarray  # (tokens,) bits

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first token of each item and the one after its last."""
        assert self.scored.bounds is not None
        return list(pairwise(self.scored.bounds.tolist()))

    def table(self, flag: str) -> Table:
        """The table of `lm evaluate` for --per-token, with a column for the entropy, or --per-word."""
        further: Table = {"entropy": self.entropies} if flag == "per_token" else {}
        return self.items.table(flag, {"surprisal": self.scored}, further)

    def csv(self, flag: str, name: str) -> str:
        """The table as `lm evaluate --format csv` writes it for the model `name`."""
        settings = {"state": "each document from the zero state", "precision": "fp32"}
        entropy = " entropy: expected bits of the token." if flag == "per_token" else ""
        comments = header_comment({name: self.model}, "sentences", settings, COLUMN_COMMENTS[flag] + entropy)
        return "".join(table_lines(self.table(flag), "csv", comments))


def score_lines(model: LanguageModel, text: str) -> Study:
    """Score each line that is not empty. Raises UserError."""
    items, sentences = Items({}), []
    for number, line in enumerate(_checked(text).split("\n"), 1):
        if line.strip():
            items.rows.add(number)
            sentences.append(line.strip())
    return _score(model, items, sentences)


def score_table(model: LanguageModel, text: str) -> Study:
    """Score the sentences in a column of a table in CSV or TSV and keep its other columns. The column is
    chosen as `lm evaluate` does. Raises UserError."""
    rows = _rows(_checked(text))

    def read(columns: set[str] | None) -> Iterator[Row]:
        return iter(rows)

    try:
        column, _ = choose(read, "the table", None, Notes())
    except DataError as error:  # it names a field that this section does not have
        raise UserError(
            "it is not clear which column has the sentences: call it text, or leave only one column with"
            " text. For minimal pairs, call two columns sentence_good and sentence_bad."
        ) from error
    items = Items({"keep": tuple(name for name in rows[0] if name != column)})
    cells = texts(read, "the table", column, "replace", Notes(), kept=items.rows)
    sentences = [cell for cell in cells if cell.strip()]
    return _score(model, items, sentences)


def pairs_of(text: str) -> Pairs:
    """Minimal pairs: a table with the columns of BLiMP, or lines, of which each second one is the worse
    sentence. Raises UserError."""
    text = _checked(text)
    pairs = Pairs("sentences")
    if has_pairs(text):
        rows = _rows(text)
        pairs.kept = {name: [] for name in rows[0] if name not in (_GOOD, _BAD, UID)}
        for number, row in enumerate(rows, 1):
            _add(pairs, str(row[_GOOD]), str(row[_BAD]), str(row.get(UID, "")), number)
            for name, values in pairs.kept.items():
                values.append(row[name])
        return pairs
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) % 2:
        raise UserError(f"minimal pairs need two lines each, got {len(lines)}: first the better sentence.")
    for number, (good, bad) in enumerate(zip(lines[::2], lines[1::2], strict=True), 1):
        _add(pairs, good, bad, "", number)
    return pairs


def score_pairs_of(model: LanguageModel, pairs: Pairs) -> ScoredPairs:
    """Score minimal pairs as `lm evaluate --pairs` does. Raises UserError."""
    if not pairs.good:
        raise UserError("there are no sentences.")
    return score_pairs(model, pairs.good, pairs.bad)


def pairs_csv(pairs: Pairs, scored: ScoredPairs, model: LanguageModel, name: str) -> str:
    """The table of --per-pair as CSV."""
    units = "surprisal: bits of the whole sentence, with a space before it."
    comments = header_comment({name: model}, pairs.name, {"delimiter": "' '", "precision": "fp32"}, units)
    return "".join(table_lines(pair_table(pairs, scored), "csv", comments))


def has_pairs(text: str) -> bool:
    """Whether the first line of a table names the columns of minimal pairs."""
    try:
        return {_GOOD, _BAD} <= set(_reader(text).fieldnames or ())
    except csv.Error:
        return False


def _add(pairs: Pairs, good: str, bad: str, phenomenon: str, number: int) -> None:
    if not good.strip() or not bad.strip():
        raise UserError(f"row {number:,} lacks a sentence: a pair has two.")
    pairs.good.append(good)
    pairs.bad.append(bad)
    pairs.phenomena.append(phenomenon)
    pairs.files.append(pairs.name)
    pairs.rows.append(number)


def _score(model: LanguageModel, items: Items, sentences: list[str]) -> Study:
    data = SEPARATOR.join(
        sentence.replace(SEPARATOR_CHARACTER, "").encode("utf-8", "replace") for sentence in sentences
    )
    scored = score_text(model, data, reset=True)
    return Study(model, items, scored, entropies(model, scored))


def _checked(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"the sentences have {len(text):,} characters; the limit is {MAX_CHARACTERS:,}: score more with"
            " the command lm evaluate."
        )
    return with_line_feeds(text.removeprefix("\ufeff"))


def _rows(text: str) -> list[Row]:
    """The rows of a table in CSV or TSV, whose first line names the columns. Raises UserError."""
    try:
        reader = _reader(text)
        rows = [dict(row) for row in reader]
        names = reader.fieldnames or []
    except csv.Error as error:
        raise UserError(f"the table is not valid CSV: {error}.") from error
    if names and not rows:
        raise UserError("the table has no rows: the first line only names the columns.")
    if not rows or len(set(names)) < len(names) or any("" in row for row in rows):
        raise UserError(
            "this is not a table: the first line must name the columns, and every row have as many fields."
        )
    return rows


def _reader(text: str) -> csv.DictReader[str]:
    """Reads a table in CSV or TSV. Where the header has spaces after its delimiters, so may the rows."""
    header = text.partition("\n")[0]
    delimiter = max("\t,;", key=header.count)
    reader = csv.DictReader(
        io.StringIO(text),
        delimiter=delimiter,
        skipinitialspace=f"{delimiter} " in header,
        restkey="",
        restval="",
        strict=True,
    )
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    return reader

"""The items of a study: kept columns, regions and word frequencies in the tables of `lm evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lm.console.invocation import pip_install, quoted
from lm.data.columns import Rows
from lm.errors import DataError, UserError
from lm.insight.regions import check_separator, locate, split_marked
from lm.insight.scored_text import (
    ScoredText,
    Table,
    Values,
    numbers_within,
    region_table,
    regions_of,
    token_table,
    word_table,
)
from lm.insight.table_files import free_name
from lm.tokenization.documents import SEPARATOR, SEPARATOR_CHARACTER

_MAKERS = {"per_token": token_table, "per_word": word_table}
COLUMN_COMMENTS = {  # what the columns of a table contain, for its header comment
    "per_token": "surprisal: bits of the token.",
    "per_word": "surprisal: bits of the word's tokens, with a space at the beginning of its first token;"
    " space: bits of the tokens of whitespace after the word.",
    "per_region": "surprisal: bits of the region's tokens and of the whitespace before it.",
}


class Items:
    """What the command-line options say about the rows of a table, and what was read of them."""

    def __init__(self, options: Mapping[str, Any]):
        self._keep: tuple[str, ...] = options.get("keep", ())
        self._column: str | None = options.get("regions")
        given = options.get("region_separator")
        self._separator = "|" if given is None else check_separator(given)
        self._split_text = given is not None and self._column is None
        self._language: str | None = options.get("frequency")
        if self._language is not None:
            _wordfreq(self._language)
        columns = dict.fromkeys((*self._keep, *([self._column] if self._column else [])))
        self.rows = Rows(tuple(columns))
        self._regions: np.ndarray | None = None  # the byte offset at which each starts

    def marked(self, text: bytes) -> bytes:
        """The text of documents as it is scored: without separators of regions, whose positions are noted,
        and without documents that are nothing but separators.

        Raises DataError if the regions of a row are not its text.
        """
        if not self._column and not self._split_text:
            return text
        documents = text.decode("utf-8", "surrogateescape").split(SEPARATOR_CHARACTER)
        starts: list[int] = []
        clean: list[bytes] = []
        chosen: list[int] = []
        offset = 0
        for number, document in enumerate(documents):
            found: list[int] | None
            if self._column:
                value = self.rows.values[self._column][number]
                found = locate(document, value, self._separator)
                if found is None:
                    raise DataError(
                        f"row {self.rows.numbers[number]:,}: the regions in the column '{self._column}',"
                        " joined, are not the text; use a list, or separate them with"
                        f" '{self._separator}' (--region-separator)."
                    )
            else:
                document, found = split_marked(document, self._separator)
            if not document.strip():
                continue
            chosen.append(number)
            starts += [offset + len(document[:at].encode()) for at in found or [0]]
            clean.append(document.encode())
            offset += len(clean[-1]) + 1
        self._regions = np.array(starts, np.int64)
        self.rows.choose(chosen, len(documents))
        return SEPARATOR.join(clean)

    def table(self, flag: str, scores: Mapping[str, ScoredText], further: Table | None = None) -> Table:
        """The table of --per-token, --per-word or --per-region, with `further` columns before those kept."""
        scored = next(iter(scores.values()))
        if flag == "per_region":
            assert self._regions is not None
            table = region_table(scores, self._regions)
        else:
            table = _MAKERS[flag](scores)
            if self._regions is not None:
                offsets = scored.starts if flag == "per_token" else scored.words.starts
                numbers = numbers_within(np.searchsorted(scored.separators, self._regions))
                table["region_number"] = numbers[regions_of(scored, self._regions, offsets)]
        if flag == "per_word" and self._language:
            table |= _frequencies(table["word"], self._language)
        table |= further or {}
        document = np.asarray(table["document"], np.int64) - 1
        if self.rows.numbers:
            table["document"] = np.array(self.rows.numbers)[document]
        for name in self._keep:
            values = self.rows.values[name]
            table[free_name(name, table)] = Values(values[i] for i in document.tolist())
        return table


def _frequencies(words: Sequence[str] | np.ndarray, language: str) -> Table:
    """The length of each word in characters, and its frequency on the Zipf scale: the base-10 logarithm of
    its occurrences per billion words (van Heuven et al. 2014), 0 if it is unknown."""
    zipf = _wordfreq(language)
    known = {word: zipf(word, language) for word in dict.fromkeys(words)}
    return {
        "length": np.array([len(word) for word in words], np.int64),
        "frequency": np.array([known[word] for word in words], np.float64),
    }


def _wordfreq(language: str) -> Any:
    """The function of the wordfreq library. Raises UserError if it or what it needs for the language is not
    installed, or if it lacks the language."""
    try:
        import wordfreq
    except ImportError as error:
        raise UserError(f"--frequency needs the `wordfreq` library: {pip_install('frequency')}") from error
    if language not in (known := sorted(wordfreq.available_languages())):
        raise UserError(f"--frequency must be one of {', '.join(known)}, got {language}.")
    try:
        wordfreq.zipf_frequency("a", language)
    except ImportError as error:  # of what splits Chinese, Japanese and Korean into words
        install = f"pip install {quoted('wordfreq[cjk]')}"
        raise UserError(
            f"--frequency {language} needs packages that split its texts into words: {install}"
        ) from error
    return wordfreq.zipf_frequency

"""What the Look inside tab shows of a text: how surprising it was, what units did. No Gradio here."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.escaping import printable
from lm.insight.places import pieces
from lm.insight.properties import PROPERTIES, matching
from lm.insight.surprisal import ScoredText, Table, score_text, table_lines
from lm.insight.trace import Trace, trace_text
from lm.insight.units import FoundUnits, find_units
from lm.language_model import LanguageModel

from ...draft import restore_controls
from ...ui.token_view import activation_level, colored_tokens, surprisal_level

LONGEST = 20_000  # characters
PATTERN = "pattern"  # the property that a regular expression tells
_KEPT = 4  # looks; each holds all hidden states of its text


@dataclass(frozen=True, eq=False)
class Look:
    """A text that a model has read."""

    trace: Trace
    scored: ScoredText

    @cached_property
    def tokens(self) -> list[str]:
        """What a reader sees of each token."""
        return pieces(self.trace.text, self.trace.starts)

    @cached_property
    def words(self) -> tuple[list[str], np.ndarray]:
        """The text cut before each word, and where in it each part begins."""
        starts = np.unique([0, *(np.array(self.scored.per_word()["offset"], np.int64).tolist())])
        return pieces(self.trace.text, starts), starts

    def surprise(self) -> dict[str, Any]:
        """The tokens, coloured by their bits."""
        bits = self.scored.bits.tolist()
        tips = [f"{b:.1f} bits, p = {2**-b:.2g}" for b in bits]
        return colored_tokens(self.tokens, [surprisal_level(b) for b in bits], tips)

    def surprise_of_words(self) -> dict[str, Any]:
        """The words, coloured by their bits; a word has the colour of a token of half of them."""
        parts, starts = self.words
        table = self.scored.per_word()
        bits = dict(zip(np.asarray(table["offset"]).tolist(), table["surprisal"].tolist(), strict=True))
        levels = [surprisal_level(bits.get(start, 0.0) / 2) for start in starts.tolist()]
        tips = [f"{bits[start]:.1f} bits" if start in bits else "" for start in starts.tolist()]
        return colored_tokens(parts, levels, tips)

    def unit(self, layer: int, name: str, unit: int) -> dict[str, Any]:
        """The tokens, coloured by what a unit or a gate was after each of them."""
        values = self.trace.values(layer, name, unit)
        # A memory may count to hundreds; a single peak shall not bleach the rest.
        largest = max(1.0, float(np.quantile(np.abs(values), 0.98))) if name == "c" else 1.0
        levels = [activation_level(value, largest) for value in values.tolist()]
        return colored_tokens(self.tokens, levels, [f"{value:+.3f}" for value in values.tolist()])

    def found(self, name: str, pattern: str) -> FoundUnits:
        """The units that track a property best. Raises UserError."""
        if name == PATTERN:
            return find_units(self.trace, matching(self.trace.text, pattern))
        if name not in PROPERTIES:
            raise UserError("choose what the units are to track.")
        return find_units(self.trace, PROPERTIES[name](self.trace.text))

    def characters(self, start: int, end: int, of_words: bool) -> tuple[int, int]:
        """From parts of the view, the last one excluded, to characters of the text."""
        starts = self.words[1] if of_words else self.trace.starts
        if not 0 <= start < end <= len(starts):
            raise UserError("the text has changed: look inside once more.")
        behind = int(starts[end]) if end < len(starts) else len(self.trace.text)
        return int(starts[start]), behind


class Looks:
    """The texts that were looked into last."""

    def __init__(self):
        self._kept: OrderedDict[tuple[LanguageModel, str], Look] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, model: LanguageModel, text: str) -> Look:
        """A text that `model` has read, read again only if others were looked into since. Raises
        UserError."""
        if len(text) > LONGEST:
            raise UserError(
                f"the text has {len(text):,} characters and this tab takes {LONGEST:,}: shorten it."
            )
        key = model, text
        with self._lock:
            look = self._kept.get(key)
        if look is None:
            meant = restore_controls(model, text)
            look = Look(trace_text(model, meant), score_text(model, meant))
        with self._lock:
            self._kept[key] = look
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return look


def tsv(table: Table) -> str:
    """A table as the address of a file to be downloaded."""
    data = base64.b64encode("".join(table_lines(table)).encode()).decode("ascii")
    return f"data:text/tab-separated-values;charset=utf-8;base64,{data}"


def in_line(parts: Sequence[str]) -> str:
    """Part of a text on one line."""
    return printable("".join(parts)).replace("\n", "↵").replace("\t", "⇥")

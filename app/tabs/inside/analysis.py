"""Texts analyzed for the Look inside tab: the surprisal of each token and the state of each unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.files.atomic import portable_name
from lm.insight.pages import PagedText
from lm.insight.properties import PROPERTIES, matching
from lm.insight.scored_text import ScoredText
from lm.insight.spans import pieces
from lm.insight.surprisal import score_text
from lm.insight.trace import Trace
from lm.insight.units import CLEAR_SCORE, FoundUnits, find_units, rank_properties
from lm.language_model import LanguageModel
from lm.model.cells import CELLS

from ...draft import restore_controls
from ...ui.i18n import translate
from ...ui.token_view import (
    MAX_LEVEL,
    Legend,
    activation_level,
    colored_tokens,
    surprisal_legend,
    surprisal_level,
)

MAX_LENGTH = 200_000  # characters
PAGE = 8_000  # tokens analyzed and shown at a time
REGEX = "pattern"  # the property that a regular expression defines
_CACHE_SIZE = 4  # analyses; each holds all hidden states of its text


@dataclass(frozen=True, eq=False)
class Analysis:
    """A page of a text with its trace, and the scores of the whole text; the methods that color the page
    return values for a token view."""

    trace: Trace
    scored: ScoredText
    page: int
    borders: Sequence[int]  # the first token of each page, and the number of tokens
    offset: int  # the first character of the page in the text

    @property
    def pages(self) -> int:
        """The number of pages of the text."""
        return len(self.borders) - 1

    @cached_property
    def tokens(self) -> list[str]:
        """The displayed text of each token."""
        return pieces(self.trace.text, self.trace.starts)

    def color_tokens(self) -> dict[str, Any]:
        """The tokens, colored by surprisal."""
        first = self.borders[self.page]
        bits = self.scored.bits[first : first + len(self.tokens)].tolist()
        tooltips = [f"{in_bits(b)}, p = {2**-b:.2g}" for b in bits]
        return self._surprisals([surprisal_level(b) for b in bits], tooltips, 1)

    def color_words(self) -> dict[str, Any]:
        """The tokens, colored by the surprisal of their word: a word of 2n bits gets the color of a token
        of n bits. Whitespace has the color of the word before it."""
        table = self.scored.per_word()
        starts, bits = (np.asarray(table[name]) for name in ("offset", "surprisal"))
        last = self.offset + np.maximum(self.trace.ends - 1, self.trace.starts)
        word = np.searchsorted(starts, last, side="right") - 1
        of_token = np.where(word < 0, 0.0, np.append(bits, 0.0)[word])
        levels = [surprisal_level(b, 2) for b in of_token.tolist()]
        tooltips = [in_bits(b) if w >= 0 else "" for b, w in zip(of_token, word, strict=True)]
        return self._surprisals(levels, tooltips, 2)

    def _surprisals(self, levels: list[int], tooltips: list[str], bits_per_level: int) -> dict[str, Any]:
        """Unknown tokens are marked: what is scored in their place is not surprising."""
        first = self.borders[self.page]
        unknown = self.scored.is_unknown[first : first + len(self.tokens)].tolist()
        note = translate("unknown, scored as <unk>")
        tips = [
            f"{tip}, {note}" if is_unknown else tip for tip, is_unknown in zip(tooltips, unknown, strict=True)
        ]
        legend = surprisal_legend(bits_per_level, note if any(unknown) else "")
        return colored_tokens(self.tokens, levels, tips, legend=legend, unknown=unknown)

    def color_by_unit(self, layer: int, name: str, unit: int) -> dict[str, Any]:
        """The tokens, colored by the value of a unit's state or gate `name` after each token."""
        values = self.trace.values(layer, name, unit)
        # Cell states can count to hundreds. The quantile keeps a single peak from fading all other colors.
        largest = max(1.0, float(np.quantile(np.abs(values), 0.98))) if name == "c" else 1.0
        levels = [activation_level(value, largest) for value in values.tolist()]
        tooltips = [f"{name} = {value:+.3f}" for value in values.tolist()]
        is_gate = CELLS[self.trace.cell].gates.get(name) == "sigmoid"
        legend = Legend("0", "1") if is_gate else Legend(f"−{largest:.3g}", f"+{largest:.3g}", -MAX_LEVEL)
        return colored_tokens(self.tokens, levels, tooltips, legend=legend)

    def find_units(self, property_name: str, pattern: str) -> FoundUnits:
        """The units that best track a property. `pattern` is a regular expression, used if the property is
        REGEX. Raises UserError if the property is unknown or cannot be tracked in this text."""
        if property_name == REGEX:
            return find_units(self.trace, matching(self.trace.text, pattern))
        if property_name not in PROPERTIES:
            raise UserError("choose a property for the units to track.")
        return find_units(self.trace, PROPERTIES[property_name](self.trace.text))

    @cached_property
    def best_units(self) -> dict[str, FoundUnits]:
        """The units that best track each of the built-in properties that vary enough in this text."""
        text = self.trace.text
        return rank_properties(self.trace, {name: of(text) for name, of in PROPERTIES.items()}, 20)

    @cached_property
    def tracked(self) -> dict[tuple[int, int], str]:
        """The property that each unit (layer, unit) tracks best with h, if it tracks one well."""
        best: dict[tuple[int, int], tuple[float, str]] = {}
        for name, found in self.best_units.items():
            for unit in found.units:
                if unit.name == "h" and unit.score >= CLEAR_SCORE[found.measure]:
                    place = unit.layer, unit.unit
                    best[place] = max(best.get(place, (0.0, "")), (unit.score, name))
        return {place: name for place, (_, name) in best.items()}

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """Convert a range of tokens, end excluded, to a range of characters.

        Raises UserError if the text has no such range.
        """
        starts = self.trace.starts
        if not 0 <= start < end <= len(starts):
            raise UserError("the text has changed: analyze it again.")
        after = int(starts[end]) if end < len(starts) else len(self.trace.text)
        return int(starts[start]), after


class AnalysisCache:
    """The most recent analyses, and the texts that they are pages of."""

    def __init__(self) -> None:
        self._read = lru_cache(_CACHE_SIZE)(_read)
        self._analyze = lru_cache(_CACHE_SIZE)(self._analysis)

    def get(self, model: LanguageModel, text: str, page: int = 0) -> Analysis:
        """The analysis of a page of `text` by `model`, computed if it is not in the cache.

        Raises UserError if the text is too long or cannot be scored, or has no such page.
        """
        if len(text) > MAX_LENGTH:
            raise UserError(
                f"the text has {len(text):,} characters; the limit is {MAX_LENGTH:,}: shorten it."
            )
        return self._analyze(model, text, page)

    def _analysis(self, model: LanguageModel, text: str, page: int) -> Analysis:
        paged, scored = self._read(model, text)
        return Analysis(paged.trace(page), scored, page, paged.borders, paged.characters(page)[0])


def _read(model: LanguageModel, text: str) -> tuple[PagedText, ScoredText]:
    original = restore_controls(model, text)
    return PagedText(model, original, PAGE), score_text(model, original)


def in_bits(value: float) -> str:
    """A surprisal with its unit."""
    return translate("{bits:.1f} bits", bits=value)


def file_name(model: str | None, rest: str) -> str:
    """The name of a download: that of the model, then `rest`."""
    return portable_name(f"{model or 'model'} {rest}")

"""What a visitor sees first: a text that a model wrote, colored by a unit that has learned something.

Nothing here depends on Gradio.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.insight.properties import PROPERTIES
from lm.insight.spans import pieces
from lm.insight.surprisal import score_text
from lm.insight.trace import Trace, trace_text
from lm.insight.units import CLEAR_SCORE, FoundUnit, rank_properties
from lm.language_model import LanguageModel

from ..registry import ModelRegistry
from ..ui.token_view import activation_level, colored_tokens, surprisal_level

# The most impressive first: what a unit must remember comes before what it can see in a single character.
ORDER = (
    *("quotes", "comments", "brackets", "indentation", "line_position", "bracket_depth", "word_position"),
    *("upper_case", "digits", "vowels", "punctuation", "white_space"),
)
_MIN_STRETCHES = 6  # of text with the property: among fewer, a unit fits by chance
_SAMPLES, _LENGTH, _MIN_LENGTH = 12, 400, 80  # texts that the model writes, and tokens of each
_FULL_LENGTH_PARAMETERS = 2_000_000  # larger models write shorter texts, so that none takes long
_SEED, _TEMPERATURE = 1, 0.7
_EXCERPT, _EXCERPT_LINES = 420, 7  # characters and lines shown, at most
_CACHE_SIZE = 64  # models

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exhibit:
    """A text for a token view, colored by a unit of the model or, if `unit` is None, by the surprisal of each
    token. The tooltips are numbers: values of the unit, or bits."""

    text: str
    colors: dict[str, Any]  # the value of a token view
    property: str = ""
    measure: str = ""
    unit: FoundUnit | None = None


@dataclass(frozen=True)
class Showcase:
    """The exhibits of a model, the most convincing first; none if the model writes nothing."""

    units: int
    exhibits: list[Exhibit]


class Showcases:
    """The showcases of the models in a registry, each computed once."""

    def __init__(self, models: ModelRegistry):
        self._models = models
        self._found: OrderedDict[str, Showcase] = OrderedDict()
        self._lock = threading.Lock()  # held while a showcase is computed: one at a time

    def prepare(self) -> threading.Thread:
        """Compute, in the background, the showcase that a visitor sees first; returns the thread."""
        thread = threading.Thread(target=self._try_first)
        thread.start()
        return thread

    def _try_first(self) -> None:
        try:
            self.of(next(iter(self._models.folders()), None))
        except UserError as error:  # the page says so, too
            log.info("%s", error)

    def of(self, name: str | None) -> Showcase:
        """The showcase of a model. Raises UserError if it cannot be loaded."""
        with self._lock:
            key = self._models.fingerprint(name)
            showcase = self._found.get(key) or create(self._models.load(name))
            self._found[key] = showcase
            self._found.move_to_end(key)
            while len(self._found) > _CACHE_SIZE:
                self._found.popitem(last=False)
        return showcase


def create(model: LanguageModel) -> Showcase:
    """Let a model write, and find the units that recognize something in what it wrote."""
    texts = _written(model)
    if not texts:
        return Showcase(0, [])
    trace = _joined([trace_text(model, text) for text in texts])
    ends = np.cumsum([len(text) for text in texts])
    values = {name: _property(name, trace.text, ends) for name in ORDER}
    found = rank_properties(trace, {name: v for name, v in values.items() if _comes_and_goes(v)}, count=1)
    exhibits = []
    for name, best in found.items():
        unit = best.units[0]
        # Very different scores on two parts of a text say more about the text than about the unit.
        if min(unit.score, unit.selection_score) >= CLEAR_SCORE[best.measure]:
            start, end = _excerpt(values[name], trace.text, ends)
            exhibits.append(_colored_by_unit(trace, unit, name, best.measure, start, end))
    if not exhibits:
        exhibits.append(_colored_by_surprisal(model, texts[0][: _end(texts[0])]))
    return Showcase(trace.layers * trace.units, exhibits)


def _written(model: LanguageModel) -> list[str]:
    """Texts that a model writes from nothing, the same each time."""
    share = _FULL_LENGTH_PARAMETERS / max(1, model.network.parameter_count())
    length = max(_MIN_LENGTH, int(_LENGTH * min(1.0, share)))
    written = model.generate(
        "", num_samples=_SAMPLES, seed=_SEED, temperature=_TEMPERATURE, max_new_tokens=length
    )
    return [completion.text for completion in written if completion.text.strip()]


def _joined(traces: Sequence[Trace]) -> Trace:
    """Texts that were read by themselves, as if they were one. Only its texts and states can be used."""
    first = traces[0]
    offsets = np.cumsum([0, *(len(trace.text) for trace in traces)])
    in_reading_order = traces[::-1] if first.model.backward else traces

    def joined(states: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([states[0][:1], *(each[1:] for each in states)])

    layers = range(first.layers)
    has_cell_states = "c" in first.names
    return replace(
        first,
        text="".join(trace.text for trace in traces),
        tokens=np.concatenate([trace.tokens for trace in traces]),
        starts=np.concatenate([t.starts + at for t, at in zip(traces, offsets, strict=False)]),
        ends=np.concatenate([t.ends + at for t, at in zip(traces, offsets, strict=False)]),
        hidden=[joined([trace.hidden[layer] for trace in in_reading_order]) for layer in layers],
        cell_states={
            layer: joined([trace.cell_state(layer) for trace in in_reading_order])
            for layer in layers
            if has_cell_states
        },
    )


def _property(name: str, text: str, ends: np.ndarray) -> np.ndarray:
    """A property (characters,) of texts that end at `ends`, of each by itself."""
    starts = [0, *ends[:-1].tolist()]
    parts = (text[start:end] for start, end in zip(starts, ends.tolist(), strict=True))
    return np.concatenate([PROPERTIES[name](part) for part in parts])


def _comes_and_goes(values: np.ndarray) -> bool:
    return int(np.count_nonzero(np.diff((values > 0).astype(np.int8)) > 0)) >= _MIN_STRETCHES


def _excerpt(values: np.ndarray, text: str, ends: np.ndarray) -> tuple[int, int]:
    """The beginning and end of the excerpt in which the property changes most often. It begins with a line of
    a text in the second half, on which the unit was not selected."""
    changes = np.concatenate([[0], np.cumsum(np.diff((values > 0).astype(np.int8)) != 0)])
    half = int(np.searchsorted(ends, len(text) // 2))
    candidates = []
    for number in range(half, len(ends)):
        begin, end = int(ends[number - 1]) if number else 0, int(ends[number])
        lines = [begin, *(at + 1 for at in range(begin, end - _EXCERPT // 2) if text[at] == "\n")]
        shown = [line for line in lines if not text[line].isspace()] or lines[:1]
        candidates += [(line, line + _end(text[line:end])) for line in shown]
    return max(candidates, key=lambda span: int(changes[span[1] - 1] - changes[span[0]]))


def _end(text: str) -> int:
    """Where to cut a text that is too long: at the end of a line if possible."""
    lines = text[:_EXCERPT].split("\n")
    if len(lines) > _EXCERPT_LINES:
        return len("\n".join(lines[:_EXCERPT_LINES]))
    if len(text) > _EXCERPT and len(lines) > 1:
        return len("\n".join(lines[:-1]))
    return min(len(text), _EXCERPT)


def _colored_by_unit(trace: Trace, unit: FoundUnit, name: str, measure: str, start: int, end: int) -> Exhibit:
    """The tokens between two characters, warm where the unit finds the property, or much of it."""
    values = trace.values(unit.layer, unit.name, unit.unit) * unit.direction
    middle = np.median(values) if unit.threshold is None else unit.threshold * unit.direction
    largest = float(np.quantile(np.abs(values - middle), 0.98))
    tokens = slice(*np.searchsorted(trace.starts, (start, end)).tolist())
    shown = pieces(trace.text, trace.starts)[tokens]
    levels = [activation_level(value, largest) for value in (values[tokens] - middle).tolist()]
    tooltips = [f"{value:+.2f}" for value in (values[tokens] * unit.direction).tolist()]
    return Exhibit("".join(shown), colored_tokens(shown, levels, tooltips), name, measure, unit)


def _colored_by_surprisal(model: LanguageModel, text: str) -> Exhibit:
    trace, bits = trace_text(model, text), score_text(model, text).bits.tolist()
    levels, tooltips = [surprisal_level(value) for value in bits], [f"{value:.1f}" for value in bits]
    return Exhibit(trace.text, colored_tokens(pieces(trace.text, trace.starts), levels, tooltips))

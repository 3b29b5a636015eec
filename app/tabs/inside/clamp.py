"""Clamping a unit in the Look inside tab: what the model writes when the unit is switched off or stuck."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from lm.errors import UserError
from lm.generation.clamp import Clamp
from lm.insight.spans import token_spans
from lm.insight.trace import Trace
from lm.model.cells import CELLS

from ...continuation import checked_seed
from ...ui.errors import INTERNAL, show_errors
from ...ui.fields import integer_field, seed_field
from ...ui.i18n import localized, translate
from ...ui.sliders import sampling_slider
from .analysis import Analysis
from .results import note
from .section import Inside, Viewed, dim_while_outdated

_MAX_LENGTH = 1000  # tokens
_CONTEXT = 2000  # tokens that the model reads before it writes: with clamps it reads them one by one
_SHOWN = 80  # characters of them that are shown
# The first of each is the default.
_HELD = {
    "off": "switched off",
    "high": "stuck at its highest value",
    "low": "stuck at its lowest value",
    "value": "stuck at a value",
}
_ORIGINS = {
    "highest": "where the unit is highest",
    "lowest": "where the unit is lowest",
    "end": "at the end of the text",
}


class ClampSection:
    """The section's components and event handlers, laid out in the enclosing Blocks. `heavy` are the settings
    of its events."""

    def __init__(self, inside: Inside, heavy: dict[str, Any]) -> None:
        self._inside = inside
        with gr.Row(elem_classes="clamp-settings", equal_height=True):
            self.held = _choice(_HELD, "The unit is", "inside-held")
            self.value = gr.Number(
                1.0, label=localized("Value"), visible=False, min_width=70, elem_id="inside-held-value"
            )
            self.origin = _choice(_ORIGINS, "The model continues", "inside-origin")
        with gr.Row(elem_classes="clamp-settings"):
            self.temperature = sampling_slider(
                "temperature",
                0.5,
                label=localized("Temperature"),
                min_width=120,
                elem_id="inside-clamp-temperature",
            )
            self.length = integer_field(
                200, localized("Length"), localized("in tokens"), "inside-clamp-length", min_width=80,
                minimum=1, maximum=_MAX_LENGTH,
            )  # fmt: skip
            self.seed = seed_field(1, "inside-clamp-seed", min_width=80)
        self.run = gr.Button(localized("Write both"), variant="primary", size="md", elem_id="inside-clamp")
        self.result = gr.HTML(elem_id="inside-clamped")
        self.held.input(lambda held: gr.Number(visible=held == "value"), self.held, self.value, **INTERNAL)
        settings = [self.held, self.value, self.origin, self.temperature, self.length, self.seed]
        inputs = [inside.layout.viewed, *inside.unit_inputs, *settings]
        computed = self.run.click(self.on_run, inputs, self.result, **heavy)
        dim_while_outdated(self.result, [computed], [part.change for part in inputs])

    def on_run(
        self,
        viewed: Viewed,
        layer: int,
        unit: int,
        name: str,
        held: str,
        value: float | None,
        origin: str,
        temperature: float,
        length: float | None,
        seed: float | None,
    ) -> str:
        """Let the model write twice with the same random numbers, and show both texts."""
        with show_errors():
            analysis = self._inside.analysis(viewed)
            clamp = clamp_of(analysis.trace, int(layer) - 1, int(unit or 0), name, held, value)
            count = int(length or 0)
            if not 1 <= count <= _MAX_LENGTH:
                raise UserError(f"the length must be between 1 and {_MAX_LENGTH:,} tokens, got {count:,}.")
            pair = write_both(analysis, clamp, origin, count, temperature, checked_seed(seed))
            return as_html(pair, clamp)


def _choice(choices: dict[str, str], label: str, elem_id: str) -> gr.Dropdown:
    return gr.Dropdown(
        [(localized(text), value) for value, text in choices.items()],
        value=next(iter(choices)),
        label=localized(label),
        min_width=200,
        elem_id=elem_id,
    )


@dataclass(frozen=True)
class TextPair:
    """Two texts after the same beginning, from the same random numbers."""

    prompt: str  # for a backward model, what follows the texts
    original: str
    changed: str
    backward: bool

    @property
    def same(self) -> int:
        """How many characters, in the order of writing, they have in common before the first difference."""
        step = -1 if self.backward else 1
        pairs = zip(self.original[::step], self.changed[::step], strict=False)
        shorter = min(len(self.original), len(self.changed))
        return next((at for at, (a, b) in enumerate(pairs) if a != b), shorter)


def clamp_of(trace: Trace, layer: int, unit: int, name: str, held: str, value: float | None) -> Clamp:
    """The clamp of a unit: of its cell state if `name` is c, otherwise of its hidden state. `held` is off,
    high, low (the extremes on the page) or value. Raises UserError."""
    state = name if name in CELLS[trace.cell].states else "h"
    values = trace.values(layer, state, unit)
    numbers = {"off": 0.0, "high": float(values.max()), "low": float(values.min())}
    clamp = Clamp(layer, unit, numbers.get(held, 0.0 if value is None else float(value)), state)
    return clamp.checked(trace.model.network.config)


def write_both(
    analysis: Analysis, clamp: Clamp, origin: str, length: int, temperature: float, seed: int
) -> TextPair:
    """What the model writes as it is, and with the clamp. `origin` is where both start: where the unit is
    highest or lowest on the page, or at the end of the text. Raises UserError."""
    model, tokens = analysis.trace.model, analysis.scored.tokens  # of the whole text, not only of the page
    at = 0 if model.backward else len(tokens) - 1  # the token that is read last
    if origin in ("highest", "lowest"):
        values = analysis.trace.values(clamp.layer, clamp.state, clamp.unit)
        at = int(np.argmax(values) if origin == "highest" else np.argmin(values))
        at += analysis.borders[analysis.page]
    read = tokens[at:][:_CONTEXT] if model.backward else tokens[: at + 1][-_CONTEXT:]
    settings: dict[str, Any] = {"seed": seed, "max_new_tokens": length, "temperature": temperature}
    original, changed = (
        writer.generate([read.tolist()], **settings)[0].text for writer in (model, model.clamped(clamp))
    )
    return TextPair(_text_read(analysis, at), original, changed, model.backward)


def _text_read(analysis: Analysis, at: int) -> str:
    """The text that a model has read when the last token it reads is `at`, as the user wrote it: without a
    character of which it has read only some tokens."""
    model, scored = analysis.trace.model, analysis.scored
    text = scored.text.decode()
    starts, ends = token_spans(model.tokenizer, scored.text, scored.tokens)
    if model.backward:
        return text[max(starts[at], ends[at - 1] if at else 0) :]
    return text[: min([ends[at], *starts[at + 1 : at + 2]])]


def as_html(pair: TextPair, clamp: Clamp) -> str:
    """Both texts side by side, as HTML, with the part of each that differs."""
    if pair.original == pair.changed:
        verdict = translate("Both texts are the same: the model does not need this unit here.")
    elif not pair.same:
        verdict = translate("Different from the first character.")
    else:
        verdict = translate(
            "The first character is the same. What differs is highlighted."
            if pair.same == 1
            else "The first {count:,} characters are the same. What differs is highlighted.",
            count=pair.same,
        )
    state = f"{clamp.state} = {clamp.value:.3g}"
    changed = translate(
        "Layer {layer}, unit {unit}: {state}", layer=clamp.layer + 1, unit=clamp.unit, state=state
    )
    texts = ((translate("Original"), pair.original), (changed, pair.changed))
    columns = (
        f'<section><h2>{escape(title)}</h2><div class="text" tabindex="0" role="group"'
        f' aria-label="{escape(title)}">{_text(pair, text)}</div></section>'
        for title, text in texts
    )
    return f'{note(verdict)}<div class="both">{"".join(columns)}</div>'


def _text(pair: TextPair, text: str) -> str:
    """A text next to the part of the prompt that is shown."""
    if pair.backward:
        cut = len(text) - pair.same
        different, same, prompt = text[:cut], text[cut:], pair.prompt[:_SHOWN]
        return f"<mark>{escape(different)}</mark>{escape(same)}<span>{escape(prompt)}</span>"
    prompt, same, different = pair.prompt[-_SHOWN:], text[: pair.same], text[pair.same :]
    return f"<span>{escape(prompt)}</span>{escape(same)}<mark>{escape(different)}</mark>"

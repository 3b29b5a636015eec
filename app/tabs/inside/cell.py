"""The drawn cell: the steps of one unit around a token, as numbers for the diagram in static/cell.js.

All numbers are those of lm/insight/walkthrough.py. The browser only draws them.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.insight.walkthrough import Gate, Term, Walkthrough, walk_through_all

from ...ui.custom_html import custom_html
from ...ui.i18n import translate
from ...ui.token_view import on_one_line, quoted
from .analysis import Analysis
from .results import PROPERTY_NAMES

_TEMPLATE = (
    '<div class="diagram" tabindex="0" role="group"></div><div class="formulas"><div class="equations"></div>'
    '<div class="actions" hidden><button type="button"></button><button type="button"></button></div></div>'
)
_STEPS = 96  # around the current one, that the browser gets at a time
_SOURCES = 5  # for each gate
# What the strips below the diagram show. A prime marks a new state.
_STRIPS = {"rnn": ("h'",), "gru": ("r", "z", "n", "h'"), "lstm": ("c'", "f", "i", "o", "h'")}


def cell_diagram() -> gr.HTML:
    """An empty diagram; `cell_steps` creates its value. Without one, or near its ends, it triggers `expand`
    with the position of a token as `index`, to get the steps around it."""
    return custom_html("cell.js", _TEMPLATE, "inside-cell")


def cell_steps(analysis: Analysis, token: int, layer: int, unit: int) -> dict[str, Any]:
    """The steps of a unit around a token. Raises UserError if the token, layer or unit does not exist."""
    trace = analysis.trace
    if not 0 <= token < len(trace.tokens):
        raise UserError("the text has changed: analyze it again.")
    first = max(min(token - _STEPS // 2, len(trace.tokens) - _STEPS), 0)
    tokens = range(first, min(first + _STEPS, len(trace.tokens)))
    steps = walk_through_all(trace, tokens, layer, unit, _SOURCES)
    terms = [term for step in steps for gate in step.gates for term in gate.largest]
    return {
        "cell": trace.cell,
        "first": first,
        "count": len(trace.tokens),
        "backward": trace.model.backward,
        "title": _title(analysis, layer, unit),
        "legend": translate("Orange: above zero. Blue: below zero. The wider, the larger."),
        "caption": translate("reads"),
        "keys": translate(
            "Arrow keys: left and right move through the text, up and down choose the gate whose largest"
            " contributions are shown."
        ),
        "predicted": translate("predicted"),
        "fullScreen": translate("Full screen"),
        "download": translate("Download SVG"),
        "largest": translate("Largest contributions to {gate}", gate="{gate}"),
        "strips": _STRIPS[trace.cell],
        "equations": [[equation.name, equation.formula] for equation in steps[0].equations],
        "sources": {_key(term): _source(analysis, layer, term) for term in terms},
        "tokens": [on_one_line(analysis.tokens[index]) for index in tokens],
        "steps": [{**_step(step), "predicted": _predicted(analysis, step.token)} for step in steps],
    }


def _step(step: Walkthrough) -> dict[str, Any]:
    """The numbers of a step, as they are displayed."""
    values = {gate.name: gate.value for gate in step.gates} | step.products
    if step.c_before is not None and step.c is not None:
        values |= {"c": step.c_before, "c'": step.c}
    values |= {"h": step.h_before, "h'": step.h}  # the RNN's only gate has the name of its state, too
    return {
        "values": {name: _signed(value) for name, value in values.items()},
        "gates": {gate.name: _gate(gate) for gate in step.gates},
        "numbers": [equation.numbers for equation in step.equations],
    }


def _predicted(analysis: Analysis, token: int) -> str:
    """The tokens that were most likely in place of a token."""
    predictions = analysis.trace.predictions(token, 3)
    return " · ".join(f"{quoted(name)} {share:.0%}" for name, share in predictions)


def _gate(gate: Gate) -> dict[str, Any]:
    return {
        "function": gate.function,
        "x": _signed(gate.from_x),
        "h": _signed(gate.from_h),
        "b": _signed(gate.bias_x if gate.name == "n" else gate.bias_x + gate.bias_h),
        "total": _signed(gate.total),
        "value": _signed(gate.value),
        "largest": [[_key(t), *map(_signed, (t.value, t.weight, t.product))] for t in gate.largest],
    }


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _key(term: Term) -> str:
    return f"{term.source}{term.index}"


def _source(analysis: Analysis, layer: int, term: Term) -> list[str]:
    """The name of an input of a gate: what it is, and the property that it tracks, if any."""
    if term.source == "x" and layer == 0:
        return [translate("embedding {index}", index=term.index), ""]
    of_layer = layer if term.source == "h" else layer - 1
    name = (
        translate("unit {unit}", unit=term.index)
        if term.source == "h"
        else translate("layer {layer}, unit {unit}", layer=of_layer + 1, unit=term.index)
    )
    return [name, _tracked(analysis, of_layer, term.index)]


def _title(analysis: Analysis, layer: int, unit: int) -> str:
    title = translate("Layer {layer}, unit {unit}", layer=layer + 1, unit=unit)
    tracked = _tracked(analysis, layer, unit)
    return f"{title} · {tracked}" if tracked else title


def _tracked(analysis: Analysis, layer: int, unit: int) -> str:
    name = analysis.tracked.get((layer, unit))
    label = translate(PROPERTY_NAMES[name]) if name else ""
    return label[:1].lower() + label[1:]

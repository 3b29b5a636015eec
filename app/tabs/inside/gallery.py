"""The gallery of the Look inside tab: the unit that best tracks each property, and images of units."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from lm.errors import UserError
from lm.insight.properties import PROPERTIES
from lm.insight.units import FoundUnits

from ...ui.custom_html import custom_html
from ...ui.errors import event_value, show_errors
from ...ui.i18n import localized, translate
from ...ui.token_view import on_one_line
from .analysis import Analysis, file_name
from .image import render_svg
from .results import PROPERTY_NAMES, description, new_value
from .section import Inside, Viewed

_STRIP = 72  # tokens of the text in a row


class Gallery:
    """The section's components and event handlers, laid out in the enclosing Blocks. The browser asks for
    the rows when they come into view. `heavy` are the settings of its events."""

    def __init__(self, inside: Inside, heavy: dict[str, Any]) -> None:
        self._inside = inside
        self.image = custom_html(
            "save_image.js",
            '<span class="note"></span> <button type="button">SVG</button>'
            ' <button type="button">PNG</button>',
            "inside-image",
            label=localized("Save the colored text as"),
        )
        self.rows = custom_html("gallery.js", '<ul class="rows"></ul><p class="note"></p>', "inside-gallery")
        viewed = inside.layout.viewed
        self.rows.load(self.on_load, viewed, self.rows, **heavy)
        self.rows.click(self.on_click, viewed, inside.unit_outputs, **heavy)
        self.image.click(self.on_image, [viewed, *inside.unit_inputs], self.image, **heavy)

    def on_load(self, viewed: Viewed) -> dict[str, Any]:
        """The rows for the text that the page shows."""
        if viewed[1] is None:  # nothing is shown yet
            return gr.skip()
        with show_errors():
            return rows(self._inside.analysis(viewed))

    def on_click(self, viewed: Viewed, event: gr.EventData) -> list[Any]:
        """Show the unit of the row that was pressed."""
        with show_errors():
            analysis = self._inside.analysis(viewed)
            name = event_value(event, "property")
            found = analysis.best_units.get(name) if isinstance(name, str) else None
            if found is None:
                raise UserError("the text has changed: analyze it again.")
            best = found.units[0]
            return self._inside.shown_unit(analysis, best.layer + 1, best.unit, best.name)

    def on_image(
        self, viewed: Viewed, layer: int, unit: int, name: str, event: gr.EventData
    ) -> dict[str, Any]:
        """The shown unit as an SVG image, which the browser saves as it is or as PNG."""
        with show_errors():
            analysis = self._inside.analysis(viewed)
            place = int(layer) - 1, int(unit or 0), name
            ending = "png" if event_value(event, "kind") == "PNG" else "svg"
            model = viewed[1] or ""
            return new_value(
                svg=render_svg(analysis, model, *place, unit_title(analysis, *place)),
                name=file_name(model, f"layer {place[0] + 1} unit {place[1]} {name}.{ending}"),
            )


def rows(analysis: Analysis) -> dict[str, Any]:
    """The value of the component: each property's best unit, the clearest first, and what is missing."""
    found = analysis.best_units
    order = sorted(found, key=lambda name: -_clarity(found[name]))
    missing = [translate(PROPERTY_NAMES[name]) for name in PROPERTIES if name not in found]
    note = translate(
        "Scores on held-out text: 1 is perfect; chance is 0.5 for “inside” and for kinds of characters, 0 for"
        " positions and depths."
    )
    note += " " + translate("Orange: above zero. Blue: below zero.")
    if missing:
        note += " " + translate("Too rare in this text: {names}.", names=", ".join(missing))
    return {"rows": [_row(analysis, name, found[name]) for name in order], "note": note}


def unit_title(analysis: Analysis, layer: int, unit: int, name: str) -> str:
    """The name of a unit, with its score if it is the best for a property."""
    for property_name, found in analysis.best_units.items():
        best = found.units[0]
        if (best.layer, best.unit, best.name) == (layer, unit, name):
            return f"{translate(PROPERTY_NAMES[property_name])} · {description(property_name, best)}"
    return translate("Layer {layer}, unit {unit}, {name}", layer=layer + 1, unit=unit, name=name)


def _clarity(found: FoundUnits) -> float:
    """The score of the best unit on a scale where 0 is chance."""
    score = found.units[0].score
    return 2 * score - 1 if found.measure == "auc" else score


def _row(analysis: Analysis, name: str, found: FoundUnits) -> dict[str, Any]:
    best = found.units[0]
    colored = analysis.color_by_unit(best.layer, best.name, best.unit)
    begin = _where_it_varies(PROPERTIES[name](analysis.trace.text)[analysis.trace.last_read])
    part = slice(begin, begin + _STRIP)
    return {
        "property": name,
        "title": translate(PROPERTY_NAMES[name]),
        "unit": description(name, best),
        "share": round(max(_clarity(found), 0.0), 3),
        "tokens": [on_one_line(token) for token in colored["tokens"][part]],
        "levels": colored["levels"][part],
    }


def _where_it_varies(values: np.ndarray) -> int:
    """The first token of the part of the text in which a property (tokens,) varies most."""
    size = min(_STRIP, len(values))
    sums, squares = (
        np.concatenate([[0.0], np.cumsum(values.astype(np.float64) ** power)]) for power in (1, 2)
    )
    mean, square = ((total[size:] - total[:-size]) / size for total in (sums, squares))
    return int(np.argmax(square - mean**2))

"""The section of the Look inside tab that lists the units that best track a property of the text."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.insight.units import FoundUnit

from ...ui.errors import INTERNAL, as_sentence, show_errors
from ...ui.fields import UNLABELED, line_field
from ...ui.i18n import localized
from .analysis import REGEX
from .results import PROPERTY_NAMES, description, measure, note
from .section import Inside, Viewed

_SHOWN = 10  # units


class UnitSearch:
    """The section's components and event handlers, laid out in the enclosing Blocks. `heavy` are the settings
    of its events."""

    def __init__(self, inside: Inside, heavy: dict[str, Any]) -> None:
        self._inside = inside
        self._lay_out()
        viewed = inside.layout.viewed
        self.property.input(
            lambda name: gr.Textbox(visible=name == REGEX), self.property, self.pattern, **INTERNAL
        )
        self.find.click(
            self.on_find,
            [viewed, self.property, self.pattern],
            [*self.outputs, *inside.unit_outputs],
            **heavy,
        ).success(None, js="() => void lm.bringIntoView('#inside-measure')", **INTERNAL)
        self.found.input(self.on_found, [viewed, self.found], inside.unit_outputs, **heavy)

    def _lay_out(self) -> None:
        with gr.Row(elem_id="inside-search", equal_height=True):
            self.property = gr.Dropdown(
                [
                    *((localized(text), name) for name, text in PROPERTY_NAMES.items()),
                    (localized("Regular expression"), REGEX),
                ],
                value="quotes",
                label=localized("Find units that track"),
                min_width=180,
                scale=2,
                elem_id="inside-property",
            )
            self.pattern = line_field(
                localized("Regular expression"),
                "inside-pattern",
                max_length=200,
                visible=False,
                min_width=120,
                placeholder="[A-Z]\\w+",
            )
            self.find = gr.Button(localized("Find units"), min_width=100, elem_id="inside-find")
        self.found = gr.Radio(
            [],
            label=localized("Best units"),
            visible=False,
            elem_id="inside-found",
            **UNLABELED,
        )
        self.measure = gr.HTML(elem_id="inside-measure")

    @property
    def outputs(self) -> list[Any]:
        """The list of units and the line below it."""
        return [self.found, self.measure]

    def cleared(self, line: str = "") -> list[Any]:
        """Values for `outputs` that show no units, only a line in HTML."""
        return [gr.Radio([], value=None, visible=False), line]

    def on_find(self, viewed: Viewed, property_name: str, pattern: str) -> list[Any]:
        """List the best units and show the first, or say why there are none."""
        with show_errors():
            analysis = self._inside.analysis(viewed)
            try:
                found = analysis.find_units(property_name, pattern or "")
            except UserError as error:
                skipped = [gr.skip()] * len(self._inside.unit_outputs)
                return [*self.cleared(note(as_sentence(error))), *skipped]
            best = found.units[0]
            choices = [(description(property_name, unit), _value(unit)) for unit in found.units[:_SHOWN]]
            return [
                gr.Radio(choices, value=_value(best), visible=True),
                note(measure(found)),
                *self._inside.shown_unit(analysis, best.layer + 1, best.unit, best.name),
            ]

    def on_found(self, viewed: Viewed, found: str) -> list[Any]:
        """Show one of the best units."""
        with show_errors():
            name, layer, unit = _parsed_value(found)
            return self._inside.shown_unit(self._inside.analysis(viewed), layer, unit, name)


def _value(unit: FoundUnit) -> str:
    return f"{unit.name} {unit.layer + 1} {unit.unit}"


def _parsed_value(value: str) -> tuple[str, int, int]:
    """State, layer from 1, and unit from `_value`. Raises UserError if the browser sent anything else."""
    if not (parts := re.fullmatch(r"([hc]) (\d{1,6}) (\d{1,6})", value or "")):
        raise UserError("choose one of the best units.")
    return parts[1], int(parts[2]), int(parts[3])

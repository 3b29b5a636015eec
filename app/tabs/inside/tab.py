"""The Look inside tab: the surprisal of each token of a text, the units behind it, and their equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lm.errors import UserError

from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, event_int, event_value, show_errors
from ...ui.i18n import translate
from .analysis import Analysis, AnalysisCache
from .cell import cell_steps
from .clamp import ClampSection
from .gallery import Gallery
from .layout import InsideLayout
from .results import (
    new_value,
    similar_contexts,
    surprising_tokens,
    table_file,
    tables_value,
    totals,
)
from .search import UnitSearch
from .section import Viewed
from .sentences import Sentences

_CONCURRENCY_LIMIT = 4
HEAVY: dict[str, Any] = {"concurrency_id": "inside", "concurrency_limit": _CONCURRENCY_LIMIT, **INTERNAL}

# JavaScript of the events; `lmInside` is defined in static/inside.js, `lmStarters` in static/starters.js.
_OPEN_JS = "(text, ...others) => [lmStarters.text(text), ...others]"
_LOOK_JS = "() => void lmInside.look()"
_EDIT_JS = "() => void lmInside.edit()"
_REVEAL_JS = "() => void lmInside.reveal()"
_REFRESH_JS = "() => void lmInside.refresh()"


class InsideTab:
    """The event handlers of the tab and its components, which are in `layout`, laid out in the enclosing
    `tab`. The dropdown `model` selects the model.

    A further section gets the analysis of the text on the page by `analysis(viewed)`, where `viewed` is the
    value of `layout.viewed`, and shows a unit by returning `shown_unit` for the components `unit_outputs`.
    """

    def __init__(self, models: ModelRegistry, model: gr.Dropdown, tab: gr.Tab):
        self.models, self.model, self.cache = models, model, AnalysisCache()
        self.layout = InsideLayout()
        with self.layout.search:
            self.search = UnitSearch(self, HEAVY)
        with self.layout.gallery:
            self.gallery = Gallery(self, HEAVY)
        with self.layout.clamp:
            ClampSection(self, HEAVY)
        with self.layout.sentences:
            Sentences(self, HEAVY)
        self._wire_text(tab)
        self._wire_unit()

    @property
    def unit_inputs(self) -> list[Any]:
        """The components that say which unit is shown: layer from 1, unit, state or gate."""
        return [self.layout.layer, self.layout.unit, self.layout.name]

    @property
    def unit_outputs(self) -> list[Any]:
        """The components that change when another unit is shown: see `shown_unit`."""
        return [self.layout.view, self.layout.color_by, *self.unit_inputs, self.layout.cell]

    @property
    def _shown(self) -> list[Any]:
        """The components that change with the text, the model or the page: see `_show`."""
        layout = self.layout
        return [
            layout.viewed,
            layout.view,
            layout.pages,
            layout.page,
            layout.totals,
            layout.tables,
            layout.surprising,
            *self.unit_inputs,
            layout.cell,
            self.gallery.rows,
            *self.search.outputs,
            layout.similar,
        ]

    def _wire_text(self, tab: gr.Tab) -> None:
        layout = self.layout
        view = [layout.color_by, *self.unit_inputs]
        shown = self._shown
        # By default, a click is ignored while the text before, or the same with another model, is analyzed.
        layout.analyze.click(
            self.on_analyze, [layout.text, self.model, *view], shown, trigger_mode="always_last", **HEAVY
        ).success(None, js=_LOOK_JS, **INTERNAL)
        tab.select(
            self.on_open,
            [layout.text, layout.viewed, self.model, *view],
            shown,
            js=_OPEN_JS,
            **HEAVY,
        ).success(None, js=_LOOK_JS, **INTERNAL)
        layout.tables.click(self.on_table, layout.viewed, layout.tables, **HEAVY)
        layout.page.input(self.on_page, [layout.viewed, layout.page, *view], shown, **HEAVY)
        layout.previous.click(self.on_turn(-1), [layout.viewed, *view], shown, **HEAVY)
        layout.next.click(self.on_turn(1), [layout.viewed, *view], shown, **HEAVY)
        self.model.change(None, js=_REFRESH_JS, **INTERNAL)
        layout.edit.click(None, js=_EDIT_JS, **INTERNAL)
        unit = [layout.viewed, layout.layer, layout.unit]
        layout.view.click(self.on_click, unit, [layout.cell, layout.sections], **HEAVY).success(
            None, js=_REVEAL_JS, **INTERNAL
        )
        # The request after an answer may come before the page knows that the first event has ended.
        layout.cell.expand(self.on_cell, unit, layout.cell, trigger_mode="multiple", **HEAVY)
        layout.view.select(self.on_select, layout.viewed, [layout.similar, layout.sections], **HEAVY).success(
            None, js=_REVEAL_JS, **INTERNAL
        )

    def _wire_unit(self) -> None:
        layout = self.layout
        layout.color_by.input(
            self.on_color_by, [layout.viewed, layout.color_by, *self.unit_inputs], layout.view, **HEAVY
        )
        for changed in (layout.layer.input, layout.unit.input, layout.name.input):
            changed(self.on_unit, [layout.viewed, *self.unit_inputs], self.unit_outputs, **HEAVY)

    def analysis(self, viewed: Viewed) -> Analysis:
        """The analysis of the text that the page shows. Raises UserError."""
        text, model, page = viewed
        if not text and model is None:
            raise UserError("analyze a text first.")
        return self.cache.get(self.models.load(model), text, page)

    def on_open(self, text: str, viewed: Viewed, model: str | None, *view: Any) -> list[Any]:
        """Analyze the text, if there is one and it or the model has changed since it was analyzed."""
        if not text or (text, model) == tuple(viewed[:2]):
            return [gr.skip()] * len(self._shown)
        return self.on_analyze(text, model, *view)

    def on_analyze(self, text: str, model: str | None, *view: Any) -> list[Any]:
        """Run the model on the text and show the surprisals."""
        with show_errors():
            return self._show((text, model, 0), *view)

    def on_page(self, viewed: Viewed, page: int | None, *view: Any) -> list[Any]:
        """Show another page of the text."""
        with show_errors():
            return self._show((viewed[0], viewed[1], int(page or 0)), *view)

    def on_turn(self, pages: int) -> Callable[..., list[Any]]:
        """A handler that turns this many pages forward."""

        def turn(viewed: Viewed, *view: Any) -> list[Any]:
            with show_errors():
                last = self.analysis(viewed).pages - 1
            return self.on_page(viewed, min(max(viewed[2] + pages, 0), last), *view)

        return turn

    def _show(self, viewed: Viewed, color_by: str, layer: int, unit: int, name: str) -> list[Any]:
        """Values for `_shown`: everything that depends on the text, the model or the page."""
        analysis = self.analysis(viewed)
        trace = analysis.trace
        layer, unit = min(int(layer), trace.layers), min(int(unit or 0), trace.units - 1)
        name = name if name in trace.names else "h"
        pages = [
            (translate("Page {number} of {count}", number=number + 1, count=analysis.pages), number)
            for number in range(analysis.pages)
        ]
        return [
            viewed,
            _colored(analysis, color_by, layer, unit, name),
            gr.Row(visible=analysis.pages > 1),
            gr.Dropdown(pages, value=analysis.page),
            totals(analysis),
            tables_value(),
            surprising_tokens(analysis),
            *_unit_updates(analysis, layer, unit, name),
            new_value(),  # the cell and the gallery ask again
            new_value(),
            *self.search.cleared(),
            "",
        ]

    def on_color_by(self, viewed: Viewed, color_by: str, layer: int, unit: int, name: str) -> dict[str, Any]:
        """Color the text by a different quantity."""
        with show_errors():
            return _colored(self.analysis(viewed), color_by, int(layer), int(unit or 0), name)

    def on_unit(self, viewed: Viewed, layer: int, unit: int, name: str) -> list[Any]:
        """Color the text by a different unit, state or gate."""
        with show_errors():
            return self.shown_unit(self.analysis(viewed), int(layer), int(unit or 0), name)

    def shown_unit(self, analysis: Analysis, layer: int, unit: int, name: str) -> list[Any]:
        """Values for `unit_outputs` that show a state or gate of a unit; layers count from 1.

        Raises UserError if it does not exist.
        """
        colored = analysis.color_by_unit(layer - 1, name, unit)
        return [colored, "unit", *_unit_updates(analysis, layer, unit, name), new_value()]

    def on_click(self, viewed: Viewed, layer: int, unit: int, event: gr.EventData) -> list[Any]:
        """Open the drawn cell at the clicked token."""
        return [self.on_cell(viewed, layer, unit, event), gr.Tabs(selected="cell")]

    def on_cell(self, viewed: Viewed, layer: int, unit: int, event: gr.EventData) -> dict[str, Any]:
        """The steps of the unit around a token."""
        with show_errors():
            token = event_int(event, "index")
            return cell_steps(self.analysis(viewed), token, int(layer) - 1, int(unit or 0))

    def on_table(self, viewed: Viewed, event: gr.EventData) -> dict[str, Any]:
        """Let the browser save the scores of the tokens or words."""
        with show_errors():
            kind = event_value(event, "table")
            return tables_value(table_file(self.analysis(viewed), viewed[1] or "", kind))

    def on_select(self, viewed: Viewed, event: gr.EventData) -> tuple[str, gr.Tabs]:
        """Show where the hidden state is most similar to that after the selected span."""
        with show_errors():
            analysis = self.analysis(viewed)
            span = analysis.characters(event_int(event, "start"), event_int(event, "end"))
            return similar_contexts(analysis, span), gr.Tabs(selected="similar")


def _colored(analysis: Analysis, color_by: str, layer: int, unit: int, name: str) -> dict[str, Any]:
    if color_by == "unit":
        return analysis.color_by_unit(layer - 1, name, unit)
    return analysis.color_words() if color_by == "words" else analysis.color_tokens()


def _unit_updates(analysis: Analysis, layer: int, unit: int, name: str) -> list[Any]:
    """Updates of the controls: the choices that this model has, and the shown unit."""
    trace = analysis.trace
    return [
        gr.Dropdown(list(range(1, trace.layers + 1)), value=layer),
        gr.Number(unit, maximum=trace.units - 1),
        gr.Dropdown(_name_choices(analysis), value=name),
    ]


def _name_choices(analysis: Analysis) -> list[tuple[str, str]]:
    """The states and gates of the model's cell, with their values for the dropdown."""
    names = {
        "h": translate("h (hidden state)"),
        "c": translate("c (cell state)"),
        "i": translate("i (input gate)"),
        "f": translate("f (forget gate)"),
        "g": translate("g (cell candidate)"),
        "o": translate("o (output gate)"),
        "r": translate("r (reset gate)"),
        "z": translate("z (update gate)"),
        "n": translate("n (candidate state)"),
    }
    return [(names[name], name) for name in analysis.trace.names]

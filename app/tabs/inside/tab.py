"""The Look inside tab: the surprisal of each token of a text, the units behind it, and their equations."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.insight.units import FoundUnit
from lm.insight.walkthrough import walk_through

from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, event_int, show_errors
from ...ui.fields import go_button
from ...ui.i18n import localized, translate
from ...ui.token_view import token_view
from .analysis import MAX_LENGTH, REGEX, Analysis, AnalysisCache
from .results import description, equations, measure, similar_contexts, surprising_tokens, totals

_CONCURRENCY_LIMIT = 4
EXAMPLE = '''def greet(name, loud=False):
    """Return a greeting for `name`; "loud" adds marks."""
    text = "Hello, " + name  # the "usual" words
    if loud:
        text = text.upper() + ("!" * 3)
    return {"text": text, "kind": 'greeting', "length": len(text)}


print(greet("world", loud=True)["text"])
names = ["Ada Lovelace", 'Grace Hopper', "Alan (the first) Turing"]
for number, name in enumerate(names):
    print(number, greet(name, loud=(number == 2)), sep=": ", end="\\n")
'''

Viewed = tuple[str, str | None]  # the text in the token view, and the name of the model that read it


def build(models: ModelRegistry, model: gr.Dropdown) -> InsideTab:
    """Lay out the tab in the enclosing Blocks; `model` selects the model."""
    return InsideTab(models, model)


class InsideTab:
    """The tab's components and event handlers."""

    def __init__(self, models: ModelRegistry, model: gr.Dropdown):
        self.models, self.model, self.cache = models, model, AnalysisCache()
        with gr.Row(elem_id="inside"):
            with gr.Column(scale=5, min_width=300):
                self._lay_out_text()
                self._lay_out_view()
            with gr.Column(scale=4, min_width=300):
                self._lay_out_results()
        self._wire()

    def _lay_out_text(self) -> None:
        self.text = gr.Textbox(
            EXAMPLE,
            label=localized("Text to analyze"),
            lines=6,
            max_lines=10,
            max_length=MAX_LENGTH,
            elem_id="inside-text",
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
        )
        self.analyze = go_button(localized("Analyze"), "inside-look")

    def _lay_out_view(self) -> None:
        self.color_by = gr.Radio(
            [
                (localized("Token surprisal"), "tokens"),
                (localized("Word surprisal"), "words"),
                (localized("Hidden unit"), "unit"),
            ],
            value="tokens",
            label=localized("Color by"),
            elem_id="inside-show",
        )
        with gr.Row():
            self.layer = gr.Dropdown(
                [1, 2], value=1, label=localized("Layer"), min_width=100, elem_id="inside-layer"
            )
            self.unit = gr.Number(
                0, precision=0, minimum=0, label=localized("Unit"), min_width=100, elem_id="inside-unit"
            )
            self.name = gr.Dropdown(
                ["h"], value="h", label=localized("State or gate"), min_width=160, elem_id="inside-name"
            )
        self.viewed = gr.State(("", None))
        self.view = token_view(localized("Text as the model sees it"), "inside-view")
        self.hint = gr.Markdown(
            localized(
                "Click a token to see how the unit is computed. Select several to find similar contexts."
            ),
            elem_id="inside-hint",
        )
        self.equations = gr.HTML(elem_id="inside-steps", elem_classes="figures")
        self.similar = gr.HTML(elem_id="inside-similar", elem_classes="figures")

    def _lay_out_results(self) -> None:
        self.totals = gr.HTML(elem_id="inside-totals", elem_classes="figures")
        with gr.Group():
            self.property = gr.Dropdown(
                [
                    (localized("Inside quotes"), "quotes"),
                    (localized("Inside brackets"), "brackets"),
                    (localized("Inside comments"), "comments"),
                    (localized("Position in line"), "line_position"),
                    (localized("Indentation"), "indentation"),
                    (localized("Bracket depth"), "bracket_depth"),
                    (localized("Position in word"), "word_position"),
                    (localized("Vowels"), "vowels"),
                    (localized("Digits"), "digits"),
                    (localized("Uppercase letters"), "upper_case"),
                    (localized("Whitespace"), "white_space"),
                    (localized("Punctuation"), "punctuation"),
                    (localized("Regular expression"), REGEX),
                ],
                value="quotes",
                label=localized("Find units that track"),
                elem_id="inside-property",
            )
            self.pattern = gr.Textbox(
                "",
                label=localized("Regular expression"),
                max_lines=1,
                max_length=200,
                visible=False,
                elem_id="inside-pattern",
                placeholder="[A-Z]\\w+",
            )
            self.find = gr.Button(localized("Find units"), elem_id="inside-find")
        self.found = gr.Radio([], label=localized("Best units"), visible=False, elem_id="inside-found")
        self.measure = gr.Markdown(elem_id="inside-measure")
        self.surprising = gr.HTML(elem_id="inside-places", elem_classes="figures")

    def _wire(self) -> None:
        source = [self.text, self.model]
        unit = [self.layer, self.unit, self.name]
        view = [self.color_by, *unit]
        heavy = {"concurrency_id": "inside", "concurrency_limit": _CONCURRENCY_LIMIT, **INTERNAL}
        self.analyze.click(
            self.on_analyze,
            [*source, *view],
            [self.viewed, self.view, self.totals, self.surprising, *unit, self.equations, self.similar],
            **heavy,
        )
        self.color_by.input(self.on_color_by, [self.viewed, *view], self.view, **heavy)
        for changed in (self.layer.input, self.unit.input, self.name.input):
            changed(self.on_unit, [self.viewed, *view], [self.color_by, self.view], **heavy)
        self.view.click(self.on_click, [self.viewed, *view], self.equations, **heavy)
        self.view.select(self.on_select, [self.viewed, self.color_by], self.similar, **heavy)

        self.property.input(
            lambda name: gr.Textbox(visible=name == REGEX), self.property, self.pattern, **INTERNAL
        )
        show_found = {
            "fn": self.on_found,
            "inputs": [self.viewed, self.found],
            "outputs": [self.view, *view],
            **heavy,
        }
        self.find.click(
            self.on_find,
            [*source, self.property, self.pattern],
            [self.viewed, self.found, self.measure, self.totals, self.surprising],
            **heavy,
        ).success(**show_found)
        self.found.input(**show_found)

    def _analysis(self, viewed: Viewed) -> Analysis:
        text, model = viewed
        return self.cache.get(self.models.load(model), text)

    def on_analyze(
        self, text: str, model: str | None, color_by: str, layer: int, unit: int, name: str
    ) -> list[Any]:
        """Run the model on the text and show the surprisals."""
        with show_errors():
            analysis = self._analysis((text, model))
            trace = analysis.trace
            layer, unit = min(int(layer), trace.layers), min(int(unit or 0), trace.units - 1)
            name = name if name in trace.names else "h"
            return [
                (text, model),
                _colored(analysis, color_by, layer, unit, name),
                totals(analysis),
                surprising_tokens(analysis),
                gr.Dropdown(list(range(1, trace.layers + 1)), value=layer),
                gr.Number(unit, maximum=trace.units - 1),
                gr.Dropdown(_name_choices(analysis), value=name),
                "",
                "",
            ]

    def on_color_by(self, viewed: Viewed, color_by: str, layer: int, unit: int, name: str) -> dict[str, Any]:
        """Color the text by a different quantity."""
        with show_errors():
            return _colored(self._analysis(viewed), color_by, int(layer), int(unit or 0), name)

    def on_unit(
        self, viewed: Viewed, color_by: str, layer: int, unit: int, name: str
    ) -> tuple[str, dict[str, Any]]:
        """Color the text by a different unit, state or gate."""
        return "unit", self.on_color_by(viewed, "unit", layer, unit, name)

    def on_click(
        self, viewed: Viewed, color_by: str, layer: int, unit: int, name: str, event: gr.EventData
    ) -> str:
        """Show the equations of the unit at the clicked token."""
        with show_errors():
            analysis, index = self._analysis(viewed), event_int(event, "index")
            start, _ = analysis.characters(index, index + 1, color_by == "words")
            token = analysis.trace.token_at(start)
            step = walk_through(analysis.trace, token, int(layer) - 1, int(unit or 0), 5)
            return equations(step, analysis.trace.predictions(token, 3))

    def on_select(self, viewed: Viewed, color_by: str, event: gr.EventData) -> str:
        """Show where the hidden state is most similar to that after the selected span."""
        with show_errors():
            analysis = self._analysis(viewed)
            start, end = event_int(event, "start"), event_int(event, "end")
            span = analysis.characters(start, end, color_by == "words")
            return similar_contexts(analysis, span)

    def on_find(self, text: str, model: str | None, property_name: str, pattern: str) -> list[Any]:
        """List the units that best track a property of the text."""
        with show_errors():
            analysis = self._analysis((text, model))
            found = analysis.find_units(property_name, pattern or "")
            choices = [(description(found, unit), _value(unit)) for unit in found.units[:10]]
            radio = gr.Radio(choices, value=choices[0][1], visible=True)
            return [(text, model), radio, measure(found), totals(analysis), surprising_tokens(analysis)]

    def on_found(self, viewed: Viewed, found: str) -> list[Any]:
        """Color the text by one of the best units."""
        with show_errors():
            analysis = self._analysis(viewed)
            name, layer, unit = _parsed_value(found)
            names = gr.Dropdown(_name_choices(analysis), value=name)
            layers = gr.Dropdown(list(range(1, analysis.trace.layers + 1)), value=layer)
            return [_colored(analysis, "unit", layer, unit, name), "unit", layers, unit, names]


def _colored(analysis: Analysis, color_by: str, layer: int, unit: int, name: str) -> dict[str, Any]:
    if color_by == "unit":
        return analysis.color_by_unit(layer - 1, name, unit)
    return analysis.color_words() if color_by == "words" else analysis.color_tokens()


def _value(unit: FoundUnit) -> str:
    return f"{unit.name} {unit.layer + 1} {unit.unit}"


def _parsed_value(value: str) -> tuple[str, int, int]:
    """State, layer from 1, and unit from `_value`. Raises UserError if the browser sent anything else."""
    if not (parts := re.fullmatch(r"([hc]) (\d{1,6}) (\d{1,6})", value or "")):
        raise UserError("choose one of the best units.")
    return parts[1], int(parts[2]), int(parts[3])


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

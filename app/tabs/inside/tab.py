"""The Look inside tab: what surprises a model in a text, what its units do there, and how one is computed."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.insight.places import Snippet
from lm.insight.similar import similar_places
from lm.insight.surprising import most_surprising
from lm.insight.units import FoundUnits
from lm.insight.walkthrough import Walkthrough, walk_through

from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, event_int, show_errors
from ...ui.i18n import localized, translate
from ...ui.token_view import token_view
from .looks import LONGEST, PATTERN, Look, Looks, in_line, tsv

_LOOKERS = 4  # at once
Looked = tuple[str, str | None]  # a text, and the name of the model that has read it
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


def build(models: ModelRegistry, model: gr.Dropdown) -> Inside:
    """Lay out the tab in the Blocks around it; `model` is where a model is chosen."""
    return Inside(models, model)


class Inside:
    """The tab's components, and what happens between them."""

    def __init__(self, models: ModelRegistry, model: gr.Dropdown):
        self.models, self.model, self.looks = models, model, Looks()
        with gr.Row(elem_id="inside"):
            with gr.Column(scale=5, min_width=300):
                self._lay_out_text()
            with gr.Column(scale=4, min_width=300):
                self._lay_out_questions()
        self._wire()

    def _lay_out_text(self) -> None:
        self.text = gr.Textbox(
            EXAMPLE, label=localized("A text to look at"), lines=6, max_lines=10, max_length=LONGEST,
            elem_id="inside-text",
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
        )  # fmt: skip
        self.look = gr.Button(
            localized("Look inside"), variant="primary", elem_id="inside-look", elem_classes="lm-go"
        )
        self.show = gr.Radio(
            [
                (localized("Surprise of each token"), "tokens"),
                (localized("Surprise of each word"), "words"),
                (localized("A hidden unit"), "unit"),
            ],
            value="tokens",
            label=localized("Colours"),
            elem_id="inside-show",
        )
        with gr.Row():
            self.layer = gr.Dropdown(
                [1, 2], value=1, label=localized("Layer"), min_width=80, elem_id="inside-layer"
            )
            self.unit = gr.Number(
                0, precision=0, minimum=0, label=localized("Unit"), min_width=80, elem_id="inside-unit"
            )
            self.name = gr.Dropdown(
                ["h"], value="h", label=localized("State or gate"), min_width=150, elem_id="inside-name"
            )
        self.looked = gr.State(("", None))  # the text in the view, and the name of its model
        self.view = token_view(localized("The text as the model sees it"), "inside-view")
        self.hint = gr.Markdown(
            localized(
                "Click a token to see how the unit was computed there; select several to find similar places."
            ),
            elem_id="inside-hint",
        )
        self.steps = gr.HTML(elem_id="inside-steps", elem_classes="figures")
        self.similar = gr.HTML(elem_id="inside-similar", elem_classes="figures")

    def _lay_out_questions(self) -> None:
        self.totals = gr.HTML(elem_id="inside-totals", elem_classes="figures")
        with gr.Group():
            self.property = gr.Dropdown(
                [
                    (localized("inside quotes"), "quotes"),
                    (localized("inside brackets"), "brackets"),
                    (localized("inside a comment"), "comments"),
                    (localized("position in the line"), "line_position"),
                    (localized("indentation"), "indentation"),
                    (localized("depth of brackets"), "bracket_depth"),
                    (localized("position in the word"), "word_position"),
                    (localized("vowels"), "vowels"),
                    (localized("digits"), "digits"),
                    (localized("capital letters"), "upper_case"),
                    (localized("white space"), "white_space"),
                    (localized("punctuation"), "punctuation"),
                    (localized("a regular expression"), PATTERN),
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
        self.found = gr.Radio([], label=localized("The best units"), visible=False, elem_id="inside-found")
        self.measure = gr.Markdown(elem_id="inside-measure")
        self.places = gr.HTML(elem_id="inside-places", elem_classes="figures")

    def _wire(self) -> None:
        given = [self.text, self.model]
        view = [self.show, self.layer, self.unit, self.name]
        slow = {"concurrency_id": "inside", "concurrency_limit": _LOOKERS} | INTERNAL
        self.look.click(
            self.on_look, [*given, *view],
            [self.looked, self.view, self.totals, self.places, *view[1:], self.steps, self.similar],
            **slow,
        )  # fmt: skip
        self.show.input(self.on_show, [self.looked, *view], self.view, **slow)
        for component in (self.layer, self.unit, self.name):
            component.input(self.on_unit, [self.looked, *view], [self.show, self.view], **slow)
        self.property.input(
            lambda name: gr.Textbox(visible=name == PATTERN), self.property, self.pattern, **INTERNAL
        )
        self.find.click(
            self.on_find,
            [*given, self.property, self.pattern],
            [self.looked, self.found, self.measure, self.totals, self.places],
            **slow,
        ).success(self.on_found, [self.looked, self.found], [self.view, *view], **slow)
        self.found.input(self.on_found, [self.looked, self.found], [self.view, *view], **slow)
        self.view.click(self.on_token, [self.looked, *view], self.steps, **slow)
        self.view.select(self.on_span, [self.looked, self.show], self.similar, **slow)

    def _look(self, looked: Looked) -> Look:
        text, name = looked
        return self.looks.of(self.models.load(name), text)

    def on_look(self, text: str, name: str, show: str, layer: int, unit: int, state: str) -> list[Any]:
        """Read the text, and tell how surprising it was."""
        with show_errors():
            look = self._look((text, name))
            trace = look.trace
            layer, unit = min(int(layer), trace.layers), min(int(unit or 0), trace.units - 1)
            state = state if state in trace.names else "h"
            return [
                (text, name),
                _view(look, show, layer, unit, state),
                _totals(look),
                _places(look),
                gr.Dropdown(list(range(1, trace.layers + 1)), value=layer),
                gr.Number(unit, maximum=trace.units - 1),
                gr.Dropdown([(_name_of(known), known) for known in trace.names], value=state),
                "",
                "",
            ]

    def on_show(self, looked: Looked, show: str, layer: int, unit: int, state: str) -> dict[str, Any]:
        """Colour the text by something else."""
        with show_errors():
            return _view(self._look(looked), show, int(layer), int(unit or 0), state)

    def on_unit(self, looked: Looked, show: str, layer: int, unit: int, state: str) -> tuple[Any, Any]:
        """Colour the text by another unit."""
        return "unit", self.on_show(looked, "unit", layer, unit, state)

    def on_find(self, text: str, name: str, tracked: str, pattern: str) -> list[Any]:
        """Rank the units by how well they track a property of the text."""
        with show_errors():
            look = self._look((text, name))
            found = look.found(tracked, pattern or "")
            choices = [(_line_of(found, n), _value_of(unit)) for n, unit in enumerate(found.units[:10])]
            radio = gr.Radio(choices, value=choices[0][1], visible=True)
            return [(text, name), radio, _measure(found), _totals(look), _places(look)]

    def on_found(self, looked: Looked, found: str) -> list[Any]:
        """Show one of the units that were found."""
        with show_errors():
            look = self._look(looked)
            state, layer, unit = _parts_of(found)
            states = gr.Dropdown([(_name_of(known), known) for known in look.trace.names], value=state)
            layers = gr.Dropdown(list(range(1, look.trace.layers + 1)), value=layer)
            return [_view(look, "unit", layer, unit, state), "unit", layers, unit, states]

    def on_token(
        self, looked: Looked, show: str, layer: int, unit: int, state: str, event: gr.EventData
    ) -> str:
        """Go through the equations of a unit at one token."""
        with show_errors():
            look, index = self._look(looked), event_int(event, "index")
            start, _ = look.characters(index, index + 1, show == "words")
            token = look.trace.token_at(start)
            return _steps(look, walk_through(look.trace, token, int(layer) - 1, int(unit or 0), 5))

    def on_span(self, looked: Looked, show: str, event: gr.EventData) -> str:
        """Find the places at which the state is most like that after a span."""
        with show_errors():
            look = self._look(looked)
            span = look.characters(event_int(event, "start"), event_int(event, "end"), show == "words")
            rows = [
                f'<tr><td class="number">{place.similarity:.3f}</td><td>{_snippet(place.place)}</td></tr>'
                for place in similar_places(look.trace, *span)
            ]
            shown = in_line([look.trace.text[slice(*span)]])
            title = translate("Where the state is most like that after “{span}” (cosine):", span=shown[:60])
            return f"<h3>{escape(title)}</h3><table>{''.join(rows)}</table>"


def _view(look: Look, show: str, layer: int, unit: int, name: str) -> dict[str, Any]:
    if show == "words":
        return look.surprise_of_words()
    return look.unit(layer - 1, name, unit) if show == "unit" else look.surprise()


def _totals(look: Look) -> str:
    figures, scored = look.scored.figures, look.scored
    rows = {
        translate("Surprise in all"): translate(
            "{bits:,.0f} bits, {tokens:,} tokens", bits=scored.bits.sum(), tokens=len(scored.tokens)
        ),
        translate("Bits per character"): f"{figures.bits_per_character.value:.3f}",
        translate("Perplexity"): f"{figures.perplexity.value:.2f}",
    }
    links = [
        f'<a download="{name}.tsv" href="{tsv(table)}">{escape(text)}</a>'
        for name, table, text in (
            ("tokens", scored.per_token(), translate("Download the tokens (TSV)")),
            ("words", scored.per_word(), translate("Download the words (TSV)")),
        )
    ]
    lines = (f'<tr><th scope="row">{escape(n)}</th><td>{escape(v)}</td></tr>' for n, v in rows.items())
    return f'<table>{"".join(lines)}</table><p class="links">{" ".join(links)}</p>'


def _places(look: Look) -> str:
    rows = (
        f'<tr><td class="number">{escape(translate("{bits:.1f} bits", bits=place.bits))}</td>'
        f"<td>{_snippet(place.place)}</td></tr>"
        for place in most_surprising(look.scored, 10)
    )
    return f"<h3>{escape(translate('The most surprising places'))}</h3><table>{''.join(rows)}</table>"


def _snippet(part: Snippet) -> str:
    before, text, after = (escape(in_line([text])) for text in (part.before, part.text, part.after))
    return f'<code class="snippet">{before}<mark>{text}</mark>{after}</code>'


def _steps(look: Look, step: Walkthrough) -> str:
    """The equations of a step, and what moved each of its gates most."""
    title = translate(
        "Layer {layer}, unit {unit}, while “{token}” is read",
        layer=step.layer + 1, unit=step.unit, token=in_line([step.read]),
    )  # fmt: skip
    before = f"h = {step.h_before:+.4f}" + ("" if step.c_before is None else f", c = {step.c_before:+.4f}")
    lines = [
        f"<tr><th scope='row'>{escape(e.name)}</th><td><code>{escape(e.formula)}</code><br>"
        f"<code>= {escape(e.numbers)}</code><br><code>= <b>{e.value:+.4f}</b></code></td></tr>"
        for e in step.equations
    ]
    terms = [
        f"<tr><th scope='row'>{escape(gate.name)}</th><td>"
        + "<br>".join(
            f"<code>{t.source}[{t.index}]: {t.value:+.3f} × {t.weight:+.3f} = {t.product:+.3f}</code>"
            for t in gate.largest
        )
        + "</td></tr>"
        for gate in step.gates
    ]
    expected = ", ".join(f"“{in_line([name])}” {p:.0%}" for name, p in look.trace.expected(step.token, 3))
    return (
        f"<h3>{escape(title)}</h3><p>{escape(translate('Before:'))} <code>{escape(before)}</code>."
        f" {escape(translate('The model expected {tokens}.', tokens=expected))}</p>"
        f"<table>{''.join(lines)}</table>"
        f"<h4>{escape(translate('What moved each sum most'))}</h4><table>{''.join(terms)}</table>"
    )


def _measure(found: FoundUnits) -> str:
    if found.measure == "auc":
        return translate(
            "Best of {count:,} units, by how often a unit is higher (or lower) inside than outside: 1 is"
            " always, 0.5 is chance. Told for a part of the text by which it was not chosen.",
            count=found.among,
        )
    return translate(
        "Best of {count:,} units, by the rank correlation of their values with the quantity: 1 or -1 is"
        " perfect, 0 is chance. Told for a part of the text by which it was not chosen.",
        count=found.among,
    )


def _line_of(found: FoundUnits, number: int) -> str:
    unit = found.units[number]
    way = translate("high there") if unit.direction > 0 else translate("low there")
    return translate(
        "layer {layer}, {name}[{unit}]: {score:.2f}, {way}",
        layer=unit.layer + 1, name=unit.name, unit=unit.unit, score=unit.score, way=way,
    )  # fmt: skip


def _value_of(unit: Any) -> str:
    return f"{unit.name} {unit.layer + 1} {unit.unit}"


def _parts_of(value: str) -> tuple[str, int, int]:
    if not (parts := re.fullmatch(r"([hc]) (\d{1,6}) (\d{1,6})", value or "")):
        raise UserError("choose one of the units that were found.")
    return parts[1], int(parts[2]), int(parts[3])


def _name_of(state: str) -> str:
    return {
        "h": translate("h, the hidden state"),
        "c": translate("c, the memory cell"),
        "i": translate("i, the input gate"),
        "f": translate("f, the forget gate"),
        "g": translate("g, the proposal"),
        "o": translate("o, the output gate"),
        "r": translate("r, the reset gate"),
        "z": translate("z, the update gate"),
        "n": translate("n, the proposal"),
    }[state]

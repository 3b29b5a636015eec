"""The Compare tab: two to four models or settings beside each other, writing with one prompt, with their loss
curves in one picture, and one text scored by each of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from lm.config.schema import SamplingConfig
from lm.errors import UserError
from lm.escaping import printable
from lm.language_model import LanguageModel

from ...continuation import MAX_LENGTH, checked_seed, checked_text
from ...draft import restore_controls
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, event_int, show_errors
from ...ui.i18n import localized, translate
from ...ui.model_facts import note
from ...ui.token_view import token_view
from . import scoreboard
from .comparison import MOST_SIDES, Judgement, Side, judged, side_by_side
from .curves import Curve, curve_of, picture
from .scoreboard import APART

AT_ONCE = 8
_LENGTH = 600  # characters
_TEMPERATURES = (0.8, 0.5, 1.1, 1.4)
_USUAL = SamplingConfig()
_PER_SIDE = 3  # the controls of a side
_WORDS = (
    "With a vocabulary of words, where all others are one <unk>, figures look better than they are: {names}."
)
_SET = "const set = (interactive) => ({__type__: 'update', interactive});"
# At the start, before the server answers: Stop is there, all else waits.
_ON_START = f"() => {{ {_SET} return [{'set(false), ' * (2 + MOST_SIDES)} set(true), set(false)]; }}"


class Comparer:
    """The tab's components, and what happens between them."""

    def __init__(self, models: ModelRegistry, tab: gr.Tab):
        self.models = models
        self.count = gr.State(2)  # columns that are shown
        self.judgement = gr.State(None)
        self.names: list[gr.Dropdown] = []
        self.controls: list[gr.components.Component] = []  # of all sides: model, temperature, top-p
        self.columns, self.boxes, self.lines, self.removes = [], [], [], []
        with gr.Column(elem_id="compare"):
            self._lay_out_prompt()
            with gr.Row(elem_id="sides", equal_height=False):
                for number in range(MOST_SIDES):
                    self._lay_out_side(number)
            self._lay_out_curves()
            self._lay_out_scores()
        self._wire(tab)

    def _lay_out_prompt(self) -> None:
        with gr.Row(elem_id="compare-common"):
            self.prompt = gr.Textbox(
                "", label=localized("Prompt"), lines=2, max_lines=6, scale=6, min_width=280,
                placeholder=localized("How each of the texts begins"), elem_id="compare-prompt",
            )  # fmt: skip
            self.length = gr.Number(
                _LENGTH,
                precision=0,
                label=localized("Length"),
                info=localized("in characters"),
                min_width=100,
                elem_id="compare-length",
            )
            self.seed = gr.Number(
                1, precision=0, label=localized("Seed"), info=localized("-1: random"), min_width=100,
                elem_id="compare-seed",
            )  # fmt: skip
        with gr.Row(elem_id="compare-actions"):
            self.run = gr.Button(
                localized("Write beside each other"), variant="primary", elem_id="compare-run",
                elem_classes="lm-go", min_width=140,
            )  # fmt: skip
            self.stop = gr.Button(
                localized("Stop"), elem_id="compare-stop", elem_classes="lm-stop", interactive=False,
                min_width=80,
            )  # fmt: skip
            self.add = gr.Button(localized("Add a column"), elem_id="compare-add", min_width=110)

    def _lay_out_side(self, number: int) -> None:
        with gr.Column(min_width=240, visible=number < 2, elem_classes="side") as column:
            names = list(self.models.folders())
            # Where there is no other model to compare with, there are other settings.
            usual = _USUAL.temperature if number < len(names) else _TEMPERATURES[number]
            name = gr.Dropdown(
                names, value=_nth(names, number), label=localized("Model"), filterable=False,
                elem_id=f"compare-model-{number + 1}",
            )  # fmt: skip
            with gr.Row(elem_classes="side-settings"):
                temperature = gr.Slider(
                    0, 2, usual, step=0.05, label=localized("Temperature"), min_width=110,
                    elem_id=f"compare-temperature-{number + 1}",
                )  # fmt: skip
                top_p = gr.Slider(
                    0.01, 1, _USUAL.top_p, step=0.01, label="Top-p", min_width=110,
                    elem_id=f"compare-top-p-{number + 1}",
                )  # fmt: skip
            box = gr.Textbox(
                label=localized("What it writes"), lines=14, max_lines=14, interactive=False,
                elem_id=f"compare-text-{number + 1}", elem_classes="side-text",
            )  # fmt: skip
            line = gr.HTML("", elem_id=f"compare-line-{number + 1}", elem_classes="side-line")
            remove = gr.Button(
                localized("Remove this column"),
                size="sm",
                visible=False,
                elem_id=f"compare-remove-{number + 1}",
            )
        self.columns.append(column)
        self.names.append(name)
        self.controls += [name, temperature, top_p]
        self.boxes.append(box)
        self.lines.append(line)
        self.removes.append(remove)

    def _lay_out_curves(self) -> None:
        gr.Markdown(localized("## Loss curves"))
        self.over = gr.Radio(
            [(localized("over the text read"), "characters"), (localized("over the time"), "seconds")],
            value="characters", label=localized("Validation loss"), elem_id="compare-over",
        )  # fmt: skip
        self.curves = gr.HTML(elem_id="compare-curves")

    def _lay_out_scores(self) -> None:
        gr.Markdown(localized("## Score a text"))
        self.text = gr.Textbox(
            "", lines=5, max_lines=12, label=localized("Text to score"), elem_id="compare-score-text",
            placeholder=localized("A text that all of the models shall predict"),
        )  # fmt: skip
        self.score = gr.Button(
            localized("Score it with each model"), elem_id="compare-score", size="md", min_width=140
        )
        self.figures = gr.HTML(elem_id="compare-figures", elem_classes="compare-table")
        with gr.Column(visible=False) as self.apart:
            self.places = gr.HTML(elem_id="compare-places", elem_classes="compare-table")
            self.shown = gr.Radio([], label=localized("Colours"), elem_id="compare-shown")
            self.view = token_view(localized("The text, word by word"), "compare-view")
            self.word = gr.HTML("", elem_id="compare-word")

    def _wire(self, tab: gr.Tab) -> None:
        waiting = [self.run, self.add, *self.removes, self.stop, self.score]
        common = [self.prompt, self.length, self.seed, self.count]
        events = []
        for trigger, function, inputs, outputs in (
            (self.run.click, self.on_run, [*common, *self.controls], [*self.boxes, *self.lines]),
            (
                self.score.click,
                self.on_score,
                [self.text, self.count, *self.names],
                [self.figures, self.apart, self.places, self.shown, self.view, self.word, self.judgement],
            ),
        ):
            # The listeners of one trigger run one after the other.
            trigger(None, None, waiting, js=_ON_START, **INTERNAL)
            event = trigger(
                function, inputs, outputs, concurrency_id="compare", concurrency_limit=AT_ONCE, **INTERNAL
            )
            events.append(event)
            for ended in (event.success, event.failure):
                ended(self.at_rest, self.count, waiting, **INTERNAL)
        self.stop.click(None, cancels=events)

        curves = {"inputs": [self.count, self.over, *self.names], "outputs": self.curves}
        refreshed = tab.select(self.on_refresh, self.names, self.names, **INTERNAL)
        refreshed.then(self.on_curves, **curves, **INTERNAL)
        for trigger in (*(name.input for name in self.names), self.over.input):
            trigger(self.on_curves, **curves, **INTERNAL)
        shape = [self.count, *self.columns, *self.removes, self.add]
        self.add.click(self.on_add, self.count, shape, **INTERNAL).then(self.on_curves, **curves, **INTERNAL)
        for number, remove in enumerate(self.removes):
            sides = [*self.controls, *self.boxes, *self.lines]
            remove.click(
                self._remover(number), [self.count, *sides], [*shape, *sides], **INTERNAL
            ).then(self.on_curves, **curves, **INTERNAL)  # fmt: skip
        self.view.click(self.on_word, self.judgement, self.word, **INTERNAL)
        self.shown.input(self.on_shown, [self.judgement, self.shown], self.view, **INTERNAL)

    def on_run(
        self, prompt: str, length: float, seed: float, count: int, *controls: Any
    ) -> Iterator[list[Any]]:
        """Let each of the sides write."""
        with show_errors():
            checked_text(prompt)
            length, seed = _checked_length(length), checked_seed(seed)
            sides, lines = self._sides(count, controls), [""] * MOST_SIDES
            able = [n for n, side in enumerate(sides) if not side.model.backward]
            for number, side in enumerate(sides):
                lines[number] = _oddities(side.model, prompt)
            if not able:
                raise UserError(
                    "these models read right to left, and cannot go on with a text: choose another."
                )
            writing = [sides[n] for n in able]
            with closing(side_by_side(writing, prompt, seed, length)) as steps:
                for _ in steps:
                    texts = [printable(side.text) for side in sides] + [""] * (MOST_SIDES - count)
                    told = [_line(side, lines[n], len(prompt), seed) for n, side in enumerate(sides)]
                    yield [*texts, *told, *[""] * (MOST_SIDES - count)]

    def on_score(self, text: str, count: int, *names: str) -> Iterator[list[Any]]:
        """Let each of the models score a text."""
        with show_errors():
            chosen = list(dict.fromkeys(names[:count]))
            models = {name: self.models.load(name) for name in chosen}
            judgement = None
            for judgement in judged(models, checked_text(text)):
                yield [scoreboard.figures(judgement), *[gr.skip()] * 6]
            scored = list(judgement.scored)
            choices = [(translate("where they disagree"), APART)] if len(scored) > 1 else []
            choices += [
                (translate("surprisal of {model}", model=name), str(n)) for n, name in enumerate(scored)
            ]
            colours = choices[0][1] if choices else None
            yield [
                scoreboard.figures(judgement),
                gr.Column(visible=bool(choices)),
                scoreboard.places(judgement),
                gr.Radio(choices, value=colours),
                scoreboard.view(judgement, colours) if choices else None,
                note(translate("Choose a word to see its bits.")) if choices else "",
                judgement,
            ]

    def on_shown(self, judgement: Judgement | None, colours: str) -> Any:
        """Colour the text by another figure."""
        return scoreboard.view(judgement, colours) if judgement else gr.skip()

    def on_word(self, judgement: Judgement | None, event: gr.EventData) -> Any:
        """The bits of one word."""
        with show_errors():
            number = event_int(event, "index")
        if judgement is None or not 0 <= number < len(judgement.words.texts):
            return gr.skip()
        return scoreboard.word_line(judgement, number)

    def on_refresh(self, *names: str) -> list[gr.Dropdown]:
        """List the models there are now."""
        found = list(self.models.folders())
        return [
            gr.Dropdown(found, value=name if name in found else _nth(found, number))
            for number, name in enumerate(names)
        ]

    def on_curves(self, count: int, over: str, *names: str) -> str:
        """The loss curves of the models that are chosen."""
        found, chosen = self.models.folders(), dict.fromkeys(names[:count])
        curves = {name: curve_of(name, found[name]) for name in chosen if name in found}
        drawn = [curve for curve in curves.values() if curve]
        without = [name for name, curve in curves.items() if not curve]
        parts = []
        if drawn:
            words = {
                "bits": translate("bits per character"),
                "characters": translate("characters read"),
                "seconds": translate("seconds"),
            }
            data = base64.b64encode(picture(drawn, over == "seconds", words).encode()).decode("ascii")
            alt = translate("Loss curves: {curves}", curves=_described(drawn))
            parts.append(f'<img class="curve" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">')
        if words := [curve.name for curve in drawn if curve.words]:
            parts.append(note(translate(_WORDS, names=", ".join(words))))
        if without:
            parts.append(note(translate("Without a loss curve: {names}.", names=", ".join(without))))
        return "".join(parts)

    def on_add(self, count: int) -> list[Any]:
        """Show one more column."""
        return self._shape(min(count + 1, MOST_SIDES))

    def _remover(self, number: int) -> Any:
        def remove(count: int, *sides: Any) -> list[Any]:
            """Take a column away; those after it move up, with what they hold."""
            controls = list(sides[: _PER_SIDE * MOST_SIDES])
            boxes, lines = list(sides[len(controls) :][:MOST_SIDES]), list(sides[-MOST_SIDES:])
            if count > 2:
                at = _PER_SIDE * number
                controls = controls[:at] + controls[at + _PER_SIDE :] + controls[at : at + _PER_SIDE]
                for held in (boxes, lines):
                    held.append(held.pop(number) and "")
                count -= 1
            return [*self._shape(count), *controls, *boxes, *lines]

        return remove

    def _shape(self, count: int) -> list[Any]:
        return [
            count,
            *(gr.Column(visible=number < count) for number in range(MOST_SIDES)),
            *(gr.Button(visible=count > 2) for _ in range(MOST_SIDES)),
            gr.Button(interactive=count < MOST_SIDES),
        ]

    def at_rest(self, count: int) -> list[gr.Button]:
        """All that changes when the writing has come to its end, or was stopped."""
        return [
            gr.Button(interactive=True),
            gr.Button(interactive=count < MOST_SIDES),
            *(gr.Button(interactive=True) for _ in range(MOST_SIDES)),
            gr.Button(interactive=False),  # Stop
            gr.Button(interactive=True),
        ]

    def _sides(self, count: int, controls: Sequence[Any]) -> list[Side]:
        values = [controls[_PER_SIDE * n : _PER_SIDE * (n + 1)] for n in range(count)]
        return [Side(self.models.load(name), float(t), float(p)) for name, t, p in values]


def build(models: ModelRegistry, tab: gr.Tab) -> Comparer:
    """Lay out the tab in the Blocks around it, and refresh it when `tab` is opened."""
    return Comparer(models, tab)


def _nth(names: list[str], number: int) -> str | None:
    return names[min(number, len(names) - 1)] if names else None


def _checked_length(length: float | None) -> int:
    length = _LENGTH if length is None else int(length)
    if not 1 <= length <= MAX_LENGTH:
        raise UserError(f"The length is a number of characters from 1 to {MAX_LENGTH:,}, not {length:,}.")
    return length


def _oddities(model: LanguageModel, prompt: str) -> str:
    if model.backward:
        return translate("This model reads right to left: it can score a text, but not go on with one.")
    unknown = model.tokenizer.unknown_in(restore_controls(model, prompt))
    if not unknown:
        return ""
    names = ", ".join(map(repr, unknown[:8])) + (" …" if len(unknown) > 8 else "")
    return translate("The model does not know {names}; it reads <unk> in their place.", names=names)


def _line(side: Side, odd: str, before: int, seed: int) -> str:
    """What stands under the text of a side, as HTML."""
    parts = [] if side.model.backward else [
        translate("seed {seed} · {characters:,} characters · {tokens:,} tokens",
             seed=seed, characters=max(len(side.text) - before, 0), tokens=side.tokens)
    ]  # fmt: skip
    if side.ended and not side.model.backward:
        parts.append(translate("the model ended the text"))
    return note(" · ".join(parts)) + (note(odd) if odd else "")


def _described(curves: Sequence[Curve]) -> str:
    return ", ".join(
        translate("{name} to {bits:.3f} bits per character", name=curve.name, bits=min(curve.bits))
        for curve in curves
    )

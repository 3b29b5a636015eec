"""The Compare tab: two to four models or settings, side by side.

They continue the same prompt, score the same text, and share one image of their loss curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.escaping import printable
from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import describe_unknown

from ...continuation import MAX_LENGTH, checked_seed, checked_text
from ...draft import restore_controls
from ...registry import ModelRegistry
from ...sampling import SETTINGS
from ...ui.errors import INTERNAL, event_int, show_errors
from ...ui.i18n import localized, translate
from ...ui.model_facts import note
from ...ui.sliders import sampling_slider
from ...ui.token_view import token_view
from . import scoreboard
from .curves import curves_html
from .scores import Comparison, compare_scores
from .side_by_side import Generation, generate_side_by_side

MAX_COLUMNS = 4
_CONCURRENCY_LIMIT = 8
_DEFAULT_LENGTH = 600  # characters
_OTHER_TEMPERATURES = (0.5, 1.1, 1.4)  # of the second column and those after it, if there is only one model
_CONTROLS_PER_COLUMN = 3  # model, temperature, top-p
# Runs in the browser at the start, before the server answers: only Stop is enabled.
_ON_START = f"""() => {{
    const set = (interactive) => ({{__type__: "update", interactive}});
    return [{"set(false), " * (2 + MAX_COLUMNS)} set(true), set(false)];
}}"""


def build(models: ModelRegistry, tab: gr.Tab) -> CompareTab:
    """Lay out the tab in the enclosing Blocks; it refreshes whenever `tab` is opened."""
    return CompareTab(models, tab)


class CompareTab:
    """The tab's components and event handlers."""

    def __init__(self, models: ModelRegistry, tab: gr.Tab):
        self.models = models
        self.count = gr.State(2)  # visible columns
        self.comparison = gr.State(None)
        self.columns: list[gr.Column] = []
        self.names: list[gr.Dropdown] = []
        self.controls: list[gr.components.Component] = []  # of all columns, one column after another
        self.outputs: list[gr.Textbox] = []
        self.statuses: list[gr.HTML] = []
        self.removes: list[gr.Button] = []
        with gr.Column(elem_id="compare"):
            self._lay_out_prompt()
            with gr.Row(elem_id="sides", equal_height=False):
                for number in range(MAX_COLUMNS):
                    self._lay_out_column(number)
            self._lay_out_curves()
            self._lay_out_scores()
        self._wire_computations()
        self._wire_scores()
        self._wire_columns(tab)

    def _lay_out_prompt(self) -> None:
        with gr.Row(elem_id="compare-common"):
            self.prompt = gr.Textbox(
                "",
                label=localized("Prompt"),
                lines=2,
                max_lines=6,
                scale=6,
                min_width=280,
                placeholder=localized("The start of every text"),
                elem_id="compare-prompt",
            )
            self.length = gr.Number(
                _DEFAULT_LENGTH,
                precision=0,
                label=localized("Length"),
                info=localized("in characters"),
                min_width=100,
                elem_id="compare-length",
            )
            self.seed = gr.Number(
                1,
                precision=0,
                label=localized("Seed"),
                info=localized("-1: random"),
                min_width=100,
                elem_id="compare-seed",
            )
        with gr.Row(elem_id="compare-actions"):
            self.run = gr.Button(
                localized("Generate side by side"),
                variant="primary",
                elem_id="compare-run",
                elem_classes="lm-go",
                min_width=140,
            )
            self.stop = gr.Button(
                localized("Stop"),
                elem_id="compare-stop",
                elem_classes="lm-stop",
                interactive=False,
                min_width=80,
            )
            self.add = gr.Button(localized("Add column"), elem_id="compare-add", min_width=110)

    def _lay_out_column(self, number: int) -> None:
        names = list(self.models.folders())
        with gr.Column(min_width=240, visible=number < 2, elem_classes="side") as column:
            name = gr.Dropdown(
                names,
                value=_nth(names, number),
                label=localized("Model"),
                filterable=False,
                elem_id=f"compare-model-{number + 1}",
            )
            with gr.Row(elem_classes="side-settings"):
                temperature = sampling_slider(
                    "temperature",
                    _default_temperature(number, len(names)),
                    label=localized("Temperature"),
                    min_width=180,
                    elem_id=f"compare-temperature-{number + 1}",
                )
                top_p = sampling_slider(
                    "top_p",
                    label="Top-p",
                    min_width=180,
                    elem_id=f"compare-top-p-{number + 1}",
                )
            output = gr.Textbox(
                label=localized("Output"),
                lines=14,
                max_lines=14,
                interactive=False,
                elem_id=f"compare-text-{number + 1}",
                elem_classes="side-text",
            )
            status = gr.HTML("", elem_id=f"compare-line-{number + 1}", elem_classes="side-line")
            remove = gr.Button(
                localized("Remove column"), size="sm", visible=False, elem_id=f"compare-remove-{number + 1}"
            )
        self.columns.append(column)
        self.names.append(name)
        self.controls += [name, temperature, top_p]
        self.outputs.append(output)
        self.statuses.append(status)
        self.removes.append(remove)

    def _lay_out_curves(self) -> None:
        gr.Markdown(localized("## Loss curves"))
        self.over = gr.Radio(
            [(localized("Characters read"), "characters"), (localized("Training time"), "seconds")],
            value="characters",
            label=localized("Horizontal axis"),
            elem_id="compare-over",
        )
        self.curves = gr.HTML(elem_id="compare-curves")

    def _lay_out_scores(self) -> None:
        gr.Markdown(localized("## Score a text"))
        self.text = gr.Textbox(
            "",
            lines=5,
            max_lines=12,
            label=localized("Text to score"),
            elem_id="compare-score-text",
            placeholder=localized("A text for all models to predict"),
        )
        self.score = gr.Button(localized("Score"), elem_id="compare-score", size="md", min_width=140)
        self.scores = gr.HTML(elem_id="compare-figures", elem_classes="compare-table")
        with gr.Column(visible=False) as self.details:
            self.disagreements = gr.HTML(elem_id="compare-places", elem_classes="compare-table")
            self.color_by = gr.Radio([], label=localized("Color by"), elem_id="compare-shown")
            self.view = token_view(localized("Text, word by word"), "compare-view")
            self.word = gr.HTML("", elem_id="compare-word")

    def _wire_computations(self) -> None:
        generating = self._run_until_stopped(
            self.run.click,
            self.on_run,
            [self.prompt, self.length, self.seed, self.count, *self.controls],
            [*self.outputs, *self.statuses],
        )
        scoring = self._run_until_stopped(
            self.score.click,
            self.on_score,
            [self.text, self.count, *self.names],
            [
                self.scores,
                self.details,
                self.disagreements,
                self.color_by,
                self.view,
                self.word,
                self.comparison,
            ],
        )
        self.stop.click(None, cancels=[generating, scoring])

    def _run_until_stopped(self, trigger: Any, handler: Any, inputs: list[Any], outputs: list[Any]) -> Any:
        """Wire a long computation: while it runs, only Stop is enabled. Returns the event."""
        buttons = [self.run, self.add, *self.removes, self.stop, self.score]
        trigger(None, None, buttons, js=_ON_START, **INTERNAL)
        event = trigger(
            handler,
            inputs,
            outputs,
            concurrency_id="compare",
            concurrency_limit=_CONCURRENCY_LIMIT,
            **INTERNAL,
        )
        for ended in (event.success, event.failure):
            ended(self.on_end, self.count, buttons, **INTERNAL)
        return event

    def _wire_scores(self) -> None:
        self.view.click(self.on_word, self.comparison, self.word, **INTERNAL)
        self.color_by.input(self.on_color_by, [self.comparison, self.color_by], self.view, **INTERNAL)

    def _wire_columns(self, tab: gr.Tab) -> None:
        draw = {
            "fn": self.on_curves,
            "inputs": [self.count, self.over, *self.names],
            "outputs": self.curves,
            **INTERNAL,
        }
        tab.select(self.on_refresh, self.names, self.names, **INTERNAL).then(**draw)
        for changed in (*(name.input for name in self.names), self.over.input):
            changed(**draw)
        layout = [self.count, *self.columns, *self.removes, self.add]
        self.add.click(self.on_add, self.count, layout, **INTERNAL).then(**draw)
        contents = [*self.controls, *self.outputs, *self.statuses]
        for number, remove in enumerate(self.removes):
            removed = remove.click(
                self._remover(number), [self.count, *contents], [*layout, *contents], **INTERNAL
            )
            removed.then(**draw)

    def on_run(
        self, prompt: str, length: float, seed: float, count: int, *controls: Any
    ) -> Iterator[list[Any]]:
        """Continue the prompt in each column."""
        with show_errors():
            checked_text(prompt)
            length, seed = _checked_length(length), checked_seed(seed)
            generations = self._generations(count, controls)
            remarks = [_remark(generation.model, prompt) for generation in generations]
            able = [generation for generation in generations if not generation.model.backward]
            if not able:
                raise UserError("these models read right to left and cannot continue a text: choose another.")
            hidden = [""] * (MAX_COLUMNS - count)
            with closing(generate_side_by_side(able, prompt, seed, length)) as updates:
                for _ in updates:
                    texts = [printable(generation.text) for generation in generations]
                    statuses = [
                        _status(generation, remark, len(prompt), seed)
                        for generation, remark in zip(generations, remarks, strict=True)
                    ]
                    yield [*texts, *hidden, *statuses, *hidden]

    def _generations(self, count: int, controls: Sequence[Any]) -> list[Generation]:
        rows = [controls[_CONTROLS_PER_COLUMN * n :][:_CONTROLS_PER_COLUMN] for n in range(count)]
        return [
            Generation(self.models.load(name), float(temperature), float(top_p))
            for name, temperature, top_p in rows
        ]

    def on_end(self, count: int) -> list[gr.Button]:
        """Enable the buttons again when a computation has ended or was stopped."""
        return [
            gr.Button(interactive=True),
            gr.Button(interactive=count < MAX_COLUMNS),
            *(gr.Button(interactive=True) for _ in range(MAX_COLUMNS)),
            gr.Button(interactive=False),  # Stop
            gr.Button(interactive=True),
        ]

    def on_score(self, text: str, count: int, *names: str) -> Iterator[list[Any]]:
        """Score a text with the model of each column."""
        with show_errors():
            models = {name: self.models.load(name) for name in dict.fromkeys(names[:count])}
            for comparison in compare_scores(models, checked_text(text)):
                yield [scoreboard.scores_table(comparison), *[gr.skip()] * 6]
            choices = scoreboard.color_choices(comparison)
            color_by = choices[0][1] if choices else ""
            yield [
                scoreboard.scores_table(comparison),
                gr.Column(visible=bool(choices)),
                scoreboard.disagreements_table(comparison),
                gr.Radio(choices, value=color_by or None),
                scoreboard.color_words(comparison, color_by) if choices else None,
                note(translate("Select a word to see its bits.")) if choices else "",
                comparison,
            ]

    def on_color_by(self, comparison: Comparison | None, color_by: str) -> Any:
        """Color the text by a different quantity."""
        return scoreboard.color_words(comparison, color_by) if comparison else gr.skip()

    def on_word(self, comparison: Comparison | None, event: gr.EventData) -> Any:
        """Show the bits of the selected word."""
        with show_errors():
            word = event_int(event, "index")
        if comparison is None or not 0 <= word < len(comparison.words.texts):
            return gr.skip()
        return scoreboard.word_details(comparison, word)

    def on_refresh(self, *names: str) -> list[gr.Dropdown]:
        """Update the list of models."""
        found = list(self.models.folders())
        return [
            gr.Dropdown(found, value=name if name in found else _nth(found, number))
            for number, name in enumerate(names)
        ]

    def on_curves(self, count: int, over: str, *names: str) -> str:
        """Draw the loss curves of the visible columns' models."""
        return curves_html(self.models.folders(), names[:count], by_time=over == "seconds")

    def on_add(self, count: int) -> list[Any]:
        """Show one more column."""
        return self._layout(min(count + 1, MAX_COLUMNS))

    def _remover(self, number: int) -> Any:
        def on_remove(count: int, *contents: Any) -> list[Any]:
            """Remove a column. Later columns move up with their contents."""
            controls = list(contents[: _CONTROLS_PER_COLUMN * MAX_COLUMNS])
            outputs, statuses = list(contents[len(controls) :][:MAX_COLUMNS]), list(contents[-MAX_COLUMNS:])
            if count > 2:
                start, end = _CONTROLS_PER_COLUMN * number, _CONTROLS_PER_COLUMN * (number + 1)
                controls = controls[:start] + controls[end:] + controls[start:end]
                for values in (outputs, statuses):
                    del values[number]
                    values.append("")
                count -= 1
            return [*self._layout(count), *controls, *outputs, *statuses]

        return on_remove

    def _layout(self, count: int) -> list[Any]:
        """Show `count` columns; two is the minimum."""
        return [
            count,
            *(gr.Column(visible=number < count) for number in range(MAX_COLUMNS)),
            *(gr.Button(visible=count > 2) for _ in range(MAX_COLUMNS)),
            gr.Button(interactive=count < MAX_COLUMNS),
        ]


def _nth(names: list[str], number: int) -> str | None:
    """The name at index `number`, or the last one."""
    return names[min(number, len(names) - 1)] if names else None


def _default_temperature(number: int, num_models: int) -> float:
    """Columns without a model of their own compare temperatures instead."""
    if number == 0 or number < num_models:
        return SETTINGS["temperature"].default
    return _OTHER_TEMPERATURES[number - 1]


def _checked_length(length: float | None) -> int:
    """The number of characters to generate; the default if the field is empty. Raises UserError."""
    length = _DEFAULT_LENGTH if length is None else int(length)
    if not 1 <= length <= MAX_LENGTH:
        raise UserError(f"the length must be between 1 and {MAX_LENGTH:,} characters, got {length:,}.")
    return length


def _remark(model: LanguageModel, prompt: str) -> str:
    """What the user should know about a model and this prompt, if anything."""
    if model.backward:
        return translate("This model reads right to left: it can score a text but cannot continue one.")
    unknown = describe_unknown(model.tokenizer, restore_controls(model, prompt))
    if not unknown:
        return ""
    return translate("The model does not know {names} and reads <unk> instead.", names=unknown)


def _status(generation: Generation, remark: str, prompt_length: int, seed: int) -> str:
    """The lines below a generated text, as HTML."""
    parts = []
    if not generation.model.backward:
        parts.append(
            translate(
                "seed {seed} · {characters:,} characters · {tokens:,} tokens",
                seed=seed,
                characters=max(len(generation.text) - prompt_length, 0),
                tokens=generation.tokens,
            )
        )
        if generation.ended:
            parts.append(translate("ended by the model"))
    return note(" · ".join(parts)) + (note(remark) if remark else "")

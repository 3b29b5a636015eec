"""The Compare tab: two to four models or settings, side by side.

They continue the same prompt, score the same text, and share one image of their loss curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from lm.console.escaping import printable
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.tokenization.tokenizer import describe_unknown

from ...continuation import MAX_LENGTH, checked_seed, checked_text
from ...draft import restore_controls
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, event_int, show_errors
from ...ui.i18n import translate
from ...ui.model_choices import choices
from ...ui.model_facts import note
from . import scoreboard
from .curves import curves_html
from .layout import DEFAULT_LENGTH, MAX_COLUMNS, CompareLayout, model_at
from .scores import Comparison, compare_scores
from .side_by_side import Generation, generate_side_by_side

_CONCURRENCY_LIMIT = 8
_CONTROLS_PER_COLUMN = 3  # model, temperature, top-p
# Runs in the browser at the start, before the server answers: only Stop is enabled.
_ON_START = f"""() => {{
    const set = (interactive) => ({{__type__: "update", interactive}});
    return [{"set(false), " * (2 + MAX_COLUMNS)} set(true), set(false)];
}}"""
_SCROLL_TO = "() => void document.querySelector('#{id}').scrollIntoView({{ block: 'start' }})"


class CompareTab:
    """The event handlers of the tab and its components, which are in `layout`, laid out in the enclosing
    Blocks. It refreshes whenever `tab` is opened."""

    def __init__(self, models: ModelRegistry, tab: gr.Tab):
        self.models = models
        self.layout = CompareLayout(choices(models))
        self._wire_computations()
        self._wire_scores()
        self._wire_columns(tab)

    def _wire_computations(self) -> None:
        layout = self.layout
        generating = self._run_until_stopped(
            layout.run.click,
            self.on_run,
            [layout.prompt, layout.length, layout.seed, layout.count, *layout.controls],
            [*layout.outputs, *layout.statuses],
        )
        scoring = self._run_until_stopped(
            layout.score.click,
            self.on_score,
            [layout.text, layout.count, *layout.names],
            [
                layout.scores,
                layout.details,
                layout.disagreements,
                layout.color_by,
                layout.view,
                layout.word,
                layout.comparison,
            ],
        )
        layout.stop.click(None, cancels=[generating, scoring])
        for event, id in (
            (layout.to_curves.click, "compare-learning"),
            (layout.to_scores.click, "compare-scoring"),
            (scoring.success, "compare-score"),
        ):
            event(None, js=_SCROLL_TO.format(id=id), **INTERNAL)

    def _run_until_stopped(self, trigger: Any, handler: Any, inputs: list[Any], outputs: list[Any]) -> Any:
        """Wire a long computation: while it runs, only Stop is enabled. Returns the event."""
        layout = self.layout
        buttons = [layout.run, layout.add, *layout.removes, layout.stop, layout.score]
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
            ended(self.on_end, layout.count, buttons, **INTERNAL)
        return event

    def _wire_scores(self) -> None:
        layout = self.layout
        layout.view.click(self.on_word, layout.comparison, layout.word, **INTERNAL)
        layout.color_by.input(self.on_color_by, [layout.comparison, layout.color_by], layout.view, **INTERNAL)

    def _wire_columns(self, tab: gr.Tab) -> None:
        layout = self.layout
        draw = {
            "fn": self.on_curves,
            "inputs": [layout.count, layout.over, *layout.names],
            "outputs": layout.curves,
            **INTERNAL,
        }
        tab.select(self.on_refresh, layout.names, layout.names, **INTERNAL).then(**draw)
        for changed in (*(name.input for name in layout.names), layout.over.input):
            changed(**draw)
        shown = [layout.count, *layout.columns, *layout.removes, layout.add]
        layout.add.click(self.on_add, layout.count, shown, **INTERNAL).then(**draw)
        contents = [*layout.controls, *layout.outputs, *layout.statuses]
        for number, remove in enumerate(layout.removes):
            removed = remove.click(
                self._remover(number), [layout.count, *contents], [*shown, *contents], **INTERNAL
            )
            removed.then(**draw)

    def follow(self, model: gr.Dropdown, events: list[Any]) -> None:
        """Compare the `model` selected on the page with another one after each of the `events`."""
        columns = self.layout.names[:2]
        for event in events:
            event(self.on_model, [model, *columns], columns, **INTERNAL)

    def on_model(self, name: str | None, first: str | None, second: str | None) -> list[gr.Dropdown]:
        """Select a model in the first column; if the second column has it, select another one there."""
        found = choices(self.models)
        if second == name:
            names = [choice for _, choice in found]
            second = next((other for other in (first, *names) if other != name and other in names), name)
        return [gr.Dropdown(found, value=name), gr.Dropdown(found, value=second)]

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
                gr.Row(visible=bool(choices)),
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
        found = choices(self.models)
        return [
            gr.Dropdown(found, value=name if name in dict(found).values() else model_at(found, number))
            for number, name in enumerate(names)
        ]

    def on_curves(self, count: int, over: str, *names: str) -> str:
        """Draw the loss curves of the visible columns' models."""
        return curves_html(self.models.folders(), names[:count], by_time=over == "seconds")

    def on_add(self, count: int) -> list[Any]:
        """Show one more column."""
        return _columns_shown(min(count + 1, MAX_COLUMNS))

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
            return [*_columns_shown(count), *controls, *outputs, *statuses]

        return on_remove


def _columns_shown(count: int) -> list[Any]:
    """Show `count` columns; two is the minimum."""
    return [
        count,
        *(gr.Column(visible=number < count) for number in range(MAX_COLUMNS)),
        *(gr.Button(visible=count > 2) for _ in range(MAX_COLUMNS)),
        gr.Button(interactive=count < MAX_COLUMNS),
    ]


def _checked_length(length: float | None) -> int:
    """The number of characters to generate; the default if the field is empty. Raises UserError."""
    length = DEFAULT_LENGTH if length is None else int(length)
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

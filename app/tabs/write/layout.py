"""The layout of the Write tab: its components, from the text to the settings."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...continuation import DEFAULT_LENGTH, MAX_CANDIDATES
from ...ui.custom_html import custom_html
from ...ui.fields import go_button, integer_field, seed_field, stop_button
from ...ui.i18n import localized
from .alternatives import alternatives_panel
from .controls import Controls
from .documents import DocumentBar

HINT = (
    "Ctrl+Enter generates, Esc stops. Click in the text or press Ctrl+Space to see the alternatives at that"
    " position."
)
# JavaScript of components without a look of their own, which connect the browser and the server.
_WRITTEN_JS = "watch('value', () => props.value && lm.writing.written(props.value));"
_SPANS_JS = (
    "lm.requestCopied = () => trigger('click'); watch('value', () => lm.editor.underline(props.value ?? []));"
)


class WriteLayout:
    """The components, laid out in the enclosing Blocks."""

    def __init__(self) -> None:
        with gr.Row(elem_id="page"):
            with gr.Column(scale=5, min_width=300):
                self._lay_out_editor()
                self._lay_out_candidates()
                self._lay_out_insights()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_settings()

    def _lay_out_editor(self) -> None:
        self.document = DocumentBar()
        self.text = gr.Textbox(
            label=localized("Text"),
            show_label=False,
            elem_id="text",
            placeholder=localized("Type the beginning of a text, then press Generate."),
            lines=16,
            max_lines=16,
            autoscroll=False,
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
        )
        self.written = gr.HTML(None, html_template="", js_on_load=_WRITTEN_JS, elem_id="written")
        self.spans = gr.HTML(None, html_template="", js_on_load=_SPANS_JS, elem_id="spans")
        self.panel = alternatives_panel()
        with gr.Row(elem_id="actions"):
            self.generate = go_button(localized("Generate"), "generate", min_width=60)
            self.stop = stop_button("stop", min_width=60)
            self.undo = gr.Button(localized("Undo"), elem_id="undo", interactive=False, min_width=60)
            self.redo = gr.Button(localized("Redo"), elem_id="redo", interactive=False, min_width=60)
            self.regenerate = gr.Button(
                localized("Regenerate"), elem_id="regenerate", interactive=False, min_width=60
            )
        with gr.Row(elem_id="result"):
            self.status = gr.Markdown(localized(HINT), label=localized("Status"), elem_id="status")
            self.reuse = gr.Button(
                localized("Reuse this seed"), size="sm", elem_id="reuse", interactive=False
            )
        custom_html(
            "announcer.js",
            '<p role="status"></p>',
            "announcer",
            # The only property that is shown in the user's language.
            label=localized("The model is writing.\nThe model has stopped writing."),
        )

    def _lay_out_candidates(self) -> None:
        self.columns: list[gr.Column] = []
        self.boxes: list[gr.Textbox] = []
        self.takes: list[gr.Button] = []
        with gr.Row(elem_id="candidates", visible=False) as self.candidates:
            for number in range(1, MAX_CANDIDATES + 1):
                with gr.Column(min_width=220, visible=False, elem_classes="candidate") as column:
                    box = gr.Textbox(
                        label=f"{number}", lines=8, max_lines=8, interactive=False, autoscroll=False
                    )
                    take = gr.Button(localized("Use this one"), size="sm", elem_id=f"take-{number}")
                self.columns.append(column)
                self.boxes.append(box)
                self.takes.append(take)

    def _lay_out_insights(self) -> None:
        with gr.Accordion(localized("Versions"), open=False, elem_id="versions", visible=False) as accordion:
            self.versions = gr.Radio([], label=localized("Return to a version"), elem_id="version")
        self.branches = accordion
        with gr.Row(elem_id="view"):
            self.colors = gr.Checkbox(
                True,
                label=localized("Highlight unlikely tokens"),
                elem_id="colors",
                container=False,
                min_width=0,
            )
            self.copied = gr.Checkbox(
                False,
                label=localized("Underline text copied from the training data"),
                elem_id="copied",
                container=False,
                min_width=0,
            )
            self.look_inside = gr.Button(
                localized("Look inside"), size="sm", elem_id="look-inside", min_width=0
            )

    def _lay_out_settings(self) -> None:
        with gr.Group(elem_id="settings"):
            with gr.Row():
                self.length = integer_field(
                    DEFAULT_LENGTH, localized("Length"), localized("in tokens"), "length", min_width=90
                )
                self.seed = seed_field(-1, "seed", min_width=90)
                self.count = integer_field(
                    1,
                    localized("Candidates"),
                    localized("1 to 4"),
                    "count",
                    minimum=1,
                    maximum=MAX_CANDIDATES,
                    min_width=90,
                )
            self.controls = Controls()
        self.facts = gr.HTML(label="Facts", elem_id="facts")

    @property
    def state(self) -> list[Any]:
        """What changes with the displayed version; see `state` in static/writing.js."""
        return [
            self.generate,
            self.stop,
            self.undo,
            self.redo,
            self.regenerate,
            self.reuse,
            self.branches,
            self.versions,
        ]

    @property
    def shown(self) -> list[Any]:
        """What changes when another version is displayed; see `moved` in static/writing.js."""
        return [*self.state, self.status, self.candidates, self.panel]

    @property
    def settings(self) -> list[Any]:
        """The settings that a document keeps."""
        return [self.length, self.seed, self.count, self.controls.preset, *self.controls.components]

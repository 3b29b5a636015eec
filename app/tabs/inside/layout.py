"""The layout of the Look inside tab: the text, its controls, and a section for each question about it."""

from __future__ import annotations

import gradio as gr

from ...ui.custom_html import custom_html
from ...ui.fields import UNLABELED, go_button
from ...ui.i18n import localized
from ...ui.token_view import token_view
from .cell import cell_diagram


class InsideLayout:
    """The components, laid out in the enclosing Blocks.

    The text is on the left: the editor and the colored text share one box, and static/inside.js shows one of
    them. On the right, the unit is chosen above the sections. A section that needs room of its own is one
    more gr.Tab in `_lay_out_sections`.
    """

    def __init__(self) -> None:
        with gr.Row(elem_id="inside", elem_classes="editing"):
            with gr.Column(scale=5, min_width=300):
                self._lay_out_box()
            with gr.Column(scale=5, min_width=300):
                self._lay_out_unit()
                self._lay_out_sections()

    def _lay_out_box(self) -> None:
        self.viewed = gr.State(("", None, 0))
        self.color_by = gr.Radio(
            [
                (localized("Token surprisal"), "tokens"),
                (localized("Word surprisal"), "words"),
                (localized("Hidden unit"), "unit"),
            ],
            value="tokens",
            label=localized("Color by"),
            elem_id="inside-show",
            **UNLABELED,
        )
        self.text = gr.Textbox(
            "",
            label=localized("Text to analyze"),
            lines=12,
            max_lines=12,
            elem_id="inside-text",
            html_attributes=gr.InputHTMLAttributes(spellcheck=False, autocorrect="off", autocapitalize="off"),
            **UNLABELED,
        )
        self.view = token_view(localized("Text as the model sees it"), "inside-view")
        with gr.Row(elem_id="inside-pages", visible=False) as self.pages:
            self.previous = gr.Button(localized("Previous page"), size="sm", min_width=60)
            self.page = gr.Dropdown(
                [(" ", 0)],
                value=0,
                label=localized("Page"),
                min_width=90,
                elem_id="inside-page",
                **UNLABELED,
            )
            self.next = gr.Button(localized("Next page"), size="sm", min_width=60)
        with gr.Row(elem_id="inside-actions"):
            self.analyze = go_button(localized("Analyze"), "inside-look", min_width=60)
            self.edit = gr.Button(localized("Edit text"), elem_id="inside-edit", min_width=60)
            self.write = gr.Button(localized("Continue in Write"), elem_id="inside-write", min_width=60)
        self.totals = gr.Markdown(elem_id="inside-totals")
        self.tables = custom_html(
            "tables.js",
            '<button type="button" data-table="tokens" hidden></button>'
            ' <button type="button" data-table="words" hidden></button>',
            "inside-tables",
        )

    def _lay_out_unit(self) -> None:
        with gr.Row(elem_id="inside-controls"):
            self.layer = gr.Dropdown(
                [1, 2], value=1, label=localized("Layer"), min_width=110, scale=2, elem_id="inside-layer"
            )
            self.unit = gr.Number(
                0,
                precision=0,
                minimum=0,
                label=localized("Unit"),
                min_width=110,
                scale=2,
                elem_id="inside-unit",
            )
            self.name = gr.Dropdown(
                ["h"],
                value="h",
                label=localized("State or gate"),
                min_width=160,
                scale=3,
                elem_id="inside-name",
            )

    def _lay_out_sections(self) -> None:
        with gr.Tabs(elem_id="inside-sections") as self.sections:
            with gr.Tab(localized("Surprises"), id="surprises"):
                self.surprising = gr.HTML(elem_id="inside-places", elem_classes="figures")
            with gr.Tab(localized("Gallery"), id="gallery") as self.gallery:
                pass  # app/tabs/inside/gallery.py
            with gr.Tab(localized("Unit"), id="unit", elem_id="inside-unit-section") as self.search:
                pass  # app/tabs/inside/search.py
            with gr.Tab(localized("Cell"), id="cell"):
                self.cell = cell_diagram()
            with gr.Tab(localized("What if"), id="clamp") as self.clamp:
                pass  # app/tabs/inside/clamp.py
            with gr.Tab(localized("Similar places"), id="similar"):
                gr.Markdown(
                    localized(
                        "Select several characters of the text, or hold Shift and press the arrow keys and"
                        " Enter, to find where the model's state is most similar."
                    ),
                    elem_id="inside-hint",
                )
                self.similar = gr.HTML(elem_id="inside-similar", elem_classes="figures")
            with gr.Tab(
                localized("Sentences"), id="sentences", elem_id="inside-sentences-section"
            ) as self.sentences:
                pass  # app/tabs/inside/sentences.py

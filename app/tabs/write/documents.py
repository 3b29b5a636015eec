"""The controls above the text: the document's name, New, Open, Save, Copy and Export session.

Documents are in the browser: static/documents.js and static/document_list.js do what the buttons say.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...ui.errors import INTERNAL
from ...ui.fields import UNLABELED, line_field
from ...ui.i18n import localized

_OPENED_JS = "lm.documentOpened = () => trigger('change');"


class DocumentBar:
    """The controls, a line for messages, and `opened`, which triggers `change` when a document is shown."""

    def __init__(self) -> None:
        with gr.Row(elem_id="document"):
            self.name = line_field(
                localized("Name of the document"),
                "document-name",
                interactive=True,
                max_length=200,
                placeholder=localized("Untitled"),
                **UNLABELED,
            )
            self._add_button(localized("New"), "create")
            self._add_button(localized("Open"), "open")
            self._add_button(localized("Save"), "save")
            self._add_button(localized("Copy"), "copy")
            self._add_button(localized("Export session"), "export")
        self.note = gr.HTML(
            None, html_template='<p role="status"></p>' * 2, js_on_load="", elem_id="document-note"
        )
        self.opened = gr.HTML(None, html_template="", js_on_load=_OPENED_JS, elem_id="document-opened")

    def _add_button(self, label: Any, action: str) -> None:
        button = gr.Button(label, size="sm", min_width=0, elem_id=f"document-{action}")
        button.click(None, js=f"() => lm.documentActions.{action}()", **INTERNAL)

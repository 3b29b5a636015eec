"""The Models tab: a table of all models; facts, loss curve, card and buttons of the page's selected one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lm.errors import UserError

from ...jobs.queue import JobQueue
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, as_sentence, event_value, show_errors
from ...ui.fields import line_field
from ...ui.i18n import localized, translate
from ...ui.model_choices import Selection
from ...ui.model_facts import describe, note
from .catalog import entries, export_folder, pack, render_card
from .editing import MAX_INPUT_LENGTH, Editing
from .table import lay_out_table, table

_PACK_CONCURRENCY = 2  # packing is limited by the disk
# In the table, which does not know the list at the top.
_MARK = "(name) => (lmModels.mark(name), [name])"
# The file is written on request, so the button cannot be a link to it.
_DOWNLOAD = """(file) => {
    if (!file) return;
    const link = Object.assign(document.createElement("a"), { href: file.url, download: file.orig_name });
    document.body.append(link);
    link.click();
    link.remove();
}"""


class ModelsTab:
    """The tab's components, laid out in the enclosing Blocks, and its event handlers. It refreshes whenever
    `tab` is opened.

    Its table selects a model for the whole page. Without `jobs`, models cannot be changed: the page then has
    no events that would change one.
    """

    def __init__(self, models: ModelRegistry, tab: gr.Tab, selection: Selection, jobs: JobQueue | None):
        self.models, self.selection = models, selection
        self.editing = Editing(models, selection, jobs) if jobs else None
        self.fingerprint = gr.State("")  # of the displayed model
        with gr.Column(elem_id="models"):
            self.query = line_field(
                localized("Search"),
                "models-query",
                placeholder=localized("Name, cell, tokenizer or dataset"),
                max_length=MAX_INPUT_LENGTH,
            )
            self.table = lay_out_table()
            with gr.Row(elem_id="models-one"):
                with gr.Column(scale=4, min_width=300):
                    self._lay_out_facts()
                with gr.Column(scale=5, min_width=300):
                    gr.Markdown(localized("## Model card"))
                    self.card = gr.HTML(elem_id="models-card", apply_default_css=False)
        self.file = gr.DownloadButton("", visible="hidden", elem_id="models-file")
        self._wire(tab)

    def _lay_out_facts(self) -> None:
        self.name = gr.HTML(elem_id="models-selected", apply_default_css=False)
        if self.editing:
            self.editing.lay_out()
        self.facts = gr.HTML(elem_id="models-facts")

    def _wire(self, tab: gr.Tab) -> None:
        selected, outputs = self.selection.model, self.selection.outputs
        refresh = {
            "fn": self.on_refresh,
            "inputs": [self.query, selected],
            "outputs": [self.table, *outputs],
            **INTERNAL,
        }
        show = {
            "fn": self.on_select,
            "inputs": selected,
            "outputs": [
                self.name,
                self.facts,
                self.card,
                self.fingerprint,
                *(self.editing.outputs() if self.editing else []),
            ],
            "js": _MARK,
            **INTERNAL,
        }
        tab.select(**refresh).then(**show)
        self.query.change(self.on_query, self.query, self.table, trigger_mode="always_last", **INTERNAL)
        self.table.select(self.on_row, None, outputs, **INTERNAL).then(**show).then(
            None, js="() => lm.reveal('models-selected')", **INTERNAL
        )
        selected.input(**show)
        written = self.table.download(
            self.on_download,
            None,
            self.file,
            concurrency_id="pack",
            concurrency_limit=_PACK_CONCURRENCY,
            **INTERNAL,
        )
        written.success(None, self.file, None, js=_DOWNLOAD, **INTERNAL)
        for ended in (written.success, written.failure):
            ended(None, js="() => lmModels.written()", **INTERNAL)
        if self.editing:
            self.editing.wire(self.fingerprint)
            for event in self.editing.changes:
                event.success(**refresh).then(**show)
                event.failure(**refresh).then(**show)

    def on_query(self, query: str) -> dict[str, Any]:
        """List the models that match."""
        return table(entries(self.models, query[:MAX_INPUT_LENGTH]))

    def on_refresh(self, query: str, selected: str | None) -> list[Any]:
        """Update the list of models, and select the first one if the selected one is gone."""
        return [self.on_query(query), *self.selection.select(selected)]

    def on_row(self, event: gr.EventData) -> Any:
        """Select the model of a row."""
        name = event_value(event, "name")
        return self.selection.select(name) if name in list(self.models.folders()) else gr.skip()

    def on_select(self, name: str | None) -> list[Any]:
        """Show the selected model."""
        folder = None
        try:
            folder, fingerprint = self.models.folder(name), self.models.fingerprint(name)
        except UserError as error:
            shown = ["", note(as_sentence(error)), "", ""]
        else:
            card = render_card(folder) or note(translate("This model has no model card."))
            shown = [f"<h2>{escape(str(name))}</h2>", describe(folder), card, fingerprint]
        if self.editing:
            shown += self.editing.updates(folder if self.models.is_editable(name) else None)
        return shown

    def on_download(self, event: gr.EventData) -> Iterator[str]:
        """Pack or export a model. Gradio copies the file before the temporary folder is deleted."""
        name, suffix = event_value(event, "name"), event_value(event, "suffix")
        with show_errors(), tempfile.TemporaryDirectory(prefix="lm-") as temporary:
            folder = self.models.folder(name if isinstance(name, str) else None)
            if suffix == ".zip":
                yield str(pack(folder, Path(temporary)))
            elif suffix in (".onnx", ".html"):
                path = Path(temporary) / (folder.name + suffix)
                export_folder(folder, path)
                yield str(path)
            else:
                raise UserError("the page sent an invalid value: reload it and try again.")

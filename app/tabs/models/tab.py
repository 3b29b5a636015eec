"""The Models tab: a table of all models; facts, loss curve, card and buttons of the page's selected one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from lm.errors import UserError

from ...jobs.queue import JobQueue
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, as_sentence, event_value, show_errors
from ...ui.fields import line_field
from ...ui.i18n import localized, translate
from ...ui.model_choices import Selection
from ...ui.model_facts import describe, note
from .catalog import Entry, entries, export_folder, pack, render_card
from .editing import MAX_INPUT_LENGTH, Editing

_COLUMN_TYPES: list[Literal["str", "number"]] = [
    *("str", "str", "str", "number", "str", "str", "number", "number", "str"),
]
# In pixels: all columns fit on a laptop.
_COLUMN_WIDTHS: list[int | str] = [240, 65, 95, 115, 100, 165, 110, 110, 165]
# Before the server answers.
_BUSY = "() => Array(3).fill({__type__: 'update', interactive: false})"
_PACK_CONCURRENCY = 2  # packing is limited by the disk
# The zip file is written on request, so the Download button cannot be a link to it.
_DOWNLOAD = """(file) => {
    if (!file) return;
    const link = Object.assign(document.createElement("a"), { href: file.url, download: file.orig_name });
    document.body.append(link);
    link.click();
    link.remove();
}"""


def build(models: ModelRegistry, tab: gr.Tab, selection: Selection, jobs: JobQueue | None) -> ModelsTab:
    """Lay out the tab in the enclosing Blocks; it refreshes whenever `tab` is opened.

    A click on a row selects its model for the whole page. Without `jobs`, models cannot be changed: the page
    then has no events that would change one.
    """
    editing = Editing(models, selection, jobs) if jobs else None
    return ModelsTab(models, tab, selection, editing)


class ModelsTab:
    """The tab's components and event handlers."""

    def __init__(self, models: ModelRegistry, tab: gr.Tab, selection: Selection, editing: Editing | None):
        self.models, self.selection, self.editing = models, selection, editing
        self.fingerprint = gr.State("")  # of the displayed model
        with gr.Column(elem_id="models"):
            self._lay_out_selected()
            self._lay_out_table()
            with gr.Row(elem_id="models-one"):
                with gr.Column(scale=4, min_width=300):
                    self._lay_out_facts()
                with gr.Column(scale=5, min_width=300):
                    gr.Markdown(localized("## Model card"))
                    self.card = gr.HTML(elem_id="models-card", apply_default_css=False)
        self._wire(tab)

    def _lay_out_selected(self) -> None:
        """Above the table, so that a click on a row produces nothing out of view."""
        with gr.Row(elem_id="models-open"):
            self.name = gr.HTML(elem_id="models-selected", apply_default_css=False, min_width=300)
            self.open = {  # the tab that each button opens with the selected model
                "write": gr.Button(localized("Write"), elem_id="models-to-write", min_width=90),
                "inside": gr.Button(localized("Look inside"), elem_id="models-to-inside", min_width=90),
                "compare": gr.Button(localized("Compare"), elem_id="models-to-compare", min_width=90),
            }

    def _lay_out_table(self) -> None:
        self.query = line_field(
            localized("Search"),
            "models-query",
            info=localized("Click a row to select its model for the whole page, as in the list at the top."),
            placeholder=localized("Name, cell, tokenizer or dataset"),
            max_length=MAX_INPUT_LENGTH,
        )
        self.table = gr.Dataframe(
            headers=[""] * len(_COLUMN_TYPES),
            datatype=_COLUMN_TYPES,
            type="array",
            interactive=False,
            max_height=400,
            label=localized("Models"),
            elem_id="models-table",
            buttons=[],
            column_widths=_COLUMN_WIDTHS,
            wrap=True,
            pinned_columns=1,
        )

    def _lay_out_facts(self) -> None:
        with gr.Row(elem_id="models-actions"):
            self.download = gr.Button(localized("Download"), elem_id="models-download", min_width=110)
            self.exports = {
                ".onnx": gr.Button(localized("Export as ONNX"), elem_id="models-onnx", min_width=130),
                ".html": gr.Button(localized("Export as a web page"), elem_id="models-page", min_width=130),
            }
            if self.editing:
                self.editing.lay_out_delete_button()
        self.zip = gr.DownloadButton("", visible="hidden", elem_id="models-zip")
        if self.editing:
            self.editing.lay_out_forms()
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
            **INTERNAL,
        }
        tab.select(**refresh).then(**show)
        self.query.change(self.on_query, self.query, self.table, trigger_mode="always_last", **INTERNAL)
        self.table.select(self.on_row, None, outputs, **INTERNAL).then(**show)
        selected.input(**show)
        self._wire_file(self.download, self.on_download)
        for suffix, button in self.exports.items():
            self._wire_file(button, self.on_export(suffix))
        if self.editing:
            self.editing.wire(self.fingerprint)
            for event in self.editing.changes:
                event.success(**refresh).then(**show)
                event.failure(**refresh).then(**show)

    def _wire_file(self, button: gr.Button, write: Any) -> None:
        """Let a button download the file that a generator writes; all such buttons wait for it."""
        buttons = [self.download, *self.exports.values()]
        button.click(None, None, buttons, js=_BUSY, **INTERNAL)
        event = button.click(
            write,
            self.selection.model,
            self.zip,
            concurrency_id="pack",
            concurrency_limit=_PACK_CONCURRENCY,
            **INTERNAL,
        )
        event.success(None, self.zip, None, js=_DOWNLOAD, **INTERNAL)
        for ended in (event.success, event.failure):
            ended(lambda: [gr.Button(interactive=True)] * 3, None, buttons, **INTERNAL)

    def on_query(self, query: str) -> dict[str, Any]:
        """List the models that match."""
        return _table(entries(self.models, query[:MAX_INPUT_LENGTH]))

    def on_refresh(self, query: str, selected: str | None) -> list[Any]:
        """Update the list of models, and select the first one if the selected one is gone."""
        return [self.on_query(query), *self.selection.select(selected)]

    def on_row(self, event: gr.EventData) -> Any:
        """Select the model of a row."""
        row = event_value(event, "row_value")
        name = row[0] if isinstance(row, list) and row else None
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

    def on_download(self, name: str | None) -> Iterator[str | None]:
        """Pack a model. Gradio copies the file before the temporary folder is deleted."""
        with show_errors(), tempfile.TemporaryDirectory(prefix="lm-") as folder:
            yield str(pack(self.models.folder(name), Path(folder)))

    def on_export(self, suffix: str) -> Callable[[str | None], Iterator[str | None]]:
        """A generator that exports a model to a file of this kind."""

        def export(name: str | None) -> Iterator[str | None]:
            with show_errors(), tempfile.TemporaryDirectory(prefix="lm-") as folder:
                path = Path(folder) / (self.models.folder(name).name + suffix)
                export_folder(self.models.folder(name), path)
                yield str(path)

        return export


def _table(found: list[Entry]) -> dict[str, Any]:
    """The value of the table: numbers to sort by, and how to display them."""
    headers = [
        translate("Model"),
        translate("Cell"),
        translate("Layers × units"),
        translate("Parameters"),
        translate("Tokenizer"),
        translate("Trained on"),
        translate("Bits per character"),
        translate("Perplexity"),
        translate("Last modified"),
    ]
    rows = [_cells(entry) for entry in found]
    return {
        "headers": headers,
        "data": [[value for value, _ in row] for row in rows],
        "metadata": {"display_value": [[text for _, text in row] for row in rows]},
    }


def _cells(entry: Entry) -> list[tuple[str | float | None, str]]:
    """The value and the displayed text of each cell in a row."""
    size = f"{_format(entry.layers, ',d')} × {_format(entry.hidden_size, ',d')}"
    size += " ←" if entry.backward else ""
    tokenizer = entry.tokenizer + (f", {entry.vocab_size:,}" if entry.vocab_size else "")
    modified = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified))
    return [
        (entry.name, entry.name),
        (entry.cell, entry.cell),
        (size, size),
        (entry.parameters, _format(entry.parameters, ",d")),
        (tokenizer, tokenizer),
        (entry.dataset, entry.dataset),
        (entry.bits_per_character, _format(entry.bits_per_character, ".3f")),
        (entry.perplexity, _format(entry.perplexity, ",.2f")),
        (modified, modified),
    ]


def _format(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)

"""The Models tab: a table of all models, what is told of one, and to rename, delete and download it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lm.errors import UserError

from ...jobs.queue import Jobs
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, as_sentence, show_errors
from ...ui.i18n import localized, translate
from ...ui.model_facts import describe, note
from .catalog import Entry, being_trained, card, entries, pack

_LONGEST_QUERY = 200
_KINDS = ["str", "str", "str", "number", "str", "str", "number", "number", "str"]
_PACKERS = 2  # at a time: it is work for the disk
# The file is made when it is asked for, and not whenever a model is looked at.
_FETCH = """(file) => {
    if (!file) return;
    const link = Object.assign(document.createElement("a"), { href: file.url, download: file.orig_name });
    document.body.append(link);
    link.click();
    link.remove();
}"""


class Library:
    """The tab's components, and what happens between them.

    `changes` are the events after which the list of models is another; `renamed` then has the new name of
    a model by its old one, if that is what happened.
    """

    def __init__(self, models: ModelRegistry, tab: gr.Tab, jobs: Jobs | None):
        self.models, self.jobs, self.may_change = models, jobs, jobs is not None
        self.changes: list[Any] = []
        self.renamed = gr.State({})
        self.stamp = gr.State("")  # of the model that is shown
        with gr.Column(elem_id="models"):
            self._lay_out_table()
            with gr.Row(elem_id="models-one"):
                with gr.Column(scale=4, min_width=300):
                    self._lay_out_facts()
                with gr.Column(scale=5, min_width=300):
                    gr.Markdown(localized("## Model card"))
                    self.card = gr.HTML(elem_id="models-card", apply_default_css=False)
        self._wire(tab)

    def _lay_out_table(self) -> None:
        self.query = gr.Textbox(
            "", label=localized("Find"), max_lines=1, max_length=_LONGEST_QUERY, elem_id="models-query",
            placeholder=localized("Part of a name, a cell, a tokenizer or a dataset"),
        )  # fmt: skip
        self.table = gr.Dataframe(
            headers=[""] * len(_KINDS), datatype=_KINDS, type="array", interactive=False, max_height=400,
            label=localized("Models"), elem_id="models-table", buttons=[], pinned_columns=1,
        )  # fmt: skip
        self.chosen = gr.Dropdown(
            [],
            label=localized("Chosen model"),
            info=localized("Or choose a row of the table."),
            filterable=False,
            elem_id="models-chosen",
        )

    def _lay_out_facts(self) -> None:
        self.facts = gr.HTML(elem_id="models-facts")
        with gr.Row(elem_id="models-actions"):
            self.download = gr.Button(localized("Download"), elem_id="models-download", min_width=110)
            if self.may_change:
                self.delete = gr.Button(
                    localized("Delete …"), elem_id="models-delete", interactive=False, min_width=110
                )
        self.zip = gr.DownloadButton("", visible="hidden", elem_id="models-zip")
        if not self.may_change:
            return
        with gr.Group(visible=False, elem_id="models-sure") as self.sure:
            self.question = gr.HTML("", elem_id="models-question", padding=True)
            with gr.Row():
                self.really = gr.Button(
                    localized("Delete it for good"), variant="stop", elem_id="models-really", min_width=120
                )
                self.keep = gr.Button(localized("Keep it"), elem_id="models-keep", min_width=90)
        with gr.Row(elem_id="models-rename-row", equal_height=True):
            self.name = gr.Textbox(
                "",
                label=localized("New name"),
                max_lines=1,
                max_length=_LONGEST_QUERY,
                elem_id="models-name",
                scale=3,
                min_width=180,
                interactive=False,
            )
            self.rename = gr.Button(
                localized("Rename"), elem_id="models-rename", interactive=False, scale=1, min_width=90
            )

    def _wire(self, tab: gr.Tab) -> None:
        one = [self.facts, self.card, self.stamp]
        one += [self.name, self.rename, self.delete, self.sure] if self.may_change else []
        look = {"fn": self.on_look, "inputs": self.chosen, "outputs": one, **INTERNAL}
        listed = [self.table, self.chosen]
        refresh = {"fn": self.on_refresh, "inputs": [self.query, self.chosen], "outputs": listed, **INTERNAL}
        tab.select(**refresh).then(**look)
        self.query.change(self.on_query, self.query, self.table, trigger_mode="always_last", **INTERNAL)
        self.table.select(self.on_row, None, self.chosen, **INTERNAL).then(**look)
        self.chosen.input(**look)
        self.download.click(
            self.on_download, self.chosen, self.zip,
            concurrency_id="pack", concurrency_limit=_PACKERS, **INTERNAL,
        ).success(None, self.zip, None, js=_FETCH, **INTERNAL)  # fmt: skip
        if not self.may_change:
            return
        self.delete.click(self.on_ask, self.chosen, [self.sure, self.question], **INTERNAL)
        self.keep.click(lambda: gr.Group(visible=False), None, self.sure, **INTERNAL)
        seen = [self.chosen, self.stamp]
        # What was typed is sent with Enter, too.
        for trigger in (self.rename.click, self.name.submit):
            self.changes.append(
                trigger(self.on_rename, [*seen, self.name], [self.chosen, self.renamed], **INTERNAL)
            )
        self.changes.append(self.really.click(self.on_delete, seen, [self.chosen, self.renamed], **INTERNAL))
        for event in self.changes:
            event.success(**refresh).then(**look)
            event.failure(**refresh).then(**look)

    def on_query(self, query: str) -> dict[str, Any]:
        """The table of the models that match."""
        return _table(entries(self.models, query[:_LONGEST_QUERY]))

    def on_refresh(self, query: str, chosen: str | None) -> tuple[dict[str, Any], gr.Dropdown]:
        """List the models there are now."""
        names = list(self.models.folders())
        chosen = chosen if chosen in names else names[0] if names else None
        return self.on_query(query), gr.Dropdown(names, value=chosen)

    def on_row(self, event: gr.EventData) -> Any:
        """Choose the model of a row."""
        row = event._data.get("row_value") if isinstance(event._data, dict) else None
        name = row[0] if isinstance(row, list) and row else None
        return name if name in list(self.models.folders()) else gr.skip()

    def on_look(self, name: str | None) -> list[Any]:
        """All that is told of a model."""
        try:
            folder, stamp = self.models.folder(name), self.models.fingerprint(name)
        except UserError as error:
            told = [note(as_sentence(error)), "", ""]
            free = False
        else:
            told = [describe(folder), card(folder) or note(translate("It has no card.")), stamp]
            free = self.models.can_change(name)
        if not self.may_change:
            return told
        return [
            *told,
            gr.Textbox(value=folder.name if free else "", interactive=free),
            gr.Button(interactive=free),
            gr.Button(interactive=free),
            gr.Group(visible=False),
        ]

    def on_download(self, name: str | None) -> Iterator[str | None]:
        """Pack a model; Gradio keeps a copy of the file for as long as it keeps such."""
        with show_errors(), tempfile.TemporaryDirectory(prefix="lm-") as folder:
            yield str(pack(self.models.folder(name), Path(folder)))

    def on_ask(self, name: str | None) -> tuple[gr.Group, str]:
        """Make sure that a model is meant to be deleted."""
        with show_errors():
            self.models.folder(name)
        question = translate("Delete “{model}”? Its folder and all that is in it will be gone.", model=name)
        return gr.Group(visible=True), f'<p role="alert">{escape(question)}</p>'

    def on_rename(self, name: str | None, stamp: str, new: str) -> tuple[gr.Dropdown, dict[str, str]]:
        """Give a model another name."""
        with show_errors():
            before = self.models.folder(name)
            now = self.models.rename(name, new, stamp, self._is_busy)
            self.jobs.follow(before, now)
        gr.Info(escape(translate("It is called “{model}” now.", model=now)))
        return gr.Dropdown(list(self.models.folders()), value=now), {name: now}

    def on_delete(self, name: str | None, stamp: str) -> tuple[gr.Dropdown, dict[str, str]]:
        """Delete a model."""
        with show_errors():
            self.models.delete(name, stamp, self._is_busy)
        gr.Info(escape(translate("“{model}” is deleted.", model=name)))
        names = list(self.models.folders())
        return gr.Dropdown(names, value=names[0] if names else None), {}

    def _is_busy(self, folder: Path) -> bool:
        return being_trained(folder) or bool(self.jobs.job_of(folder))


def build(models: ModelRegistry, tab: gr.Tab, jobs: Jobs | None) -> Library:
    """Lay out the tab in the Blocks around it, and refresh it when `tab` is opened. Without `jobs`, where
    people may not change models, the events that do are not there at all."""
    return Library(models, tab, jobs)


def _table(found: list[Entry]) -> dict[str, Any]:
    """What the table shows: numbers, by which it can be sorted, and how they are written."""
    head = ("Model", "Cell", "Layers × units", "Parameters", "Tokenizer", "Trained on", "Bits per character",
            "Perplexity", "Date")  # fmt: skip
    rows, shown = [], []
    for entry in found:
        size = f"{_or_empty(entry.layers)} × {_or_empty(entry.hidden)}" + (" ←" if entry.backward else "")
        tokenizer = entry.tokenizer + (f", {entry.vocabulary:,}" if entry.vocabulary else "")
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.changed))
        figures = entry.bits_per_character, entry.perplexity
        rows.append([
            entry.name, entry.cell, size, entry.parameters, tokenizer, entry.dataset, *figures, date,
        ])  # fmt: skip
        shown.append([
            entry.name, entry.cell, size, _written(entry.parameters, ",d"), tokenizer, entry.dataset,
            _written(figures[0], ".3f"), _written(figures[1], ",.2f"), date,
        ])  # fmt: skip
    return {"headers": [translate(name) for name in head], "data": rows, "metadata": {"display_value": shown}}


def _written(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _or_empty(value: int | None) -> str:
    return "" if value is None else f"{value:,}"

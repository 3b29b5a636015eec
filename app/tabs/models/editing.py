"""The part of the Models tab that renames and deletes models."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lm.errors import UserError
from lm.storage.run_lock import check_free

from ...jobs.queue import JobQueue
from ...registry import ModelRegistry
from ...ui.errors import INTERNAL, show_errors, show_info
from ...ui.fields import line_field
from ...ui.i18n import localized, translate
from ...ui.model_choices import Selection

MAX_INPUT_LENGTH = 200


class Editing:
    """The buttons to rename and delete a model, and their event handlers.

    `changes` are the events that change the list of models. `selection` is that of the page.
    """

    def __init__(self, models: ModelRegistry, selection: Selection, jobs: JobQueue):
        self.models, self.selection, self.jobs = models, selection, jobs
        self.changes: list[Any] = []

    def lay_out(self) -> None:
        """Add the form to rename a model, the button to delete it, and the confirmation, hidden at first."""
        with gr.Row(elem_id="models-rename-row", equal_height=True):
            self.name = line_field(
                localized("New name"),
                "models-name",
                max_length=MAX_INPUT_LENGTH,
                scale=3,
                min_width=280,
                interactive=False,
            )
            self.rename = gr.Button(
                localized("Rename"), elem_id="models-rename", interactive=False, scale=1, min_width=90
            )
            self.delete = gr.Button(
                localized("Delete…"), elem_id="models-delete", interactive=False, scale=1, min_width=90
            )
        with gr.Group(visible=False, elem_id="models-sure") as self.confirmation:
            self.question = gr.HTML("", elem_id="models-question", padding=True)
            with gr.Row():
                self.confirm = gr.Button(
                    localized("Delete permanently"), variant="stop", elem_id="models-really", min_width=120
                )
                self.cancel = gr.Button(localized("Cancel"), elem_id="models-keep", min_width=90)

    def wire(self, fingerprint: gr.State) -> None:
        """Wire the events. They apply to the selected model if it still has the fingerprint."""
        selected, outputs = self.selection.model, self.selection.outputs
        self.delete.click(self.on_ask, selected, [self.confirmation, self.question], **INTERNAL)
        self.cancel.click(lambda: gr.Group(visible=False), None, self.confirmation, **INTERNAL)
        for trigger in (self.rename.click, self.name.submit):
            self.changes.append(
                trigger(self.on_rename, [selected, fingerprint, self.name], outputs, **INTERNAL)
            )
        self.changes.append(self.confirm.click(self.on_delete, [selected, fingerprint], outputs, **INTERNAL))

    def outputs(self) -> list[Any]:
        """The components that `updates` is for."""
        return [self.name, self.rename, self.delete, self.confirmation]

    def updates(self, folder: Path | None) -> list[Any]:
        """Prepare the components for the model in `folder`; None disables them."""
        enabled = folder is not None
        return [
            gr.Textbox(value=folder.name if folder else "", interactive=enabled),
            gr.Button(interactive=enabled),
            gr.Button(interactive=enabled),
            gr.Group(visible=False),
        ]

    def on_ask(self, name: str | None) -> tuple[gr.Group, str]:
        """Ask for confirmation before a model is deleted."""
        with show_errors():
            self.models.folder(name)
        question = translate(
            "Delete “{model}”? This permanently removes its folder and everything in it.", model=name
        )
        return gr.Group(visible=True), f'<p role="alert">{escape(question)}</p>'

    def on_rename(self, name: str | None, fingerprint: str, new: str) -> Any:
        """Rename a model; its training job, if it has one, and those that start from it follow."""
        with show_errors():
            folder = self.models.folder(name)
            if new.strip() == folder.name:  # the name in the list may be a path
                return self.selection.select(name)
            target = folder.parent / new.strip()
            if self.jobs.remembers(target) and not target.exists():
                raise UserError(
                    f"'{target.name}' is the name of a model in the list of training jobs: choose another"
                    " name, or remove that job first."
                )
            new = self.models.rename(name, new, fingerprint, self._is_busy)
            self.jobs.run_renamed(folder, new)
        show_info(translate("Renamed to “{model}”.", model=new))
        return self.selection.select(new)

    def on_delete(self, name: str | None, fingerprint: str) -> Any:
        """Delete a model; then the first one is selected."""
        with show_errors():
            self.models.delete(name, fingerprint, self._is_busy)
        show_info(translate("Deleted “{model}”.", model=name))
        return self.selection.select(None)

    def _is_busy(self, folder: Path) -> bool:
        """Whether a job of the queue trains in a folder, or may still do so. Raises UserError if another
        process trains there, or a job has yet to start from the model."""
        check_free(folder)
        if job := self.jobs.job_starting_from(folder):
            raise UserError(
                f"the training job '{job.title}' has yet to start from '{folder.name}': wait until its"
                " progress has been saved, or stop it first."
            )
        return self.jobs.job_of_run(folder) is not None

"""The Train tab: choose a text, preview what training on it would take, start a job, watch it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from lm.console.wording import format_bytes
from lm.errors import UserError

from ...jobs.job import QUEUED, RUNNING
from ...jobs.queue import EXTENDABLE, RESUMABLE, JobQueue
from ...registry import ModelRegistry
from ...ui.custom_html import custom_html
from ...ui.errors import INTERNAL, show_errors
from ...ui.fields import UNLABELED, go_button
from ...ui.i18n import localized, translate
from ...ui.model_facts import note
from ...ui.reloads import keep, kept_js
from ...ui.upload_limit import mark_as_copied
from . import display
from .form import Form

_REFRESH_EVERY = 1.0  # seconds, while a job is running
_STARTS_AT_ONCE = 4  # each may wait for the Hub, in a process of its own
_LARGE_DOWNLOAD = 20e6  # bytes, from which on the user is asked first
_SAMPLES = """
<div class="head" hidden><span class="name"></span><input type="range" min="0"><output></output></div>
<pre tabindex="0" role="region" hidden></pre>
"""
# A page that is too small for both shows what a button has produced.
_SHOW = "() => lm.reveal('train-question', '{id}')"


class TrainTab:
    """The components of the tab, laid out in the enclosing Blocks, and their events. It refreshes whenever
    `tab` is opened."""

    def __init__(self, queue: JobQueue, tab: gr.Tab, models: ModelRegistry):
        self.queue = queue
        with gr.Row(elem_id="train"):
            with gr.Column(scale=4, min_width=300):
                self.form = Form(queue, models)
            with gr.Column(scale=5, min_width=300):
                with gr.Row():
                    self.preview = gr.Button(localized("Preview"), elem_id="train-look", min_width=100)
                    self.start = go_button(localized("Start training"), "train-start", min_width=100)
                self._lay_out_answers()
                self._lay_out_progress()
        self._wire_form()
        self._wire_question()
        self._wire_progress(tab)

    def _lay_out_answers(self) -> None:
        with gr.Column(visible=False, elem_id="train-question") as self.question:
            self.asked = gr.HTML(elem_classes="figures")
            with gr.Row():
                self.agree = gr.Button(localized("Download it"), elem_id="train-agree", min_width=100)
                self.decline = gr.Button(localized("Cancel"), elem_id="train-decline", min_width=100)
        self.asked_about = gr.State("")  # a dataset
        self.agreed: Any = gr.State([])  # the large datasets that may be downloaded
        self.report = gr.HTML(label="Report", elem_id="train-report", elem_classes="figures")

    def _lay_out_progress(self) -> None:
        self.job = gr.Dropdown(
            [],
            label=localized("Training jobs"),
            elem_id="train-job",
            filterable=False,
            visible="hidden",
            **UNLABELED,
        )
        self.state = gr.HTML(elem_id="train-state", elem_classes="figures")
        with gr.Row(elem_id="train-actions"):
            self.pause = _action(localized("Pause"), "train-pause")
            self.resume = _action(localized("Resume"), "train-resume")
            self.stop = _action(localized("Stop"), "train-stop")
            self.use = _action(localized("Write with this model"), "train-use")
            self.extend = _action(localized("Train 2 more minutes"), "train-extend")
            self.start_from = _action(localized("Start from this model"), "train-start-from")
            self.again = _action(localized("Same settings again"), "train-again")
            self.remove = _action(localized("Remove from list"), "train-remove")
        with gr.Row(elem_id="train-learned"):
            self.curve = gr.HTML(elem_id="train-curve", min_width=250, scale=3)
            self.samples = custom_html("samples.js", _SAMPLES, "train-samples", min_width=220, scale=2)
        self.warnings = gr.HTML(elem_id="train-warnings", elem_classes="figures")
        self.timer = gr.Timer(_REFRESH_EVERY, active=False)

    @property
    def _shown(self) -> list[Any]:
        """What `watch` updates."""
        actions = [self.pause, self.resume, self.stop, self.use, self.extend, self.start_from, self.again]
        return [
            self.job,
            self.state,
            *actions,
            self.remove,
            self.curve,
            self.samples,
            self.warnings,
            self.timer,
        ]

    def _wire_form(self) -> None:
        form = self.form
        texts = [form.text, form.hub, form.pasted]
        uploaded = form.upload.upload(self.on_upload, [form.upload, form.base], texts, **INTERNAL)
        pasted = gr.on(
            [form.pasted.blur, form.pasted.submit], self.on_paste, [form.pasted, form.base], texts, **INTERNAL
        )
        form.reading.wire(form.text, form.hub, [uploaded, pasted])
        form.base.change(lambda base: [gr.update(visible=not base)] * 4, form.base, form.network, **INTERNAL)
        asking = [self.question, self.asked, self.asked_about]
        previewed = self.preview.click(
            self.on_preview,
            [self.agreed, *form.values],
            [*asking, self.report],
            concurrency_id="estimate",
            concurrency_limit=2,
            show_progress_on=self.report,
            **(INTERNAL | {"show_progress": "full"}),
        )
        previewed.then(None, js=_SHOW.format(id="train-report"), **INTERNAL)
        # The report is about another text.
        chosen = [form.text.input, form.hub.input, form.pasted.input, form.upload.upload]
        gr.on(chosen, None, None, self.report, js="() => ''", cancels=[previewed], **INTERNAL)
        started = self.start.click(
            self.on_start,
            [self.agreed, form.title, *form.values],
            [*asking, self.report, self.job],
            concurrency_limit=_STARTS_AT_ONCE,
            **INTERNAL,
        )
        started.success(self.watch, self.job, self._shown, **INTERNAL).then(
            None, js=_SHOW.format(id="train-job"), **INTERNAL
        )

    def restore_form(self, loaded: Any) -> Any:
        """Keep the values of the form in the browser, and fill them in again after the event `loaded` of the
        page. Returns the event after that."""
        kept = self.form.kept
        keep("train", kept)
        return loaded.then(
            self.on_restore,
            kept,
            [*kept, self.form.reading.dataset],
            js=f"() => {kept_js('train', kept)}",
            preprocess=False,  # it would reject texts and models that are newer than the page
            **INTERNAL,
        )

    def on_restore(self, *values: Any) -> list[Any]:
        """Fill in the form as it was before the page was reloaded."""
        is_kept = values[self.form.kept.index(self.form.text)] is not None
        return self.form.restored(*values) if is_kept else [gr.skip()] * (len(values) + 1)

    def _wire_question(self) -> None:
        self.agree.click(
            lambda agreed, dataset: [*agreed[-9:], dataset],
            [self.agreed, self.asked_about],
            self.agreed,
            **INTERNAL,
        ).success(None, js="() => lmTrain.pressAgain()", **INTERNAL)
        self.decline.click(lambda: gr.Column(visible=False), None, self.question, **INTERNAL)

    def _wire_progress(self, tab: gr.Tab) -> None:
        form = self.form
        for button, action in (
            (self.pause, self.queue.pause),
            (self.resume, self.queue.resume),
            (self.stop, self.queue.stop),
            (self.extend, self.queue.extend),
            (self.remove, self.queue.remove),
        ):
            button.click(_handler(action), self.job, None, **INTERNAL).then(
                self.watch, self.job, self._shown, **INTERNAL
            )
        self.again.click(
            self.on_again, self.job, [*form.fields, form.title, self.report], **INTERNAL
        ).success(None, js=_SHOW.format(id="train-text"), **INTERNAL)
        self.start_from.click(
            self.on_start_from, [self.job, form.text], [form.base, self.report], **INTERNAL
        ).success(None, js=_SHOW.format(id="train-base"), **INTERNAL)
        self.job.input(self.watch, self.job, self._shown, **INTERNAL)
        self.timer.tick(self.watch, self.job, self._shown, **INTERNAL)
        tab.select(form.choices, [form.text, form.base], [form.text, form.base], **INTERNAL)
        tab.select(self.watch, self.job, self._shown, **INTERNAL)

    def on_upload(self, path: str | None, base: str) -> list[Any]:
        """Store an uploaded text and choose it."""
        if not path:  # the upload was cleared
            return [gr.skip()] * 3
        with show_errors():
            try:
                return [self.form.choices(self.queue.uploads.add(path).dataset, base)[0], "", ""]
            finally:
                mark_as_copied(path)

    def on_paste(self, text: str, base: str) -> list[Any]:
        """Store a pasted text and choose it."""
        if not text.strip():
            return [gr.skip()] * 3
        with show_errors():
            return [self.form.choices(self.queue.uploads.add_pasted(text).dataset, base)[0], "", ""]

    def on_preview(self, agreed: list[str], *values: Any) -> list[Any]:
        """What the text contains and what training on it would take; before a large download, a question."""
        with show_errors():
            settings, base = self.form.chosen(*values)
            if question := self._question(settings, agreed, self.preview):
                return [*question, ""]
            preview = self.queue.preview(settings, base)
        return [gr.Column(visible=False), "", "", display.report(preview, settings)]

    def on_start(self, agreed: list[str], title: str, *values: Any) -> list[Any]:
        """Queue a job; before a large download, ask a question instead."""
        with show_errors():
            settings, base = self.form.chosen(*values)
            if question := self._question(settings, agreed, self.start):
                return [*question, "", gr.skip()]
            job = self.queue.add(settings, title, base)
        return [gr.Column(visible=False), "", "", "", gr.Dropdown(self._choice(job.id)[0], value=job.id)]

    def _question(self, settings: dict[str, Any], agreed: list[str], button: gr.Button) -> list[Any] | None:
        """The question of a `button` whether to download a large dataset; None if there is nothing to ask."""
        dataset = settings["dataset"]
        if dataset in agreed or (size := self.queue.download_size(settings)) < _LARGE_DOWNLOAD:
            return None
        line = translate("{name} is a download of {size}.", name=dataset, size=format_bytes(size))
        return [gr.Column(visible=True), f'<p data-button="{button.elem_id}">{escape(line)}</p>', dataset]

    def on_again(self, id: str | None) -> list[Any]:
        """Fill in the form with the settings of a job."""
        with show_errors():
            job = self.queue.get(id or "")
            filled = self.form.filled(job)
        line = translate("The form has the settings of “{title}”. Press Start training.", title=job.title)
        return [*filled, job.title, note(line)]

    def on_start_from(self, id: str | None, text: str) -> list[Any]:
        """Choose the model of a job as the one to start from."""
        with show_errors():
            name = self.model_of(id)
            if not name:
                raise UserError("this job has no model yet.")
        line = translate(
            "The new model starts from “{name}”. Choose a text, then press Start training.", name=name
        )
        return [self.form.choices(text, name)[1], note(line)]

    def watch(self, id: str | None) -> list[Any]:
        """Everything that is shown about a job."""
        choices, shown = self._choice(id)
        # An unchanged choice is not sent: it would undo one that the user has made in the meantime.
        changed: dict[str, Any] = {} if shown == id else {"value": shown}
        choice = gr.Dropdown(choices, visible=True if choices else "hidden", **changed)
        id = shown
        if not id:
            message = translate("No training jobs yet. Choose a text and start one.")
            buttons = [gr.Button(visible=False)] * 8
            return [choice, note(message), *buttons, "", None, "", gr.Timer(active=False)]
        with show_errors():
            progress = self.queue.progress(id)
        state, asked = progress.job.state, progress.job.asked
        active = any(job.state in (QUEUED, RUNNING) for job in self.queue.jobs())
        has_model = self.queue.model_name(progress.job) is not None
        ended = state not in (QUEUED, RUNNING)
        possible = [
            state in (QUEUED, RUNNING) and not asked,
            state in RESUMABLE,
            not ended or state in RESUMABLE,
            has_model,
            has_model and state in EXTENDABLE,
            has_model and ended,
            ended,
            ended,
        ]
        return [
            choice,
            display.status(progress),
            *(gr.Button(visible=one) for one in possible),
            display.curve(progress),
            display.samples(progress),
            display.warnings(progress.warnings),
            gr.Timer(active=active),
        ]

    def model_of(self, id: str | None) -> str | None:
        """The name of the model that a job trains. Raises UserError if the job no longer exists."""
        return self.queue.model_name(self.queue.get(id or ""))

    def _choice(self, id: str | None) -> tuple[list[tuple[str, str]], str | None]:
        """The list of jobs, and the id of the one that is shown: `id` if it still exists, else the first."""
        jobs = self.queue.jobs()
        ids = [job.id for job in jobs]
        choices = [(f"{job.title} · {display.state_name(job.state)}", job.id) for job in jobs]
        id = id if id in ids else ids[0] if ids else None
        return choices, id


def _action(label: Any, elem_id: str) -> gr.Button:
    return gr.Button(label, visible=False, min_width=60, size="sm", elem_id=elem_id)


def _handler(action: Callable[[str], object]) -> Callable[[str | None], None]:
    def handle(id: str | None) -> None:
        with show_errors():
            action(id or "")

    return handle

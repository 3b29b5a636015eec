"""The Train tab: choose a text, preview what training on it would take, start a job, watch it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lm.terminal import duration
from lm.training.plot import loss_curve

from ...jobs.estimate import Estimate, Preview, format_bytes
from ...jobs.job import QUEUED, RUNNING
from ...jobs.progress import JobProgress
from ...jobs.queue import RESUMABLE, JobQueue
from ...jobs.settings import DEFAULT_DATASET
from ...ui.errors import INTERNAL, show_errors
from ...ui.fields import go_button
from ...ui.i18n import localized, translate
from .reading import ReadingSection, dataset_of, html, reading_rows, settings_of, warning

_SIZES = [64, 128, 256, 384, 512, 1024]
_TIMES = ["1m", "2m", "5m", "10m", "30m", "1h", "4h", "12h"]
_REFRESH_EVERY = 1.0  # seconds, while a job is running


def build(queue: JobQueue, tab: gr.Tab) -> TrainTab:
    """Lay out the tab in the surrounding Blocks and refresh it when `tab` is opened."""
    return TrainTab(queue, tab)


class TrainTab:
    """The components of the tab and their events."""

    def __init__(self, queue: JobQueue, tab: gr.Tab):
        self.queue = queue
        with gr.Row(elem_id="train"):
            with gr.Column(scale=4, min_width=300):
                self._lay_out_form()
            with gr.Column(scale=5, min_width=300):
                self._lay_out_progress()
        self._wire(tab)

    def _lay_out_form(self) -> None:
        with gr.Group():
            self.text = gr.Dropdown(
                [(localized("Python standard library"), DEFAULT_DATASET)],
                value=DEFAULT_DATASET,
                label=localized("Training text"),
                elem_id="train-text",
            )
            self.upload = gr.UploadButton(
                localized("Upload a text"),  # type: ignore[arg-type]  # Gradio translates this label as well
                file_count="single",
                size="sm",
                elem_id="train-upload",
            )
            self.hub = gr.Textbox(
                "",
                label=localized("Or a dataset on the Hugging Face Hub"),
                info=localized("Its id, such as owner/name."),
                max_length=200,
                elem_id="train-hub",
            )
        self.reading = ReadingSection(self.queue)
        with gr.Group():
            self.cell = gr.Radio(
                [("LSTM", "lstm"), ("GRU", "gru"), ("RNN", "rnn")],
                value="lstm",
                label=localized("Cell"),
                info=localized("An LSTM remembers longest; a plain RNN is the simplest."),
                elem_id="train-cell",
            )
            tokenizers = [
                (localized("Characters"), "char"),
                (localized("Bytes"), "byte"),
                (localized("Subwords"), "bpe"),
                (localized("Words"), "word"),
            ]
            self.tokenizer = gr.Radio(
                tokenizers, value="char", label=localized("Tokens"), elem_id="train-tokenizer"
            )
            with gr.Row():
                self.size = gr.Dropdown(
                    [(localized("Automatic"), "auto"), *((str(n), str(n)) for n in _SIZES)],
                    value="auto",
                    label=localized("Hidden size"),
                    min_width=160,
                    elem_id="train-size",
                )
                self.layers = gr.Dropdown(
                    [1, 2, 3, 4], value=2, label=localized("Layers"), min_width=100, elem_id="train-layers"
                )
                self.time = gr.Dropdown(
                    _TIMES,
                    value="2m",
                    label=localized("Training time"),
                    min_width=110,
                    allow_custom_value=True,
                    elem_id="train-time",
                )
            self.title = gr.Textbox(
                "",
                label=localized("Name"),
                info=localized("Leave empty to use the name of the text."),
                max_length=80,
                elem_id="train-title",
            )
        with gr.Row():
            self.preview = gr.Button(localized("Preview"), elem_id="train-look", min_width=100)
            self.start = go_button(localized("Start training"), "train-start", min_width=100)
        self.report = gr.HTML(label="Report", elem_id="train-report", elem_classes="figures")

    def _lay_out_progress(self) -> None:
        self.job = gr.Dropdown([], label=localized("Training jobs"), elem_id="train-job", filterable=False)
        self.state = gr.HTML(elem_id="train-state", elem_classes="figures")
        with gr.Row(elem_id="train-actions"):
            self.pause = _action(localized("Pause"), "train-pause")
            self.resume = _action(localized("Resume"), "train-resume")
            self.stop = _action(localized("Stop"), "train-stop")
            self.remove = _action(localized("Remove"), "train-remove")
            self.use = _action(localized("Write with this model"), "train-use")
        self.curve = gr.HTML(elem_id="train-curve")
        self.sample = gr.Textbox(
            label=localized("Latest sample"),
            lines=8,
            max_lines=8,
            interactive=False,
            visible=False,
            autoscroll=False,
            elem_id="train-sample",
        )
        self.timer = gr.Timer(_REFRESH_EVERY, active=False)

    def _wire(self, tab: gr.Tab) -> None:
        form = [self.text, self.hub, self.cell, self.tokenizer, self.size, self.layers, self.time]
        form += self.reading.inputs
        buttons = [self.pause, self.resume, self.stop, self.remove, self.use]
        shown = [self.job, self.state, *buttons, self.curve, self.sample, self.timer]
        uploaded = self.upload.upload(self.on_upload, self.upload, [self.text, self.hub], **INTERNAL)
        self.reading.wire(self.text, self.hub, uploaded)
        self.preview.click(
            self.on_preview,
            form,
            self.report,
            concurrency_id="estimate",
            concurrency_limit=2,
            show_progress_on=self.report,
            **(INTERNAL | {"show_progress": "full"}),
        )
        self.start.click(self.on_start, [self.title, *form], self.job, **INTERNAL).success(
            self.watch, self.job, shown, **INTERNAL
        )
        for button, action in (
            (self.pause, self.queue.pause),
            (self.resume, self.queue.resume),
            (self.stop, self.queue.stop),
            (self.remove, self.queue.remove),
        ):
            button.click(_handler(action), self.job, None, **INTERNAL).then(
                self.watch, self.job, shown, **INTERNAL
            )
        self.job.input(self.watch, self.job, shown, **INTERNAL)
        self.timer.tick(self.watch, self.job, shown, **INTERNAL)
        tab.select(self.texts, self.text, self.text, **INTERNAL)
        tab.select(self.watch, self.job, shown, **INTERNAL)

    def texts(self, chosen: str | None) -> gr.Dropdown:
        """The texts to choose from."""
        uploaded = [(f"{t.name} · {format_bytes(t.size)}", t.dataset) for t in self.queue.uploads.all()]
        choices = [(translate("Python standard library"), DEFAULT_DATASET), *uploaded]
        values = [value for _, value in choices]
        return gr.Dropdown(choices, value=chosen if chosen in values else DEFAULT_DATASET)

    def on_upload(self, path: str | None) -> tuple[gr.Dropdown, str]:
        """Store an uploaded text and choose it."""
        if not path:  # the upload was cleared
            return gr.skip(), gr.skip()
        with show_errors():
            try:
                return self.texts(self.queue.uploads.add(path).dataset), ""
            finally:
                Path(path).unlink(missing_ok=True)  # Gradio's own copy

    def on_preview(self, *form: Any) -> str:
        """What the text contains and what training on it would take."""
        settings = _settings(*form)
        with show_errors():
            preview = self.queue.preview(settings)
        return _report(preview, settings)

    def on_start(self, title: str, *form: Any) -> gr.Dropdown:
        """Queue a job."""
        with show_errors():
            job = self.queue.add(_settings(*form), title)
        return gr.Dropdown(self._choice(job.id)[0], value=job.id)

    def watch(self, id: str | None) -> list[Any]:
        """Everything that is shown about a job."""
        choices, shown = self._choice(id)
        # An unchanged choice is not sent: it would undo one that the user has made in the meantime.
        choice = gr.Dropdown(choices) if shown == id else gr.Dropdown(choices, value=shown)
        id = shown
        if not id:
            message = escape(translate("No training jobs yet. Choose a text and start one."))
            return [
                choice,
                f'<p class="note">{message}</p>',
                *[gr.Button(interactive=False)] * 5,
                "",
                gr.Textbox(visible=False),
                gr.Timer(active=False),
            ]
        with show_errors():
            progress = self.queue.progress(id)
        state, asked = progress.job.state, progress.job.asked
        active = any(job.state in (QUEUED, RUNNING) for job in self.queue.jobs())
        return [
            choice,
            _status(progress),
            gr.Button(interactive=state in (QUEUED, RUNNING) and not asked),
            gr.Button(interactive=state in RESUMABLE),
            gr.Button(interactive=state in (QUEUED, RUNNING, *RESUMABLE)),
            gr.Button(interactive=state not in (QUEUED, RUNNING)),
            gr.Button(interactive=self.queue.model_name(progress.job) is not None),
            _curve(progress),
            gr.Textbox(progress.sample, visible=bool(progress.sample)),
            gr.Timer(active=active),
        ]

    def model_of(self, id: str | None) -> str | None:
        """The name of the model that a job trains. Raises UserError if the job no longer exists."""
        return self.queue.model_name(self.queue.get(id or ""))

    def _choice(self, id: str | None) -> tuple[list[tuple[str, str]], str | None]:
        """The list of jobs, and the id of the one that is shown: `id` if it still exists, else the first."""
        jobs = self.queue.jobs()
        ids = [job.id for job in jobs]
        choices = [(f"{job.title} · {_state_name(job.state)}", job.id) for job in jobs]
        id = id if id in ids else ids[0] if ids else None
        return choices, id


def _action(label: Any, elem_id: str) -> gr.Button:
    return gr.Button(label, interactive=False, min_width=60, size="md", elem_id=elem_id)


def _handler(action: Callable[[str], object]) -> Callable[[str | None], None]:
    def handle(id: str | None) -> None:
        with show_errors():
            action(id or "")

    return handle


def _settings(
    text: str, hub: str, cell: str, tokenizer: str, size: str, layers: int, time: str, *reading: Any
) -> dict[str, Any]:
    """The values of the form as app/jobs/settings.py takes them."""
    dataset = dataset_of(text, hub)
    return {
        "dataset": dataset,
        "cell": cell,
        "tokenizer": tokenizer,
        "hidden_size": size,
        "layers": layers,
        "max_time": time,
        **settings_of(dataset, *reading),
    }


def _report(preview: Preview, settings: dict[str, Any]) -> str:
    rows = {name: _unbroken(value) for name, value in preview.rows.items()} | reading_rows(settings)
    if "Column" in rows:
        rows.pop(translate("Text column"), None)  # as the data report says
    if preview.estimate:
        rows |= _estimate_rows(preview.estimate, settings["layers"])
    return _table(rows) + _warnings(preview.warnings)


def _unbroken(value: str) -> str:
    """'e 85,496  t 60,384', without line breaks between a character and its count."""
    if "  " not in value:  # it is not such a list
        return value
    return re.sub(r"(\S+|' ') ([\d,]+)(?=  |$)", "\\1\N{NO-BREAK SPACE}\\2", value)


def _estimate_rows(estimate: Estimate, layers: int) -> dict[str, str]:
    rows = {}
    rows[translate("Network")] = translate(
        "{layers} layer of {hidden} units, {parameters:,} parameters"
        if layers == 1
        else "{layers} layers of {hidden} units, {parameters:,} parameters",
        layers=layers,
        hidden=estimate.resolved["hidden_size"],
        parameters=estimate.parameters,
    )
    if estimate.characters_per_second and estimate.seconds:
        rows[translate("Speed")] = translate(
            "about {speed:,.0f} characters/s, {epochs:.2g} passes over the text in {time}",
            speed=estimate.characters_per_second,
            epochs=estimate.epochs or 0,
            time=duration(estimate.seconds),
        )
    rows[translate("Memory")] = translate(
        "about {memory}, and {disk} on disk",
        memory=format_bytes(estimate.memory),
        disk=format_bytes(estimate.disk),
    )
    return rows


def _status(progress: JobProgress) -> str:
    """A progress bar and a table, as HTML."""
    speed = progress.characters_per_second
    rows = {
        translate("Text"): progress.job.text,
        **reading_rows(progress.job.settings),
        translate("Status"): _state_line(progress),
        translate("Time"): _times(progress),
        translate("Loss"): _losses(progress),
        translate("Speed"): translate("{speed:,.0f} characters/s", speed=speed) if speed else "",
        translate("Network"): progress.model,
    }
    name, done = escape(translate("Progress")), progress.done
    bar = f'<progress aria-label="{name}" max="1" value="{done:.4f}">{done:.1%}</progress>'
    table = _table({name: value for name, value in rows.items() if value})
    return bar + warning(progress.error) + table + _warnings(progress.warnings)


def _state_line(progress: JobProgress) -> str:
    state = _state_name(progress.job.state)
    if progress.phase == "waiting":
        return translate("{state}, position {position} in the queue", state=state, position=progress.position)
    if progress.phase == "preparing":
        return translate("{state}: reading the text", state=state)
    if progress.phase == "finishing":
        return translate("{state}: saving or evaluating", state=state)
    return state


def _state_name(state: str) -> str:
    return {
        "queued": translate("queued"),
        "running": translate("running"),
        "paused": translate("paused"),
        "stopped": translate("stopped"),
        "done": translate("done"),
        "failed": translate("failed"),
        "interrupted": translate("interrupted"),
    }[state]


def _times(progress: JobProgress) -> str:
    if not progress.step:
        return ""
    spent = translate("{time}, step {step:,}", time=duration(progress.seconds), step=progress.step)
    if progress.phase == "training" and progress.remaining is not None:
        return translate("{spent}, about {left} left", spent=spent, left=duration(progress.remaining))
    return spent


def _losses(progress: JobProgress) -> str:
    parts = []
    if progress.train_loss is not None:
        parts.append(translate("training {loss:.3f}", loss=progress.train_loss))
    if progress.validation_loss is not None:
        parts.append(translate("validation {loss:.3f}", loss=progress.validation_loss))
    return ", ".join(parts)


def _curve(progress: JobProgress) -> str:
    """The loss curve so far, as an image: scripts in an SVG image do not run."""
    if len(progress.train) < 2:
        return ""
    records: list[dict[str, Any]] = [{"step": step, "train_loss": loss} for step, _, loss in progress.train]
    records += progress.validations
    data = base64.b64encode(loss_curve(records, progress.job.title).encode()).decode("ascii")
    alt = translate("Loss curve: training and validation loss by step")
    return f'<img class="curve" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def _table(rows: dict[str, Any]) -> str:
    lines = (
        f'<tr><th scope="row">{escape(str(name))}</th><td>{html(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(lines)}</table>"


def _warnings(lines: list[str]) -> str:
    return "".join(map(warning, lines))

"""The Train tab: choose a text, see what training on it would take, start it, watch it."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

import gradio as gr

from lm.terminal import duration
from lm.training.plot import loss_curve

from ...jobs.estimate import Preview, gigabytes
from ...jobs.job import FAILED, INTERRUPTED, PAUSED, QUEUED, RUNNING
from ...jobs.progress import Live
from ...jobs.queue import Jobs
from ...jobs.recipe import DEFAULT_TEXT
from ...ui.errors import INTERNAL, show_errors
from ...ui.i18n import localized, translate

_SIZES = [64, 128, 256, 384, 512, 1024]
_TIMES = ["1m", "2m", "5m", "10m", "30m", "1h", "4h", "12h"]
_EVERY = 1.0  # seconds between two looks at what runs
_RESUMABLE = (PAUSED, FAILED, INTERRUPTED)


def build(jobs: Jobs, tab: gr.Tab) -> Trainer:
    """Lay out the tab in the Blocks around it, and refresh it when `tab` is opened."""
    return Trainer(jobs, tab)


class Trainer:
    """The tab's components, and what happens between them."""

    def __init__(self, jobs: Jobs, tab: gr.Tab):
        self.jobs = jobs
        with gr.Row(elem_id="train"):
            with gr.Column(scale=4, min_width=300):
                self._lay_out_wishes()
            with gr.Column(scale=5, min_width=300):
                self._lay_out_progress()
        self._wire(tab)

    def _lay_out_wishes(self) -> None:
        with gr.Group():
            self.text = gr.Dropdown(
                [(localized("Python's own standard library"), DEFAULT_TEXT)], value=DEFAULT_TEXT,
                label=localized("Text to learn from"), elem_id="train-text",
            )  # fmt: skip
            self.upload = gr.UploadButton(
                localized("Upload a text"), file_count="single", size="sm", elem_id="train-upload",
                file_types=[".txt", ".md", ".py", ".json", ".jsonl", ".csv", ".tsv"],
            )  # fmt: skip
            self.hub = gr.Textbox(
                "",
                label=localized("Or a dataset of the Hugging Face Hub"),
                info=localized("Such as owner/name."),
                max_length=200,
                elem_id="train-hub",
            )
        with gr.Group():
            self.cell = gr.Radio(
                [("LSTM", "lstm"), ("GRU", "gru"), ("RNN", "rnn")],
                value="lstm",
                elem_id="train-cell",
                label=localized("Cell"),
                info=localized("The LSTM remembers longest, the plain RNN is the simplest."),
            )
            self.tokenizer = gr.Radio(
                [
                    (localized("Characters"), "char"), (localized("Bytes"), "byte"),
                    (localized("Pieces of words"), "bpe"), (localized("Words"), "word"),
                ], value="char", label=localized("Tokens"), elem_id="train-tokenizer",
            )  # fmt: skip
            with gr.Row():
                self.size = gr.Dropdown(
                    [(localized("automatic"), "auto"), *((str(n), str(n)) for n in _SIZES)],
                    value="auto", label=localized("Hidden size"), min_width=120, elem_id="train-size",
                )  # fmt: skip
                self.layers = gr.Dropdown(
                    [1, 2, 3, 4], value=2, label=localized("Layers"), min_width=80, elem_id="train-layers"
                )
                self.time = gr.Dropdown(
                    _TIMES, value="2m", label=localized("Time"), min_width=90, allow_custom_value=True,
                    elem_id="train-time",
                )  # fmt: skip
            self.title = gr.Textbox(
                "", label=localized("Name"), info=localized("Empty: that of the text."), max_length=80,
                elem_id="train-title",
            )  # fmt: skip
        with gr.Row():
            self.look = gr.Button(localized("Look at the text first"), elem_id="train-look", min_width=100)
            self.start = gr.Button(
                localized("Start training"), variant="primary", elem_id="train-start", elem_classes="lm-go",
                min_width=100,
            )  # fmt: skip
        self.report = gr.HTML(label="Report", elem_id="train-report", elem_classes="figures")

    def _lay_out_progress(self) -> None:
        self.job = gr.Dropdown([], label=localized("Trainings"), elem_id="train-job", filterable=False)
        self.state = gr.HTML(elem_id="train-state", elem_classes="figures")
        with gr.Row(elem_id="train-actions"):
            self.pause = gr.Button(
                localized("Pause"), interactive=False, min_width=60, size="md", elem_id="train-pause"
            )
            self.resume = gr.Button(
                localized("Resume"), interactive=False, min_width=60, size="md", elem_id="train-resume"
            )
            self.stop = gr.Button(
                localized("Stop"), interactive=False, min_width=60, size="md", elem_id="train-stop"
            )
            self.remove = gr.Button(
                localized("Take off the list"),
                interactive=False,
                min_width=60,
                size="md",
                elem_id="train-remove",
            )
            self.use = gr.Button(
                localized("Write with it"), interactive=False, min_width=60, size="md", elem_id="train-use"
            )
        self.curve = gr.HTML(elem_id="train-curve")
        self.sample = gr.Textbox(
            label=localized("What it writes now"), lines=8, max_lines=8, interactive=False, visible=False,
            autoscroll=False, elem_id="train-sample",
        )  # fmt: skip
        self.timer = gr.Timer(_EVERY, active=False)

    def _wire(self, tab: gr.Tab) -> None:
        wishes = [self.text, self.hub, self.cell, self.tokenizer, self.size, self.layers, self.time]
        buttons = [self.pause, self.resume, self.stop, self.remove, self.use]
        shown = [self.job, self.state, *buttons, self.curve, self.sample, self.timer]
        self.upload.upload(self.on_upload, self.upload, [self.text, self.hub], **INTERNAL)
        self.look.click(
            self.on_look, wishes, self.report, concurrency_id="estimate", concurrency_limit=2,
            show_progress_on=self.report, **(INTERNAL | {"show_progress": "full"}),
        )  # fmt: skip
        self.start.click(self.on_start, [*wishes, self.title], self.job, **INTERNAL).success(
            self.watch, self.job, shown, **INTERNAL
        )
        for button, action in (
            (self.pause, self.jobs.pause), (self.resume, self.jobs.resume), (self.stop, self.jobs.stop),
            (self.remove, self.jobs.remove),
        ):  # fmt: skip
            button.click(self._asker(action), self.job, None, **INTERNAL).then(
                self.watch, self.job, shown, **INTERNAL
            )
        self.job.input(self.watch, self.job, shown, **INTERNAL)
        self.timer.tick(self.watch, self.job, shown, **INTERNAL)
        tab.select(self.texts, self.text, self.text, **INTERNAL)
        tab.select(self.watch, self.job, shown, **INTERNAL)

    def texts(self, chosen: str | None) -> gr.Dropdown:
        """The texts there are to choose from."""
        known = [(f"{t.name} · {gigabytes(t.size)}", t.dataset) for t in self.jobs.texts.all()]
        choices = [(translate("Python's own standard library"), DEFAULT_TEXT), *known]
        values = [value for _, value in choices]
        return gr.Dropdown(choices, value=chosen if chosen in values else DEFAULT_TEXT)

    def on_upload(self, path: str | None) -> tuple[gr.Dropdown, str]:
        """Keep an uploaded text, and choose it."""
        if not path:  # what was chosen has been taken back
            return gr.skip(), gr.skip()
        with show_errors():
            return self.texts(self.jobs.texts.add_file(path).dataset), ""

    def on_look(self, *wishes: Any) -> str:
        """What is in the text, and what training on it would take."""
        with show_errors():
            return _report(self.jobs.preview(_settings(*wishes)), layers=wishes[-2])

    def on_start(self, *wishes: Any) -> gr.Dropdown:
        """Put a training into the queue."""
        *wishes, title = wishes
        with show_errors():
            job = self.jobs.add(_settings(*wishes), title)
        return self._choice(job.id)[0]

    def _asker(self, action: Any) -> Any:
        def ask(id: str | None) -> None:
            """Let a training do something."""
            with show_errors():
                action(id or "")

        return ask

    def watch(self, id: str | None) -> list[Any]:
        """All that there is to see of one training now."""
        choice, id = self._choice(id)
        if not id:
            nothing = escape(translate("No training yet: choose a text and start one."))
            off = [gr.Button(interactive=False)] * 5
            return [
                choice, f'<p class="note">{nothing}</p>', *off, "", gr.Textbox(visible=False),
                gr.Timer(active=False),
            ]  # fmt: skip
        with show_errors():
            live = self.jobs.live(id)
        state, asked = live.job.state, live.job.asked
        going_on = any(job.state in (QUEUED, RUNNING) for job in self.jobs.list())
        sample = live.samples[-1][1] if live.samples else ""
        return [
            choice,
            _state(live),
            gr.Button(interactive=state in (QUEUED, RUNNING) and not asked),
            gr.Button(interactive=state in _RESUMABLE),
            gr.Button(interactive=state in (QUEUED, RUNNING, *_RESUMABLE)),
            gr.Button(interactive=state not in (QUEUED, RUNNING)),
            gr.Button(interactive=self.jobs.model_of(live.job) is not None),
            _curve(live),
            gr.Textbox(sample, visible=bool(sample)),
            gr.Timer(active=going_on),
        ]

    def model_of(self, id: str | None) -> str | None:
        """The name of the model that a training makes. Raises UserError."""
        return self.jobs.model_of(self.jobs.get(id or ""))

    def _choice(self, id: str | None) -> tuple[gr.Dropdown, str | None]:
        """The list of trainings, and which of them is shown: that one if it is still there."""
        known = self.jobs.list()
        ids = [job.id for job in known]
        choices = [(f"{job.title} · {_name_of_state(job.state)}", job.id) for job in known]
        id = id if id in ids else ids[0] if ids else None
        return gr.Dropdown(choices, value=id), id


def _settings(
    text: str, hub: str, cell: str, tokenizer: str, size: str, layers: int, time: str
) -> dict[str, Any]:
    """What the form says, as app/jobs/recipe.py takes it."""
    return {
        "dataset": hub.strip() or text or DEFAULT_TEXT,
        "cell": cell,
        "tokenizer": tokenizer,
        "hidden_size": size,
        "layers": layers,
        "max_time": time,
    }


def _report(preview: Preview, layers: int) -> str:
    rows, estimate = dict(preview.rows), preview.estimate
    if estimate:
        rows[translate("Network")] = translate(
            "{layers} layers of {hidden} units, {parameters:,} parameters",
            layers=layers, hidden=estimate.resolved.get("hidden_size"), parameters=estimate.parameters,
        )  # fmt: skip
        if estimate.characters_per_second and estimate.seconds:
            rows[translate("Speed")] = translate(
                "about {speed:,.0f} characters/s, reads the text {epochs:.2g} times in {time}",
                speed=estimate.characters_per_second, epochs=estimate.epochs or 0,
                time=duration(estimate.seconds),
            )  # fmt: skip
        rows[translate("Memory")] = translate(
            "about {memory}, and {disk} of the disk",
            memory=gigabytes(estimate.memory), disk=gigabytes(estimate.disk),
        )  # fmt: skip
    return _table(rows) + _warnings(preview.warnings)


def _state(live: Live) -> str:
    rows = {
        translate("Text"): live.job.text,
        translate("State"): _state_line(live),
        translate("Time"): _times(live),
        translate("Loss"): _losses(live),
        translate("Speed"): translate("{speed:,.0f} characters/s", speed=live.characters_per_second)
        if live.characters_per_second
        else "",
        translate("Network"): live.rows.get("Model", ""),
    }
    name = escape(translate("Progress"))
    bar = f'<progress aria-label="{name}" max="1" value="{live.done:.4f}">{live.done:.1%}</progress>'
    error = _warnings([live.error] if live.error else [])
    table = _table({name: value for name, value in rows.items() if value})
    return bar + error + table + _warnings(live.warnings)


def _state_line(live: Live) -> str:
    name = _name_of_state(live.job.state)
    if live.phase == "waiting":
        return translate("{state}, number {place} in the queue", state=name, place=live.place)
    if live.phase == "preparing":
        return translate("{state}: it reads the text", state=name)
    if live.phase == "finishing":
        return translate("{state}: it saves, or looks at the whole validation text", state=name)
    return name


def _name_of_state(state: str) -> str:
    return {
        "queued": translate("waiting"),
        "running": translate("running"),
        "paused": translate("paused"),
        "stopped": translate("stopped"),
        "done": translate("done"),
        "failed": translate("failed"),
        "interrupted": translate("interrupted"),
    }[state]


def _times(live: Live) -> str:
    if not live.step:
        return ""
    spent = translate("{spent}, step {step:,}", spent=duration(live.seconds), step=live.step)
    if live.phase == "training" and live.left is not None:
        return translate("{spent}, about {left} left", spent=spent, left=duration(live.left))
    return spent


def _losses(live: Live) -> str:
    parts = []
    if live.train_loss is not None:
        parts.append(translate("training {loss:.3f}", loss=live.train_loss))
    if live.validation_loss is not None:
        parts.append(translate("validation {loss:.3f}", loss=live.validation_loss))
    return ", ".join(parts)


def _curve(live: Live) -> str:
    """The loss curve so far, as an image, where no script runs."""
    records = [{"step": step, "train_loss": loss} for step, _, loss in live.train]
    records += live.validation
    if len(live.train) < 2:
        return ""
    data = base64.b64encode(loss_curve(records, live.job.title).encode()).decode("ascii")
    alt = translate("Loss curve: training and validation loss over the steps of the training")
    return f'<img class="curve" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def _table(rows: dict[str, Any]) -> str:
    lines = (
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(lines)}</table>"


def _warnings(lines: list[str]) -> str:
    return "".join(f'<p class="warning">{escape(line)}</p>' for line in lines)

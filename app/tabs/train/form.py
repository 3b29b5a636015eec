"""The form of the Train tab: the text, the model to start from, the settings of the network, the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lm.config.settings import parse_duration
from lm.console.wording import format_bytes
from lm.errors import UserError

from ...jobs.job import Job
from ...jobs.queue import JobQueue
from ...jobs.settings import DEFAULT_DATASET, in_units
from ...jobs.uploads import PREFIX
from ...registry import ModelRegistry
from ...ui.errors import show_warning
from ...ui.fields import line_field
from ...ui.i18n import localized, translate
from ...ui.model_choices import choices
from .reading import DEFAULTS as READING, ReadingSection, dataset_of, settings_of

_SIZES = [64, 128, 256, 384, 512, 1024]
_TIMES = ["1m", "2m", "5m", "10m", "30m", "1h", "4h", "12h"]
_NETWORK = {"cell": "lstm", "tokenizer": "char", "hidden_size": "auto", "layers": 2}  # the defaults
NEW = ""  # the choice of "Start from" that is not a model


class Form:
    """The components of the form, and how their values become settings."""

    def __init__(self, queue: JobQueue, models: ModelRegistry):
        self.queue, self.models = queue, models
        self._lay_out_text()
        self.reading = ReadingSection(queue)
        self._lay_out_network()
        # Those that a model to start from makes superfluous.
        self.network: list[Any] = [self.cell, self.tokenizer, self.size, self.layers]
        # Those that "Same settings again" fills in.
        self.fields: list[Any] = [
            *(self.text, self.hub, self.base),
            *self.network,
            *(self.time, *self.reading.inputs),
        ]
        self.values = [self.pasted, *self.fields]
        # Those that the browser keeps until the page is closed.
        self.kept: list[Any] = [
            *(self.title, self.text, self.hub, self.base),
            *self.network,
            *(self.time, *self.reading.fields),
        ]

    def _lay_out_text(self) -> None:
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
            with gr.Row():
                self.pasted = gr.Textbox(
                    "",
                    label=localized("Or paste or drop a text"),
                    elem_id="train-paste",
                    # With 1, it is an <input>, from which browsers remove line breaks. With a `max_length`,
                    # they cut a longer text without saying so; `add_pasted` rejects it.
                    max_lines=2,
                    placeholder=localized("Paste it here"),
                    min_width=200,
                )
                self.hub = line_field(
                    localized("Or a Hugging Face dataset"),
                    "train-hub",
                    placeholder=localized("Its id, such as owner/name"),
                    max_length=200,
                    min_width=200,
                )

    def _lay_out_network(self) -> None:
        with gr.Group():
            with gr.Row():
                self.base = gr.Dropdown(
                    [(localized("A new model"), NEW)],
                    value=NEW,
                    label=localized("Start from"),
                    min_width=200,
                    elem_id="train-base",
                )
                self.title = line_field(
                    localized("Name"),
                    "train-title",
                    placeholder=localized("Name of the text"),
                    max_length=80,
                    min_width=200,
                )
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
                    scale=2,
                    min_width=180,
                    elem_id="train-size",
                )
                self.layers = gr.Dropdown(
                    [1, 2, 3, 4],
                    value=2,
                    label=localized("Layers"),
                    scale=1,
                    min_width=80,
                    elem_id="train-layers",
                )
                self.time = gr.Dropdown(
                    _TIMES,
                    value="2m",
                    label=localized("Training time"),
                    scale=2,
                    min_width=120,
                    allow_custom_value=True,
                    elem_id="train-time",
                )

    def choices(self, text: str | None, base: str | None) -> tuple[gr.Dropdown, gr.Dropdown]:
        """The texts and the models to choose from; what is chosen stays chosen if it still exists. Says so if
        it does not."""
        uploaded = [(f"{t.title} · {format_bytes(t.size)}", t.dataset) for t in self.queue.uploads.all()]
        texts = [(translate("Python standard library"), DEFAULT_DATASET), *uploaded]
        models = [(translate("A new model"), NEW), *choices(self.models)]
        if text and text not in dict(texts).values():
            show_warning(translate("The chosen text no longer exists: choose another one."))
        if base and base not in dict(models).values():
            show_warning(translate("The model to start from no longer exists: choose another one."))
        return _dropdown(texts, text, DEFAULT_DATASET), _dropdown(models, base, NEW)

    def restored(self, title: str, text: str, hub: str, base: str, *values: Any) -> list[Any]:
        """The values of `kept` and of `reading.dataset` after the page was reloaded, from those of `kept`
        before."""
        texts, bases = self.choices(text, base)
        known = [DEFAULT_DATASET, *(upload.dataset for upload in self.queue.uploads.all())]
        if not hub.strip() and text not in known:  # it is gone, and with it how it was read
            text, values = DEFAULT_DATASET, (*values[: -len(READING)], *READING.values())
        return [title, texts, hub, bases, *values, dataset_of(text, hub)]

    def chosen(self, *values: Any) -> tuple[dict[str, Any], Any]:
        """The values of `self.values` as app/jobs/settings.py takes them, and the folder of the model to
        start from. A text that has just been pasted is stored. Raises UserError."""
        pasted, text, hub, base, cell, tokenizer, size, layers, time, *reading = values
        dataset = self.queue.uploads.add_pasted(pasted).dataset if pasted.strip() else dataset_of(text, hub)
        settings = {
            "dataset": dataset,
            "cell": cell,
            "tokenizer": tokenizer,
            "hidden_size": size,
            "layers": layers,
            "max_time": time,
            **settings_of(dataset, *reading),
        }
        return settings, self.models.folder(base) if base else None

    def filled(self, job: Job) -> list[Any]:
        """The values of `self.fields` with the settings of a job. Raises UserError if its text, or the model
        from which it started, is gone."""
        settings = job.settings
        (dataset,) = settings["dataset"]
        if dataset.startswith(PREFIX):
            self.queue.uploads.get(dataset)
        on_hub = dataset != DEFAULT_DATASET and not dataset.startswith(PREFIX)
        folders = self.models.folders()
        start = settings.get("init_from")
        base = next((name for name, folder in folders.items() if str(folder.absolute()) == start), NEW)
        if start and base == NEW:
            raise UserError(
                f"the model '{Path(start).name}', from which this job started, no longer exists: fill in the"
                " form yourself."
            )
        text, bases = self.choices(DEFAULT_DATASET if on_hub else dataset, base)
        network, reading = (
            [_as_shown(name, settings.get(name), default) for name, default in defaults.items()]
            for defaults in (_NETWORK, READING)
        )
        seconds = settings.get("max_time") or parse_duration("2m")
        return [text, dataset if on_hub else "", bases, *network, in_units(seconds), dataset, *reading]


def _as_shown(name: str, value: Any, default: Any) -> Any:
    """The value of a setting's component; `default` if the setting has none."""
    value = default if value is None else value
    if name == "encoding_errors":
        return value == "replace"
    return str(value) if name == "hidden_size" else value


def _dropdown(choices: list[tuple[str, str]], chosen: str | None, default: str) -> gr.Dropdown:
    values = [value for _, value in choices]
    return gr.Dropdown(choices, value=chosen if chosen in values else default)

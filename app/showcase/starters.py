"""Example texts in the style of the model, offered where the user has not written anything."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from lm.console.escaping import printable
from lm.errors import UserError
from lm.files.model_files import open_file
from lm.storage.run_folder import Run, samples_in

from ..registry import ModelRegistry
from ..ui.i18n import translate
from .exhibits import Showcases

_TAIL = 16 << 10  # bytes read from the end of samples.txt
_EXAMPLE_LENGTH = 120  # characters of the example in the empty editor


class Starters:
    """The component that carries an example text to the browser, where static/starters.js offers it."""

    def __init__(self, showcases: Showcases, models: ModelRegistry):
        self._showcases, self._models = showcases, models
        self.text = gr.HTML(
            None,
            html_template="",
            js_on_load="watch('value', () => lmStarters.offer(props.value));",
            elem_id="starter",
            apply_default_css=False,
        )

    def on_model(self, name: str | None) -> dict[str, str] | None:
        """The example text of a model."""
        try:
            text = starter(self._showcases, self._models, name)
        except UserError:  # the page says so when the model is used
            return None
        beginning = text[:_EXAMPLE_LENGTH].rsplit(maxsplit=1)[0] if text.strip() else ""
        return {"text": text, "hint": f"{translate('For example:')}\n{beginning}…" if beginning else ""}


def starter(showcases: Showcases, models: ModelRegistry, name: str | None) -> str:
    """An example text for a model: the last sample of its training, otherwise one that it writes; empty if it
    writes nothing. Raises UserError if the model cannot be loaded."""
    sample = _last_sample(models.folder(name))
    if sample.strip():
        return printable(sample)
    exhibits = showcases.of(name).exhibits
    return printable(exhibits[0].text) if exhibits else ""


def _last_sample(folder: Path) -> str:
    """The last sample in samples.txt; empty if there is none."""
    run = Run(folder)
    try:
        with open_file(run.samples, folder) as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            text = file.read(_TAIL).decode("utf-8", "replace")
    except (UserError, OSError):
        return ""
    samples = samples_in(text)
    return samples[-1][1].strip("\n") if samples else ""

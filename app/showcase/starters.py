"""Example texts in the style of the model, offered where the user has not written anything."""

from __future__ import annotations

import gradio as gr

from lm.errors import UserError

from ..registry import ModelRegistry
from ..ui.i18n import translate
from .exhibits import Showcases, starter

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

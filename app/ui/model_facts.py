"""The facts of a model next to the editor: a table from its config.json, and its loss curve.

Both come from files that anyone may have made, so values are escaped, and the SVG curve is embedded as an
image, in which scripts do not run.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from lm.errors import UserError, one_line
from lm.files.model_files import open_file, read_json
from lm.storage.saving import without_paths

from .errors import as_sentence
from .i18n import translate
from .messages import svg_in_words_of_the_page

_MAX_CURVE_BYTES = 1_000_000


def describe(folder: Path) -> str:
    """The facts and the loss curve of the model in `folder`, as HTML."""
    try:
        rows = facts(read_json(folder / "config.json", folder))
    except UserError as error:
        return note(as_sentence(error))
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(one_line(value))}</td></tr>'
        for name, value in rows
    ]
    return f'<table class="facts">{"".join(lines)}</table>{curve(folder)}'


def facts(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) for each fact in config.json; missing ones are left out."""
    model, trained_on, validation = (section(config, key) for key in ("model", "trained_on", "validation"))
    units = translate(
        "{layers} × {hidden} units",
        layers=_integer(model.get("layers")),
        hidden=_integer(model.get("hidden_size")),
    )
    if model.get("direction") == "backward":
        units += translate(", right to left")
    vocabulary = translate("{count} tokens", count=_integer(config.get("vocab_size")))
    length = translate("{count} characters", count=_integer(trained_on.get("characters")))
    rows = []
    if "cell" in model:
        rows.append((translate("Cell"), f"{str(model['cell']).upper()}, {units}"))
    if "parameters" in config:
        rows.append((translate("Parameters"), _integer(config["parameters"])))
    if "tokenizer" in config:
        rows.append((translate("Tokenizer"), f"{config['tokenizer']}, {vocabulary}"))
    if "dataset" in trained_on:
        rows.append((translate("Trained on"), f"{without_paths(str(trained_on['dataset']))}, {length}"))
    if "loss" in validation:
        loss = translate("{loss} nats per token", loss=_decimal(validation["loss"]))
        rows.append((translate("Validation loss"), loss))
    if "validation_loss_before" in trained_on:
        loss = translate("{loss} nats per token", loss=_decimal(trained_on["validation_loss_before"]))
        rows.append((translate("Before fine-tuning"), loss))
    if "perplexity" in validation:
        rows.append((translate("Perplexity"), _decimal(validation["perplexity"], 2)))
    if "bits_per_character" in validation:
        rows.append((translate("Bits per character"), _decimal(validation["bits_per_character"])))
    if "bits_per_byte" in validation:
        rows.append((translate("Bits per byte"), _decimal(validation["bits_per_byte"])))
    return rows


def curve(folder: Path) -> str:
    """The loss curve of a run as an HTML image, or a note that it has none."""
    path = folder / "training" / "loss.svg"
    try:
        with open_file(path, folder) as file:
            content = file.read(_MAX_CURVE_BYTES + 1)
        if len(content) > _MAX_CURVE_BYTES:
            return note(translate("The loss curve is too large to show."))
    except (UserError, OSError):
        return note(translate("No loss curve was saved with this model."))
    return curve_image(content.decode("utf-8", "replace"), focusable=True)


def curve_image(svg: str, focusable: bool = False) -> str:
    """A loss curve as an HTML image. On low screens, an image that has the focus is enlarged."""
    alt = translate("Loss curve: training and validation loss by step")
    return svg_image(svg_in_words_of_the_page(svg), alt, ' tabindex="0"' if focusable else "")


def svg_image(svg: str, alt: str, attributes: str = "") -> str:
    """A plot in SVG as an HTML image, in which scripts do not run."""
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f'<img class="curve"{attributes} alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def note(message: str) -> str:
    """A line of text as HTML."""
    return f'<p class="note">{escape(message)}</p>'


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in config.json; empty if there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _integer(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _decimal(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "?"

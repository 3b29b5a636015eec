"""What stands beside the editor: a table of a model's facts, and its loss curve.

All of it comes from files, so everything is escaped, and the curve is an image, where no script runs.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path, PurePath
from typing import Any

from lm import saving
from lm.errors import UserError

from .errors import as_sentence
from .i18n import translate

_LARGEST_CURVE = 1_000_000  # bytes


def describe(folder: Path) -> str:
    """The facts and the curve of the model in `folder`, as HTML."""
    try:
        rows = facts(saving.read_json(folder / "config.json", folder))
    except UserError as error:
        return note(as_sentence(error))
    lines = [f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows]
    return f'<table class="facts">{"".join(lines)}</table>{curve(folder)}'


def facts(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each fact that config.json tells; what it does not tell is left out."""
    model, trained, validation = (
        value if isinstance(value := config.get(key), dict) else {}
        for key in ("model", "trained_on", "validation")
    )
    layers, hidden = _number(model.get("layers")), _number(model.get("hidden_size"))
    units = translate("{layers} × {hidden} units", layers=layers, hidden=hidden)
    units += translate(", right to left") if model.get("direction") == "backward" else ""
    vocabulary = translate("{count} tokens", count=_number(config.get("vocab_size")))
    length = translate("{count} characters", count=_number(trained.get("characters")))
    loss = translate("{loss} nats per token", loss=_decimal(validation.get("loss")))
    bits = {unit: _decimal(validation.get(f"bits_per_{unit}")) for unit in ("character", "byte")}
    rows = [
        (translate("Cell"), f"{str(model.get('cell', '')).upper()}, {units}", "cell" in model),
        (translate("Parameters"), _number(config.get("parameters")), "parameters" in config),
        (translate("Tokenizer"), f"{config.get('tokenizer', '')}, {vocabulary}", "tokenizer" in config),
        (translate("Trained on"), f"{dataset_name(trained.get('dataset'))}, {length}", "dataset" in trained),
        (translate("Validation loss"), loss, "loss" in validation),
        (translate("Perplexity"), _decimal(validation.get("perplexity"), 2), "perplexity" in validation),
        (translate("Bits per character"), bits["character"], "bits_per_character" in validation),
        (translate("Bits per byte"), bits["byte"], "bits_per_byte" in validation),
    ]
    return [(name, value) for name, value, known in rows if known]


def curve(folder: Path) -> str:
    """The loss curve of a run as an image; a note where there is none."""
    path = folder / "training" / "loss.svg"
    try:
        if path.stat().st_size > _LARGEST_CURVE:
            return note(translate("The loss curve is too large to show."))
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return note(translate("No loss curve was saved with this model."))
    alt = translate("Loss curve: training and validation loss over the steps of the training")
    return f'<img class="curve" alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def note(message: str) -> str:
    """A line in place of facts."""
    return f'<p class="note">{escape(message)}</p>'


def dataset_name(dataset: Any) -> str:
    """A Hub id as it is; of a path on this computer only the last part."""
    path = PurePath(str(dataset))
    return path.name if path.is_absolute() else str(dataset)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _decimal(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "?"

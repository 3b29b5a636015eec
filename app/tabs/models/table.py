"""The table of the Models tab: the figures of each model, and what can be done with it."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from ...ui.custom_html import custom_html
from ...ui.i18n import localized, translate
from .catalog import Entry

_TEMPLATE = """
<div class="scrolls" tabindex="0" role="region">
  <table><thead><tr></tr></thead><tbody></tbody></table>
</div>
"""


def lay_out_table() -> gr.HTML:
    """Add the table to the enclosing Blocks.

    Its events have the `name` of a model: `select`; `click`, with the `tab` to open; and `download`, with
    the `suffix` of the file to write.
    """
    return custom_html("models.js", _TEMPLATE, "models-table", label=localized("Models"))


def table(found: list[Entry]) -> dict[str, Any]:
    """The value of the table: of each cell, its text, and a value to sort by."""
    headers = [
        translate("Model"),
        translate("Bits per character"),
        translate("Cell"),
        translate("Layers × units"),
        translate("Parameters"),
        translate("Tokenizer"),
        translate("Trained on"),
        translate("Last modified"),
    ]
    return {
        "headers": headers,
        "rows": [{"name": entry.name, "cells": _cells(entry)} for entry in found],
        "tabs": [
            ("write", translate("Write")),
            ("inside", translate("Look inside")),
            ("compare", translate("Compare")),
        ],
        "label": translate("Export"),
        "formats": [
            (".zip", translate("All files (zip)")),
            (".onnx", "ONNX"),
            (".html", translate("Web page")),
        ],
    }


def _cells(entry: Entry) -> list[dict[str, Any]]:
    size = f"{_format(entry.layers, ',d')} × {_format(entry.hidden_size, ',d')}"
    size += " ←" if entry.backward else ""
    tokenizer = entry.tokenizer + (f", {entry.vocab_size:,}" if entry.vocab_size else "")
    modified = time.strftime("%Y-%m-%d", time.localtime(entry.modified))
    units = None if entry.layers is None or entry.hidden_size is None else entry.layers * entry.hidden_size
    cells: list[tuple[str, float | str | None]] = [
        (entry.name, entry.name.lower()),
        (_format(entry.bits_per_character, ".3f"), entry.bits_per_character),
        (entry.cell, entry.cell),
        (size, units),
        (_format(entry.parameters, ",d"), entry.parameters),
        (tokenizer, tokenizer),
        (entry.dataset, entry.dataset.lower()),
        (modified, entry.modified),
    ]
    return [{"text": text, "value": value} for text, value in cells]


def _format(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)

"""Buttons and fields that several tabs have."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .i18n import localized

# A field whose label only screen readers read.
UNLABELED: dict[str, Any] = {"show_label": False, "container": False}


def go_button(label: Any, elem_id: str, **options: Any) -> gr.Button:
    """The main button of a tab, which Ctrl+Enter presses (static/page.js)."""
    return gr.Button(label, variant="primary", elem_id=elem_id, elem_classes="lm-go", **options)


def stop_button(elem_id: str, **options: Any) -> gr.Button:
    """The button that stops what the main button started, which Esc presses (static/page.js)."""
    return gr.Button(localized("Stop"), elem_id=elem_id, elem_classes="lm-stop", interactive=False, **options)


def line_field(label: Any, elem_id: str, **options: Any) -> gr.Textbox:
    """A field for one line of text; `options` are those of gr.Textbox."""
    return gr.Textbox("", label=label, max_lines=1, elem_id=elem_id, **options)


def seed_field(value: int, elem_id: str, **options: Any) -> gr.Number:
    """The seed of what is generated."""
    # -1 and not empty: Gradio displays and sends an empty number as 0.
    return integer_field(value, localized("Seed"), localized("-1: random"), elem_id, **options)


def integer_field(value: int, label: Any, info: Any, elem_id: str, **options: Any) -> gr.Number:
    """A field for an integer, with one line of help; `options` are those of gr.Number."""
    return gr.Number(value, precision=0, label=label, info=info, elem_id=elem_id, **options)

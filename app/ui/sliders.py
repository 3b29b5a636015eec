"""Sliders for the sampling settings: ranges from app/sampling.py, help from SamplingConfig."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..sampling import SETTINGS, SLIDERS


def sampling_slider(name: str, value: float | None = None, **options: Any) -> gr.Slider:
    """A slider for one setting, at its default unless `value` is given; `options` are those of gr.Slider."""
    low, high, step = SLIDERS[name]
    return gr.Slider(low, high, SETTINGS[name].default if value is None else value, step=step, **options)


def help_sentence(name: str) -> str:
    """The help of one setting as an English sentence."""
    text = SETTINGS[name].rule.help
    return f"{text[:1].upper()}{text[1:]}."

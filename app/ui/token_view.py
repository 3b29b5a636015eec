"""The token view: a text of which each token has a colour, and can be pointed at.

It is the one part of the page that is no component of Gradio's. The browser puts the tokens in as text,
never as HTML, so that a model that writes `<script>` shows just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from lm.escaping import printable

_SCRIPT = Path(__file__).parents[1] / "static" / "tokens.js"
MAX_LEVEL = 9  # levels go from -9 (cold) over 0 (no colour) to 9 (warm)


def token_view(label: str | I18nData, elem_id: str) -> gr.HTML:
    """An empty view. Its value is made by `colored_tokens`.

    It triggers `click` with the number of a token as `index`, and `select` with the `start` and `end`
    (exclusive) of several; a listener takes them from `gr.EventData`.
    """
    return gr.HTML(
        None,
        label=label,
        elem_id=elem_id,
        elem_classes="token-view",
        html_template='<div class="tokens" tabindex="0" role="listbox"></div>',
        js_on_load=_SCRIPT.read_text(),
        apply_default_css=False,
    )


def colored_tokens(
    tokens: Iterable[str],
    levels: Sequence[int] = (),
    tooltips: Sequence[str] = (),
    selected: int | None = None,
) -> dict[str, Any]:
    """What a token view shows: the text of each token, its level of colour, what is told when the mouse
    is on it, and which one is the chosen one."""
    return {
        "tokens": [printable(token) for token in tokens],
        "levels": list(levels),
        "tooltips": list(tooltips),
        "selected": selected,
    }


def surprisal_level(bits: float) -> int:
    """The level of a surprisal in bits: a token of a probability above a half has none."""
    return max(0, min(MAX_LEVEL, int(bits)))


def activation_level(value: float, largest: float = 1.0) -> int:
    """The level of a value between -largest and largest."""
    share = value / largest if largest else 0.0
    return round(max(-1.0, min(1.0, share)) * MAX_LEVEL)

"""The token view: a text whose tokens are colored and can be clicked.

It is a custom component, in HTML and JavaScript (static/tokens.js). The browser inserts tokens as text, never
as HTML, so a model that writes `<script>` shows exactly that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.i18n import I18nData

from lm.console.escaping import printable

from .custom_html import custom_html
from .i18n import translate

_TEMPLATE = (
    '<div class="legend" aria-hidden="true"></div><div class="tokens" tabindex="0" role="listbox"></div>'
    '<div class="readout" role="status"></div>'
)
MAX_LEVEL = 9  # color levels range from -9 (cold) through 0 (no color) to 9 (warm)


class Legend(NamedTuple):
    """What the ends of the color scale mean."""

    low: str
    high: str
    first: int = 0  # the level at the low end
    unknown: str = ""  # what the hatching means; empty if no token is hatched


def token_view(label: str | I18nData, elem_id: str) -> gr.HTML:
    """An empty token view; `colored_tokens` creates its value.

    Below the text it shows the tooltip of the current token, which the arrow keys move. It triggers `click`
    with the position of a token as `index`, and `select` with the positions `start` and `end` (exclusive) of
    a range. Listeners read them from `gr.EventData`.
    """
    return custom_html("tokens.js", _TEMPLATE, elem_id, label=label, elem_classes="token-view")


def colored_tokens(
    tokens: Iterable[str],
    levels: Sequence[int] = (),
    tooltips: Sequence[str] = (),
    selected: int | None = None,
    legend: Legend | None = None,
    unknown: Sequence[bool] = (),
) -> dict[str, Any]:
    """The value of a token view: text, color level and tooltip of each token, the selected position, what
    the colors mean, and which tokens the model does not know."""
    return {
        "tokens": [printable(token) for token in tokens],
        "levels": list(levels),
        "tooltips": list(tooltips),
        "selected": selected,
        "legend": legend and legend._asdict(),
        "unknown": [index for index, is_unknown in enumerate(unknown) if is_unknown],
    }


def surprisal_level(bits: float, bits_per_level: float = 1.0) -> int:
    """The color level of a surprisal. With one level per bit, those below one bit have none."""
    return max(0, min(MAX_LEVEL, int(bits / bits_per_level)))


def surprisal_legend(bits_per_level: float = 1.0, unknown: str = "") -> Legend:
    """What the colors of surprisals mean; `unknown` is what hatching means."""
    most = translate("{bits} bits or more", bits=f"{MAX_LEVEL * bits_per_level:g}")
    return Legend(translate("{bits} bits", bits=0), most, unknown=unknown)


def activation_level(value: float, largest: float = 1.0) -> int:
    """The color level of a value between -largest and largest."""
    share = value / largest if largest else 0.0
    return round(max(-1.0, min(1.0, share)) * MAX_LEVEL)


def on_one_line(text: str) -> str:
    """`text` with visible control characters, tabs and line ends."""
    return printable(text).replace("\n", "↵").replace("\t", "⇥")


def quoted(text: str) -> str:
    """`text` on one line in quotation marks, isolated: right-to-left letters do not reorder what follows."""
    return f"“\N{FIRST STRONG ISOLATE}{on_one_line(text)}\N{POP DIRECTIONAL ISOLATE}”"

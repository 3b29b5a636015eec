"""The alternatives panel: a button for each of the most likely tokens at a position of the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ...draft import Draft
from ...ui.i18n import translate

_SCRIPT = (Path(__file__).parents[2] / "static" / "alternatives.js").read_text("utf-8")


def alternatives_panel() -> gr.HTML:
    """An empty panel; `alternatives_value` creates its value. Its buttons trigger `click` with the character
    offset `start` and the id `token`."""
    return gr.HTML(
        None,
        html_template='<p class="title" role="status"></p><div class="options"></div>',
        js_on_load=_SCRIPT,
        elem_id="alternatives",
        apply_default_css=False,
    )


def alternatives_value(draft: Draft, position: int) -> dict[str, Any]:
    """The value of the panel for a character offset of a draft."""
    found = draft.alternatives(position)
    highest = max((p for *_, p in found.tokens), default=1.0)
    if found.current is None:
        title, hint = translate("Most likely to come next:"), translate("Append to the text")
    else:
        title = translate("Alternatives to “{token}”:", token=_visible(found.current))
        hint = translate("Insert here and continue")
    options = [
        {
            "name": _visible(name),
            "percent": f"{p:.1%}" if p >= 0.001 else "<0.1%",
            "share": p / highest,
            "token": token,
        }
        for name, token, p in found.tokens
    ]
    return {"title": title, "hint": hint, "start": found.start, "options": options}


def _visible(token: str) -> str:
    return token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") or "∅"

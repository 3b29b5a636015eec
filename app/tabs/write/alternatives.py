"""What else could stand at a place of the text: a button for each token, with its probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ...draft import Draft
from ...ui.i18n import translate

_SCRIPT = (Path(__file__).parents[2] / "static" / "alternatives.js").read_text()


def panel() -> gr.HTML:
    """An empty panel. It shows what `found` gives, and a press on a button is a click with the place where
    the token starts and the token's id."""
    return gr.HTML(
        None,
        html_template='<p class="title" role="status"></p><div class="options"></div>',
        js_on_load=_SCRIPT,
        elem_id="alternatives",
        apply_default_css=False,
    )


def found(draft: Draft, place: int) -> dict[str, Any]:
    """The likeliest tokens at a place of a draft."""
    likely = draft.alternatives(place)
    most = max((p for *_, p in likely.tokens), default=1.0)
    if likely.there is None:
        title, hint = translate("What could come next:"), translate("Add it to the text")
    else:
        title = translate("What else could stand in the place of “{token}”:", token=_visible(likely.there))
        hint = translate("Put it here and go on")
    options = [
        {
            "name": _visible(name),
            "percent": f"{p:.1%}" if p >= 0.001 else "<0.1%",
            "share": p / most,
            "token": token,
        }
        for name, token, p in likely.tokens
    ]
    return {"title": title, "hint": hint, "start": likely.start, "options": options}


def _visible(token: str) -> str:
    return token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") or "∅"

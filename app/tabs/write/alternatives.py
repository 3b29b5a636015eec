"""The alternatives popover: the most likely tokens at a position of the text, and where each would lead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from ...draft import Alternatives, Draft
from ...ui.custom_html import custom_html
from ...ui.i18n import translate
from ...ui.token_view import on_one_line

_AHEAD = 15  # characters shown after each token
_TEMPLATE = """
<div class="popover" popover="manual" role="dialog" aria-labelledby="alternatives-title">
  <div class="head"><p id="alternatives-title"></p><button class="close" type="button">×</button></div>
  <div class="options" role="listbox" tabindex="0" aria-labelledby="alternatives-title"></div>
  <button class="reroll" type="button"></button>
</div>
"""


def alternatives_panel() -> gr.HTML:
    """A closed popover; it opens at the cursor when it gets a value of `alternatives_values`.

    It triggers `select` with the cursor's `position` in UTF-16 code units when the user asks for
    alternatives, `click` with the character offset `start` and the id `token` when one is chosen, and `retry`
    with the offset `start` for another continuation from there. Listeners read them from `gr.EventData`.
    """
    return custom_html("alternatives.js", _TEMPLATE, "alternatives")


def alternatives_values(draft: Draft, position: int) -> Iterator[dict[str, Any]]:
    """Two values of the popover for a character offset of a draft: one at once, and one that also has the
    text to which each token would lead."""
    found = draft.alternatives(position)
    yield _value(found, [None] * len(found.tokens))
    yield _value(found, found.before.outlook([token for _, token, _ in found.tokens], _AHEAD))


def _value(found: Alternatives, ahead: Sequence[str | None]) -> dict[str, Any]:
    highest = max((p for *_, p in found.tokens), default=1.0)
    current = found.current
    if current is None:
        title, hint = translate("Most likely to come next:"), translate("Append to the text")
    else:
        title = translate("Instead of “{token}”, the model considered:", token=_visible(current))
        hint = translate("Insert here and continue")
    options = [
        {
            "name": _visible(name),
            "spoken": _spoken(name),
            "percent": f"{p:.1%}" if p >= 0.001 else "<0.1%",
            "share": p / highest,
            "token": token,
            "isCurrent": name == current,
            "ahead": None if text is None else on_one_line(text),
        }
        for (name, token, p), text in zip(found.tokens, ahead, strict=True)
    ]
    return {
        "title": title,
        "hint": hint,
        "close": translate("Close"),
        "reroll": None if current is None else translate("Re-roll from here"),
        "start": found.start,
        "end": found.start + len(current or ""),
        "options": options,
    }


def _visible(token: str) -> str:
    return on_one_line(token).replace(" ", "␣") or "∅"


def _spoken(token: str) -> str:
    """A token for screen readers, which skip white space."""
    names = {" ": translate("space"), "\n": translate("line break"), "\t": translate("tab")}
    return names.get(token, token)

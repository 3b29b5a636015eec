"""The showcase below the title: on a first visit, a text that the model wrote, colored by one of its units.

The visitor can look at more units, let the model continue the text in the Write tab, or close the showcase,
which then stays closed in this browser until a link opens it again.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from lm.errors import UserError

from ..ui.errors import INTERNAL, event_int, show_errors
from ..ui.i18n import localized, translate
from ..ui.token_view import token_view
from .exhibits import Exhibit, Showcase, Showcases

# What the units recognize (a binary property) or keep track of (a quantity).
_RECOGNIZED = {
    "quotes": "quotation marks",
    "comments": "comments",
    "brackets": "brackets",
    "upper_case": "capital letters",
    "digits": "digits",
    "vowels": "vowels",
    "punctuation": "punctuation marks",
    "white_space": "spaces and line ends",
}
_TRACKED = {  # and what the colors of a quantity mean
    "indentation": ("the indentation", "Orange: far to the right. Blue: far to the left."),
    "line_position": ("the position in the line", "Orange: late in the line. Blue: early."),
    "bracket_depth": ("how deeply brackets are nested", "Orange: deep. Blue: shallow."),
    "word_position": ("the position in the word", "Orange: late in the word. Blue: early."),
}
# JavaScript of the heading; `lmShowcase` is defined in static/showcase.js.
_HEADING_JS = (
    "lmShowcase.setUp(element, (index) => trigger('click', { index }));"
    " watch('value', () => lmShowcase.show(props.value));"
)


class ShowcaseView:
    """The components of the showcase, laid out in the enclosing Blocks, and their events."""

    def __init__(self, showcases: Showcases, model: gr.Dropdown):
        self._showcases = showcases
        with gr.Column(elem_id="showcase"):
            self._heading = gr.HTML(
                None,
                html_template="<h2></h2><p></p>",
                js_on_load=_HEADING_JS,
                elem_id="showcase-heading",
                apply_default_css=False,
            )
            self._view = token_view(localized("A text that the model wrote"), "showcase-text")
            with gr.Row(elem_id="showcase-actions"):
                write = gr.Button(
                    localized("Let it write"), variant="primary", size="sm", elem_id="showcase-write"
                )
                another = gr.Button(localized("Show me another unit"), size="sm", elem_id="showcase-another")
                close = gr.Button(localized("Close"), size="sm", elem_id="showcase-close")
        self._heading.click(self.on_show, model, [self._heading, self._view], **INTERNAL)
        for button, action in ((write, "write"), (another, "another"), (close, "close")):
            button.click(None, js=f"() => lmShowcase.{action}()", **INTERNAL)
        model.change(None, js="() => lmShowcase.refresh()", **INTERNAL)

    def lay_out_link(self) -> None:
        """Add the button that opens the showcase again."""
        link = gr.Button(
            localized("What has this model learned?"),
            size="sm",
            elem_id="showcase-link",
            scale=0,
            min_width=230,
        )
        link.click(None, js="() => lmShowcase.open()", **INTERNAL)

    def on_show(self, name: str | None, event: gr.EventData) -> list[Any]:
        """Show the exhibit of a number; after the last comes the first."""
        try:
            showcase = self._showcases.of(name)
        except UserError:  # Generate says what is wrong with the model
            showcase = Showcase(0, [])
        if not showcase.exhibits:
            return [{"heading": "", "note": "", "text": "", "more": False}, None]
        with show_errors():
            exhibit = showcase.exhibits[event_int(event, "index") % len(showcase.exhibits)]
        return [_described(showcase, exhibit), _colors(exhibit)]


def _colors(exhibit: Exhibit) -> dict[str, Any]:
    """The value of the token view, in the visitor's language."""
    if exhibit.unit:
        return exhibit.colors
    numbers = exhibit.colors["tooltips"]
    return exhibit.colors | {"tooltips": [translate("{bits} bits", bits=number) for number in numbers]}


def _described(showcase: Showcase, exhibit: Exhibit) -> dict[str, Any]:
    """What is said about an exhibit."""
    unit = exhibit.unit
    if unit is None:
        return {
            "heading": translate("This model wrote this text. No single unit clearly tracks one property."),
            "note": translate(
                "The colors show its surprisal: the warmer, the less likely the character was."
            ),
            "text": exhibit.text,
            "more": False,
        }
    if exhibit.measure == "auc":
        heading = "One of this model's {count:,} units has learned to recognize {what}"
        score = "Layer {layer}, unit {unit}. Held-out AUC: {score:.2f} (chance: 0.50)."
        colors = "Orange: the unit says yes. Blue: it says no."
        what = _RECOGNIZED[exhibit.property]
    else:
        heading = "One of this model's {count:,} units has learned to keep track of {what}"
        score = "Layer {layer}, unit {unit}. Held-out rank correlation: {score:.2f} (chance: 0.00)."
        what, colors = _TRACKED[exhibit.property]
    return {
        "heading": translate(heading, count=showcase.units, what=translate(what)),
        "note": " ".join(
            (translate(score, layer=unit.layer + 1, unit=unit.unit, score=unit.score), translate(colors))
        ),
        "text": exhibit.text,
        "more": len(showcase.exhibits) > 1,
    }

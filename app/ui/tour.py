"""The tour: what the page can do, in six steps that do it, with the model that ships."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
from gradio.i18n import I18nData

from ..registry import SHIPPED
from .errors import INTERNAL
from .i18n import localized, translate


class Step(NamedTuple):
    """One step: the tab that it opens, what its button says, and what a person then sees."""

    name: str  # of the function in app/tour.js
    tab: str
    button: str
    told: str


STEPS = (
    Step("write", "write", "1. Let it write",
         "The model goes on from your text, one character after the other. The warmer a colour, the less it"
         " expected what it wrote there itself."),
    Step("alternatives", "write", "2. See alternatives",
         "Below the text is what the model thought likeliest at the caret. Click one of them: it is put"
         " there, and the model goes on. Undo brings the old text back."),
    Step("surprise", "inside", "3. What surprises it?",
         "Each character of a text that the model did not write, coloured by its surprise in bits. Paste your"
         " own."),
    Step("units", "inside", "4. Find a quote detector",
         "All hidden units were compared with what is inside quotes, and the best one colours the text. Click"
         " a character to see how the unit was computed there."),
    Step("compare", "compare", "5. Compare two settings",
         "The same beginning and the same seed, side by side. Each column can have a model of its own."),
    Step("train", "train", "6. Train one of your own",
         "Upload a text, or take the one that is chosen, and press Start training: two minutes bring a model"
         " that writes like it."),
)  # fmt: skip


def build(
    model: gr.Dropdown, tabs: gr.Tabs, facts: gr.HTML, refresh: Callable[[str], Any], may_train: bool
) -> None:
    """Lay out the tour in the Blocks around it; `refresh` lists the models and chooses one."""
    with gr.Accordion(localized("A short tour"), open=False, elem_id="tour"):
        told = gr.Markdown(
            localized("Each step does what it says, with the model that ships."), elem_id="tour-told"
        )
        with gr.Row(elem_id="tour-steps"):
            for step in STEPS:
                if step.name == "train" and not may_train:
                    continue
                _button(step, model, tabs, facts, refresh, told)


def _button(
    step: Step,
    model: gr.Dropdown,
    tabs: gr.Tabs,
    facts: gr.HTML,
    refresh: Callable[[str], Any],
    told: gr.Markdown,
) -> None:
    def show() -> list[Any]:
        return [*refresh(SHIPPED), gr.Tabs(selected=step.tab), translate(step.told)]

    button = gr.Button(_title(step), size="sm", min_width=120, elem_id=f"tour-{step.name}")
    button.click(show, None, [model, facts, tabs, told], **INTERNAL).success(
        None, js=f"() => void lmTour.{step.name}()", **INTERNAL
    )


def _title(step: Step) -> I18nData:
    return localized(step.button)

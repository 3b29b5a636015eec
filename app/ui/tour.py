"""The tour: six steps that show what the page can do, run with the pretrained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from ..registry import SHIPPED
from .errors import INTERNAL
from .i18n import localized, translate


class Step(NamedTuple):
    """One step of the tour."""

    function: str  # of static/tour.js
    tab: str  # the id of the tab it opens
    button: str
    explanation: str  # of what the user then sees


STEPS = (
    Step(
        "write",
        "write",
        "1. Generate text",
        "The model continues your text one character at a time. The warmer the color, the less likely the"
        " model considered that character.",
    ),
    Step(
        "alternatives",
        "write",
        "2. See alternatives",
        "At the cursor you see the most likely tokens, and where each would lead. Choose one and the model"
        " continues from there. Undo restores the previous text.",
    ),
    Step(
        "surprisal",
        "inside",
        "3. Find surprises",
        "A text that the model did not write, with each character colored by its surprisal in bits. Try"
        " pasting your own.",
    ),
    Step(
        "units",
        "inside",
        "4. Find a quote detector",
        "Every hidden unit was tested on how well it detects quoted text, and the best one colors the text."
        " Click a character to see how the unit computed its value there.",
    ),
    Step(
        "compare",
        "compare",
        "5. Compare two settings",
        "The same prompt and the same seed, side by side. Each column can use a different model.",
    ),
    Step(
        "train",
        "train",
        "6. Train your own model",
        "Upload a text or keep the selected one, then press Start training. Two minutes later you have a"
        " model that writes like it.",
    ),
)


def build(
    model: gr.Dropdown,
    tabs: gr.Tabs,
    facts: gr.HTML,
    select_model: Callable[[str], tuple[Any, ...]],
    can_train: bool,
) -> None:
    """Add the tour to the current Blocks. `select_model(name)` returns updates for `model` and `facts`."""
    with gr.Accordion(localized("Quick tour"), open=False, elem_id="tour"):
        explanation = gr.Markdown(
            localized("Each step runs an example with the pretrained model."), elem_id="tour-explanation"
        )
        with gr.Row(elem_id="tour-steps"):
            for step in STEPS:
                if step.tab != "train" or can_train:
                    _add_button(step, [model, facts, tabs, explanation], select_model)


def _add_button(step: Step, outputs: list[Any], select_model: Callable[[str], tuple[Any, ...]]) -> None:
    def show() -> list[Any]:
        return [*select_model(SHIPPED), gr.Tabs(selected=step.tab), translate(step.explanation)]

    button = gr.Button(localized(step.button), size="sm", min_width=120, elem_id=f"tour-{step.function}")
    start = f"() => lm.documents.startTour({json.dumps(SHIPPED)})"
    button.click(show, None, outputs, js=start, **INTERNAL).success(
        None, js=f"() => void lmTour.{step.function}()", **INTERNAL
    )

"""What each section of the Look inside tab needs from the tab, and how a section marks an outdated result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import gradio as gr

from ...registry import ModelRegistry
from ...ui.errors import INTERNAL
from .analysis import Analysis
from .layout import InsideLayout

# A text, the name of the model that read it, and which of its pages is in the token view.
Viewed = tuple[str, str | None, int]


class Inside(Protocol):
    """The tab, as its sections see it."""

    layout: InsideLayout
    models: ModelRegistry
    model: gr.Dropdown  # the selected model

    @property
    def unit_inputs(self) -> list[Any]:
        """The components that say which unit is shown: layer from 1, unit, state or gate."""

    @property
    def unit_outputs(self) -> list[Any]:
        """The components that change when another unit is shown: see `shown_unit`."""

    def analysis(self, viewed: Viewed) -> Analysis:
        """The analysis of the text that the page shows. Raises UserError."""

    def shown_unit(self, analysis: Analysis, layer: int, unit: int, name: str) -> list[Any]:
        """Values for `unit_outputs` that show a state or gate of a unit; layers count from 1."""


def dim_while_outdated(
    result: gr.HTML, computed: Iterable[Any], changes: Iterable[Callable[..., Any]]
) -> None:
    """Dim a result from any event of `changes`, such as `textbox.input`, until one of the listeners that
    compute it has succeeded; then bring it into view."""
    for listener in computed:
        listener.success(None, js=f"() => void lmInside.renew('#{result.elem_id}')", **INTERNAL)
    for event in changes:
        event(None, js=f"() => void lmInside.outdate('#{result.elem_id}')", **INTERNAL)

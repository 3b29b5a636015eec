"""The layout of the Compare tab: the prompt, the columns, the loss curves and the scores of a text."""

from __future__ import annotations

import gradio as gr

from ...sampling import SETTINGS
from ...ui.fields import UNLABELED, go_button, integer_field, seed_field, stop_button
from ...ui.i18n import localized
from ...ui.sliders import sampling_slider
from ...ui.token_view import token_view

MAX_COLUMNS = 4
DEFAULT_LENGTH = 600  # characters
_OTHER_TEMPERATURES = (0.5, 1.1, 1.4)  # of the second column and those after it, if there is only one model


class CompareLayout:
    """The components, laid out in the enclosing Blocks; `models` are the choices of the dropdowns."""

    def __init__(self, models: list[tuple[str, str]]):
        self.count = gr.State(2)  # visible columns
        self.comparison = gr.State(None)
        self.columns: list[gr.Column] = []
        self.names: list[gr.Dropdown] = []
        self.controls: list[gr.components.Component] = []  # of all columns, one column after another
        self.outputs: list[gr.Textbox] = []
        self.statuses: list[gr.HTML] = []
        self.removes: list[gr.Button] = []
        with gr.Column(elem_id="compare"):
            self._lay_out_prompt()
            with gr.Row(elem_id="sides", equal_height=False):
                for number in range(MAX_COLUMNS):
                    self._lay_out_column(number, models)
            self._lay_out_curves()
            self._lay_out_scores()
        # Those that the browser keeps until the page is closed. The page selects the models.
        sliders = [control for control in self.controls if control not in self.names]
        self.kept = [self.prompt, self.length, self.seed, *sliders, self.over, self.text]

    def _lay_out_prompt(self) -> None:
        with gr.Row(elem_id="compare-common"):
            self.prompt = gr.Textbox(
                "",
                label=localized("Prompt"),
                lines=2,
                max_lines=6,
                scale=6,
                min_width=280,
                placeholder=localized("The start of every text"),
                elem_id="compare-prompt",
            )
            self.length = integer_field(
                DEFAULT_LENGTH,
                localized("Length"),
                localized("in characters"),
                "compare-length",
                min_width=100,
            )
            self.seed = seed_field(1, "compare-seed", min_width=100)
        with gr.Row(elem_id="compare-actions"):
            self.run = go_button(localized("Write side by side"), "compare-run", min_width=140)
            self.stop = stop_button("compare-stop", min_width=80)
            self.add = gr.Button(localized("Add column"), elem_id="compare-add", min_width=110)
            self.to_curves = gr.Button(localized("Loss curves"), elem_id="compare-to-curves", min_width=110)
            self.to_scores = gr.Button(localized("Score a text"), elem_id="compare-to-scores", min_width=110)

    def _lay_out_column(self, number: int, models: list[tuple[str, str]]) -> None:
        with gr.Column(min_width=240, visible=number < 2, elem_classes="side") as column:
            name = gr.Dropdown(
                models,
                value=model_at(models, number),
                label=localized("Model"),
                elem_id=f"compare-model-{number + 1}",
                **UNLABELED,
            )
            with gr.Row(elem_classes="side-settings"):
                temperature = sampling_slider(
                    "temperature",
                    _default_temperature(number, len(models)),
                    label=localized("Temperature"),
                    min_width=180,
                    elem_id=f"compare-temperature-{number + 1}",
                )
                top_p = sampling_slider(
                    "top_p",
                    label="Top-p",
                    min_width=180,
                    elem_id=f"compare-top-p-{number + 1}",
                )
            output = gr.Textbox(
                label=localized("Output"),
                lines=14,
                max_lines=14,
                interactive=False,
                elem_id=f"compare-text-{number + 1}",
                elem_classes="side-text",
            )
            status = gr.HTML("", elem_id=f"compare-line-{number + 1}", elem_classes="side-line")
            remove = gr.Button(
                localized("Remove column"), size="sm", visible=False, elem_id=f"compare-remove-{number + 1}"
            )
        self.columns.append(column)
        self.names.append(name)
        self.controls += [name, temperature, top_p]
        self.outputs.append(output)
        self.statuses.append(status)
        self.removes.append(remove)

    def _lay_out_curves(self) -> None:
        gr.Markdown(localized("## Loss curves"), elem_id="compare-learning")
        self.over = gr.Radio(
            [(localized("Characters read"), "characters"), (localized("Training time"), "seconds")],
            value="characters",
            label=localized("Horizontal axis"),
            elem_id="compare-over",
        )
        self.curves = gr.HTML(elem_id="compare-curves")

    def _lay_out_scores(self) -> None:
        gr.Markdown(localized("## Score a text"), elem_id="compare-scoring")
        self.text = gr.Textbox(
            "",
            lines=5,
            max_lines=12,
            label=localized("Text to score"),
            elem_id="compare-score-text",
            placeholder=localized("A text for all models to predict"),
        )
        self.score = gr.Button(localized("Score"), elem_id="compare-score", size="md", min_width=140)
        self.scores = gr.HTML(elem_id="compare-figures", elem_classes="compare-table")
        with gr.Row(visible=False, elem_id="compare-words") as self.details:
            with gr.Column(min_width=300):
                self.color_by = gr.Radio([], label=localized("Color by"), elem_id="compare-shown")
                self.view = token_view(localized("Text, word by word"), "compare-view")
                self.word = gr.HTML("", elem_id="compare-word")
            with gr.Column(min_width=300):
                self.disagreements = gr.HTML(elem_id="compare-places", elem_classes="compare-table")


def model_at(models: list[tuple[str, str]], number: int) -> str | None:
    """The name of the model at index `number`, or of the last one."""
    return models[min(number, len(models) - 1)][1] if models else None


def _default_temperature(number: int, num_models: int) -> float:
    """Columns without a model of their own compare temperatures instead."""
    if number == 0 or number < num_models:
        return SETTINGS["temperature"].default
    return _OTHER_TEMPERATURES[number - 1]

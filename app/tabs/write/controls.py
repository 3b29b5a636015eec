"""The sampling controls of the Write tab, and presets that set several of them at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from lm.errors import UserError

from ...sampling import SETTINGS, SLIDERS
from ...ui.errors import INTERNAL
from ...ui.i18n import localized
from ...ui.sliders import help_sentence, sampling_slider

# Settings that a preset does not name have their default values.
PRESETS: dict[str, dict[str, float]] = {
    "precise": {"temperature": 0.5, "top_p": 0.9},
    "balanced": {"temperature": 0.8},
    "creative": {"temperature": 1.2, "min_p": 0.02},
}
CUSTOM = "custom"
_MAX_STOP = _MAX_MATCH = 200  # characters
_MAX_BAN = 1000


class Controls:
    """The controls. `components` lists them in the order in which `settings` expects their values."""

    def __init__(self) -> None:
        self.preset = gr.Radio(
            [
                (localized("Precise"), "precise"),
                (localized("Balanced"), "balanced"),
                (localized("Creative"), "creative"),
                (localized("Custom"), CUSTOM),
            ],
            value="balanced",
            label=localized("Style"),
            elem_id="preset",
        )
        self._by_name: dict[str, gr.Slider | gr.Textbox] = {}
        self._add_slider("temperature", localized("Temperature"))
        self._add_slider("top_p", "Top-p")
        with gr.Accordion(localized("More controls"), open=False, elem_id="more"):
            self._lay_out_filters()
            self._lay_out_penalties()
            self._lay_out_constraints()
        self._wire_presets()

    def _lay_out_filters(self) -> None:
        _, high, step = SLIDERS["temperature"]
        self._by_name["end_temperature"] = gr.Slider(
            -step,
            high,
            -step,
            step=step,
            label=localized("Final temperature"),
            info=localized("Reached gradually by the end of the text; negative: constant temperature."),
            elem_id="end_temperature",
        )
        self._add_slider("top_k", "Top-k")
        self._add_slider("min_p", "Min-p")
        self._add_slider("typical_p", "Typical-p")

    def _lay_out_penalties(self) -> None:
        self._add_slider("repetition_penalty", localized("Repetition penalty"))
        self._add_slider("presence_penalty", localized("Presence penalty"))
        self._add_slider("frequency_penalty", localized("Frequency penalty"))
        self._add_slider("repetition_window", localized("Penalty window"))
        self._add_slider("no_repeat_ngram", localized("No-repeat n-gram size"))

    def _lay_out_constraints(self) -> None:
        self._by_name["stop"] = gr.Textbox(
            "",
            lines=1,
            label=localized("Stop at"),
            info=localized("End before this text. Write \\n for a line break."),
            elem_id="stop_at",
            max_length=_MAX_STOP,
        )
        self._by_name["ban"] = gr.Textbox(
            "",
            lines=1,
            label=localized("Never write"),
            info=localized("Words or phrases to avoid, separated by commas."),
            elem_id="ban",
            max_length=_MAX_BAN,
        )
        self._by_name["match"] = gr.Textbox(
            "",
            lines=1,
            label=localized("Must match"),
            info=localized(
                "A regular expression that the generated text must match, such as [a-z ]+\\. for a sentence."
            ),
            elem_id="match",
            max_length=_MAX_MATCH,
        )

    def _add_slider(self, name: str, label: str | I18nData) -> None:
        info = localized(help_sentence(name))
        self._by_name[name] = sampling_slider(name, label=label, info=info, elem_id=name)

    def _wire_presets(self) -> None:
        """Let presets set all controls, and changes select the custom preset, which the browser stores."""
        defaults = {name: component.value for name, component in self._by_name.items()}
        presets = {name: list((defaults | changes).values()) for name, changes in PRESETS.items()}
        fallback = json.dumps(list(defaults.values()))
        self.preset.input(
            None,
            self.preset,
            self.components,
            js=f"(name) => ({json.dumps(presets)})[name] || lm.customSettings({fallback})",
            **INTERNAL,
        )
        for component in self._by_name.values():
            component.input(
                None,
                self.components,
                self.preset,
                js=f"(...values) => lm.storeCustomSettings(values) || '{CUSTOM}'",
                **INTERNAL,
            )

    @property
    def components(self) -> list[gr.components.Component]:
        """The controls, without the presets."""
        return list(self._by_name.values())

    def settings(self, values: Sequence[Any]) -> dict[str, Any]:
        """The arguments of `LanguageModel.stream` for the values of `components`. Raises UserError."""
        return settings(dict(zip(self._by_name, values, strict=True)))


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `LanguageModel.stream` for values by control name. Raises UserError."""
    values = {name: value for name, value in values.items() if value is not None}
    end = values.pop("end_temperature", -1)
    if end >= 0 and "temperature" in values:
        values["temperature"] = (values["temperature"], end)
    for name in values.keys() & SETTINGS.keys():
        if SETTINGS[name].type is int:
            values[name] = int(values[name])
    stop, ban, match = (values.pop(name, "") or "" for name in ("stop", "ban", "match"))
    if len(stop) > _MAX_STOP or len(ban) > _MAX_BAN or len(match) > _MAX_MATCH:
        raise UserError("the text to stop at, to avoid or to match is too long: shorten it.")
    values["stop"] = [stop.replace("\\n", "\n")] if stop else []
    values["ban"] = [part.strip() for part in ban.split(",") if part.strip()]
    values["match"] = match or None
    return values

"""The sampling controls of the Write tab, and presets that set several of them at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from lm.config.schema import SamplingConfig
from lm.errors import UserError

from ...ui.errors import INTERNAL
from ...ui.i18n import localized

_DEFAULTS = SamplingConfig()
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
        self._add_slider(
            "temperature",
            (0, 2, 0.05),
            localized("Temperature"),
            localized("0 always picks the most likely token; above 1 gets wild."),
        )
        self._add_slider(
            "top_p",
            (0.01, 1, 0.01),
            "Top-p",
            localized("Sample from the most likely tokens that together have this probability. 1: all."),
        )
        with gr.Accordion(localized("More controls"), open=False, elem_id="more"):
            self._add_filters()
            self._add_penalties()
            self._add_constraints()
        self._connect_presets()

    def _add_filters(self) -> None:
        self._by_name["end_temperature"] = gr.Slider(
            -0.05,
            2,
            -0.05,
            step=0.05,
            label=localized("Final temperature"),
            info=localized("The temperature moves steadily to this value. Negative: it stays constant."),
            elem_id="end_temperature",
        )
        self._add_slider(
            "top_k", (0, 200, 1), "Top-k", localized("Sample from the k most likely tokens. 0: all.")
        )
        self._add_slider(
            "min_p",
            (0, 0.5, 0.01),
            "Min-p",
            localized("Exclude tokens less likely than this fraction of the most likely one. 0: none."),
        )
        self._add_slider(
            "typical_p",
            (0.01, 1, 0.01),
            "Typical-p",
            localized("Sample from the tokens with the most typical surprisal. 1: all."),
        )

    def _add_penalties(self) -> None:
        self._add_slider(
            "repetition_penalty",
            (1, 2, 0.05),
            localized("Repetition penalty"),
            localized("Above 1, recent tokens become less likely."),
        )
        self._add_slider(
            "presence_penalty",
            (0, 2, 0.1),
            localized("Presence penalty"),
            localized("Lowers the logit of every recent token by this amount."),
        )
        self._add_slider(
            "frequency_penalty",
            (0, 2, 0.1),
            localized("Frequency penalty"),
            localized("Lowers the logit of a recent token by this amount for each occurrence."),
        )
        self._add_slider(
            "repetition_window",
            (1, 512, 1),
            localized("Penalty window"),
            localized("The number of recent tokens that the three penalties apply to."),
        )
        self._add_slider(
            "no_repeat_ngram",
            (0, 50, 1),
            localized("No-repeat n-gram size"),
            localized("No sequence of this many tokens occurs twice. 0: off."),
        )

    def _add_constraints(self) -> None:
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

    def _add_slider(
        self, name: str, limits: tuple[float, float, float], label: str | I18nData, info: I18nData
    ) -> None:
        """`limits` are the minimum, the maximum and the step."""
        low, high, step = limits
        self._by_name[name] = gr.Slider(
            low, high, getattr(_DEFAULTS, name), step=step, label=label, info=info, elem_id=name
        )

    def _connect_presets(self) -> None:
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
    for name in ("top_k", "repetition_window", "no_repeat_ngram"):
        if name in values:
            values[name] = int(values[name])
    stop, ban, match = (values.pop(name, "") or "" for name in ("stop", "ban", "match"))
    if len(stop) > _MAX_STOP or len(ban) > _MAX_BAN or len(match) > _MAX_MATCH:
        raise UserError("the text to stop at, to avoid or to match is too long: shorten it.")
    values["stop"] = [stop.replace("\\n", "\n")] if stop else []
    values["ban"] = [part.strip() for part in ban.split(",") if part.strip()]
    values["match"] = match or None
    return values

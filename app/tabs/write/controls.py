"""The sampler's controls: what each does in plain words, and presets that set several of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lm.config.schema import SamplingConfig
from lm.errors import UserError

from ...ui.errors import INTERNAL
from ...ui.i18n import localized

_USUAL = SamplingConfig()
# What a preset leaves out has its usual value.
PRESETS: dict[str, dict[str, float]] = {
    "precise": {"temperature": 0.5, "top_p": 0.9},
    "balanced": {"temperature": 0.8},
    "wild": {"temperature": 1.2, "min_p": 0.02},
}
OWN = "own"


class Controls:
    """The controls, in the order of `components`, which are inputs of an event together; `settings` makes
    of their values what `LanguageModel.stream` takes."""

    def __init__(self):
        self.preset = gr.Radio(
            [
                (localized("Precise"), "precise"),
                (localized("Balanced"), "balanced"),
                (localized("Wild"), "wild"),
                (localized("My own"), OWN),
            ],
            value="balanced", label=localized("Style"), elem_id="preset",
        )  # fmt: skip
        self._by_name = {
            "temperature": gr.Slider(
                0, 2, _USUAL.temperature, step=0.05, label=localized("Temperature"), elem_id="temperature",
                info=localized("How daring: 0 always takes the likeliest token, above 1 gets wild."),
            ),
            "top_p": gr.Slider(
                0.01, 1, _USUAL.top_p, step=0.01, label="Top-p", elem_id="top_p",
                info=localized("Choose among the likeliest tokens that share this probability. 1: all."),
            ),
        }  # fmt: skip
        with gr.Accordion(localized("More controls"), open=False, elem_id="more"):
            self._lay_out_more()
        self._keep_own()

    def _lay_out_more(self) -> None:
        def slider(name: str, low: float, high: float, step: float, title: str, info: str) -> None:
            self._by_name[name] = gr.Slider(
                low, high, getattr(_USUAL, name), step=step, label=title, info=info, elem_id=name
            )

        self._by_name["end_temperature"] = gr.Slider(
            -0.05, 2, -0.05, step=0.05, label=localized("Temperature at the end"), elem_id="end_temperature",
            info=localized("It rises or falls to this over the length. Below 0: it stays."),
        )  # fmt: skip
        slider("top_k", 0, 200, 1, "Top-k", localized("Choose among so many likeliest tokens. 0: all."))
        slider(
            "min_p", 0, 0.5, 0.01, "Min-p",
            localized("Leave out what is less likely than this share of the likeliest. 0: nothing."),
        )  # fmt: skip
        slider("typical_p", 0.01, 1, 0.01, "Typical-p",
               localized("Choose among the tokens whose surprise is most usual. 1: all."))  # fmt: skip
        slider("repetition_penalty", 1, 2, 0.05, localized("Repetition penalty"),
               localized("Above 1: what was just written becomes less likely."))  # fmt: skip
        slider("presence_penalty", 0, 2, 0.1, localized("Presence penalty"),
               localized("Takes the same from every token that was just written."))  # fmt: skip
        slider("frequency_penalty", 0, 2, 0.1, localized("Frequency penalty"),
               localized("Takes more from a token the more often it was just written."))  # fmt: skip
        slider("repetition_window", 1, 512, 1, localized("Penalty window"),
               localized("How many of the last tokens the three penalties look at."))  # fmt: skip
        slider(
            "no_repeat_ngram", 0, 50, 1, localized("No repeats of"),
            localized("Never write so many tokens in an order that was there before. 0: may repeat."),
        )  # fmt: skip
        self._by_name["stop"] = gr.Textbox(
            "", lines=1, label=localized("Stop at"), elem_id="stop_at", max_length=200,
            info=localized("End before this text. \\n is a line's end."),
        )  # fmt: skip
        self._by_name["ban"] = gr.Textbox(
            "", lines=1, label=localized("Never write"), elem_id="ban", max_length=1000,
            info=localized("Texts that must not occur, with commas between."),
        )  # fmt: skip
        self._by_name["match"] = gr.Textbox(
            "",
            lines=1,
            label=localized("Must match"),
            elem_id="match",
            max_length=200,
            info=localized(
                "A regular expression for all that is written, such as [a-z ]+\\. for one sentence."
            ),
        )

    @property
    def components(self) -> list[gr.components.Component]:
        """The controls, without the choice of a preset."""
        return list(self._by_name.values())

    def settings(self, values: Sequence[Any]) -> dict[str, Any]:
        """What `LanguageModel.stream` takes, of the values of the controls."""
        return settings(dict(zip(self._by_name, values, strict=True)))

    def _keep_own(self) -> None:
        """A preset sets the controls; changing one makes the settings one's own, which the browser keeps."""
        usual = {name: component.value for name, component in self._by_name.items()}
        presets = {name: list((usual | changed).values()) for name, changed in PRESETS.items()}
        self.preset.input(
            None, self.preset, self.components, **INTERNAL,
            js=f"(name) => ({json.dumps(presets)})[name] || lm.own({json.dumps(list(usual.values()))})",
        )  # fmt: skip
        for component in self.components:
            component.input(
                None,
                self.components,
                self.preset,
                js=f"(...values) => lm.keepOwn(values) || '{OWN}'",
                **INTERNAL,
            )


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """What `LanguageModel.stream` takes, of a value for each control by its name. Raises UserError."""
    values = {name: value for name, value in values.items() if value is not None}
    end = values.pop("end_temperature", -1)
    if end >= 0 and "temperature" in values:
        values["temperature"] = (values["temperature"], end)
    for name in ("top_k", "repetition_window", "no_repeat_ngram"):
        if name in values:
            values[name] = int(values[name])
    stop, ban, match = (values.pop(name, "") or "" for name in ("stop", "ban", "match"))
    if max(len(stop), len(match)) > 200 or len(ban) > 1000:
        raise UserError("what to stop at, never to write or to match is too long: shorten it.")
    values["stop"] = [stop.replace("\\n", "\n")] if stop else []
    values["ban"] = [part.strip() for part in ban.split(",") if part.strip()]
    values["match"] = match or None
    return values

"""The sampling controls: how their values become the settings of a generation."""

import gradio as gr
import pytest

from app.tabs.write.controls import PRESETS, Controls, settings
from lm.errors import UserError
from lm.generation.request import Request


@pytest.fixture(scope="module")
def controls():
    with gr.Blocks():
        return Controls()


def test_initial_values_are_the_default_settings(controls):
    initial = controls.settings([component.value for component in controls.components])
    assert Request.from_settings(initial) == Request.from_settings({"stop": [], "ban": []})


def test_every_preset_gives_valid_settings():
    for values in PRESETS.values():
        assert Request.from_settings(settings(values)).sampling.temperature == values["temperature"]


def test_a_final_temperature_makes_a_ramp_unless_it_is_negative():
    assert settings({"temperature": 0.5, "end_temperature": 1.0})["temperature"] == (0.5, 1.0)
    assert settings({"temperature": 0.5, "end_temperature": 0})["temperature"] == (0.5, 0)
    assert settings({"temperature": 0.5, "end_temperature": -0.05})["temperature"] == 0.5


def test_texts_become_lists_and_backslash_n_a_line_break():
    result = settings({"stop": "\\n\\n", "ban": " foo, bar ,,", "match": ""})
    assert result["stop"] == ["\n\n"] and result["ban"] == ["foo", "bar"] and result["match"] is None
    assert settings({})["stop"] == [] and settings({"stop": None, "ban": None})["ban"] == []


@pytest.mark.parametrize("values", [{"stop": "x" * 201}, {"ban": "x" * 1001}, {"match": "x" * 201}])
def test_long_texts_are_rejected(values):
    with pytest.raises(UserError, match="too long"):
        settings(values)

"""The sampler's controls: what their values mean to the model."""

import pytest

from app.tabs.write.controls import PRESETS, Controls, settings
from lm.errors import UserError
from lm.generation.request import Request


@pytest.fixture(scope="module")
def controls():
    import gradio as gr

    with gr.Blocks():
        return Controls()


def test_untouched_controls_are_the_usual_settings(controls):
    usual = controls.settings([component.value for component in controls.components])
    assert Request.of(usual) == Request.of({"stop": [], "ban": []})


def test_every_preset_names_controls_and_is_accepted(controls):
    for values in PRESETS.values():
        assert Request.of(settings(values)).sampling.temperature == values["temperature"]


def test_an_end_temperature_makes_a_ramp_and_below_zero_there_is_none():
    assert settings({"temperature": 0.5, "end_temperature": 1.0})["temperature"] == (0.5, 1.0)
    assert settings({"temperature": 0.5, "end_temperature": 0})["temperature"] == (0.5, 0)
    assert settings({"temperature": 0.5, "end_temperature": -0.05})["temperature"] == 0.5


def test_texts_become_lists_and_a_line_end_can_be_written():
    made = settings({"stop": "\\n\\n", "ban": " foo, bar ,,", "match": ""})
    assert made["stop"] == ["\n\n"] and made["ban"] == ["foo", "bar"] and made["match"] is None
    assert settings({})["stop"] == [] and settings({"stop": None, "ban": None})["ban"] == []


@pytest.mark.parametrize("values", [{"stop": "x" * 201}, {"ban": "x" * 1001}, {"match": "x" * 201}])
def test_texts_that_are_too_long_are_refused(values):
    with pytest.raises(UserError, match="too long"):
        settings(values)

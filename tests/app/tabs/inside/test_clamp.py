"""What the model writes with a clamped unit is shown next to what it writes without."""

import numpy as np
import pytest
import torch

import lm
from app.tabs.inside.analysis import AnalysisCache
from app.tabs.inside.clamp import TextPair, as_html, clamp_of, write_both
from lm.errors import UserError
from lm.generation.clamp import Clamp
from tests.app.tabs.inside.example import EXAMPLE
from tests.insight.networks import make


@pytest.fixture(scope="module")
def analysis():
    return AnalysisCache().get(lm.load("pretrained", device="cpu"), EXAMPLE)


@pytest.fixture(scope="module")
def trace(analysis):
    return analysis.trace


def test_the_unit_is_off_at_an_extreme_of_this_text_or_at_a_value(trace):
    values = trace.values(1, "c", 161)
    assert clamp_of(trace, 1, 161, "c", "off", None) == Clamp(1, 161, 0.0, "c")
    assert clamp_of(trace, 1, 161, "c", "high", None).value == values.max()
    assert clamp_of(trace, 1, 161, "c", "low", None).value == values.min()
    assert clamp_of(trace, 1, 161, "c", "value", 2.5).value == 2.5
    assert clamp_of(trace, 1, 161, "f", "off", None).state == "h"  # gates cannot be clamped
    for place, held, value in (((2, 0), "off", None), ((0, 999), "off", None), ((0, 0), "value", 3)):
        with pytest.raises(UserError):
            clamp_of(trace, *place, "h", held, value)


@pytest.mark.slow
def test_both_texts_start_at_the_chosen_place_and_differ_by_the_clamp_alone(analysis, trace):
    clamp = clamp_of(trace, 1, 161, "c", "low", None)
    both = write_both(analysis, clamp, "highest", 80, 0.5, 1)
    highest = trace.values(1, "c", 161).argmax()
    assert both.prompt == EXAMPLE[: highest + 1] and both.prompt.endswith('"Alan (the first) Tu')
    model = trace.model
    assert both.original == model.generate(both.prompt, seed=1, max_new_tokens=80, temperature=0.5)[0].text
    assert both.original[: both.same] == both.changed[: both.same] and both.original != both.changed
    assert write_both(analysis, clamp, "end", 5, 0.5, 1).prompt == EXAMPLE
    assert write_both(analysis, clamp, "lowest", 5, 0.5, 1).prompt != both.prompt
    unchanged = write_both(analysis, Clamp(0, 0, 0.0), "end", 20, 0.0, 1)
    assert unchanged.same <= 20


def test_the_html_marks_where_the_texts_differ_and_escapes_them():
    shown = as_html(TextPair("<p>", "ab<i>", "ab&c", False), Clamp(1, 5, -0.5))
    assert "<span>&lt;p&gt;</span>ab<mark>&lt;i&gt;</mark>" in shown and "ab<mark>&amp;c</mark>" in shown
    assert "The first 2 characters are the same" in shown and "Layer 2, unit 5: h = -0.5" in shown
    assert "The first character is the same." in as_html(TextPair("", "ab", "ac", False), Clamp(0, 0, 0.0))
    assert "Different from the first character" in as_html(TextPair("", "a", "b", False), Clamp(0, 0, 0.0))
    assert "Both texts are the same" in as_html(TextPair("", "ab", "ab", False), Clamp(0, 0, 0.0))


def test_a_backward_model_writes_before_the_place():
    torch.manual_seed(0)
    model = make(direction="backward", dtype=torch.float32, hidden_size=6)
    both = write_both(
        AnalysisCache().get(model, "the sea was calm."), Clamp(0, 1, 1.0), "highest", 12, 1.0, 1
    )
    assert "the sea was calm.".endswith(both.prompt) and both.backward
    assert both.original[len(both.original) - both.same :] == both.changed[len(both.changed) - both.same :]
    assert as_html(both, Clamp(0, 1, 1.0)).count(f"<span>{both.prompt}</span></div>") == 2


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_on_every_page_both_texts_continue_the_whole_text(direction, monkeypatch):
    monkeypatch.setattr("app.tabs.inside.analysis.PAGE", 7)
    torch.manual_seed(0)
    model, text = make(direction=direction, dtype=torch.float32, hidden_size=6), "the sea was calm."
    clamp, cache = Clamp(0, 1, 1.0), AnalysisCache()
    for page, first in enumerate(cache.get(model, text).borders[:-1]):
        analysis = cache.get(model, text, page)
        assert write_both(analysis, clamp, "end", 1, 1.0, 1).prompt == text
        highest = first + analysis.trace.values(0, "h", 1).argmax()
        expected = text[: highest + 1] if direction == "forward" else text[highest:]
        assert write_both(analysis, clamp, "highest", 1, 1.0, 1).prompt == expected
    assert page == 2


@pytest.mark.parametrize(
    ("kind", "direction", "text"),
    [
        ("char", "forward", "the ☃ sea"),  # ☃ is unknown to the model
        ("char", "backward", "the ☃ sea"),
        ("word", "forward", "the\tsea  was"),
        ("word", "backward", "the\tsea  was"),
        ("byte", "forward", "the 中 sea"),
    ],
)
def test_the_context_is_the_text_of_the_user(kind, direction, text):
    model = make(kind, direction=direction, dtype=torch.float32)
    analysis = AnalysisCache().get(model, text)
    assert write_both(analysis, Clamp(0, 1, 1.0), "end", 3, 1.0, 1).prompt == text


@pytest.mark.parametrize(("direction", "expected"), [("forward", "ab"), ("backward", "cd")])
@pytest.mark.parametrize("byte", [0, 1])
def test_a_character_that_is_read_in_part_is_no_context(direction, expected, byte, monkeypatch):
    model = make("byte", direction=direction, dtype=torch.float32)
    analysis = AnalysisCache().get(model, "ab中cd")
    values = np.zeros(7)
    values[2 + byte if direction == "forward" else 4 - byte] = 1.0
    monkeypatch.setattr(type(analysis.trace), "values", lambda *place: values)
    assert write_both(analysis, Clamp(0, 1, 1.0), "highest", 3, 1.0, 1).prompt == expected

"""The handlers of the Look inside tab."""

import gradio as gr
import pytest

from app.page import build
from app.registry import ModelRegistry


@pytest.mark.parametrize(
    "name, arguments",
    [("on_color_by", ("unit", 1, 0, "h")), ("on_unit", (1, 0, "h")), ("on_find", ("quotes", ""))],
)
def test_before_a_text_was_analyzed_the_user_is_told_to_do_that(name, arguments, tmp_path):
    events = build(ModelRegistry([tmp_path])).fns.values()
    handler = next(event.fn for event in events if event.name == name)
    with pytest.raises(gr.Error, match=r"Analyze a text first\."):
        handler(("", None, 0), *arguments)


@pytest.mark.parametrize("text", ["", "\ufeff\n"])
def test_an_empty_file_of_sentences_is_an_error(text, tmp_path):
    events = build(ModelRegistry([tmp_path])).fns.values()
    handler = next(event.fn for event in events if event.name == "on_file")
    with pytest.raises(gr.Error, match=r"The file is empty: choose another one\."):
        handler(gr.EventData(None, {"text": text}))

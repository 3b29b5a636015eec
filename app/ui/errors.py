"""What the events of all tabs share: their settings, the values that browsers send, and messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from lm.errors import UserError

from .messages import begins_with_name, in_words_of_the_page

# Events of the page are private: programs call the functions in app/endpoints.py instead.
INTERNAL: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def event_value(event: gr.EventData, name: str) -> Any:
    """What the browser sent as field `name` of an event, whatever it is; None if it sent nothing."""
    return event._data.get(name) if isinstance(event._data, dict) else None


def event_int(event: gr.EventData, name: str) -> int:
    """The integer that the browser sent as field `name` of an event. Raises UserError if it did not."""
    value = event_value(event, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**53:
        raise UserError("the page sent an invalid value: reload it and try again.")
    return int(value)


def as_sentence(message: object) -> str:
    """An error or a warning in the words of the page, with a capital letter unless it begins with a name such
    as that of a file, a model or a state."""
    text = in_words_of_the_page(str(message))
    if begins_with_name(str(message)):
        return text
    return re.sub(r"\A(a|[a-z][a-z-]+)(?=[ ,:])", lambda word: word[0].capitalize(), text)


@contextmanager
def show_errors() -> Iterator[None]:
    """Show a UserError as a message on the page."""
    try:
        yield
    except UserError as error:
        raise error_message(as_sentence(error)) from error


def error_message(text: str) -> gr.Error:
    """An exception that Gradio shows as a message. Like all messages, it is rendered as HTML, so `text` is
    escaped."""
    return gr.Error(escape(text, quote=False), print_exception=False)


def show_warning(text: str) -> None:
    """Show a warning on the page, without ending the event."""
    gr.Warning(escape(text, quote=False))


def show_info(text: str) -> None:
    """Show a note on the page, without ending the event."""
    gr.Info(escape(text, quote=False))

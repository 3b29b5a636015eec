"""What all tabs share about events: their default settings, their data, and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from lm.errors import UserError

# Events of the page are private: programs call the functions in app/endpoints.py instead.
INTERNAL: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def event_int(event: gr.EventData, name: str) -> int:
    """The integer that the browser sent as field `name` of an event. Raises UserError if it did not."""
    value = event._data.get(name) if isinstance(event._data, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**53:
        raise UserError("the page sent an invalid value: reload it and try again.")
    return int(value)


def as_sentence(error: UserError) -> str:
    """The message of an error with a capital letter."""
    message = str(error)
    return message[:1].upper() + message[1:]


@contextmanager
def show_errors() -> Iterator[None]:
    """Show a UserError as a message on the page, escaped, because Gradio renders messages as HTML."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(as_sentence(error), quote=False), print_exception=False) from error

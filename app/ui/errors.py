"""What the tabs share: how events are declared, and how a mistake is told to the person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from lm.errors import UserError

# Programs call the plain functions of app/endpoints.py, not the events of the page.
INTERNAL: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def event_int(event: gr.EventData, name: str) -> int:
    """A whole number that the browser tells with an event. Raises UserError."""
    value = event._data.get(name) if isinstance(event._data, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**53:
        raise UserError("the page sent something that makes no sense here: reload it.")
    return int(value)


def as_sentence(error: UserError) -> str:
    """The message of an error with a capital letter."""
    message = str(error)
    return message[:1].upper() + message[1:]


@contextmanager
def show_errors() -> Iterator[None]:
    """A UserError becomes a message on the page. Messages are HTML there, so it is escaped."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(as_sentence(error), quote=False), print_exception=False) from error

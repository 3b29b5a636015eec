"""What the tabs share: how events are declared, and how a mistake is told to the person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from lm.errors import UserError

# Programs call the plain functions of app/functions.py, not the events of the page.
INTERNAL = {"show_progress": "hidden", "api_visibility": "private"}


@contextmanager
def told_to_the_person() -> Iterator[None]:
    """A UserError becomes a message on the page. Messages are HTML there, so it is escaped."""
    try:
        yield
    except UserError as error:
        message = str(error)
        message = escape(message[:1].upper() + message[1:], quote=False)
        raise gr.Error(message, print_exception=False) from error

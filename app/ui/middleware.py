"""Where requests come in, before Gradio reads them: what no page of ours sends is refused here.

Gradio's server can do more than this page needs, and it meets nonsense with a traceback. Whoever sends some
gets one line, and so does the log.
"""

from __future__ import annotations

import json
import logging
from html import escape
from typing import Any

import gradio as gr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lm.errors import one_line

from .i18n import translate

LONGEST_BODY = 8_000_000  # bytes of a request that is no upload
VISITS_KEPT = 256  # of those that never say that they have ended
ANSWERS_KEPT = 1024  # visits that have not fetched an answer
MOST_WAITING = 1000  # events in the queue, before others are sent away
_PREFIX = "/gradio_api"
# Of Gradio's routes those that the page, gradio_client and MCP use.
_ROUTES = (
    "info", "config", "heartbeat/", "queue/", "call/", "cancel", "reset", "startup-events", "file=",
    "upload", "theme.css", "user", "login_check", "token", "app_id", "openapi.json", "mcp",
)  # fmt: skip

log = logging.getLogger(__name__)


class Page(gr.Blocks):
    """Blocks that answer values which no browser of ours sends with a message, and forget who has left."""

    def forget(self, visit: str | None) -> None:
        """Free what Gradio keeps of a visit, half a megabyte: all that each component showed last."""
        holder, queue = self.state_holder, self._queue
        with holder.lock:
            holder.session_data.pop(visit, None)
            holder.time_last_used.pop(visit, None)
        # Answers that nobody has fetched: Gradio would keep them for good.
        for kept in [*list(queue.pending_messages_per_session)[:-ANSWERS_KEPT], visit]:
            if not queue.event_ids_to_events.keys() & queue.pending_event_ids_session.get(kept, set()):
                queue.pending_messages_per_session.pop(kept, None)
                queue.pending_event_ids_session.pop(kept, None)

    def queue(self, **settings: Any) -> gr.Blocks:
        """Gradio's own, with an end; it is called when the Blocks are made."""
        return super().queue(**{"max_size": MOST_WAITING, **settings})

    @property
    def takes_uploads(self) -> bool:
        """Whether something on the page is for files."""
        return any(isinstance(block, (gr.UploadButton, gr.File)) for block in self.blocks.values())

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *others: Any, **named: Any) -> Any:
        """The inputs of an event as its function takes them. Raises gr.Error."""
        try:
            if len(self._queue.pending_messages_per_session) > 2 * ANSWERS_KEPT:
                self.forget(None)
            if block_fn.fn is None:
                raise ValueError("this event belongs to the browser alone")
            inputs = _encodable(inputs)
            for number, (block, value) in enumerate(zip(block_fn.inputs, inputs, strict=False)):
                # These would take whatever comes.
                if isinstance(block, (gr.Textbox, gr.Markdown)):
                    inputs[number] = _text(value)
                elif isinstance(block, gr.Dropdown) and not block.multiselect and isinstance(value, list):
                    raise ValueError("this is no choice")
            return await super().preprocess_data(block_fn, inputs, *others, **named)
        except gr.Error as error:  # a value out of a control's range
            message = escape(one_line(error.message), quote=False)
            raise gr.Error(message, print_exception=False) from error
        except Exception as error:
            log.info("refused: event %s: %s", block_fn.api_name, _told(error))
            message = translate("The page sent something that makes no sense here: reload it, and try again.")
            raise gr.Error(message, print_exception=False) from error


class Gate:
    """The middleware before Gradio's routes."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path, started, size = scope["path"], False, 0
        limited = not path.startswith(f"{_PREFIX}/upload")  # for which Gradio has a limit of its own
        if not _is_open(path) or not (limited or scope["app"].get_blocks().takes_uploads):
            return await _answer(send, 404, "There is nothing here.")
        if limited and _announced(scope) > LONGEST_BODY:
            return await _answer(send, 413, f"A request has at most {LONGEST_BODY:,} bytes.")

        async def received() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if limited and size > LONGEST_BODY:
                raise ValueError(f"more than {LONGEST_BODY:,} bytes")
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, received, sent)
        except Exception as error:
            # None of our own code runs in a route, so it was the request that made Gradio stumble.
            log.info("refused: %s %s: %s", scope["method"], one_line(ascii(path), 80), _told(error))
            if started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await _answer(send, 400, "This request makes no sense here.")


def _announced(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _is_open(path: str) -> bool:
    if not path.startswith(f"{_PREFIX}/"):
        return not path.startswith("/monitoring")
    route = path.removeprefix(f"{_PREFIX}/")
    # A file of another computer is none of ours.
    return route.startswith(_ROUTES) and not route.startswith(("file=http:", "file=https:"))


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"detail": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _encodable(value: Any) -> Any:
    """`value` without halves of surrogate pairs, which JSON can hold and no answer can. Raises ValueError
    for numbers that no answer can hold."""
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("this number is too large")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(one) for one in value]
    if isinstance(value, dict):
        return {_encodable(name): _encodable(one) for name, one in value.items()}
    return value


def _text(value: Any) -> str:
    if not isinstance(value, (str, type(None))):
        raise ValueError("this is no text")
    return value or ""


def _told(error: Exception) -> str:
    """An error in one line of what every terminal can show."""
    return one_line(ascii(f"{type(error).__name__}: {error}"), 160)

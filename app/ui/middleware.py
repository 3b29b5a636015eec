"""ASGI middleware in front of Gradio's server: it rejects malformed requests in one line.

Gradio serves more routes than this page needs, and answers malformed requests with tracebacks.
"""

from __future__ import annotations

import json
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lm.errors import one_line

from .blocks import describe_error

MAX_BODY_BYTES = 8_000_000  # of a request that is not an upload
_PREFIX = "/gradio_api"
# The Gradio routes that the page, gradio_client and MCP use.
_ALLOWED = (
    "info",
    "config",
    "heartbeat/",
    "queue/",
    "call/",
    "cancel",
    "reset",
    "startup-events",
    "file=",
    "upload",
    "theme.css",
    "user",
    "login_check",
    "token",
    "app_id",
    "openapi.json",
    "mcp",
)

log = logging.getLogger(__name__)


class RequestFilter:
    """Answers 404 to unknown routes, 413 to large bodies, and 400 where Gradio would raise an exception."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"]
        is_upload = path.startswith(f"{_PREFIX}/upload")  # Gradio limits the size of uploads itself
        if not _is_allowed(path) or (is_upload and not scope["app"].get_blocks().accepts_uploads):
            return await _respond(send, 404, "Not found.")
        if not is_upload and _content_length(scope) > MAX_BODY_BYTES:
            return await _respond(send, 413, f"The request body exceeds {MAX_BODY_BYTES:,} bytes.")
        received, started = 0, False

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if not is_upload and received > MAX_BODY_BYTES:
                raise ValueError(f"the body exceeds {MAX_BODY_BYTES:,} bytes")
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, limited_receive, watched_send)
        except Exception as error:
            # Our own code does not run in routes, so the request must have broken Gradio.
            log.info("rejected: %s %s: %s", scope["method"], one_line(ascii(path), 80), describe_error(error))
            if started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await _respond(send, 400, "Malformed request.")


def _is_allowed(path: str) -> bool:
    if not path.startswith(f"{_PREFIX}/"):
        return not path.startswith("/monitoring")
    route = path.removeprefix(f"{_PREFIX}/")
    # file=http:... would make Gradio a proxy for other hosts.
    return route.startswith(_ALLOWED) and not route.startswith(("file=http:", "file=https:"))


def _content_length(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


async def _respond(send: Send, status: int, message: str) -> None:
    body = json.dumps({"detail": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Guards both servers: rejects requests of other web pages, and limits headers, pauses and connections."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lm.errors import one_line

from .access import Access
from .resources import max_connections

MAX_HEADER_BYTES = 64 << 10  # of the request line and all headers together
HEADER_TIMEOUT = 20.0  # seconds from the start of a request to the end of its headers
BODY_TIMEOUT = 60.0  # seconds in which a request body must continue
_IDLE_TIMEOUT = 5  # seconds until a connection without a request is closed
_MAX_REFUSALS = 100  # connections above the limit that are answered before they are closed
_LINGER = 1.0  # seconds in which a client that is still sending can read why it was turned away

log = logging.getLogger(__name__)
# Makes the response to a request that is turned away: message, status and code.
Respond = Callable[[str, int, str], ASGIApp]


class Gate:
    """Answers 403 to requests that `access` does not allow, and 431 to those with large headers."""

    def __init__(self, app: ASGIApp, access: Access, respond: Respond):
        self._app, self._access, self._respond = app, access, respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if refusal := self._refusal(scope):
            message = refusal[0]
            log.info("rejected: %s %s: %s", scope["method"], one_line(ascii(scope["path"]), 80), message)
            return await self._respond(*refusal)(scope, receive, send)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), self._access.frame_header]
            await send(message)

        await self._app(scope, receive, guarded_send)

    def _refusal(self, scope: Scope) -> tuple[str, int, str] | None:
        """The message, status and code for a request that is turned away."""
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            return f"the headers exceed {MAX_HEADER_BYTES:,} bytes.", 431, "headers_too_large"
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._access.is_name(host):
            name = one_line(ascii(host)[1:-1], 80)
            message = f"this server does not go by the name '{name}'; if it should, add --allow-host NAME."
            return message, 403, "host_not_allowed"
        origins = headers.getlist("origin")
        if len(origins) > 1 or self._access.is_foreign(scope["method"], headers):
            origin = f" of {one_line(ascii(origins[0])[1:-1], 80)}" if origins else ""
            message = (
                f"web pages{origin} may not use this server; if it is behind a proxy with this name, add"
                " --allow-host NAME."
            )
            return message, 403, "origin_not_allowed"
        return None


class Connection(H11Protocol):
    """A connection with limits on the size of headers, the time they take, and the number of connections.

    It does not use httptools, which is faster if installed, but takes quadratic time for a long header.
    """

    _timer: asyncio.TimerHandle | None = None
    _has_sent = False  # the client, anything
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        surplus = len(self.connections) - max_connections()
        if surplus > _MAX_REFUSALS:
            transport.abort()
        elif surplus > 0:
            self._refuse(503, "too many connections; try again in a moment.")
        else:
            self._timer = self.loop.call_later(HEADER_TIMEOUT, self._on_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was closed, by either side."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        if self._refused:
            return
        self._has_sent = True
        waited_for_header = self.conn.their_state is h11.IDLE and self._timer is not None
        super().data_received(data)
        in_header, in_body = (self.conn.their_state is state for state in (h11.IDLE, h11.SEND_BODY))
        if self._refused or (in_header and waited_for_header):
            return
        self._stop_timer()
        if in_header or in_body:
            self._timer = self.loop.call_later(
                HEADER_TIMEOUT if in_header else BODY_TIMEOUT, self._on_timeout
            )

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request."""
        error = sys.exception()
        if self.cycle and not self.cycle.response_complete:  # the end of a request that is being handled
            self.transport.close()
        elif isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(431, f"the headers exceed {MAX_HEADER_BYTES:,} bytes.")
        else:
            self._refuse(400, "this is not an HTTP request.")

    def _should_upgrade(self) -> bool:
        return False  # neither server uses WebSockets

    def _on_timeout(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE and self._has_sent:
            self._refuse(408, "the request is incomplete.")
        elif self.flow.read_paused:  # the client waits for the server
            self._timer = self.loop.call_later(BODY_TIMEOUT, self._on_timeout)
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Respond, and ignore everything else that the client sends."""
        self._refused = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        body = f"{message}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        reason = HTTPStatus(status).phrase.encode()
        events = [
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        # A connection closed with unread data is reset, and the client would not see the response.
        self.loop.call_later(_LINGER, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None


# The settings of uvicorn for both servers.
SETTINGS: dict[str, Any] = {
    "http": Connection,
    "ws": "none",
    "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
    "timeout_keep_alive": _IDLE_TIMEOUT,
    "server_header": False,
}

"""Guards both servers: rejects requests of other web pages, and limits headers, pauses and connections.

No client can take all connections, or keep one for long without sending or reading anything.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import h11
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lm.errors import one_line

from .access import Access, client_network
from .resources import max_connections

MAX_HEADER_BYTES = 64 << 10  # of the request line and all headers together
HEADER_TIMEOUT = 20.0  # seconds from the start of a request to the end of its headers
BODY_TIMEOUT = 30.0  # seconds in which a request body must end or continue by BODY_PROGRESS
BODY_PROGRESS = 256 << 10  # bytes
READ_TIMEOUT = 60.0  # seconds in which a client must read all that was sent, or READ_PROGRESS bytes
READ_PROGRESS = 64 << 10
_UNREAD = 128 << 10  # bytes of a response that wait in the system
_SHARE = 4  # a client can have a quarter of the connections; see `client_network`
_IDLE_TIMEOUT = 5  # seconds until a connection without a request is closed
_MAX_REFUSALS = 100  # connections above a limit that are answered before they are closed
_NO_HOST = "the request needs one header 'Host': send the name of this server in it."
_LINGER = 1.0  # seconds in which a client that is still sending can read why it was turned away

log = logging.getLogger(__name__)
# Makes the response to a request that is turned away: message, status and code.
Respond = Callable[[str, int, str], Response]


class Gate:
    """Answers 403 to requests that `access` does not allow, and 431 to those with large headers."""

    def __init__(self, app: ASGIApp, access: Access, respond: Respond):
        self._app, self._access, self.respond = app, access, respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope = _with_path_only(scope)
        if refusal := self._refusal(scope):
            message = refusal[0]
            log.info("rejected: %s %s: %s", scope["method"], one_line(ascii(scope["path"]), 80), message)
            response = self.respond(*refusal)
            if refusal[1] == 400:  # where the next request begins is not clear
                response.headers["Connection"] = "close"
            return await response(scope, receive, send)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), self._access.frame_header]
            await send(message)

        await self._app(scope, receive, guarded_send)

    def permission(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """The headers of a response that let the page which sent a request with these headers read it."""
        origins, origin = self._access.origins, dict(headers).get(b"origin", b"").decode("latin-1")
        if "*" in origins:
            return {"Access-Control-Allow-Origin": "*"}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin in origins else {}

    def _refusal(self, scope: Scope) -> tuple[str, int, str] | None:
        """The message, status and code for a request that is turned away."""
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            return f"the headers exceed {MAX_HEADER_BYTES:,} bytes.", 431, "headers_too_large"
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:  # RFC 9112, 6.1
            return "a request can have Content-Length or Transfer-Encoding, not both.", 400, "malformed"
        host = headers.get("host", "")
        if not self._access.is_name(host):
            name = one_line(ascii(host)[1:-1], 80)
            message = f"this server does not go by the name '{name}'; if it should, add --allow-host NAME."
            if not name:
                message = _NO_HOST
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


def _with_path_only(scope: Scope) -> Scope:
    """The scope of a request for a whole URI, which clients may send (RFC 9112, 3.2.2), as one for its path.
    The name of the server in it replaces that in the header `Host`."""
    scheme, found, rest = (scope.get("raw_path") or b"").partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return scope
    name, _, path = rest.partition(b"/")
    headers = [(b"host", name), *(each for each in scope["headers"] if each[0] != b"host")]
    return {**scope, "raw_path": b"/" + path, "path": unquote(f"/{path.decode('ascii')}"), "headers": headers}


class Connection(H11Protocol):
    """A connection with limits on the size of headers, the time that a client takes to send or to read, and
    the number of connections.

    It does not use httptools, which is faster if installed, but takes quadratic time for a long header.
    """

    _timer: asyncio.TimerHandle | None = None
    _timed: object = None  # the state of the client that has a time limit: it sends a header or a body
    _received = 0  # bytes of a body since the timer started
    _reading: asyncio.TimerHandle | None = None  # runs while the client has not read everything
    _client: str | None = None
    _has_sent = False  # the client, anything
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause_writing is called when anything waits
        # Buffer less in the kernel, so that a client that stops reading is noticed.
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNREAD
            )
        self._client, most = client_network(self.client[0] if self.client else ""), max_connections()
        of_client = sum(getattr(other, "_client", None) == self._client for other in self.connections)
        surplus = max(len(self.connections) - most, of_client - most // _SHARE if self._client else 0)
        if surplus > _MAX_REFUSALS:
            transport.abort()
        elif surplus > 0:
            self._refuse("too many connections; try again in a moment.", 503, "too_many_connections")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was closed, by either side."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        if self._refused:
            return
        self._has_sent = True
        super().data_received(data)
        self._received += len(data)
        self._keep_listening()
        self._watch()

    def on_response_complete(self) -> None:
        """Handle the next request, if the client has already sent a part of it."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch()

    def pause_writing(self) -> None:
        """The client has not read everything."""
        super().pause_writing()
        unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(READ_TIMEOUT, self._check_reading, unread)

    def resume_writing(self) -> None:
        """The client has read everything, except for what waits in the system."""
        super().resume_writing()
        if self._reading:
            self._reading.cancel()
        self._reading = None

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request."""
        error = sys.exception()
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
        elif isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(f"the headers exceed {MAX_HEADER_BYTES:,} bytes.", 431, "headers_too_large")
        elif "Host:" in str(error):  # h11 requires the header in HTTP/1.1
            self._refuse(_NO_HOST, 400, "malformed")
        else:
            self._refuse("this is not an HTTP request.", 400, "malformed")

    def _should_upgrade(self) -> bool:
        return False  # neither server uses WebSockets

    def _keep_listening(self) -> None:
        """Keep reading while a request is being handled, although the client sends more. uvicorn pauses, and
        would not notice that the client leaves."""
        if self.flow.read_paused and self.conn.their_state is h11.DONE:
            if len(self.conn.trailing_data[0]) > MAX_HEADER_BYTES:
                self.transport.abort()
            else:
                self.flow.resume_reading()

    def _watch(self) -> None:
        """Start the timer for the header or body that the client is sending, unless it already runs."""
        state = self.conn.their_state
        if state is not self._timed and not self._refused:
            self._stop_timer()
            if state in (h11.IDLE, h11.SEND_BODY):
                self._timed, self._received = state, 0
                seconds = HEADER_TIMEOUT if state is h11.IDLE else BODY_TIMEOUT
                self._timer = self.loop.call_later(seconds, self._on_timeout)
        if self.flow.read_paused:  # the client waits for the server
            self._received = BODY_PROGRESS

    def _on_timeout(self) -> None:
        state, self._timed = self._timed, None
        if state is h11.SEND_BODY and (self.flow.read_paused or self._received >= BODY_PROGRESS):
            self._watch()
        elif not self._has_sent or (self.cycle and self.cycle.response_started and state is h11.SEND_BODY):
            self.transport.close()
        else:
            part = "headers" if state is h11.IDLE else "body"
            self._refuse(f"the {part} of the request took too long.", 408, "request_timeout")

    def _check_reading(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if before - unread < READ_PROGRESS:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(READ_TIMEOUT, self._check_reading, unread)

    def _refuse(self, message: str, status: int, code: str) -> None:
        """Respond, and ignore everything else that the client sends."""
        self._refused = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        gate = cast(Gate, self.config.app)
        response = gate.respond(message, status, code)
        response.headers.update(gate.permission(self.headers or []))
        response.headers["Connection"] = "close"
        if status == 503:
            response.headers["Retry-After"] = "1"
        reason = HTTPStatus(status).phrase.encode()
        events = [
            h11.Response(status_code=status, headers=response.raw_headers, reason=reason),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        # A connection closed with unread data is reset, and the client would not see the response.
        self.loop.call_later(_LINGER, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._timed = None


# The settings of uvicorn for both servers.
SETTINGS: dict[str, Any] = {
    "http": Connection,
    "ws": "none",
    "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
    "timeout_keep_alive": _IDLE_TIMEOUT,
    "server_header": False,
}

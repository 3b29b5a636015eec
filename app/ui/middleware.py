"""ASGI middleware in front of Gradio's server: rejects malformed requests in one line, compresses the page.

Gradio serves more routes than this page needs, and answers malformed requests with tracebacks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lm.errors import UserError, one_line

from ..access import Attempts, client_address
from ..jobs.uploads import MAX_SIZE
from .blocks import MAX_BODY_BYTES, MAX_SESSION_NAME, describe_error
from .errors import as_sentence
from .i18n import answer_in_language_of, translate
from .upload_limit import UploadLimit

MAX_UPLOAD_BYTES = MAX_SIZE + 65_536  # of one request: a file, and what multipart/form-data adds to it
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


class CompressedPage:
    """Compresses the page itself; Gradio compresses only its scripts and styles."""

    def __init__(self, app: ASGIApp):
        self._app, self._compressing = app, GZipMiddleware(app, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        is_page = scope["type"] == "http" and scope["path"] == "/"
        await (self._compressing if is_page else self._app)(scope, receive, send)


class RequestFilter:
    """Answers 404 to unknown routes, 413 to large bodies, 429 after many wrong passwords, 507 when there is
    no space for an upload, and 400 where Gradio would raise an exception."""

    def __init__(self, app: ASGIApp):
        self._app = app
        self._attempts = Attempts()
        self._uploads: UploadLimit | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answer_in_language_of(scope)
        with ExitStack() as stack:
            try:
                limit = self._check(scope, stack)
            except _RejectedError as error:
                response = refusal(error.message, error.status, error.code)
                response.headers.update(error.headers)
                return await response(scope, receive, send)
            await self._handle(scope, receive, send, limit)

    def _check(self, scope: Scope, stack: ExitStack) -> int:
        """The limit of the body of a request, in bytes; space for an upload is reserved until the `stack` is
        closed. Raises _RejectedError."""
        path, length = scope["path"], _content_length(scope)
        is_upload = path.startswith(f"{_PREFIX}/upload")
        if not _is_allowed(path) or (is_upload and not scope["app"].get_blocks().accepts_uploads):
            raise _RejectedError(404, translate("Not found."), "not_found")
        limit = MAX_UPLOAD_BYTES if is_upload else MAX_BODY_BYTES
        if length > limit:
            message = translate("The request exceeds {limit:,} bytes.", limit=limit)
            raise _RejectedError(413, message, "body_too_large")
        if any(len(name) > MAX_SESSION_NAME for name in _session_names(scope)):
            message = translate("A session_hash has at most {limit} characters.", limit=MAX_SESSION_NAME)
            raise _RejectedError(400, message, "session_too_long")
        if _is_login(scope):
            if seconds := math.ceil(self._attempts.seconds_to_wait(client_address(scope))):
                message = translate("Too many wrong passwords; try again in {seconds} s.", seconds=seconds)
                raise _RejectedError(429, message, "too_many_attempts", {"Retry-After": str(seconds)})
            # Before it is compared: many attempts at the same time would otherwise count too late.
            scope["lm.attempt"] = object()
            self._attempts.record(client_address(scope), scope["lm.attempt"])
        if is_upload and scope["method"] == "POST":
            app = scope["app"]
            self._uploads = self._uploads or UploadLimit(
                Path(app.uploaded_file_dir), app.get_blocks().upload_file_set
            )
            try:
                stack.enter_context(self._uploads.reserved(length or limit))
            except UserError as error:
                raise _RejectedError(507, as_sentence(error), "too_many_uploads") from error
        return limit

    async def _handle(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        received, started = 0, False

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise ValueError(f"the body exceeds {limit:,} bytes")
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            if message.get("status") == 200 and _is_login(scope):
                self._attempts.forgive(client_address(scope), scope["lm.attempt"])
            await send(message)

        try:
            await self._app(scope, limited_receive, watched_send)
        except Exception as error:
            # Our own code does not run in routes, so the request must have broken Gradio.
            log.info(
                "rejected: %s %s: %s",
                scope["method"],
                one_line(ascii(scope["path"]), 80),
                describe_error(error),
            )
            if started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await refusal(translate("Malformed request."), 400, "malformed")(scope, receive, send)


class _RejectedError(Exception):
    def __init__(self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


def _is_allowed(path: str) -> bool:
    if not path.startswith(f"{_PREFIX}/"):
        return not path.startswith("/monitoring")
    route = path.removeprefix(f"{_PREFIX}/")
    # file=http:... would make Gradio a proxy for other hosts.
    return route.startswith(_ALLOWED) and not route.startswith(("file=http:", "file=https:"))


def _is_login(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"].rstrip("/") == "/login"


def _session_names(scope: Scope) -> list[str]:
    """The names of sessions in the address of a request; Page checks those in events."""
    names = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
    heartbeat = f"{_PREFIX}/heartbeat/"
    return [*names, scope["path"].removeprefix(heartbeat)] if scope["path"].startswith(heartbeat) else names


def _content_length(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def refusal(message: str, status: int, code: str) -> Response:
    """The response to a request that is turned away, in the form of Gradio's errors."""
    return JSONResponse({"detail": message, "code": code}, status)

"""JSON bodies, error responses in OpenAI's format, the API key, and pages of other origins."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lm.errors import UserError, one_line

from ..access import Attempts, client_address
from .request import RequestError

_INTERNAL_ERROR = "internal server error; see the log of the server."
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
# Some clients split events where `str.splitlines` does.
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
_MAX_FIELDS, _MAX_VALUES = 10_000, 250_000  # of a request; see `_check_size`
_JSON_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_CHAT_ENDPOINTS = ("/chat/completions", "/responses")
_ERROR_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


async def read_json(request: Request, limit: int) -> Any:
    """The JSON in the body of a request. Raises RequestError if it is invalid or exceeds `limit` bytes."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # A browser lets pages of other sites send this type only with permission (CORS).
        raise RequestError("send JSON with the header 'Content-Type: application/json'.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RequestError("the request body must not be compressed: omit Content-Encoding.", status=415)
    declared, body = request.headers.get("content-length", "0"), bytearray()
    if not (declared.isdecimal() and int(declared[:18]) > limit):
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return _parse_json(body)
    raise RequestError(f"the request body may have at most {limit:,} bytes.", status=413)


def _parse_json(body: bytearray) -> Any:
    def reject(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        text = body.decode("utf-8-sig")
        _check_size(text)
        value = json.loads(text, parse_constant=reject)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()  # fails on a lone surrogate
    except (ValueError, RecursionError) as error:
        reason = one_line(error, 120)
        if isinstance(error, RecursionError):
            reason = "lists or objects are nested too deeply"
        elif "set_int_max_str_digits" in str(error):
            reason = "a number has too many digits"
        elif isinstance(error, UnicodeEncodeError):
            half = ascii(error.object[error.start])[1:-1]
            reason = f"a string contains half of a surrogate pair ({half}), such as a cut emoji"
        raise RequestError(f"the request body is not valid JSON: {reason}.") from error
    return value


def _check_size(text: str) -> None:
    """Raise ValueError for more lists, fields or values than a request needs. To parse a million takes a
    second or more, in which all other clients wait."""
    for marks, most, what in (
        ("[{:", _MAX_FIELDS, "lists, objects and fields"),
        (",", _MAX_VALUES, "values"),
    ):
        if _count(marks, text) > most and _count(marks, _JSON_STRING.sub("", text)) > most:
            raise ValueError(f"more than {most:,} {what}")


def _count(marks: str, text: str) -> int:
    return sum(map(text.count, marks))


def require_key(app: ASGIApp, key: str) -> ASGIApp:
    """Wrap `app` so that it only serves requests that carry the API key.

    Without the key, GET /health says that the server runs, and nothing else. A client that sends many
    wrong keys has to wait.
    """
    attempts = Attempts()

    async def authorized_app(scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        client = client_address(scope)
        seconds = math.ceil(attempts.seconds_to_wait(client)) if given else 0
        # Compared in constant time, so that the response time does not reveal how much of a guess is right.
        correct = hmac.compare_digest(given.strip().encode(), key.encode())
        if scheme.lower() == "bearer" and correct and not seconds:
            return await app(scope, receive, send)
        if given and not seconds:
            attempts.record(client, hashlib.sha256(given.encode()).digest())
        if scope["path"].rstrip("/") == "/health" and scope["method"] in ("GET", "HEAD"):
            return await json_response({"status": "ok"})(scope, receive, send)
        if seconds:
            message = f"too many wrong API keys; try again in {seconds} s."
            response = error_response(message, 429, code="rate_limit_exceeded")
            response.headers["Retry-After"] = str(seconds)
            return await response(scope, receive, send)
        message = "invalid API key." if given else "missing API key; send 'Authorization: Bearer KEY'."
        response = error_response(message, 401, code="invalid_api_key")
        response.headers["WWW-Authenticate"] = "Bearer"
        return await response(scope, receive, send)

    return authorized_app


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Wrap `app` so that pages of these origins may use it (CORS); '*' means all of them.

    This must be the outermost layer: the browser asks for permission without a key, and a page may read only
    errors that carry the permission, too.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),  # OpenAI's client sends many of its own
        expose_headers=("Retry-After",),
        allow_private_network=True,
    )


def encode_json(value: Any) -> bytes:
    """`value` as JSON in UTF-8."""
    # "replace": the name of a folder may contain bytes that are not valid UTF-8.
    return _ENCODER.encode(value).translate(_LINE_ENDS).encode("utf-8", "replace")


def json_response(value: Any, status: int = 200) -> Response:
    """A response with a JSON body."""
    return Response(encode_json(value), status, media_type="application/json")


def error_message(error: Exception) -> str:
    """What the client may know of an exception."""
    return str(error) if isinstance(error, UserError) else _INTERNAL_ERROR


def error_object(
    message: str, status: int, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error in OpenAI's format."""
    error_type = _ERROR_TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}


def error_response(message: str, status: int, param: str | None = None, code: str | None = None) -> Response:
    """A response with an error in OpenAI's format."""
    response = json_response(error_object(message, status, param, code), status)
    if status in (429, 503):
        response.headers["Retry-After"] = "1"
    return response


def refusal(message: str, status: int, code: str) -> Response:
    """The response to a request that app/gate.py turns away."""
    if code == "origin_not_allowed":
        message += " --allow-origin lets pages of other origins use it."
    return error_response(message, status, code=code)


async def _on_request_error(request: Request, error: RequestError) -> Response:
    return error_response(error.message, error.status, error.param, error.code)


async def _on_user_error(request: Request, error: UserError) -> Response:
    return error_response(str(error), 400)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    path, headers = request.url.path, error.headers or {}
    endpoint = f"{request.method} {path[:100]}"
    if error.status_code == 405:
        allowed = " or ".join(sorted(headers["Allow"].split(", ")))
        message = f"no such endpoint: {endpoint}; use {allowed}."
    elif path.rstrip("/").endswith(_CHAT_ENDPOINTS):
        message = (
            f"no such endpoint: {endpoint}; these models continue text and do not chat. Send a 'prompt' to"
            " POST /v1/completions, see docs/api.md."
        )
    else:
        message = f"no such endpoint: {endpoint}; all but /health begin with /v1, see docs/api.md."
    response = error_response(message, error.status_code)
    response.headers.update(headers)
    return response


async def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody receives it


async def _on_exception(request: Request, error: Exception) -> Response:
    return error_response(error_message(error), 500)


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
    RequestError: _on_request_error,
    UserError: _on_user_error,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_disconnect,
    Exception: _on_exception,
}

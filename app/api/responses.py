"""JSON in and out of the API, its errors in OpenAI's form, and the key that it may ask for."""

from __future__ import annotations

import hmac
import json
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lm.errors import UserError, one_line

from .request import Refused

_BUG = "this is a fault of the server; its log tells more."
_ERROR_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


async def body_of(request: Request, limit: int) -> Any:
    """The JSON of a request's body. Raises Refused if it is none or too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # Nor can a web page elsewhere send this type to here without being allowed to.
        raise Refused("send JSON, and the header 'Content-Type: application/json'.")
    declared, body = request.headers.get("content-length", "0"), bytearray()
    if not (declared.isdecimal() and int(declared[:18]) > limit):
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return _parsed(body)
    raise Refused(f"the body of a request has at most {limit:,} bytes: send less at once.", status=413)


def _parsed(body: bytearray) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(body, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # half a character in a string is no text
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body of the request is not valid JSON: {one_line(error, 120)}.") from error
    return value


def guarded(app: ASGIApp, key: str) -> ASGIApp:
    """The application for those who have the key."""

    async def only_with_it(scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # In constant time, so that the time of a refusal does not tell how much of a guess was right.
        right = hmac.compare_digest(given.strip().encode(), key.encode())
        if scheme.lower() == "bearer" and right:
            return await app(scope, receive, send)
        message = "the API key is wrong." if given else "an API key is needed: 'Authorization: Bearer KEY'."
        response = error_response(message, 401, code="invalid_api_key")
        response.headers["WWW-Authenticate"] = "Bearer"
        return await response(scope, receive, send)

    return only_with_it


def dumped(value: Any) -> bytes:
    """As JSON in UTF-8."""
    # A folder's name may hold bytes that are no text.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_response(value: Any, status: int = 200) -> Response:
    """An answer that is an object."""
    return Response(dumped(value), status, media_type="application/json")


def message_of(error: Exception) -> str:
    """What a client is told of it."""
    return str(error) if isinstance(error, UserError) else _BUG


def error_object(message: str, status: int, param: str | None = None, code: str | None = None) -> dict:
    """An error as OpenAI's clients read it."""
    kind = _ERROR_TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(message: str, status: int, param: str | None = None, code: str | None = None) -> Response:
    """An answer that is an error."""
    response = json_response(error_object(message, status, param, code), status)
    if status in (429, 503):
        response.headers["Retry-After"] = "1"
    return response


async def _on_refused(request: Request, error: Refused) -> Response:
    return error_response(error.message, error.status, error.param, error.code)


async def _on_user_error(request: Request, error: UserError) -> Response:
    return error_response(str(error), 400)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    where = f"{request.method} {request.url.path[:100]}"
    message = f"there is no {where} here; docs/api.md tells what there is."
    response = error_response(message, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _on_disconnect(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _on_bug(request: Request, error: Exception) -> Response:
    return error_response(message_of(error), 500)


HANDLERS = {
    Refused: _on_refused,
    UserError: _on_user_error,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_disconnect,
    Exception: _on_bug,
}

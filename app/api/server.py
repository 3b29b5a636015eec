"""The OpenAI-compatible HTTP API: completions, streamed or whole, by any of the models.

One event loop handles the connections. Each request runs in a thread of its own, and all of them generate in
one batch; see lm/generation/scheduler.py.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lm.errors import UserError, one_line
from lm.language_model import LanguageModel

from ..access import Access
from ..gate import SETTINGS, Gate
from ..registry import ModelRegistry
from ..resources import freeze_objects, leave_cores
from .admission import Admission, shutting_down
from .background import BackgroundGenerator, in_background
from .completions import Choices, Chunk, CompletionStream, ResponseBuilder, is_empty
from .request import CompletionRequest, Limits, RequestError
from .responses import (
    EXCEPTION_HANDLERS,
    allow_origins,
    encode_json,
    error_message,
    error_object,
    json_response,
    read_json,
    refusal,
    require_key,
)

_SHUTDOWN_TIMEOUT = 5  # seconds
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back
]

log = logging.getLogger(__name__)


class Api:
    """The endpoints, with the models and the requests being served."""

    def __init__(self, models: ModelRegistry, limits: Limits):
        self._models, self._limits = models, limits
        # One thread per request; there are never more requests than sequences.
        self._threads = ThreadPoolExecutor(limits.sequences, thread_name_prefix="completion")
        self._admission = Admission(limits.sequences, limits.waiting)
        self._preparing: dict[str, threading.Lock] = {}
        self._running: set[BackgroundGenerator[Chunk]] = set()

    @property
    def num_sequences(self) -> int:
        """The number of sequences being generated."""
        return self._admission.running

    def app(self, key: str | None = None, origins: Sequence[str] = ()) -> ASGIApp:
        """The ASGI application; with a `key`, it serves only clients that send it.

        Browsers let only pages of these `origins` use it; '*' means all of them.
        """
        endpoints: list[tuple[str, Callable[[Request], Awaitable[Any]], str]] = [
            ("/v1/completions", self.completions, "POST"),
            ("/v1/models", self.models, "GET"),
            ("/v1/models/{name:path}", self.model, "GET"),
            ("/health", self.health, "GET"),
        ]
        app: ASGIApp = Starlette(
            # Clients may add a slash. Many would follow a redirect of a POST with a GET.
            routes=[
                Route(path + slash, endpoint, methods=[method])
                for path, endpoint, method in endpoints
                for slash in ("", "/")
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )
        if key:
            app = require_key(app, key)
        return allow_origins(app, origins) if origins else app

    def shut_down(self) -> None:
        """Cancel the requests being served, and reject new ones."""
        self._admission.close()
        for generator in list(self._running):
            generator.cancel()

    async def health(self, request: Request) -> Response:
        """GET /health: the number of sequences being generated, and of requests that wait."""
        admission = self._admission
        return json_response({"status": "ok", "writing": admission.running, "waiting": admission.waiting})

    async def models(self, request: Request) -> Response:
        """GET /v1/models: all models."""
        folders = await run_in_threadpool(self._models.folders)
        return json_response({"object": "list", "data": [_model_object(*item) for item in folders.items()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME: one of them."""
        name = request.path_params["name"].removesuffix("/")
        folders = await run_in_threadpool(self._models.folders)
        if name not in folders:
            raise _model_not_found(name)
        return json_response(_model_object(name, folders[name]))

    async def completions(self, request: Request) -> ASGIApp:
        """POST /v1/completions: the completions of one or more prompts."""
        body = await read_json(request, self._limits.body_bytes)
        completion_request = CompletionRequest.parse(body, self._limits)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            disconnected = asyncio.ensure_future(_disconnected(receive))
            try:
                await self._admission.enter(completion_request.sequences, disconnected)
                job = _Job(self, completion_request)
                async with in_background(job.chunks, job.cancel, self._threads, disconnected) as generator:
                    self._running.add(generator)
                    try:
                        await self._send(job, generator, scope, receive, send)
                    finally:
                        self._running.discard(generator)
            finally:
                disconnected.cancel()

        return respond

    async def _send(
        self,
        job: _Job,
        generator: BackgroundGenerator[Chunk],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Send the response to a request that has been admitted."""
        async with aclosing(generator.batches()) as batches:
            if job.request.stream:
                await self._send_events(job, generator, batches, send)
            else:
                choices = job.response.choices()
                async for batch in batches:
                    choices.add(batch)
                _raise_if_canceled(generator)
                response = await run_in_threadpool(job.whole_response, choices)
                await response(scope, receive, send)

    async def _send_events(
        self,
        job: _Job,
        generator: BackgroundGenerator[Chunk],
        batches: AsyncIterator[list[Chunk]],
        send: Send,
    ) -> None:
        """Send the response as server-sent events. An error before the first one is an ordinary response."""
        batch: list[Chunk] = await anext(batches, [])
        _raise_if_canceled(generator)
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})

        async def send_data(*objects: Any) -> None:
            data = b"".join(b"data: " + encode_json(item) + b"\n\n" for item in objects)
            await send({"type": "http.response.body", "body": data, "more_body": True})

        # With include_usage, every event has the field, and the last one its value.
        usage = {"usage": None} if job.request.include_usage else {}
        try:
            while batch:
                choices = job.response.choices(batch).objects()
                await send_data(*(job.response.build([c], **usage) for c in choices if not is_empty(c)))
                batch = await anext(batches, [])
            _raise_if_canceled(generator)
            if job.request.include_usage:
                await send_data(job.response.build([], usage=job.usage))
        except Exception as error:
            if not isinstance(error, (RequestError, UserError)):
                log.exception("a request failed")
            if not isinstance(error, RequestError):
                error = RequestError(error_message(error))
            await send_data(error_object(error.message, error.status, error.param, error.code))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    def load(self, name: str) -> LanguageModel:
        """A model by name. Raises RequestError if it does not exist or cannot be loaded."""
        if name not in self._models.folders():
            raise _model_not_found(name)
        try:
            return self._models.load(name)
        except UserError as error:
            raise RequestError(f"cannot load the model '{name}': {error}", "model", status=503) from error

    def preparing(self, name: str) -> threading.Lock:
        """To be held while a request to a model, or the response, is prepared. Several at a time would keep
        Python's lock from the thread that generates and from the event loop."""
        return self._preparing.setdefault(name, threading.Lock())

    def release(self, sequences: int) -> None:
        """Make the sequences of a finished request available to others; called in the event loop."""
        self._admission.release(sequences)


class _Job:
    """A request for completions that is being served."""

    def __init__(self, api: Api, request: CompletionRequest):
        self._api, self.request, self._loop = api, request, asyncio.get_running_loop()
        self.response = ResponseBuilder(request)
        self.usage: dict[str, int] = {}
        self._completion: CompletionStream | None = None
        self._canceled = False

    def chunks(self) -> Generator[Chunk]:
        """Generate the completions; called in a thread."""
        start, outcome = time.perf_counter(), "stopped"
        try:
            model = self._api.load(self.request.model)
            with self._api.preparing(self.request.model):
                self._completion = CompletionStream(model, self.request)
            if not self._canceled:
                yield from self._completion.chunks()
                self.usage, outcome = self._completion.usage(), "complete"
        except (RequestError, UserError) as error:
            outcome = f"rejected: {error}"
            raise
        finally:
            tokens = self._completion.usage()["completion_tokens"] if self._completion else 0
            log.info("%d tokens in %.1f s: %s", tokens, time.perf_counter() - start, one_line(outcome))
            # After logging: /health must not run ahead of the log.
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self._api.release, self.request.sequences)

    def whole_response(self, choices: Choices) -> Response:
        """The response with all choices; called in a thread."""
        with self._api.preparing(self.request.model):
            return json_response(self.response.build(choices.objects(), usage=self.usage))

    def cancel(self) -> None:
        """Stop the computation, from any thread."""
        self._canceled = True
        if self._completion:
            self._completion.cancel()


async def _disconnected(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _raise_if_canceled(generator: BackgroundGenerator[Chunk]) -> None:
    if generator.canceled:
        raise shutting_down()


def _model_not_found(name: str) -> RequestError:
    message = f"there is no model '{name[:100]}' here; GET /v1/models lists the models."
    return RequestError(message, "model", "model_not_found", status=404)


def _model_object(name: str, folder: Path) -> dict[str, Any]:
    try:
        created = int((folder / "model.safetensors").stat().st_mtime)
    except OSError:  # just deleted
        created = 0
    return {"id": name, "object": "model", "created": created, "owned_by": "lm"}


class _Server(uvicorn.Server):
    """A uvicorn server that cancels running requests when it receives a signal."""

    def __init__(self, config: uvicorn.Config, api: Api):
        super().__init__(config)
        self._api = api

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self._api.shut_down()


def run_server(folders: Sequence[Path], listener: socket.socket, key: str | None, access: Access) -> None:
    """Serve the models in `folders` on a listening socket until Ctrl-C or SIGTERM; see `Api.app`."""
    leave_cores()
    freeze_objects()
    api = Api(ModelRegistry(list(folders)), Limits())
    config = uvicorn.Config(
        Gate(api.app(key, access.origins), access, refusal),
        **SETTINGS,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
    )
    _Server(config, api).run(sockets=[listener])

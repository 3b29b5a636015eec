"""The OpenAI-compatible HTTP API: completions, streamed or whole, by any of the models.

One event loop handles the connections. Each request runs in a thread of its own, and all of them generate in
one batch; see lm/generation/scheduler.py.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lm.errors import UserError, one_line
from lm.language_model import LanguageModel

from ..access import Access, client_address, client_network
from ..gate import SETTINGS, Gate
from ..registry import SHIPPED, ModelRegistry
from ..resources import freeze_objects, leave_cores
from .admission import Admission, shutting_down
from .background import BackgroundGenerator, in_background
from .completions import Chunk, CompletionStream, ResponseBuilder
from .delivery import MAX_UNREAD, Delivery
from .fair_lock import FairLock
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

_FORMER_NAMES = {"shipped with lm": SHIPPED}  # of models; clients may still use them
_SHUTDOWN_TIMEOUT = 5  # seconds
# Approximate memory of a paused stream, and of each of its sequences.
_STREAM_BYTES, _SEQUENCE_BYTES = 1 << 20, 1 << 17
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
        # One thread per request: at most one per sequence, and the paused streams whose clients do not read.
        most = limits.sequences + limits.reserve + MAX_UNREAD // _STREAM_BYTES
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="completion")
        self.admission = Admission(limits.sequences, limits.waiting, limits.reserve)
        self._preparing: dict[str, FairLock] = {}
        self._running: set[BackgroundGenerator[Chunk]] = set()

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
        self.admission.close()
        for generator in list(self._running):
            generator.cancel()

    async def health(self, request: Request) -> Response:
        """GET /health: the number of sequences being generated, and of requests that wait."""
        admission = self.admission
        return json_response({"status": "ok", "writing": admission.running, "waiting": admission.waiting})

    async def models(self, request: Request) -> Response:
        """GET /v1/models: all models."""
        folders = await run_in_threadpool(self._models.folders)
        return json_response({"object": "list", "data": [_model_object(*item) for item in folders.items()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME: one of them."""
        name = request.path_params["name"].removesuffix("/")
        name = _FORMER_NAMES.get(name, name)
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
            with suppress(ClientDisconnect):
                try:
                    client = client_network(client_address(scope))
                    slot = await self.admission.enter(completion_request.sequences, disconnected, client)
                    delivery = Delivery(self.admission, slot, disconnected, send)
                    async with delivery.responding():
                        await self._serve(_Job(self, completion_request), delivery, disconnected)
                finally:
                    disconnected.cancel()

        return respond

    async def _serve(self, job: _Job, delivery: Delivery, disconnected: asyncio.Future[Any]) -> None:
        """Generate and send the response to a request that has been admitted."""
        generated = in_background(job.items, job.cancel, attrgetter("size"), self._threads, disconnected)
        async with generated as generator:
            delivery.generator = generator
            self._running.add(generator)
            try:
                async with aclosing(generator.batches()) as batches:
                    send = self._send_events if job.request.stream else self._send_whole
                    await send(job, generator, batches, delivery)
            finally:
                self._running.discard(generator)

    async def _send_whole(
        self,
        job: _Job,
        generator: BackgroundGenerator[Chunk],
        batches: AsyncIterator[list[Chunk]],
        delivery: Delivery,
    ) -> None:
        """Send the response as one object."""
        async for _ in batches:
            pass
        _raise_if_canceled(generator)
        delivery.size = sum(map(len, job.whole))
        headers = [
            (b"content-length", str(delivery.size).encode()),
            (b"content-type", b"application/json"),
        ]
        await delivery.send({"type": "http.response.start", "status": 200, "headers": headers})
        await delivery.send_body(job.whole)
        await delivery.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(
        self,
        job: _Job,
        generator: BackgroundGenerator[Chunk],
        batches: AsyncIterator[list[Chunk]],
        delivery: Delivery,
    ) -> None:
        """Send the response as server-sent events. An error before the first one is an ordinary response."""
        batch: list[Chunk] = await anext(batches, [])
        _raise_if_canceled(generator)
        delivery.size = _STREAM_BYTES + job.request.sequences * _SEQUENCE_BYTES
        await delivery.send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        # With include_usage, every event has the field, and the last one its value.
        usage = {"usage": None} if job.request.include_usage else {}
        build = job.response.build
        try:
            while batch:
                objects = job.response.choices(batch).objects()
                await delivery.send_body(_events(build([choice], **usage) for choice in objects))
                batch = await anext(batches, [])
            _raise_if_canceled(generator)
            if job.request.include_usage:
                await delivery.send_body(_events([build([], usage=job.usage)]))
        except ClientDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, (RequestError, UserError)):
                log.exception("a request failed")
            if not isinstance(error, RequestError):
                error = RequestError(error_message(error))
            message = error_object(error.message, error.status, error.param, error.code)
            await delivery.send_body(_events([[encode_json(message)]]))
        await delivery.send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    def load(self, name: str) -> LanguageModel:
        """A model by name. Raises RequestError if it does not exist or cannot be loaded."""
        name = _FORMER_NAMES.get(name, name)
        folders = self._models.folders()
        if name not in folders:
            raise _model_not_found(name)
        try:
            return self._models.load_from(folders[name])
        except UserError as error:
            raise RequestError(f"cannot load the model '{name}': {error}", "model", status=503) from error

    def preparing(self, name: str) -> FairLock:
        """To be held while a request to a model is prepared. Several at a time would keep Python's lock from
        the thread that generates and from the event loop."""
        return self._preparing.setdefault(name, FairLock())


class _CanceledError(Exception):
    """Ends the preparation of a request whose client has left."""


class _Job:
    """A request for completions that is being served."""

    def __init__(self, api: Api, request: CompletionRequest):
        self._api, self.request = api, request
        self.response = ResponseBuilder(request)
        self.usage: dict[str, int] = {}
        self.whole: list[bytes | bytearray] = []  # the response as one object, in pieces
        self._completion: CompletionStream | None = None
        self._canceled = False

    def items(self) -> Generator[Chunk]:
        """Generate the completions: the chunks of a stream, or `whole`; called in a thread."""
        if self.request.stream:
            yield from self._chunks()
        else:
            choices = self.response.choices(self._chunks())
            self.whole = list(self.response.build(choices.objects(), usage=self.usage))

    def _chunks(self) -> Generator[Chunk]:
        start, outcome = time.perf_counter(), "stopped"
        try:
            model = self._api.load(self.request.model)
            with self._api.preparing(self.request.model) as lock:
                self._completion = CompletionStream(model, self.request, partial(self._pause, lock))
            with closing(self._completion.chunks()) as chunks:
                for chunk in chunks:
                    if self._canceled:
                        return
                    yield chunk
            self.usage, outcome = self._completion.usage(), "complete"
        except _CanceledError:
            pass
        except (RequestError, UserError) as error:
            outcome = f"rejected: {error}"
            raise
        finally:
            tokens = self._completion.usage()["completion_tokens"] if self._completion else 0
            log.info("%d tokens in %.1f s: %s", tokens, time.perf_counter() - start, one_line(outcome))

    def _pause(self, lock: FairLock) -> None:
        """Let others prepare their requests, and stop if the client has left."""
        lock.yield_to_others()
        if self._canceled:
            raise _CanceledError

    def cancel(self) -> None:
        """Stop the computation, from any thread."""
        self._canceled = True
        if self._completion:
            self._completion.cancel()


def _events(objects: Iterable[Iterable[bytes | bytearray]]) -> Iterator[bytes | bytearray]:
    """Server-sent events with these JSON objects, in pieces."""
    for pieces in objects:
        yield b"data: "
        yield from pieces
        yield b"\n\n"


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

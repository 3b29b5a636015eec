"""The HTTP API for programs, in the form of OpenAI's: completions of the models, streamed or whole.

One event loop talks to the clients; each request's text is made in a thread of its own. All of them drive
one batch together, see lm/generation/scheduler.py.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lm.errors import UserError, one_line

from ..registry import ModelRegistry
from .completions import Envelope, Part, Writing, merged
from .relay import Relay, relayed
from .request import Asked, Limits, Refused
from .responses import HANDLERS, body_of, dumped, error_object, guarded, json_response, message_of

_TIME_TO_END = 5  # seconds that answers may still take when the server is to end
_EVENTS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # no proxy shall hold them back

log = logging.getLogger(__name__)


class Api:
    """The models, and what is being written for whom."""

    def __init__(self, models: ModelRegistry, limits: Limits):
        self._models, self._limits = models, limits
        # A thread for each request that is served at once, which are at most as many as texts.
        self._threads = ThreadPoolExecutor(limits.streams, thread_name_prefix="writing")
        self._lock = threading.Lock()
        self._writing = 0  # texts
        self._relays: set[Relay[Part]] = set()
        self._ending = False

    def app(self, key: str | None = None) -> ASGIApp:
        """The application; with a `key`, for those alone who have it."""
        app = Starlette(
            routes=[
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                Route("/health", self.health),
            ],
            exception_handlers=HANDLERS,
        )
        return guarded(app, key) if key else app

    def end(self) -> None:
        """End what is being written, and refuse what comes."""
        self._ending = True
        for relay in list(self._relays):
            relay.leave()

    async def health(self, request: Request) -> Response:
        """That the server is there, and how many texts it is writing."""
        return json_response({"status": "ok", "writing": self._writing})

    async def models(self, request: Request) -> Response:
        """The models that there are."""
        found = await run_in_threadpool(self._models.folders)
        return json_response({"object": "list", "data": [_model(*one) for one in found.items()]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["name"]
        found = await run_in_threadpool(self._models.folders)
        if name not in found:
            raise _no_model(name)
        return json_response(_model(name, found[name]))

    async def completions(self, request: Request) -> ASGIApp:
        """What the models make of one or more prompts."""
        asked = Asked.of(await body_of(request, self._limits.body), self._limits)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            job = self._job(asked)
            async with relayed(job.parts, self._threads, _gone(receive)) as relay:
                self._relays.add(relay)
                try:
                    async with aclosing(relay.batches()) as batches:
                        if asked.stream:
                            await self._send_events(job, relay, batches, send)
                        else:
                            parts = [part async for batch in batches for part in batch]
                            self._still_wanted(relay)
                            body = job.envelope.around(merged(parts), usage=job.usage)
                            await json_response(body)(scope, receive, send)
                finally:
                    self._relays.discard(relay)

        return answer

    async def _send_events(
        self, job: _Job, relay: Relay[Part], batches: AsyncIterator[list[Part]], send: Send
    ) -> None:
        """The answer as server-sent events. What goes wrong before the first is an ordinary error."""
        first = await anext(batches, [])
        self._still_wanted(relay)
        headers = [(name.encode(), value.encode()) for name, value in _EVENTS.items()]
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def send_data(*objects: Any) -> None:
            data = b"".join(b"data: " + dumped(one) + b"\n\n" for one in objects)
            await send({"type": "http.response.body", "body": data, "more_body": True})

        # Where the usage is asked for, all events have the field, and the last one tells it.
        usage = {"usage": None} if job.asked.usage else {}
        try:
            batch = first
            while batch:
                parts = [p for p in merged(batch) if p.text or p.entries or p.finish_reason]
                await send_data(*(job.envelope.around([part], **usage) for part in parts))
                batch = await anext(batches, [])
            self._still_wanted(relay)
            if job.asked.usage:
                await send_data(job.envelope.around([], usage=job.usage))
        except Exception as error:
            if not isinstance(error, (Refused, UserError)):
                log.exception("a request failed")
            refused = error if isinstance(error, Refused) else Refused(message_of(error))
            await send_data(error_object(refused.message, refused.status, refused.param, refused.code))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    def _still_wanted(self, relay: Relay[Part]) -> None:
        """Raises Refused if the text was ended before it was complete."""
        if relay.left:
            raise Refused("the server is ending: try again later.", status=503)

    def _job(self, asked: Asked) -> _Job:
        """Room for the texts that are asked for. Raises Refused if there is none."""
        if self._ending:
            raise Refused("the server is ending: try again later.", status=503)
        wanted, most = len(asked.prompts) * asked.n, self._limits.streams
        with self._lock:
            if self._writing + wanted > most:
                raise Refused(
                    f"{self._writing} texts are being written, and this server writes at most {most} at once:"
                    " try again in a moment.", code="rate_limit_exceeded", status=429,
                )  # fmt: skip
            self._writing += wanted
        return _Job(self, asked, wanted)

    def load(self, name: str) -> Any:
        """The model of that name. Raises Refused."""
        if name not in self._models.folders():
            raise _no_model(name)
        try:
            return self._models.load(name)
        except UserError as error:
            raise Refused(f"the model '{name}' cannot be used: {error}", "model", status=503) from error

    def release(self, texts: int) -> None:
        """Room for others."""
        with self._lock:
            self._writing -= texts


class _Job:
    """One request for completions while it is served."""

    def __init__(self, api: Api, asked: Asked, texts: int):
        self._api, self.asked, self._texts = api, asked, texts
        self.envelope = Envelope(asked)
        self.usage: dict[str, int] = {}

    def parts(self) -> Generator[Part]:
        """The parts of the answer; runs in a thread."""
        begin, writing, how = time.perf_counter(), None, "stopped"
        try:
            writing = Writing(self._api.load(self.asked.model), self.asked)
            yield from writing.parts()
            self.usage, how = writing.usage(), "complete"
        except (Refused, UserError) as error:
            how = f"refused: {error}"
            raise
        finally:
            tokens = writing.usage()["completion_tokens"] if writing else 0
            log.info("%d tokens in %.1f s: %s", tokens, time.perf_counter() - begin, one_line(how))
            self._api.release(self._texts)  # last: who sees that there is room finds the line in the log


async def _gone(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _model(name: str, folder: Path) -> dict[str, Any]:
    try:
        created = int((folder / "model.safetensors").stat().st_mtime)
    except OSError:  # it has just been deleted
        created = 0
    return {"id": name, "object": "model", "created": created, "owned_by": "lm"}


def _no_model(name: str) -> Refused:
    message = f"there is no model '{name[:100]}' here; GET /v1/models lists those that there are."
    return Refused(message, "model", "model_not_found", status=404)


class _Server(uvicorn.Server):
    """Ends what is being written as soon as it is to end."""

    api: Api

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self.api.end()


def serve(models: ModelRegistry, listener: socket.socket, key: str | None) -> None:
    """Serve on a socket that listens, until Ctrl-C or SIGTERM."""
    api = Api(models, Limits())
    config = uvicorn.Config(
        api.app(key),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_TIME_TO_END,
    )
    server = _Server(config)
    server.api = api
    server.run(sockets=[listener])

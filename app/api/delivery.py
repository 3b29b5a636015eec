"""Delivers the response of an admitted request. While its client is not reading, others get its sequences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import Message, Send

from .admission import Admission, Slot
from .background import BackgroundGenerator

BLOCK = 1 << 16  # bytes that are sent at a time
PATIENCE = 1.0  # seconds that a client may take to read a block before its sequences go to others
MAX_UNREAD = 256 << 20  # bytes of all responses that wait for their clients to read


class Delivery:
    """Sends the response to one request, which has `slot` among the admitted ones.

    If the client does not read, the generation pauses and the slot is released. As soon as the client has
    read, the request waits for a slot again. `size` is an estimate of the memory that it takes meanwhile.
    """

    def __init__(self, admission: Admission, slot: Slot, disconnected: asyncio.Future[Any], send: Send):
        self._admission, self._disconnected, self._send = admission, disconnected, send
        self._slot: Slot | None = slot
        self._sequences, self._client = slot.sequences, slot.client
        self._limit = asyncio.timeout(None)
        self._unread = 0
        self.generator: BackgroundGenerator[Any] | None = None
        self.size = BLOCK

    @asynccontextmanager
    async def responding(self) -> AsyncIterator[None]:
        """The block in which the response is generated and sent. It ends early, with the response incomplete,
        if clients that do not read take too much memory."""
        try:
            with suppress(TimeoutError):
                async with self._limit:
                    yield
        finally:
            self._admission.unread -= self._unread
            if self._slot:
                self._admission.release(self._slot)

    async def send(self, message: Message) -> None:
        """Send a part of the response, when the client has read most of those before it."""
        timer = asyncio.get_running_loop().call_later(PATIENCE, self._release_slot)
        try:
            await self._send(message)
        finally:
            timer.cancel()
        if self._unread and self.generator and not self.generator.done:
            self._admission.unread -= self._unread
            self._unread = 0
            self._slot = await self._admission.enter(
                self._sequences, self._disconnected, self._client, again=True
            )
            self.generator.resume()

    async def send_body(self, pieces: Iterable[bytes | bytearray]) -> None:
        """Send the next bytes of the body."""
        for block in blocks(pieces):
            await self.send({"type": "http.response.body", "body": block, "more_body": True})
            await asyncio.sleep(0)  # a client that reads fast must not keep the others waiting

    def _release_slot(self) -> None:
        """Let others have the slot."""
        if not self._slot:
            return
        if self.generator:
            self.generator.pause()
        self._admission.release(self._slot)
        self._slot, self._unread = None, self.size
        self._admission.unread += self._unread
        if self._admission.unread > MAX_UNREAD:
            self._limit.reschedule(0.0)


def blocks(pieces: Iterable[bytes | bytearray]) -> Iterator[bytes]:
    """The same bytes in pieces of `BLOCK`; the last one may be shorter."""
    block = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            size = BLOCK - len(block)
            block += rest[:size]
            rest = rest[size:]
            if len(block) == BLOCK:
                yield bytes(block)
                block.clear()
    if block:
        yield bytes(block)

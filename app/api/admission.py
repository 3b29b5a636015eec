"""Admission of requests: as many sequences at the same time as the server can generate, and a queue."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect

from .request import RequestError

FEW = 4  # sequences of a client that may use the reserve
_MAY_PASS = 10.0  # seconds in which later requests may pass one that does not fit yet


@dataclass(eq=False)
class Slot:
    """A request that waits or has been admitted. `client` is None if its client is unknown."""

    sequences: int
    client: str | None
    since: float
    turn: asyncio.Future[None]
    reserved: bool = False  # whether it uses the reserve


class Admission:
    """Admits requests while they have at most `capacity` sequences together. Up to `queue` others wait.

    A request that fits passes those that do not, until one of these has waited for `_MAY_PASS` seconds. In
    addition, there is a `reserve` for clients that then have at most `FEW` sequences, so that small
    requests never wait for large ones.

    Only the event loop may use it.
    """

    def __init__(self, capacity: int, queue: int, reserve: int = 0):
        self._sizes = {False: capacity, True: reserve}
        self._used = {False: 0, True: 0}  # sequences, by whether they are in the reserve
        self._clients: Counter[str | None] = Counter()  # sequences
        self._max_waiting = queue
        self._queue: list[Slot] = []
        self._closed = False
        self.unread = 0  # bytes of responses that wait for clients to read

    @property
    def running(self) -> int:
        """The number of sequences of admitted requests."""
        return sum(self._used.values())

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._queue)

    async def enter(
        self,
        sequences: int,
        disconnected: asyncio.Future[Any],
        client: str | None = None,
        *,
        again: bool = False,
    ) -> Slot:
        """Wait until a request with this many sequences is admitted. `again`: it was admitted before.

        Raises RequestError if the queue is full or the server is shutting down, and ClientDisconnect as soon
        as `disconnected` is done.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise shutting_down()
        slot = Slot(sequences, client, loop.time(), loop.create_future())
        self._queue.append(slot)
        self._admit()
        if slot in self._queue and len(self._queue) > self._max_waiting and not again:
            self._queue.remove(slot)
            raise RequestError(
                f"{self.running} completions are being generated, and {len(self._queue)} more requests are"
                " waiting. Try again in a moment.",
                code="rate_limit_exceeded",
                status=429,
            )
        if not slot.turn.done():
            try:
                await asyncio.wait({slot.turn, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self._give_up(slot)
                raise
        if disconnected.done():
            self._give_up(slot)
            raise ClientDisconnect
        slot.turn.result()
        return slot

    def release(self, slot: Slot) -> None:
        """Make the sequences of an admitted request available to others."""
        self._used[slot.reserved] -= slot.sequences
        self._clients -= Counter({slot.client: slot.sequences})
        self._admit()

    def close(self) -> None:
        """Admit no more requests, and reject those that wait."""
        self._closed = True
        for slot in self._queue:
            slot.turn.set_exception(shutting_down())
        self._queue.clear()

    def _admit(self) -> None:
        """Admit those of the queue that fit, in the order of their arrival."""
        now, may_pass = asyncio.get_running_loop().time(), True
        for slot in list(self._queue):
            if may_pass and self._fits(slot, reserved=False):
                slot.reserved = False
            elif self._has_few(slot) and self._fits(slot, reserved=True):
                slot.reserved = True
            else:
                may_pass &= now - slot.since < _MAY_PASS
                continue
            self._queue.remove(slot)
            self._used[slot.reserved] += slot.sequences
            self._clients[slot.client] += slot.sequences
            slot.turn.set_result(None)

    def _fits(self, slot: Slot, *, reserved: bool) -> bool:
        return self._used[reserved] + slot.sequences <= self._sizes[reserved]

    def _has_few(self, slot: Slot) -> bool:
        """Whether the client would have few sequences with these."""
        others = 0 if slot.client is None else self._clients[slot.client]
        return others + slot.sequences <= FEW

    def _give_up(self, slot: Slot) -> None:
        """Leave the queue, or what was just granted."""
        if not slot.turn.done():
            self._queue.remove(slot)
            self._admit()  # those behind it may have waited for it
        elif slot.turn.exception() is None:
            self.release(slot)


def shutting_down() -> RequestError:
    """The error for requests that the server no longer serves."""
    return RequestError("the server is shutting down; try again later.", status=503)

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
class Place:
    """A request that waits or has been admitted. `client` is None if its client is unknown."""

    sequences: int
    client: str | None
    since: float
    turn: asyncio.Future[None]
    reserved: bool = False  # whether it uses the reserve


class Admission:
    """Admits requests while they have at most `capacity` sequences together. Up to `queue` others wait.

    A request that fits passes those that do not, until one of these has waited for `_MAY_PASS` seconds. In
    addition, there is a `reserve` for clients that then have at most `FEW` sequences, so that those who want
    little never wait for those who want much.

    Only the event loop may use it.
    """

    def __init__(self, capacity: int, queue: int, reserve: int = 0):
        self._sizes = {False: capacity, True: reserve}
        self._used = {False: 0, True: 0}  # sequences, by whether they are in the reserve
        self._clients: Counter[str | None] = Counter()  # sequences
        self._max_waiting = queue
        self._queue: list[Place] = []
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
    ) -> Place:
        """Wait until a request with this many sequences is admitted. `again`: it was admitted before.

        Raises RequestError if the queue is full or the server is shutting down, and ClientDisconnect as soon
        as `disconnected` is done.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise shutting_down()
        place = Place(sequences, client, loop.time(), loop.create_future())
        self._queue.append(place)
        self._admit()
        if place in self._queue and len(self._queue) > self._max_waiting and not again:
            self._queue.remove(place)
            raise RequestError(
                f"{self.running} completions are being generated, and {len(self._queue)} more requests are"
                " waiting. Try again in a moment.",
                code="rate_limit_exceeded",
                status=429,
            )
        if not place.turn.done():
            try:
                await asyncio.wait({place.turn, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self._give_up(place)
                raise
        if disconnected.done():
            self._give_up(place)
            raise ClientDisconnect
        place.turn.result()
        return place

    def release(self, place: Place) -> None:
        """Make the sequences of an admitted request available to others."""
        self._used[place.reserved] -= place.sequences
        self._clients -= Counter({place.client: place.sequences})
        self._admit()

    def close(self) -> None:
        """Admit no more requests, and reject those that wait."""
        self._closed = True
        for place in self._queue:
            place.turn.set_exception(shutting_down())
        self._queue.clear()

    def _admit(self) -> None:
        """Admit those of the queue that fit, in the order of their arrival."""
        now, may_pass = asyncio.get_running_loop().time(), True
        for place in list(self._queue):
            if may_pass and self._fits(place, reserved=False):
                place.reserved = False
            elif self._has_few(place) and self._fits(place, reserved=True):
                place.reserved = True
            else:
                may_pass &= now - place.since < _MAY_PASS
                continue
            self._queue.remove(place)
            self._used[place.reserved] += place.sequences
            self._clients[place.client] += place.sequences
            place.turn.set_result(None)

    def _fits(self, place: Place, *, reserved: bool) -> bool:
        return self._used[reserved] + place.sequences <= self._sizes[reserved]

    def _has_few(self, place: Place) -> bool:
        """Whether the client would have few sequences with these."""
        others = 0 if place.client is None else self._clients[place.client]
        return others + place.sequences <= FEW

    def _give_up(self, place: Place) -> None:
        """Leave the queue, or what was just granted."""
        if not place.turn.done():
            self._queue.remove(place)
            self._admit()  # those behind it may have waited for it
        elif place.turn.exception() is None:
            self.release(place)


def shutting_down() -> RequestError:
    """The error for requests that the server no longer serves."""
    return RequestError("the server is shutting down; try again later.", status=503)

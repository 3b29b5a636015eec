"""Admission of requests: as many sequences at the same time as the server can generate, and a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from starlette.requests import ClientDisconnect

from .request import RequestError


class Admission:
    """Admits requests while they have at most `capacity` sequences together. Up to `places` others wait in a
    queue and are admitted in the order of their arrival.

    Only the event loop may use it; `release` can be scheduled there from other threads.
    """

    def __init__(self, capacity: int, places: int):
        self._capacity, self._places = capacity, places
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed = False
        self.running = 0  # sequences

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return len(self._queue)

    async def enter(self, sequences: int, disconnected: asyncio.Future[Any]) -> None:
        """Wait until a request with this many sequences is admitted.

        Raises RequestError if the queue is full or the server is shutting down, and ClientDisconnect as soon
        as `disconnected` is done.
        """
        if self._closed:
            raise shutting_down()
        if not self._queue and self.running + sequences <= self._capacity:
            self.running += sequences
            return
        if len(self._queue) >= self._places:
            raise RequestError(
                f"{self.running} completions are being generated, and {len(self._queue)} more requests are"
                " waiting. Try again in a moment.",
                code="rate_limit_exceeded",
                status=429,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((sequences, turn))
        try:
            await asyncio.wait({turn, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._give_up(sequences, turn)
            raise
        if disconnected.done():
            self._give_up(sequences, turn)
            raise ClientDisconnect
        turn.result()

    def release(self, sequences: int) -> None:
        """Make the sequences of an admitted request available to others."""
        self.running -= sequences
        while self._queue and self.running + self._queue[0][0] <= self._capacity:
            wanted, turn = self._queue.popleft()
            self.running += wanted
            turn.set_result(None)

    def close(self) -> None:
        """Admit nobody any more, and reject those that wait."""
        self._closed = True
        while self._queue:
            self._queue.popleft()[1].set_exception(shutting_down())

    def _give_up(self, sequences: int, turn: asyncio.Future[None]) -> None:
        """Leave the queue, or what was just granted."""
        if not turn.done():
            self._queue.remove((sequences, turn))
            self.release(0)  # the next request may be smaller
        elif turn.exception() is None:
            self.release(sequences)


def shutting_down() -> RequestError:
    """The error for requests that the server no longer serves."""
    return RequestError("the server is shutting down; try again later.", status=503)

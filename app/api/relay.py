"""What a generator makes in a thread of its own, for a coroutine to read; both can end it at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_EVERY = 0.02  # seconds; what is made in between is read together, which spares the wakings
_MOST_UNREAD = 2000  # items, before no more are made until some are read


class Relay(Generic[T]):
    """The items of a generator, which is closed in its own thread as soon as nobody reads them."""

    def __init__(self, make: Callable[[], Generator[T]]):
        self._make, self._loop = make, asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._items: list[T] = []
        self._news = asyncio.Event()
        self._error: BaseException | None = None
        self._done = False
        self.left = False  # whether somebody has asked it to end

    def run(self) -> None:
        """Make the items, in a thread."""
        try:
            with closing(self._make()) as items:
                for item in items:
                    if self.left:
                        break
                    self._put(item)
        except BaseException as error:  # it is raised again where the items are read
            self._error = error
        self._done = True
        self._wake()

    def leave(self) -> None:
        """End it: the generator is closed when it makes its next item."""
        with self._changed:
            self.left = True
            self._changed.notify()

    async def batches(self) -> AsyncIterator[list[T]]:
        """What has been made, as soon as there is something, then some fifty times a second. Raises what
        the generator raised; ends without a word if it was left."""
        while True:
            await self._news.wait()
            self._news.clear()
            done = self._done  # before the items are taken: what comes later is news again
            with self._changed:
                items, self._items = self._items, []
                self._changed.notify()
            if items:
                yield items
            if done:
                break
            await asyncio.sleep(_EVERY)
        if self._error is not None and not self.left:
            raise self._error

    def _put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < _MOST_UNREAD or self.left)
            self._items.append(item)
        if not self._news.is_set():
            self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._news.set)


@asynccontextmanager
async def relayed(
    make: Callable[[], Generator[T]], executor: Executor, gone: Coroutine[Any, Any, None]
) -> AsyncIterator[Relay[T]]:
    """A relay that runs in a thread of `executor`, until it is complete, the block ends or `gone` does."""
    relay = Relay(make)
    watch = asyncio.ensure_future(gone)
    watch.add_done_callback(lambda _: relay.leave())
    try:
        executor.submit(relay.run)
        yield relay
    finally:
        relay.leave()
        watch.cancel()

"""Runs a generator in a thread and reads its items in a coroutine; either side can cancel it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

BUFFER_SIZE = 2000  # items; if none are read, the generator then waits
_INTERVAL = 0.02  # seconds between two reads, each of which costs a wakeup of the event loop


class BackgroundGenerator(Generic[T]):
    """The items of a generator that runs in a thread, which closes it soon after `cancel`.

    `interrupt` makes the generator end, or yield another item, whatever it is waiting for.
    """

    def __init__(self, start: Callable[[], Generator[T]], interrupt: Callable[[], None]):
        self._start, self._interrupt, self._loop = start, interrupt, asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._items: list[T] = []
        self._ready = asyncio.Event()
        self._error: BaseException | None = None
        self._done = False
        self.canceled = False

    def run(self) -> None:
        """Generate the items; called in the thread."""
        try:
            with closing(self._start()) as items:
                for item in items:
                    if self.canceled:
                        break
                    self._put(item)
        except BaseException as error:  # raised again by `batches`
            self._error = error
        self._done = True
        self._notify()

    def cancel(self) -> None:
        """Stop the generator."""
        with self._changed:
            self.canceled = True
            self._changed.notify()
        self._interrupt()

    async def batches(self) -> AsyncGenerator[list[T]]:
        """All items generated so far, then what was added since, up to fifty times a second.

        Raises the exception of the generator. Ends silently if it was canceled.
        """
        while True:
            await self._ready.wait()
            self._ready.clear()
            done = self._done  # read before the items: any item added later sets the event again
            with self._changed:
                items, self._items = self._items, []
                self._changed.notify()
            if items:
                yield items
            if done:
                break
            await asyncio.sleep(_INTERVAL)
        if self._error is not None and not self.canceled:
            raise self._error

    def _put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < BUFFER_SIZE or self.canceled)
            self._items.append(item)
        if not self._ready.is_set():
            self._notify()

    def _notify(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._ready.set)


@asynccontextmanager
async def in_background(
    start: Callable[[], Generator[T]],
    interrupt: Callable[[], None],
    executor: Executor,
    disconnected: asyncio.Future[Any],
) -> AsyncIterator[BackgroundGenerator[T]]:
    """Run a generator in a thread of `executor`; leaving the block cancels it, and so does the end of
    `disconnected`."""
    generator = BackgroundGenerator(start, interrupt)
    disconnected.add_done_callback(lambda _: generator.cancel())
    try:
        executor.submit(generator.run)
        yield generator
    finally:
        generator.cancel()

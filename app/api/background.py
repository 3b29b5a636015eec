"""Runs a generator in a thread and reads its items in a coroutine; either side can cancel it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

BUFFER_SIZE = 2000  # the size of all items together; if none are read, the generator then waits
_INTERVAL = 0.02  # seconds between two reads, each of which costs a wakeup of the event loop


class BackgroundGenerator(Generic[T]):
    """The items of a generator that runs in a thread, which closes it soon after `cancel`.

    `interrupt` makes the generator end, or yield another item, whatever it is waiting for. `size` is that of
    an item in the buffer.
    """

    def __init__(
        self, start: Callable[[], Generator[T]], interrupt: Callable[[], None], size: Callable[[T], int]
    ):
        self._start, self._interrupt, self._size = start, interrupt, size
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._items: list[T] = []
        self._buffered = 0
        self._ready = asyncio.Event()
        self._error: BaseException | None = None
        self._paused = False
        self.done = self.canceled = False

    def run(self) -> None:
        """Generate the items; called in the thread."""
        try:
            if not self.canceled:
                with closing(self._start()) as items:
                    for item in items:
                        if self.canceled:
                            break
                        self._put(item)
        except BaseException as error:  # raised again by `batches`
            self._error = error
        self.done = True
        self._notify()

    def cancel(self) -> None:
        """Stop the generator."""
        with self._changed:
            self.canceled = True
            self._changed.notify()
        self._interrupt()

    def pause(self) -> None:
        """Let the generator wait with its next item until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Let the generator continue."""
        with self._changed:
            self._paused = False
            self._changed.notify()

    async def batches(self) -> AsyncGenerator[list[T]]:
        """All items generated so far, then what was added since, up to fifty times a second.

        Raises the exception of the generator. Ends silently if it was canceled.
        """
        while True:
            await self._ready.wait()
            self._ready.clear()
            done = self.done  # read before the items: any item added later sets the event again
            with self._changed:
                items, self._items, self._buffered = self._items, [], 0
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
            self._changed.wait_for(self._may_continue)
            self._items.append(item)
            self._buffered += self._size(item)
        if not self._ready.is_set():
            self._notify()

    def _may_continue(self) -> bool:
        return self.canceled or (self._buffered < BUFFER_SIZE and not self._paused)

    def _notify(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._ready.set)


@asynccontextmanager
async def in_background(
    start: Callable[[], Generator[T]],
    interrupt: Callable[[], None],
    size: Callable[[T], int],
    executor: Executor,
    disconnected: asyncio.Future[Any],
) -> AsyncIterator[BackgroundGenerator[T]]:
    """Run a generator in a thread of `executor`. Leaving the block cancels it and waits until it has ended;
    the end of `disconnected` cancels it, too."""
    generator = BackgroundGenerator(start, interrupt, size)
    disconnected.add_done_callback(lambda _: generator.cancel())
    running = asyncio.get_running_loop().run_in_executor(executor, generator.run)
    try:
        yield generator
    finally:
        generator.cancel()
        await asyncio.wait({running})

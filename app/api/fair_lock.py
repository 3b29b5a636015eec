"""A lock that threads get in the order in which they ask for it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Self


class FairLock:
    """A lock that threads get in the order in which they ask for it. One that works for long can let those
    that wait go first with `yield_to_others`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()  # the first one holds the lock

    def __enter__(self) -> Self:
        turn = threading.Event()
        with self._lock:
            self._queue.append(turn)
            self._queue[0].set()
        turn.wait()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._queue.popleft()
            if self._queue:
                self._queue[0].set()

    def yield_to_others(self) -> None:
        """Let the threads that wait now go first."""
        self.__exit__()
        self.__enter__()
